//! Guards: requests that are answered without any change (docs/design.md, "Guards").
//!
//! The webhook's `matchConditions` check some of this already. All of it is checked here, because a
//! configuration can be edited, and because older API servers drop conditions they do not know.

use strum::{IntoStaticStr, VariantNames};

use super::review::{AdmissionRequest, ReviewedSecret};
use crate::overlap::exempt::{Markers, OwnerGroups, is_token};

/// Why a guard skips a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum SkipReason {
    /// The Secret is immutable, or becomes so with this write.
    Immutable,
    /// Neither an UPDATE nor a CREATE of a core/v1 Secret.
    NotASecretUpdate,
    /// The Secret is in our own namespace: the webhook must not depend on itself.
    OwnNamespace,
    /// The Secret is a token of a `ServiceAccount`: its controller compares `ca.crt` byte by byte.
    ServiceAccountToken,
}

/// Checks the request without decoding a value.
pub fn skip(request: &AdmissionRequest<'_>, own_namespace: &str) -> Option<SkipReason> {
    let is_secret = request
        .kind
        .as_ref()
        .is_some_and(|kind| kind.group.is_empty() && kind.version == "v1" && kind.kind == "Secret");
    let is_main_resource = request.sub_resource.as_deref().unwrap_or_default().is_empty();
    let (object, old) = match (&*request.operation, &request.object, &request.old_object) {
        ("UPDATE", Some(object), Some(old)) => (object, old),
        ("CREATE", Some(object), None) => (object, object),
        _ => return Some(SkipReason::NotASecretUpdate),
    };
    if !is_secret || !is_main_resource {
        return Some(SkipReason::NotASecretUpdate);
    }
    if request.namespace.as_deref() == Some(own_namespace) {
        return Some(SkipReason::OwnNamespace);
    }
    if is_token(object.type_.as_deref()) || is_token(old.type_.as_deref()) {
        return Some(SkipReason::ServiceAccountToken);
    }
    // A CA that is carried in a Secret that becomes immutable could never be retired.
    if object.immutable == Some(true) || old.immutable == Some(true) {
        return Some(SkipReason::Immutable);
    }
    None
}

impl Markers for ReviewedSecret<'_> {
    fn has_key(&self, key: &str) -> bool {
        self.has_key(key)
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.label(key)
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self.annotation(key)
    }

    fn owners(&self) -> &OwnerGroups {
        self.owners()
    }
}
