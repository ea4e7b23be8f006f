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

/// Parses `NAMESPACE/NAME` or `NAME`. The names must be valid by the API server's rules: a DNS
/// label for a namespace, a DNS subdomain for a Secret (RFC 1123).
pub(crate) fn parse(text: &str) -> Option<(Option<&str>, &str)> {
    let is_label = |part: &str| {
        let known = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        let is_inner = |part: &str| !part.starts_with('-') && !part.ends_with('-');
        !part.is_empty() && part.bytes().all(known) && is_inner(part)
    };
    let (namespace, name) = match text.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, text),
    };
    let is_namespace = |namespace: &str| namespace.len() <= 63 && is_label(namespace);
    let is_name = name.len() <= 253 && name.split('.').all(is_label);
    (is_name && namespace.is_none_or(is_namespace)).then_some((namespace, name))
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace(), self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_not_parsed_as_the_name_of_a_secret() {
        assert_eq!(parse("gateway/envoy"), Some((Some("gateway"), "envoy")));
        assert_eq!(parse("a-1/b.c-d"), Some((Some("a-1"), "b.c-d")));
        assert_eq!(parse("b.c-d"), Some((None, "b.c-d")));
        for path in [
            "./a", "a/b/c", "/a", "a/", "A/b", "a.b/c", "-a/b", "a/.b", "a/b..c", "", "/", "a_b",
            "a/b-",
        ] {
            assert_eq!(parse(path), None, "{path}");
        }
    }
}
