//! Secrets that we do not touch (DESIGN §5).
//!
//! The webhook's `matchConditions` check some of this already; all of it is checked here, because
//! a configuration can be edited, and because older API servers drop conditions they do not know.

use strum::{IntoStaticStr, VariantNames};

use super::review::{Request, Secret};
use crate::overlap::exempt::{KeysAndLabels, is_token};

/// Why a request is answered without any change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
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
    if is_token(object.type_.as_deref()) || is_token(old.type_.as_deref()) {
        return Some(Skip::ServiceAccountToken);
    }
    // Also one that becomes immutable by this write: what is carried then could never be retired.
    if object.immutable == Some(true) || old.immutable == Some(true) {
        return Some(Skip::Immutable);
    }
    None
}

impl KeysAndLabels for Secret<'_> {
    fn has_key(&self, key: &str) -> bool {
        self.has_key(key)
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.label(key)
    }
}
