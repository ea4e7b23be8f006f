//! Histories of one Secret, made from a pool of real certificates and from garbage. A fuzzer that
//! only changes bytes would hardly ever write a valid certificate.

use std::collections::BTreeSet;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::answer::{CANARY, Judged};
use super::input::Input;
use super::pool::{AUTHORITIES, LEAVES};
use super::rule::Checked;
use super::{review, x509};

const MAX_WRITES: usize = 6;

/// Runs the history that `bytes` describe. Gives the decisions that it reached.
pub fn check(bytes: &[u8]) -> Checked<BTreeSet<String>> {
    let mut input = Input::new(bytes);
    let mut now = Timestamp::from_second(review::NOW).map_err(|e| e.to_string())?;
    let mut stored = secret(&mut input, None);
    // Not by a byte: the other bytes of each history in the corpus would mean something else.
    let is_source = bytes.len() % 2 == 1;
    if is_source && stored["metadata"].is_object() {
        let labels = object(&mut stored["metadata"]["labels"]);
        labels.insert("ca-overlap.dev/source".into(), "true".into());
    }
    let forged = BASE64_STANDARD.encode(&AUTHORITIES[0]) + "@2026-02-01T00:00:00Z";
    let mut reached = BTreeSet::new();
    for _ in 0..MAX_WRITES {
        if input.is_empty() {
            break;
        }
        let hours = input.of(&[0, 0, 0, 0, 1, 24, 30, 100, -5, 24 * 365 * 70]);
        now = now.checked_add(SignedDuration::from_hours(hours)).unwrap_or(now);
        let mut object = secret(&mut input, Some(&stored));
        if is_source && object["metadata"]["annotations"].is_object() {
            object["metadata"]["annotations"]["ca-overlap.dev/previous"] = forged.clone().into();
        }
        let review = wrap(&mut input, &stored, &object);
        let judged = review::check_value(&review, now)
            .map_err(|wrong| format!("{wrong}, at {now} in the review {review}"))?;
        reached.insert(name(&judged));
        stored = judged.stored;
    }
    Ok(reached)
}

fn name(judged: &Judged) -> String {
    match (judged.appended, judged.cut) {
        (0, 0) => judged.decision.clone(),
        (0, _) => format!("{}, cuts", judged.decision),
        _ => format!("{}, appends", judged.decision),
    }
}

fn wrap(input: &mut Input<'_>, old: &Value, new: &Value) -> Value {
    let user = input.of(&["system:serviceaccount:gateway:certgen", "alice", ""]);
    let options = input.of(&["UpdateOptions", "PatchOptions"]);
    let kind = input.of(&["Secret", "Secret", "Secret", "Secret", "Secret", "ConfigMap"]);
    let namespace = input.of(&["gateway", "gateway", "gateway", "gateway", "ca-overlap"]);
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "0a1b",
            "kind": {"group": "", "version": "v1", "kind": kind},
            "name": "envoy", "namespace": namespace, "operation": "UPDATE", "dryRun": false,
            "userInfo": {"username": user},
            "options": {"kind": options},
            "object": new, "oldObject": old,
        }
    })
}

/// A Secret: a fresh one, or one made from the stored one.
fn secret(input: &mut Input<'_>, stored: Option<&Value>) -> Value {
    let base = stored.filter(|_| input.pick(3) == 0);
    let mut secret = base.cloned().unwrap_or_else(|| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "envoy", "namespace": "gateway"},
            "data": {"tls.key": CANARY},
        })
    });
    if stored.is_none() {
        secret["metadata"]["uid"] = "5e1f".into();
    }
    let old = |key: &str| stored.map(|s| s["data"][key].clone()).unwrap_or_default();
    let keeps_anchors = stored.is_some() && input.pick(4) == 0;
    let ca_crt = if keeps_anchors { old("ca.crt") } else { anchors(input) };
    set(&mut secret["data"], "ca.crt", ca_crt);
    let leaf = match input.pick(5) {
        0 => Value::Null,
        1 if stored.is_some() => old("tls.crt"),
        _ => encode(&leaf(input)),
    };
    set(&mut secret["data"], "tls.crt", leaf);
    if input.pick(4) == 0 {
        odd_shape(input, &mut secret);
    }
    if input.pick(2) == 0 {
        annotate(input, &mut secret);
    }
    secret
}

/// Sets a value, or removes it if it is null.
fn set(map: &mut Value, key: &str, value: Value) {
    match (map.as_object_mut(), value) {
        (Some(map), Value::Null) => _ = map.remove(key),
        (Some(map), value) => _ = map.insert(key.to_owned(), value),
        (None, _) => {}
    }
}

fn encode(text: &[u8]) -> Value {
    BASE64_STANDARD.encode(text).into()
}

fn anchors(input: &mut Input<'_>) -> Value {
    match input.pick(12) {
        10 => Value::Null,
        11 => input.of(&["", "!", "QQ", "LS0t\nLS0=", "QUJD="]).into(),
        _ => encode(&bundle(input)),
    }
}

fn bundle(input: &mut Input<'_>) -> Vec<u8> {
    let mut text = Vec::new();
    for _ in 0..input.of(&[1, 1, 1, 2, 2, 3, 4, 6]) {
        text.extend(block(input));
    }
    match input.pick(12) {
        0 => text.truncate(text.trim_ascii_end().len()),
        1 => text.extend(input.raw(64)),
        2 => text.extend(b"-----BEGIN CERTIFICATE-----\nQUJD\n"),
        3 => text.splice(0..0, b"\xef\xbb\xbf".iter().copied()).for_each(drop),
        // A trust store, or almost one.
        4 => text = text.repeat(input.of(&[2, 33, 64, 65, 129])),
        _ => {}
    }
    text
}

fn block(input: &mut Input<'_>) -> Vec<u8> {
    let der = &AUTHORITIES[input.pick(AUTHORITIES.len())];
    match input.pick(20) {
        0 => x509::pem("CERTIFICATE", der, 76, "\r\n").into(),
        1 => x509::pem("CERTIFICATE", der, 10_000, "\n").into(),
        2 => format!("# a comment\n\n{}", x509::canonical(der)).into(),
        3 => x509::canonical(der).replacen('\n', "\nProc-Type: 4,CLEAR\n\n", 1).into(),
        4 => x509::pem("TRUSTED CERTIFICATE", der, 64, "\n").into(),
        5 => x509::pem("X509 CERTIFICATE", der, 64, "\n").into(),
        6 => x509::pem("PRIVATE KEY", &[7; 48], 64, "\n").into(),
        7 => x509::canonical(der).replace("-----END CERTIFICATE-----\n", "").into(),
        8 => x509::pem("CERTIFICATE", input.raw(64), 64, "\n").into(),
        9 => input.raw(64).to_vec(),
        10 => changed(input, der),
        _ => x509::canonical(der).into(),
    }
}

/// A certificate with one byte changed, mostly still readable.
fn changed(input: &mut Input<'_>, der: &[u8]) -> Vec<u8> {
    let mut der = der.to_vec();
    let place = (input.pick(256) * 256 + input.pick(256)) % der.len();
    der[place] ^= input.byte();
    x509::canonical(&der).into()
}

fn leaf(input: &mut Input<'_>) -> Vec<u8> {
    let der = &LEAVES[input.pick(LEAVES.len())];
    match input.pick(8) {
        0 => input.raw(32).to_vec(),
        1 => [x509::canonical(der).into(), block(input)].concat(),
        // A signer's Secret: the leaf is the CA.
        2 => x509::canonical(&AUTHORITIES[input.pick(2)]).into(),
        _ => x509::canonical(der).into(),
    }
}

/// Rare shapes: other types, missing maps, signers, foreign systems, full Secrets.
fn odd_shape(input: &mut Input<'_>, secret: &mut Value) {
    match input.pick(12) {
        0 => secret["type"] = "kubernetes.io/service-account-token".into(),
        1 => secret["immutable"] = true.into(),
        2 => set(&mut secret["data"], "ca.key", "QQ==".into()),
        3 => set(&mut secret["data"], "old-ca.crt", "QQ==".into()),
        4 => secret["metadata"]["labels"] = json!({"strimzi.io/kind": "Kafka"}),
        5 => secret["metadata"]["managedFields"] = json!([]),
        6 => secret["metadata"]["annotations"] = Value::Null,
        7 => _ = secret.as_object_mut().map(|map| map.remove("metadata")),
        8 => _ = secret.as_object_mut().map(|map| map.remove("data")),
        // Rare, because a megabyte is slow.
        9 if input.pick(8) == 1 => {
            // Room for nothing, for one certificate, or for some of them.
            let left = input.of(&[0, 300, 700, 2000, 5000]);
            set(&mut secret["data"], "filler", "A".repeat((1024 * 1024 - left) / 3 * 4).into());
        }
        10 => {
            let left = input.of(&[0, 40, 200, 400]);
            secret["metadata"]["annotations"]["filler"] = "x".repeat(256 * 1024 - left).into();
        }
        11 => secret["data"] = Value::Null,
        _ => {}
    }
}

fn annotate(input: &mut Input<'_>, secret: &mut Value) {
    let metadata = &mut secret["metadata"];
    for _ in 0..input.pick(4) {
        let key = input.of(&[
            "keep", "window", "distrust", "carried", "restart", "staged", "group", "announce",
        ]);
        let value = match key {
            "keep" => input.of(&["0", "1", "2", "3", "8", "9", "", " 2"]).to_owned(),
            "window" => input.of(&["none", "24h", "1s", "7d", "99years", "soon"]).to_owned(),
            "distrust" => fingerprints(input).join(input.of(&[",", " , ", ",x,", ";"])),
            "carried" => record(input),
            "announce" => announcements(input).join(input.of(&[",", " , ", ",x,", ";"])),
            _ => "v".repeat(input.of(&[0, 1, 4096, 4097])),
        };
        object(&mut metadata["annotations"]).insert(format!("ca-overlap.dev/{key}"), value.into());
    }
    let mode = input.of(&["", "", "bundle", "off", "staged", "nonsense"]);
    if !mode.is_empty() {
        object(&mut metadata["labels"]).insert("ca-overlap.dev/mode".into(), mode.into());
    }
}

/// The value as a map. Replaces any other value by an empty map.
fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made above"),
    }
}

fn fingerprints(input: &mut Input<'_>) -> Vec<String> {
    (0..input.pick(4)).map(|_| x509::sha256(&AUTHORITIES[input.pick(AUTHORITIES.len())])).collect()
}

fn announcements(input: &mut Input<'_>) -> Vec<String> {
    let count = input.of(&[1, 1, 2, 3, 20]);
    let announcement = |_| {
        let pool = if input.pick(8) == 0 { &LEAVES } else { &AUTHORITIES };
        let der = BASE64_STANDARD.encode(&pool[input.pick(pool.len())]);
        der + input.of(&["", "", "@2026-03-01T20:00:00Z", "@2026-02-01T00:00:00Z", "@soon"])
    };
    (0..count).map(announcement).collect()
}

fn record(input: &mut Input<'_>) -> String {
    if input.pick(8) == 0 {
        return String::from_utf8_lossy(input.raw(64)).into_owned();
    }
    let dates = ["2026-02-01T00:00:00Z", "2026-03-01T09:00:00.5+01:00", "-009999-01-02T01:59:59Z"];
    let entries: Vec<_> = fingerprints(input)
        .into_iter()
        .map(|sha256| match input.pick(4) {
            0 => json!({"sha256": sha256, "since": input.of(&dates), "until": input.of(&dates)}),
            1 => json!({"sha256": sha256.to_uppercase(), "since": input.of(&dates)}),
            2 => {
                let by = input.of(&["person", "keeper", "keeper", "nobody"]);
                json!({"sha256": sha256, "since": input.of(&dates), "announced": by})
            }
            _ => json!({"sha256": sha256, "since": input.of(&dates)}),
        })
        .collect();
    Value::from(entries).to_string()
}
