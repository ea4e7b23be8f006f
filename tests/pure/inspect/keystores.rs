//! Keystores as Java and OpenSSL write them (tests/data/keystores: keytool 17 and OpenSSL 3).

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::rules;
use super::secrets::{LEAF, annotated, ca, secret};

fn file(name: &str) -> Vec<u8> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/keystores");
    fs::read(directory.join(name)).unwrap()
}

/// A Secret with `more` certificates behind the CA of the keystores.
fn with_store(key: &str, store: &str, more: &str) -> Value {
    let ca_crt = [file("ca.pem"), more.as_bytes().to_vec()].concat();
    secret(&[("ca.crt", &ca_crt), (key, &file(store))])
}

/// Pairs of Secrets: a truststore that lacks a CA, and one that lacks none.
pub fn pairs() -> Vec<(Value, Value)> {
    let other = ca("Root 2");
    let in_clear = [("truststore.jks", "truststore.jks"), ("trust.PFX", "plain.p12")];
    let mut pairs: Vec<(Value, Value)> = in_clear
        .into_iter()
        .map(|(key, store)| (with_store(key, store, &other.pem), with_store(key, store, "")))
        .collect();
    // An encrypted truststore cannot be compared. It is stale if ca.crt was written later …
    let encrypted = || with_store("truststore.p12", "truststore.p12", &other.pem);
    pairs.push((written(encrypted(), "2026-01-01"), written(encrypted(), "2026-02-02")));
    // … or if ca-overlap added to ca.crt.
    let entry = json!([{"sha256": other.sha256(), "since": "2026-02-01T00:00:00Z"}]);
    let carrying = annotated(encrypted(), "carried", &entry.to_string());
    pairs.push((carrying, encrypted()));
    pairs
}

/// Says that `ca.crt` was written on 1 February and the truststore on `day`.
fn written(mut secret: Value, day: &str) -> Value {
    let entry = |key: &str, day: &str| {
        let fields = json!({"f:data": {".": {}, format!("f:{key}"): {}}});
        json!({"manager": "certgen", "operation": "Update", "time": format!("{day}T00:00:00Z"),
               "fieldsType": "FieldsV1", "fieldsV1": fields})
    };
    secret["metadata"]["managedFields"] =
        json!([entry("ca.crt", "2026-02-01"), entry("truststore.p12", day)]);
    secret
}

#[test]
fn a_keystore_is_compared_with_the_leaf() {
    // The file holds only the CA, like a keystore that is older than the leaf.
    let store = file("truststore.jks");
    let root = ca("Root 1");
    let leaf = LEAF.signed_by(&root);
    let data = [
        ("ca.crt", root.pem.as_bytes()),
        ("tls.crt", leaf.pem.as_bytes()),
        ("keystore.jks", &store),
    ];
    assert_eq!(rules(&secret(&data)), ["stale-truststore"]);
    let fitting = [&store[..], &leaf.der].concat();
    let data = [data[0], data[1], ("keystore.jks", &fitting)];
    assert_eq!(rules(&secret(&data)), Vec::<String>::new());
}
