//! One Secret on the API server, in the notation of the design's table: `"CA2 CA1*"` is a bundle of
//! CA2 and the carried CA1.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use devtools::certs::{self, CA, Identity, Spec};
use devtools::secrets::{Answer, MERGE, Secrets, secret, tls_secret};

/// The name of the Secret.
pub const NAME: &str = "envoy";

pub struct Setup {
    pub secrets: Secrets,
    cas: BTreeMap<&'static str, Identity>,
}

impl Setup {
    pub fn new(secrets: Secrets) -> Self {
        let mut cas = BTreeMap::new();
        for name in ["CA1", "CA2", "CA3", "CA4", "X"] {
            cas.insert(name, certs::ca());
        }
        for (root, intermediate) in [("Root1", "Int1"), ("Root2", "Int2")] {
            let ca = certs::ca_named(root);
            cas.insert(intermediate, ca.intermediate(intermediate));
            cas.insert(root, ca);
        }
        cas.insert("Expired", Spec { not_after: (2021, 1, 1), ..CA }.self_signed());
        let renewed = cas["CA1"].renewed();
        cas.insert("CA1renewed", renewed);
        Self { secrets, cas }
    }

    pub fn ca(&self, name: &str) -> &Identity {
        &self.cas[name]
    }

    pub fn pem(&self, bundle: &str) -> String {
        bundle.split_whitespace().map(|name| self.ca(name).pem.as_str()).collect()
    }

    pub fn leaf(&self, issuer: &str) -> Identity {
        self.ca(issuer).leaf("envoy")
    }

    /// A fresh object, as a generator writes it.
    pub fn fresh(&self, bundle: &str, leaf: &Identity) -> Value {
        tls_secret(NAME, &self.pem(bundle), leaf)
    }

    /// Creates the Secret. By default its leaf is from the first CA of the bundle.
    pub async fn create(&self, bundle: &str, leaf_by: Option<&str>) -> Answer {
        let leaf = self.leaf(leaf_by.unwrap_or_else(|| first(bundle)));
        self.secrets.create(&self.fresh(bundle, &leaf)).await.ok()
    }

    /// PUTs a fresh object with a leaf from the first CA of the bundle.
    pub async fn put(&self, bundle: &str) -> Answer {
        let leaf = self.leaf(first(bundle));
        self.secrets.put(NAME, &self.fresh(bundle, &leaf)).await.ok()
    }

    /// PUTs a fresh object that keeps the stored leaf.
    pub async fn put_ca_only(&self, text: &str) -> Answer {
        let stored = self.secrets.get(NAME).await.ok();
        let (certificate, key) = (stored.pem("tls.crt"), stored.pem("tls.key"));
        let data = [("ca.crt", text), ("tls.crt", &certificate), ("tls.key", &key)]
            .map(|(name, value)| (name, value.as_bytes()));
        self.secrets.put(NAME, &secret(NAME, "kubernetes.io/tls", &data)).await.ok()
    }

    pub async fn annotate(&self, annotations: Value) -> Answer {
        let patch = json!({"metadata": {"annotations": annotations}});
        self.secrets.patch(NAME, MERGE, "", &patch).await.ok()
    }

    /// The stored bundle in the notation of the table.
    pub async fn stored(&self) -> String {
        self.bundle(&self.secrets.get(NAME).await.ok())
    }

    /// The bundle of an answer in the notation of the table.
    pub fn bundle(&self, answer: &Answer) -> String {
        let carried = answer.annotation("ca-overlap.dev/carried").unwrap_or("[]").to_owned();
        let phase = answer.label("ca-overlap.dev/phase");
        assert_eq!(phase, (carried != "[]").then_some("overlap"), "the phase fits the record");
        let text = answer.pem("ca.crt");
        let mut shown = Vec::new();
        for block in text.split_inclusive("-----END CERTIFICATE-----\n") {
            let Some((name, ca)) = self.cas.iter().find(|(_, ca)| block.contains(&ca.pem)) else {
                continue;
            };
            let star = if carried.contains(&ca.sha256()) { "*" } else { "" };
            shown.push(format!("{name}{star}"));
        }
        shown.join(" ")
    }
}

fn first(bundle: &str) -> &str {
    bundle.split_whitespace().next().expect("a bundle")
}
