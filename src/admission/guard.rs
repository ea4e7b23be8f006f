//! Secrets that we do not touch (DESIGN §5).
//!
//! The webhook's `matchConditions` check some of this already; all of it is checked here, because
//! a configuration can be edited, and because older API servers drop conditions they do not know.

use super::review::{Request, Secret};
use crate::names;
use crate::overlap::certs::Certificate;
use crate::overlap::pem::{self, Block};
use crate::overlap::policy::{Mode, Settings};

/// Why a request is answered without any change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// Its data can never change, or never again after this write.
    Immutable,
    /// Not an UPDATE of a core/v1 Secret.
    NotASecretUpdate,
    /// Our own namespace: the webhook must not depend on itself.
    OwnNamespace,
    /// A token of a `ServiceAccount`: its controller compares `ca.crt` byte by byte.
    ServiceAccountToken,
}

impl Skip {
    /// How the audit log and the metrics call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Immutable => "immutable",
            Self::NotASecretUpdate => "not_a_secret_update",
            Self::OwnNamespace => "own_namespace",
            Self::ServiceAccountToken => "service_account_token",
        }
    }
}

/// Why the data of a Secret is left alone, while its settings and its record are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaveData {
    /// A system that runs an overlap of its own.
    ForeignOverlap,
    /// Mode `off`.
    Off,
    /// The signing Secret of a CA.
    Signer,
}

impl LeaveData {
    /// How the audit log and the metrics call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ForeignOverlap => "foreign_overlap",
            Self::Off => "off",
            Self::Signer => "signer",
        }
    }
}

/// Checks what can be told from the request alone.
pub fn skip(request: &Request<'_>, own_namespace: &str) -> Option<Skip> {
    let is_secret = request
        .kind
        .as_ref()
        .is_some_and(|kind| kind.group.is_empty() && kind.version == "v1" && kind.kind == "Secret");
    let whole = request.sub_resource.as_deref().unwrap_or_default().is_empty();
    let (Some(object), Some(old)) = (&request.object, &request.old_object) else {
        return Some(Skip::NotASecretUpdate);
    };
    if request.operation != "UPDATE" || !is_secret || !whole {
        return Some(Skip::NotASecretUpdate);
    }
    if request.namespace.as_deref() == Some(own_namespace) {
        return Some(Skip::OwnNamespace);
    }
    let is_token = |secret: &Secret<'_>| {
        secret.type_.as_deref() == Some("kubernetes.io/service-account-token")
    };
    if is_token(object) || is_token(old) {
        return Some(Skip::ServiceAccountToken);
    }
    // Also one that becomes immutable by this write: what is carried then could never be retired.
    if object.immutable == Some(true) || old.immutable == Some(true) {
        return Some(Skip::Immutable);
    }
    None
}

/// Checks whether data must not be changed. `settings` are those of the Secret with restored
/// labels and annotations; `ca_crt` and `tls_crt` are the incoming values, decoded.
pub fn leave_data(
    object: &Secret<'_>,
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
fn holds_signing_key(object: &Secret<'_>) -> bool {
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
    fn is_on(&self, object: &Secret<'_>) -> bool {
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
    use super::*;
    use crate::overlap::policy::{Defaults, Raw};

    fn secret(json: &str) -> Secret<'_> {
        let Ok(secret) = serde_json::from_str(json) else { panic!("{json} is no Secret") };
        secret
    }

    fn settings(mode: Option<&str>) -> Settings {
        Settings::read(Raw { mode, ..Raw::default() }, &Defaults::default())
    }

    fn left(json: &str, mode: Option<&str>) -> Option<LeaveData> {
        leave_data(&secret(json), &settings(mode), None, None)
    }

    #[test]
    fn a_signing_key_without_a_leaf_is_left_alone_unless_the_label_says_bundle() {
        for key in SIGNING_KEYS {
            let alone = format!(r#"{{"data":{{"ca.crt":"","{key}":""}}}}"#);
            assert_eq!(left(&alone, None), Some(LeaveData::Signer), "{key}");
            assert_eq!(left(&alone, Some("staged")), Some(LeaveData::Signer), "{key}");
            assert_eq!(left(&alone, Some("bundle")), None, "{key}");
            let beside = format!(r#"{{"data":{{"ca.crt":"","{key}":"","tls.crt":""}}}}"#);
            assert_eq!(left(&beside, None), None, "{key}");
        }
    }

    #[test]
    fn the_mode_off_and_foreign_overlaps_leave_data_alone() {
        assert_eq!(left("{}", Some("off")), Some(LeaveData::Off));
        assert_eq!(left("{}", None), None);
        for json in [
            r#"{"metadata":{"labels":{"strimzi.io/kind":"Kafka"}}}"#,
            r#"{"data":{"old-ca.crt":""}}"#,
            r#"{"metadata":{"labels":{"app.kubernetes.io/managed-by":"percona-server-mongodb-operator"}}}"#,
        ] {
            assert_eq!(left(json, Some("bundle")), Some(LeaveData::ForeignOverlap), "{json}");
        }
        let other = r#"{"metadata":{"labels":{"app.kubernetes.io/managed-by":"Helm"}}}"#;
        assert_eq!(left(other, None), None);
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
