//! Exempt Secrets: those whose data a guard leaves unchanged (docs/design.md, "Guards"). Both
//! programs use this one rule: the webhook does not change the data, and the keeper does not ask
//! the webhook to change it.

use strum::{IntoStaticStr, VariantNames};

use super::settings::{Mode, Settings};
use crate::names;
use crate::x509::certs::Certificate;
use crate::x509::pem::{self, Block};

/// The data keys and labels of a Secret, which show whether it is exempt.
pub trait KeysAndLabels {
    /// Whether the Secret has this data key: one of [`WATCHED_KEYS`], or `tls.crt`.
    fn has_key(&self, key: &str) -> bool;
    /// The value of a label for which [`is_watched_label`] is true.
    fn label(&self, key: &str) -> Option<&str>;
}

/// Why the data of a Secret is never changed. Its settings and its record are still kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Exemption {
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
    object: &impl KeysAndLabels,
    settings: &Settings,
    ca_crt: Option<&[u8]>,
    tls_crt: Option<&[u8]>,
) -> Option<Exemption> {
    if settings.mode == Mode::Off {
        return Some(Exemption::Off);
    }
    if FOREIGN.iter().any(|foreign| foreign.marker.is_on(object)) {
        return Some(Exemption::ForeignOverlap);
    }
    let is_signer = holds_signing_key(object) || is_its_own_anchor(ca_crt, tls_crt);
    (is_signer && !settings.explicit_bundle).then_some(Exemption::Signer)
}

/// Whether the Secret holds a CA key and no leaf. Signers read such a Secret. For example, cilium's
/// certgen takes the last certificate of `ca.crt` as its root, which in a bundle is the old one.
/// OPA's cert-controller and its users store a CA key *beside* a leaf. They read only the first
/// certificate and copy the whole `ca.crt` into caBundles, so an overlap helps there.
fn holds_signing_key(object: &impl KeysAndLabels) -> bool {
    SIGNING_KEYS.into_iter().any(|key| object.has_key(key)) && !object.has_key(names::TLS_CRT)
}

/// Whether `tls.crt` and `ca.crt` begin with the same CA certificate. This is the Secret of
/// cert-manager's own authority, which makes a new CA whenever the two differ.
fn is_its_own_anchor(ca_crt: Option<&[u8]>, tls_crt: Option<&[u8]>) -> bool {
    let first = |text: Option<&[u8]>| pem::blocks(text?).find(Block::is_certificate)?.contents();
    let (Some(anchor), Some(leaf)) = (first(ca_crt), first(tls_crt)) else { return false };
    anchor == leaf && Certificate::from_der(anchor).is_some_and(|certificate| certificate.is_ca())
}

const SIGNING_KEYS: [&str; 3] = ["ca.key", "ca-key.pem", "cakey.pem"];

/// Whether a Secret of this type is a `ServiceAccount` token. Its controller compares `ca.crt` byte
/// by byte.
pub fn is_token(type_: Option<&str>) -> bool {
    type_ == Some("kubernetes.io/service-account-token")
}

/// The data keys, besides `ca.crt` and `tls.crt`, that can make a Secret exempt.
pub const WATCHED_KEYS: [&str; 4] = ["ca.key", "ca-key.pem", "cakey.pem", "old-ca.crt"];

/// Whether this is a label of another system that can make a Secret exempt.
pub fn is_watched_label(key: &str) -> bool {
    FOREIGN.iter().any(|foreign| match foreign.marker {
        Marker::Label(label) | Marker::LabelValue(label, _) => label == key,
        Marker::DataKey(_) => false,
    })
}

/// A system that keeps old CAs itself, and that a second overlap would break.
struct ForeignSystem {
    marker: Marker,
    /// Documents the entry; only a test reads it.
    #[cfg_attr(not(test), allow(dead_code))]
    reason: &'static str,
}

/// What identifies a Secret of such a system.
enum Marker {
    DataKey(&'static str),
    Label(&'static str),
    LabelValue(&'static str, &'static str),
}

impl Marker {
    fn is_on(&self, object: &impl KeysAndLabels) -> bool {
        match *self {
            Self::DataKey(key) => object.has_key(key),
            Self::Label(label) => object.label(label).is_some(),
            Self::LabelValue(label, value) => object.label(label) == Some(value),
        }
    }
}

const FOREIGN: [ForeignSystem; 3] = [
    ForeignSystem {
        marker: Marker::Label("strimzi.io/kind"),
        reason: "Strimzi keeps each old CA under its own key, rolls its pods by generation, and \
                 reads one certificate from each key",
    },
    ForeignSystem {
        marker: Marker::DataKey("old-ca.crt"),
        reason: "Kubewarden keeps the previous CA under this key and injects both",
    },
    ForeignSystem {
        marker: Marker::LabelValue(
            "app.kubernetes.io/managed-by",
            "percona-server-mongodb-operator",
        ),
        reason: "Percona's MongoDB operator merges old and new CAs itself, compares them byte by \
                 byte, and deletes a Secret that differs",
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
    }

    impl KeysAndLabels for TestSecret {
        fn has_key(&self, key: &str) -> bool {
            self.keys.contains(&key)
        }

        fn label(&self, key: &str) -> Option<&str> {
            self.labels.get(key).copied()
        }
    }

    fn with(keys: &[&'static str], labels: &[(&'static str, &'static str)]) -> TestSecret {
        TestSecret { keys: keys.to_vec(), labels: labels.iter().copied().collect() }
    }

    fn exempt(secret: &TestSecret, mode: Option<&str>) -> Option<Exemption> {
        let settings =
            Settings::read(RawSettings { mode, ..RawSettings::default() }, &Defaults::default());
        exemption(secret, &settings, None, None)
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
        ] {
            assert_eq!(exempt(&secret, Some("bundle")), Some(Exemption::ForeignOverlap));
        }
        assert_eq!(exempt(&with(&[], &[(MANAGED_BY, "Helm")]), None), None);
        assert!(FOREIGN.iter().all(|foreign| !foreign.reason.is_empty()));
    }

    #[test]
    fn only_the_labels_of_foreign_systems_are_watched() {
        for label in ["strimzi.io/kind", "app.kubernetes.io/managed-by"] {
            assert!(is_watched_label(label), "{label}");
        }
        for label in ["old-ca.crt", "app.kubernetes.io/name", ""] {
            assert!(!is_watched_label(label), "{label}");
        }
    }

    #[test]
    fn every_key_that_makes_a_secret_exempt_is_watched() {
        let keys = SIGNING_KEYS.into_iter().chain(FOREIGN.iter().filter_map(|f| match f.marker {
            Marker::DataKey(key) => Some(key),
            _ => None,
        }));
        for key in keys {
            assert!(WATCHED_KEYS.contains(&key), "{key}");
        }
    }
}
