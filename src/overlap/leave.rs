//! Secrets whose data is left alone (DESIGN §5): one rule for the webhook, which would not act, and
//! for the keeper, which then need not ask.

use strum::{IntoStaticStr, VariantNames};

use super::policy::{Mode, Settings};
use crate::names;
use crate::x509::certs::Certificate;
use crate::x509::pem::{self, Block};

/// What tells such a Secret, besides its settings and certificates.
pub trait Marks {
    /// Whether there is a value under this data key: one of [`WATCHED_KEYS`], or `tls.crt`.
    fn has_key(&self, key: &str) -> bool;
    /// The value of a label, if it is one for which [`is_watched_label`] holds.
    fn label(&self, key: &str) -> Option<&str>;
}

/// Why the data of a Secret is left alone, while its settings and its record are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum LeaveData {
    /// A system that runs an overlap of its own.
    ForeignOverlap,
    /// Mode `off`.
    Off,
    /// The signing Secret of a CA.
    Signer,
}

/// Checks whether data must not be changed. `settings` are those of the Secret with restored
/// labels and annotations; `ca_crt` and `tls_crt` are its values, decoded.
pub fn leave_data(
    object: &impl Marks,
    settings: &Settings,
    ca_crt: Option<&[u8]>,
    tls_crt: Option<&[u8]>,
) -> Option<LeaveData> {
    if settings.mode == Mode::Off {
        return Some(LeaveData::Off);
    }
    if FOREIGN.iter().any(|foreign| foreign.sign.is_on(object)) {
        return Some(LeaveData::ForeignOverlap);
    }
    let signer = holds_signing_key(object) || is_its_own_anchor(ca_crt, tls_crt);
    (signer && !settings.explicit_bundle).then_some(LeaveData::Signer)
}

/// A CA key without a leaf. Such a Secret is read by signers: cilium's certgen takes the last
/// certificate of `ca.crt` as its root, which in a bundle is the old one. A CA key *beside* a leaf
/// is how OPA's cert-controller and its users store both; they read the first certificate only and
/// copy the whole of `ca.crt` into caBundles, so there an overlap does good.
fn holds_signing_key(object: &impl Marks) -> bool {
    SIGNING_KEYS.into_iter().any(|key| object.has_key(key)) && !object.has_key(names::TLS_CRT)
}

/// `tls.crt` and `ca.crt` begin with the same CA certificate: cert-manager's own authority, which
/// makes a new CA whenever the two differ.
fn is_its_own_anchor(ca_crt: Option<&[u8]>, tls_crt: Option<&[u8]>) -> bool {
    let first = |text: Option<&[u8]>| pem::blocks(text?).find(Block::is_certificate)?.contents();
    let (Some(anchor), Some(leaf)) = (first(ca_crt), first(tls_crt)) else { return false };
    anchor == leaf && Certificate::from_der(anchor).is_some_and(|certificate| certificate.is_ca())
}

const SIGNING_KEYS: [&str; 3] = ["ca.key", "ca-key.pem", "cakey.pem"];

/// Whether a Secret of this type is a token of a `ServiceAccount`: its controller compares `ca.crt`
/// byte by byte.
pub fn is_token(type_: Option<&str>) -> bool {
    type_ == Some("kubernetes.io/service-account-token")
}

/// The data keys, besides `ca.crt` and `tls.crt`, whose presence is looked at.
pub const WATCHED_KEYS: [&str; 4] = ["ca.key", "ca-key.pem", "cakey.pem", "old-ca.crt"];

/// Whether a label, not of ours, is looked at.
pub fn is_watched_label(key: &str) -> bool {
    FOREIGN.iter().any(|foreign| match foreign.sign {
        Sign::Label(label) | Sign::LabelValue(label, _) => label == key,
        Sign::DataKey(_) => false,
    })
}

/// A system that keeps old CAs by itself and would be confused by ours.
struct Foreign {
    sign: Sign,
    /// For readers, and for the test that no entry lacks one.
    #[cfg_attr(not(test), allow(dead_code))]
    reason: &'static str,
}

/// How its Secrets are recognised.
enum Sign {
    DataKey(&'static str),
    Label(&'static str),
    LabelValue(&'static str, &'static str),
}

impl Sign {
    fn is_on(&self, object: &impl Marks) -> bool {
        match *self {
            Self::DataKey(key) => object.has_key(key),
            Self::Label(label) => object.label(label).is_some(),
            Self::LabelValue(label, value) => object.label(label) == Some(value),
        }
    }
}

const FOREIGN: [Foreign; 3] = [
    Foreign {
        sign: Sign::Label("strimzi.io/kind"),
        reason: "Strimzi keeps old CAs under keys of their own, rolls its pods by generation, and \
                 reads one certificate from each key",
    },
    Foreign {
        sign: Sign::DataKey("old-ca.crt"),
        reason: "Kubewarden keeps the previous CA under this key and injects both",
    },
    Foreign {
        sign: Sign::LabelValue("app.kubernetes.io/managed-by", "percona-server-mongodb-operator"),
        reason: "Percona's MongoDB operator merges old and new CAs itself, compares them byte by \
                 byte, and deletes a Secret that differs",
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::overlap::policy::{Defaults, Raw};

    const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

    #[derive(Default)]
    struct Secret {
        keys: Vec<&'static str>,
        labels: BTreeMap<&'static str, &'static str>,
    }

    impl Marks for Secret {
        fn has_key(&self, key: &str) -> bool {
            self.keys.contains(&key)
        }

        fn label(&self, key: &str) -> Option<&str> {
            self.labels.get(key).copied()
        }
    }

    fn with(keys: &[&'static str], labels: &[(&'static str, &'static str)]) -> Secret {
        Secret { keys: keys.to_vec(), labels: labels.iter().copied().collect() }
    }

    fn left(secret: &Secret, mode: Option<&str>) -> Option<LeaveData> {
        let settings = Settings::read(Raw { mode, ..Raw::default() }, &Defaults::default());
        leave_data(secret, &settings, None, None)
    }

    #[test]
    fn a_signing_key_without_a_leaf_is_left_alone_unless_the_label_says_bundle() {
        for key in SIGNING_KEYS {
            let alone = with(&[key], &[]);
            assert_eq!(left(&alone, None), Some(LeaveData::Signer), "{key}");
            assert_eq!(left(&alone, Some("staged")), Some(LeaveData::Signer), "{key}");
            assert_eq!(left(&alone, Some("bundle")), None, "{key}");
            assert_eq!(left(&with(&[key, "tls.crt"], &[]), None), None, "{key}");
        }
    }

    #[test]
    fn the_mode_off_and_foreign_overlaps_leave_data_alone() {
        assert_eq!(left(&Secret::default(), Some("off")), Some(LeaveData::Off));
        assert_eq!(left(&Secret::default(), None), None);
        for secret in [
            with(&[], &[("strimzi.io/kind", "Kafka")]),
            with(&["old-ca.crt"], &[]),
            with(&[], &[(MANAGED_BY, "percona-server-mongodb-operator")]),
        ] {
            assert_eq!(left(&secret, Some("bundle")), Some(LeaveData::ForeignOverlap));
        }
        assert_eq!(left(&with(&[], &[(MANAGED_BY, "Helm")]), None), None);
        assert!(FOREIGN.iter().all(|foreign| !foreign.reason.is_empty()));
    }

    #[test]
    fn every_label_that_a_guard_asks_for_is_read_and_no_other() {
        for label in ["strimzi.io/kind", "app.kubernetes.io/managed-by"] {
            assert!(is_watched_label(label), "{label}");
        }
        for label in ["old-ca.crt", "app.kubernetes.io/name", ""] {
            assert!(!is_watched_label(label), "{label}");
        }
    }

    #[test]
    fn every_key_that_a_guard_asks_for_is_read() {
        let asked = SIGNING_KEYS.into_iter().chain(FOREIGN.iter().filter_map(|f| match f.sign {
            Sign::DataKey(key) => Some(key),
            _ => None,
        }));
        for key in asked {
            assert!(WATCHED_KEYS.contains(&key), "{key}");
        }
    }
}
