//! One Secret with a leaf pair, written through the real review, decision and patch. The clock and
//! the state of the keeper are arguments.

use devtools::certs::{self, CA, Identity, Spec};
use devtools::reviews;
use std::sync::LazyLock;

use base64::prelude::*;
use ca_overlap::admission::respond::{Answer, Installation, respond};
use ca_overlap::admission::review;
use ca_overlap::overlap::settings::Defaults;
use ca_overlap::overlap::staged::{KeeperHealth, Stage};
use ca_overlap::x509::certs::Fingerprint;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::audit;

/// Five roots of one subject, as legacy generators make them.
pub static CAS: LazyLock<Vec<Identity>> = LazyLock::new(|| (0..5).map(|_| certs::ca()).collect());
/// Three leaves of each, one that expires soon, one that renews the first of CA 2 with the same key,
/// and two of other dates. A leaf is identified by its index.
pub static LEAVES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let spec = || Spec { subject: "leaf", is_ca: false, ..CA };
    let mut leaves: Vec<_> =
        CAS.iter().flat_map(|ca| (0..3).map(move |_| certs::leaf(ca, true))).collect();
    leaves.push(Spec { not_after: (2026, 3, 2), ..spec() }.signed_by(&CAS[1]));
    leaves.push(spec().signed_by_with(&CAS[2], &leaves[leaf(2)].key));
    leaves.push(Spec { not_before: (2026, 2, 1), ..spec() }.signed_by(&CAS[1]));
    leaves.push(Spec { not_before: (2019, 1, 1), ..spec() }.signed_by(&CAS[2]));
    leaves.into_iter().map(|one| one.pem).collect()
});
/// The leaf of CA 1 that expires within a day.
pub const SHORT: usize = 15;

/// The renewal of the first leaf of CA 2, with the same key.
pub const RENEWED: usize = 16;
/// A leaf of CA 1 that is newer than all others.
pub const NEWER: usize = 17;
/// A leaf of CA 2 that is older than all others.
pub const OLDER: usize = 18;

/// The CA that issued a leaf.
pub fn issuer(leaf: usize) -> usize {
    match leaf {
        SHORT | NEWER => 1,
        RENEWED | OLDER => 2,
        _ => leaf / 3,
    }
}

/// The key of a leaf: a text that names its leaf.
fn key(of: usize) -> String {
    format!("CANARY key of leaf {}", if of == RENEWED { leaf(2) } else { of })
}

/// The first leaf of a CA.
pub fn leaf(ca: usize) -> usize {
    ca * 3
}

pub const KEEPER: &str = "system:serviceaccount:ca-overlap:ca-overlap-keeper";
pub const GENERATOR: &str = "system:serviceaccount:gateway:certgen";

pub struct TlsSecret {
    pub stored: Value,
    pub now: Timestamp,
    pub keeper: KeeperHealth,
    pub installation: Installation,
    /// The uid that the API server gives it.
    pub uid: &'static str,
    /// Whether the writers may not read the Secret.
    pub is_by_stranger: bool,
}

/// The certificate and the key of a leaf, in base64.
fn pair(leaf: usize) -> [Value; 2] {
    [BASE64_STANDARD.encode(&LEAVES[leaf]).into(), BASE64_STANDARD.encode(key(leaf)).into()]
}

pub fn bundle(cas: &[usize]) -> Value {
    BASE64_STANDARD.encode(cas.iter().map(|ca| CAS[*ca].pem.as_str()).collect::<String>()).into()
}

/// Sets `ca.crt` and the pair.
pub fn set(object: &mut Value, cas: &[usize], leaf: usize) {
    object["data"]["ca.crt"] = bundle(cas);
    set_pair(object, leaf);
}

pub fn set_pair(object: &mut Value, leaf: usize) {
    [object["data"]["tls.crt"], object["data"]["tls.key"]] = pair(leaf);
}

pub fn annotate(object: &mut Value, key: &str, value: &str) {
    object["metadata"]["annotations"][format!("ca-overlap.dev/{key}")] = value.into();
}

/// The object that a generator writes, without our labels and annotations.
pub fn fresh(cas: &[usize], leaf: usize) -> Value {
    let mut object = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": "envoy", "namespace": "gateway", "managedFields": [{}]}, "data": {},
    });
    set(&mut object, cas, leaf);
    object
}

impl TlsSecret {
    /// Mode `staged`, this leaf and its CA, and a live keeper.
    pub fn new(leaf: usize) -> Self {
        let mut stored = fresh(&[issuer(leaf)], leaf);
        stored["metadata"]["uid"] = "1".into();
        stored["metadata"]["labels"] = json!({"ca-overlap.dev/mode": "staged"});
        stored["metadata"]["annotations"] = json!({});
        Self {
            stored,
            now: certs::now(),
            keeper: KeeperHealth::Alive,
            installation: Installation::new(Defaults::default(), "ca-overlap"),
            uid: "1",
            is_by_stranger: false,
        }
    }

    /// Leaf 3 of CA 1 is in service, and leaf 6 of CA 2 waits.
    pub fn staged() -> Self {
        let mut secret = Self::new(leaf(1));
        let answer = secret.put(&[2], leaf(2));
        assert_eq!((answer.staged, answer.warnings.as_slice()), (Some("begun"), &[][..]));
        secret
    }

    /// The generator writes a fresh object.
    pub fn put(&mut self, cas: &[usize], leaf: usize) -> Answer {
        self.write(fresh(cas, leaf), GENERATOR)
    }

    /// A write that edits the stored object.
    pub fn patch(&mut self, edit: impl FnOnce(&mut Value)) -> Answer {
        let mut object = self.stored.clone();
        edit(&mut object);
        self.write(object, GENERATOR)
    }

    /// The keeper asks.
    pub fn ask(&mut self, text: &str) -> Answer {
        let mut object = self.stored.clone();
        annotate(&mut object, "ask", text);
        self.write(object, KEEPER)
    }

    /// The keeper asks to promote the waiting pair.
    pub fn promote(&mut self) -> Answer {
        let waiting = self.bytes("pending.tls.crt").unwrap_or_default();
        self.ask(&format!("promote {}", Fingerprint::of(&waiting)))
    }

    pub fn write(&mut self, object: Value, user: &str) -> Answer {
        let answer = self.answer(&object, user);
        self.store(object, &answer);
        answer
    }

    /// A copy, or a restore from a backup, makes the object. A creation has no uid yet.
    pub fn create(&mut self, mut object: Value) -> Answer {
        object["metadata"].as_object_mut().unwrap().remove("uid");
        let body = serde_json::to_vec(&reviews::create(&object, GENERATOR)).unwrap();
        let answer = self.respond(&body);
        self.store(object, &answer);
        answer
    }

    fn respond(&self, body: &[u8]) -> Answer {
        let mut request = review::read(body).ok().unwrap();
        request.is_by_stranger = self.is_by_stranger;
        let answer = respond(&request, &self.installation, self.keeper, self.now);
        audit::compare(&request, &self.installation, self.keeper, self.now, &answer);
        answer
    }

    /// A PUT that the webhook misses.
    pub fn missed_put(&mut self, cas: &[usize], leaf: usize) {
        self.stored = self.as_stored(fresh(cas, leaf));
    }

    fn answer(&self, object: &Value, user: &str) -> Answer {
        let review = reviews::update(&self.stored, object, user);
        let body = serde_json::to_vec(&review).unwrap();
        self.respond(&body)
    }

    fn store(&mut self, mut object: Value, answer: &Answer) {
        if let Some(patch) = &answer.patch {
            json_patch::patch(&mut object, patch).expect("the patch applies");
            let operations = serde_json::to_value(patch).unwrap();
            super::super::endpoint::only_our_paths(operations.as_array().unwrap(), true);
        }
        self.stored = self.as_stored(object);
    }

    fn bytes(&self, key: &str) -> Option<Vec<u8>> {
        self.stored["data"][key].as_str().map(|text| BASE64_STANDARD.decode(text).unwrap())
    }

    /// The CAs of `ca.crt`, and the CAs in the record.
    pub fn cas(&self) -> (Vec<usize>, Vec<usize>) {
        let text = String::from_utf8(self.bytes("ca.crt").unwrap_or_default()).unwrap();
        let blocks = text.split_inclusive("-----END CERTIFICATE-----\n");
        let known = |block: &str| CAS.iter().position(|ca| block.contains(&ca.pem));
        let record = self.annotation("carried").unwrap_or("[]").to_owned();
        let in_record = |ca: &usize| record.contains(&CAS[*ca].sha256());
        (blocks.filter_map(known).collect(), (0..CAS.len()).filter(in_record).collect())
    }

    /// The index of the leaf in service.
    pub fn served(&self) -> Option<usize> {
        self.leaf_under("tls.crt", "tls.key")
    }

    /// The index of the waiting leaf.
    pub fn waiting(&self) -> Option<usize> {
        self.leaf_under("pending.tls.crt", "pending.tls.key")
    }

    /// The leaf under these keys. Fails if the key is not of the same leaf.
    fn leaf_under(&self, crt: &str, key_name: &str) -> Option<usize> {
        let leaf = self.bytes(crt).map(|text| {
            LEAVES.iter().position(|leaf| leaf.as_bytes() == text).expect("a known leaf")
        });
        let stored = self.bytes(key_name).map(|text| String::from_utf8(text).unwrap());
        assert_eq!(stored, leaf.map(key), "a pair");
        leaf
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.stored["metadata"]["annotations"][format!("ca-overlap.dev/{key}")].as_str()
    }

    pub fn phase(&self) -> Option<&str> {
        self.stored["metadata"]["labels"]["ca-overlap.dev/phase"].as_str()
    }

    /// The recorded stage. Fails if the label, the annotation and the data disagree.
    pub fn stage(&self) -> Option<Stage> {
        let stage = self.annotation("staged").map(|text| Stage::parse(text).unwrap());
        assert_eq!(stage.is_some(), self.phase() == Some("staged"), "{:?}", self.phase());
        assert_eq!(stage.is_some(), self.waiting().is_some(), "pending.* and the annotation");
        stage
    }

    /// The leaf in service, the waiting leaf, the CAs, and the carried CAs.
    pub fn shows(&self) -> (Option<usize>, Option<usize>, Vec<usize>, Vec<usize>) {
        let _ = self.stage();
        let (cas, carried) = self.cas();
        (self.served(), self.waiting(), cas, carried)
    }

    /// The object as the API server stores it.
    fn as_stored(&self, mut object: Value) -> Value {
        object["metadata"]["uid"] = self.uid.into();
        for map in ["labels", "annotations"] {
            if object["metadata"][map].is_null() {
                object["metadata"][map] = json!({});
            }
        }
        object
    }
}
