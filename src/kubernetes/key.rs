//! The key of a Secret: its namespace and name.

use std::fmt;
use std::sync::Arc;

use kube::Resource;

use super::secret_view::SecretView;

/// The namespace and name of a Secret; cheap to clone. If the namespace is empty, the key is that of
/// a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<(String, String)>);

impl Key {
    /// The key of this namespace and name.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self(Arc::new((namespace.into(), name.into())))
    }

    /// The key of a Secret that was read.
    pub fn of(secret: &SecretView) -> Self {
        let meta = secret.meta();
        Self::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.0.0
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.0.1
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace(), self.name())
    }
}
