//! The sources in a Secret's annotation `trust` (docs/settings.md).

use std::fmt;

use crate::names;

/// The most sources that are read from one Secret.
pub const MAX_TRUSTED: usize = 8;

/// A Secret whose CAs the readers of another one trust as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trusted {
    /// Its namespace; `None` for that of the Secret that names it.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl Trusted {
    /// Parses `name` or `namespace/name`.
    fn parse(word: &str) -> Option<Self> {
        let (namespace, name) = names::parse_secret(word)?;
        Some(Self { namespace: namespace.map(str::to_owned), name: name.to_owned() })
    }
}

impl fmt::Display for Trusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)
    }
}

/// Parses the annotation `trust`: the sources in order, and whether all words could be read and are
/// not too many.
pub fn parse_list(text: &str) -> (Vec<Trusted>, bool) {
    let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
    let read: Vec<_> = words.map(Trusted::parse).collect();
    let is_readable = read.len() <= MAX_TRUSTED && !read.contains(&None);
    (read.into_iter().flatten().take(MAX_TRUSTED).collect(), is_readable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_namespaces_are_read_in_order() {
        let (read, is_readable) = parse_list(" ca, shop/root.ca ,,");
        let ca = Trusted { namespace: None, name: "ca".into() };
        let root = Trusted { namespace: Some("shop".into()), name: "root.ca".into() };
        assert_eq!((read, is_readable), (vec![ca, root], true));
        assert_eq!(parse_list(""), (Vec::new(), true));
        assert!(parse_list(&format!("{}/{}", "a".repeat(63), "a".repeat(253))).1);
    }

    #[test]
    fn a_word_that_names_no_secret_is_left_out() {
        let (long, longer) = (format!("{}/a", "a".repeat(64)), "a".repeat(254));
        for word in
            ["A", "a/b/c", "/a", "a/", "-a", "a-", "a..b", "a_b", "s.t/a", "a b", &long, &longer]
        {
            let (read, is_readable) = parse_list(&format!("{word},b"));
            assert_eq!(read, [Trusted { namespace: None, name: "b".into() }], "{word}");
            assert!(!is_readable, "{word}");
        }
    }

    #[test]
    fn only_the_first_eight_count() {
        let names = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
        assert_eq!(parse_list(&names(8).join(",")).0.len(), 8);
        assert!(parse_list(&names(8).join(",")).1);
        let (read, is_readable) = parse_list(&names(9).join(","));
        let read: Vec<_> = read.iter().map(ToString::to_string).collect();
        assert_eq!((read, is_readable), (names(8), false));
    }
}
