//! Exempt Secrets: those whose data a guard leaves unchanged (docs/design.md, "Guards"). Both
//! programs use this one rule: the webhook does not change the data, and the keeper does not ask
//! the webhook to change it.

use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use strum::{IntoStaticStr, VariantNames};

use super::settings::{Mode, Settings};
use crate::names;
use crate::x509::certs::Certificate;
use crate::x509::pem::{self, Block};

/// What shows whether a Secret is exempt.
pub trait Markers {
    /// Whether the Secret has this data key: one of [`WATCHED_KEYS`], or `tls.crt`.
    fn has_key(&self, key: &str) -> bool;
    /// The value of a label for which [`is_watched_label`] is true.
    fn label(&self, key: &str) -> Option<&str>;
    /// The value of an annotation for which [`is_watched_annotation`] is true.
    fn annotation(&self, key: &str) -> Option<&str>;
    /// Which of the API groups that make a Secret exempt own it.
    fn owners(&self) -> &OwnerGroups;
}

/// Why the data of a Secret is never changed. Its settings and its record are still kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Exemption {
    /// Its writer compares the stored bytes with those that it wrote, and acts on a difference.
    ComparingWriter,
    /// It belongs to a system that runs its own overlap.
    ForeignOverlap,
    /// Its mode is `off`.
    Off,
    /// It is the signing Secret of a CA.
    Signer,
}

/// Says whether the Secret is exempt, and why. `settings` must be those of the restored labels and
/// annotations. `ca_crt` and `tls_crt` are the decoded values.
pub fn exemption(
    object: &impl Markers,
    settings: &Settings,
    ca_crt: Option<&[u8]>,
    tls_crt: Option<&[u8]>,
) -> Option<Exemption> {
    if settings.mode == Mode::Off {
        return Some(Exemption::Off);
    }
    let is_one_of = |systems: &[System]| systems.iter().any(|system| system.marker.is_on(object));
    if is_one_of(&FOREIGN) {
        return Some(Exemption::ForeignOverlap);
    }
    if settings.explicit_bundle {
        return None;
    }
    if is_one_of(&COMPARING) {
        return Some(Exemption::ComparingWriter);
    }
    let is_signer = holds_signing_key(object) || is_its_own_anchor(ca_crt, tls_crt);
    is_signer.then_some(Exemption::Signer)
}

/// Whether the Secret holds a CA key and no leaf. Signers read such a Secret. For example, cilium's
/// certgen takes the last certificate of `ca.crt` as its root, which in a bundle is the old one.
/// OPA's cert-controller and its users store a CA key *beside* a leaf. They read only the first
/// certificate and copy the whole `ca.crt` into caBundles, so an overlap helps there. `issuer.key` is
/// Dapr's: its Sentry makes a new CA where `ca.crt` differs from the one in a `ConfigMap`.
fn holds_signing_key(object: &impl Markers) -> bool {
    SIGNING_KEYS.into_iter().any(|key| object.has_key(key)) && !object.has_key(names::TLS_CRT)
}

/// Whether `tls.crt` and `ca.crt` begin with the same CA certificate. This is the Secret of
/// cert-manager's own authority, which makes a new CA whenever the two differ.
pub(crate) fn is_its_own_anchor(ca_crt: Option<&[u8]>, tls_crt: Option<&[u8]>) -> bool {
    let first = |text: Option<&[u8]>| pem::blocks(text?).find(Block::is_certificate)?.contents();
    let (Some(anchor), Some(leaf)) = (first(ca_crt), first(tls_crt)) else { return false };
    anchor == leaf && Certificate::from_der(anchor).is_some_and(|certificate| certificate.is_ca())
}

const SIGNING_KEYS: [&str; 4] = ["ca.key", "ca-key.pem", "cakey.pem", "issuer.key"];

/// Whether a Secret of this type is a `ServiceAccount` token. Its controller compares `ca.crt` byte
/// by byte.
pub fn is_token(type_: Option<&str>) -> bool {
    type_ == Some("kubernetes.io/service-account-token")
}

/// The data keys, besides `ca.crt` and `tls.crt`, that can make a Secret exempt.
pub const WATCHED_KEYS: [&str; 5] =
    ["ca.key", "ca-key.pem", "cakey.pem", "issuer.key", "old-ca.crt"];

/// Whether this is a label of another system that can make a Secret exempt.
pub fn is_watched_label(key: &str) -> bool {
    systems().any(|system| match system.marker {
        Marker::Label(label) | Marker::LabelValue(label, _) => label == key,
        _ => false,
    })
}

/// Whether this is an annotation of another system that can make a Secret exempt.
pub fn is_watched_annotation(key: &str) -> bool {
    systems().any(|system| matches!(system.marker, Marker::Annotation(name) if name == key))
}

/// The API groups, of those that make a Secret exempt, that own it: read from
/// `metadata.ownerReferences`, of which nothing else is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnerGroups(Vec<&'static str>);

impl OwnerGroups {
    /// Their names.
    pub fn names(&self) -> &[&'static str] {
        &self.0
    }
}

/// No such owner.
pub static NO_OWNERS: OwnerGroups = OwnerGroups(Vec::new());

impl<'de> Deserialize<'de> for OwnerGroups {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OwnersVisitor;
        impl<'de> Visitor<'de> for OwnersVisitor {
            type Value = OwnerGroups;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of owner references")
            }

            fn visit_unit<E>(self) -> Result<OwnerGroups, E> {
                Ok(OwnerGroups::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<OwnerGroups, A::Error> {
                let mut groups = Vec::new();
                while let Some(owner) = seq.next_element::<OwnerReference>()? {
                    let group = owner.api_version.and_then(|version| version.0);
                    groups.extend(group.filter(|group| !groups.contains(group)));
                }
                Ok(OwnerGroups(groups))
            }
        }
        deserializer.deserialize_any(OwnersVisitor)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OwnerReference {
    #[serde(default)]
    api_version: Option<WatchedGroup>,
}

/// The API group of an `apiVersion`, if it is one that makes a Secret exempt.
struct WatchedGroup(Option<&'static str>);

impl<'de> Deserialize<'de> for WatchedGroup {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct GroupVisitor;
        impl Visitor<'_> for GroupVisitor {
            type Value = WatchedGroup;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an apiVersion")
            }

            fn visit_str<E>(self, text: &str) -> Result<WatchedGroup, E> {
                let group = text.split_once('/').map_or("", |(group, _)| group);
                Ok(WatchedGroup(systems().find_map(|system| match system.marker {
                    Marker::OwnerGroup(name) if name == group => Some(name),
                    _ => None,
                })))
            }
        }
        deserializer.deserialize_str(GroupVisitor)
    }
}

fn systems() -> impl Iterator<Item = &'static System> {
    FOREIGN.iter().chain(&COMPARING)
}

/// A system whose Secrets an overlap would break.
struct System {
    marker: Marker,
    /// Documents the entry; only a test reads it.
    #[cfg_attr(not(test), allow(dead_code))]
    reason: &'static str,
}

/// What identifies a Secret of such a system.
enum Marker {
    Annotation(&'static str),
    DataKey(&'static str),
    Label(&'static str),
    LabelValue(&'static str, &'static str),
    OwnerGroup(&'static str),
}

impl Marker {
    fn is_on(&self, object: &impl Markers) -> bool {
        match *self {
            Self::Annotation(key) => object.annotation(key).is_some(),
            Self::DataKey(key) => object.has_key(key),
            Self::Label(label) => object.label(label).is_some(),
            Self::LabelValue(label, value) => object.label(label) == Some(value),
            Self::OwnerGroup(group) => object.owners().0.contains(&group),
        }
    }
}

const PERCONA: &str = "Percona's MongoDB operator merges old and new CAs itself, compares them \
                       byte by byte, and deletes a Secret that differs";

/// Systems that keep old CAs themselves. No setting overrides these entries.
const FOREIGN: [System; 4] = [
    System {
        marker: Marker::Label("strimzi.io/kind"),
        reason: "Strimzi keeps each old CA under its own key, rolls its pods by generation, and \
                 reads one certificate from each key",
    },
    System {
        marker: Marker::DataKey("old-ca.crt"),
        reason: "Kubewarden keeps the previous CA under this key and injects both",
    },
    System {
        marker: Marker::LabelValue(
            "app.kubernetes.io/managed-by",
            "percona-server-mongodb-operator",
        ),
        reason: PERCONA,
    },
    // What cert-manager issues for that operator has its owner reference, and not its label.
    System { marker: Marker::OwnerGroup("psmdb.percona.com"), reason: PERCONA },
];

/// Writers that compare the stored bytes, or a hash of them, with those that they wrote, and act on
/// a difference. One that only writes its own bytes again is not listed: that write changes
/// nothing.
const COMPARING: [System; 3] = [
    System {
        marker: Marker::OwnerGroup("secrets.hashicorp.com"),
        reason: "Vault Secrets Operator finds drift at each refresh: it syncs, restarts \
                 workloads, and issues a new certificate",
    },
    System {
        marker: Marker::OwnerGroup("database.arangodb.com"),
        reason: "ArangoDB's operator compares ca.crt of its truststore with the other keys, and \
                 plans no renewal of a certificate before they are equal",
    },
    System {
        marker: Marker::Annotation("secret-data-hash"),
        reason: "CockroachDB's self-signer issues again and restarts its pods at each run where the \
                 data has another hash",
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::overlap::settings::{Defaults, RawSettings};

    const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

    #[derive(Default)]
    struct TestSecret {
        keys: Vec<&'static str>,
        labels: BTreeMap<&'static str, &'static str>,
        annotation: Option<&'static str>,
        owners: OwnerGroups,
    }

    impl Markers for TestSecret {
        fn has_key(&self, key: &str) -> bool {
            self.keys.contains(&key)
        }

        fn label(&self, key: &str) -> Option<&str> {
            self.labels.get(key).copied()
        }

        fn annotation(&self, key: &str) -> Option<&str> {
            self.annotation.filter(|name| *name == key)
        }

        fn owners(&self) -> &OwnerGroups {
            &self.owners
        }
    }

    fn with(keys: &[&'static str], labels: &[(&'static str, &'static str)]) -> TestSecret {
        TestSecret {
            keys: keys.to_vec(),
            labels: labels.iter().copied().collect(),
            ..TestSecret::default()
        }
    }

    fn exempt(secret: &TestSecret, mode: Option<&str>) -> Option<Exemption> {
        let settings =
            Settings::read(RawSettings { mode, ..RawSettings::default() }, &Defaults::default());
        exemption(secret, &settings, None, None)
    }

    fn owned_by(api_versions: &[&str]) -> TestSecret {
        let owners: Vec<_> = api_versions
            .iter()
            .map(|version| serde_json::json!({"kind": "K", "apiVersion": version, "x": [1]}))
            .collect();
        let owners = serde_json::from_value(owners.into()).unwrap();
        TestSecret { owners, ..TestSecret::default() }
    }

    #[test]
    fn a_ca_key_without_a_leaf_is_exempt_unless_the_mode_is_bundle() {
        for key in SIGNING_KEYS {
            let alone = with(&[key], &[]);
            assert_eq!(exempt(&alone, None), Some(Exemption::Signer), "{key}");
            assert_eq!(exempt(&alone, Some("staged")), Some(Exemption::Signer), "{key}");
            assert_eq!(exempt(&alone, Some("bundle")), None, "{key}");
            assert_eq!(exempt(&with(&[key, "tls.crt"], &[]), None), None, "{key}");
        }
    }

    #[test]
    fn the_mode_off_and_foreign_overlaps_are_exempt() {
        assert_eq!(exempt(&TestSecret::default(), Some("off")), Some(Exemption::Off));
        assert_eq!(exempt(&TestSecret::default(), None), None);
        for secret in [
            with(&[], &[("strimzi.io/kind", "Kafka")]),
            with(&["old-ca.crt"], &[]),
            with(&[], &[(MANAGED_BY, "percona-server-mongodb-operator")]),
            owned_by(&["psmdb.percona.com/v1"]),
        ] {
            assert_eq!(exempt(&secret, Some("bundle")), Some(Exemption::ForeignOverlap));
        }
        assert_eq!(exempt(&with(&[], &[(MANAGED_BY, "Helm")]), None), None);
        assert!(systems().all(|system| !system.reason.is_empty()));
    }

    #[test]
    fn writers_that_compare_are_exempt_unless_the_mode_is_bundle() {
        for secret in [
            owned_by(&["secrets.hashicorp.com/v1beta1"]),
            owned_by(&["v1", "apps/v1", "secrets.hashicorp.com/v2"]),
            owned_by(&["database.arangodb.com/v1"]),
            TestSecret { annotation: Some("secret-data-hash"), ..TestSecret::default() },
        ] {
            for mode in [None, Some("staged")] {
                assert_eq!(exempt(&secret, mode), Some(Exemption::ComparingWriter));
            }
            assert_eq!(exempt(&secret, Some("bundle")), None);
            assert_eq!(exempt(&secret, Some("off")), Some(Exemption::Off));
        }
        for version in
            ["secrets.hashicorp.com", "x.secrets.hashicorp.com/v1", "v1/secrets.hashicorp.com", ""]
        {
            assert_eq!(exempt(&owned_by(&[version]), None), None, "{version}");
        }
    }

    #[test]
    fn of_owner_references_only_the_watched_groups_are_kept_and_each_once() {
        let read = |json: &str| serde_json::from_str::<OwnerGroups>(json).unwrap().0;
        let owner = r#"{"apiVersion":"secrets.hashicorp.com/v1","uid":"u","controller":true}"#;
        let others = r#"{},{"apiVersion":null},{"apiVersion":"apps\/v1"}"#;
        let many = format!("[{others},{owner},{owner},{others}]");
        assert_eq!(read(&many), ["secrets.hashicorp.com"]);
        assert!(read("null").is_empty() && read("[]").is_empty());
        let escaped = r#"[{"apiVersion":"secrets.hashicorp.com\/v1"}]"#;
        assert_eq!(read(escaped), ["secrets.hashicorp.com"]);
    }

    #[test]
    fn only_the_labels_of_foreign_systems_are_watched() {
        for label in ["strimzi.io/kind", "app.kubernetes.io/managed-by"] {
            assert!(is_watched_label(label), "{label}");
        }
        for label in ["old-ca.crt", "app.kubernetes.io/name", ""] {
            assert!(!is_watched_label(label), "{label}");
        }
        assert!(is_watched_annotation("secret-data-hash") && !is_watched_annotation("a"));
    }

    #[test]
    fn every_key_that_makes_a_secret_exempt_is_watched() {
        let keys = SIGNING_KEYS.into_iter().chain(systems().filter_map(|s| match s.marker {
            Marker::DataKey(key) => Some(key),
            _ => None,
        }));
        for key in keys {
            assert!(WATCHED_KEYS.contains(&key), "{key}");
        }
    }
}
