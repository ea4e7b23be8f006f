//! What a Secret follows, by its metadata.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::kubernetes::issuer::IssuerKey;
use crate::kubernetes::key::Key;
use crate::names;
use crate::overlap::record::{Announcer, Record};
use crate::overlap::trust;

/// A follower by its metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Follows {
    /// The issuer that signs its leaf.
    pub(super) issuer: Option<IssuerKey>,
    /// The sources that the annotation `trust` names.
    pub(super) trust: Vec<Key>,
    /// The uids of namespaces in the annotation `trusted`.
    pub(super) trusted: Vec<(String, String)>,
    /// Whether the keeper announces something to it.
    pub(super) is_announced_to: bool,
    /// Whether a person announces something to it, which the webhook may have missed.
    pub(super) has_announcement: bool,
}

impl Follows {
    /// Reads the metadata of a Secret. `None` if it follows nothing, and nothing is announced to it.
    pub(super) fn read(key: &Key, meta: &ObjectMeta, are_issuers_followed: bool) -> Option<Self> {
        let annotation = |name: &str| meta.annotations.as_ref()?.get(name).map(String::as_str);
        let issuer = are_issuers_followed.then(|| IssuerKey::of_secret(key, meta)).flatten();
        let (named, _) = trust::parse_list(annotation(names::TRUST).unwrap_or_default());
        let source = |it: trust::Trusted| {
            Key::new(it.namespace.unwrap_or_else(|| key.namespace().to_owned()), it.name)
        };
        let trust: Vec<Key> = named.into_iter().map(source).filter(|it| it != key).collect();
        let record =
            annotation(names::CARRIED).map(|text| Record::of_object(text, meta.uid.as_deref()));
        let is_announced_to = record.and_then(Result::ok).is_some_and(|(record, _)| {
            record.entries().iter().any(|entry| entry.announced == Some(Announcer::Keeper))
        });
        let trusted = parse_trusted(annotation(names::TRUSTED).unwrap_or_default());
        let has_announcement = annotation(names::ANNOUNCE).is_some();
        let follows = Self { issuer, trust, trusted, is_announced_to, has_announcement };
        let is_follower = follows.issuer.is_some() || !follows.trust.is_empty();
        (is_follower || is_announced_to || has_announcement).then_some(follows)
    }
}

/// Reads the annotation `trusted`: `<namespace>=<uid>`, with commas.
fn parse_trusted(text: &str) -> Vec<(String, String)> {
    let pairs = text.split(',').filter_map(|pair| pair.trim().split_once('='));
    pairs.map(|(namespace, uid)| (namespace.to_owned(), uid.to_owned())).collect()
}

/// Writes the annotation `trusted`; `None` if there is nothing to say.
pub(super) fn format_trusted(pairs: &[(String, String)]) -> Option<String> {
    let words: Vec<_> = pairs.iter().map(|(namespace, uid)| format!("{namespace}={uid}")).collect();
    (!words.is_empty()).then(|| words.join(","))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::kubernetes::issuer::GROUP;

    const OWNED: &str = names::CERT_MANAGER_OWNED;
    const ISSUER_NAME: &str = names::CERT_MANAGER_ISSUER[0];
    const ISSUER_KIND: &str = names::CERT_MANAGER_ISSUER[1];
    const ISSUER_GROUP: &str = names::CERT_MANAGER_ISSUER[2];

    fn read(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> Option<Follows> {
        let map = |pairs: &[(&str, &str)]| {
            let own = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
            Some(pairs.iter().map(own).collect::<BTreeMap<_, _>>())
        };
        let meta = ObjectMeta {
            uid: Some("u".to_owned()),
            labels: map(labels),
            annotations: map(annotations),
            ..ObjectMeta::default()
        };
        Follows::read(&Key::new("shop", "web"), &meta, true)
    }

    #[test]
    fn a_secret_of_cert_manager_follows_its_issuer_of_that_group_and_kind() {
        let owned = [(OWNED, "true")];
        let name = (ISSUER_NAME, "ca");
        let issuer = |namespace: &str| {
            Some(IssuerKey { namespace: namespace.to_owned(), name: "ca".to_owned() })
        };
        for (annotations, wanted) in [
            (vec![name], issuer("shop")),
            (vec![name, (ISSUER_KIND, "Issuer"), (ISSUER_GROUP, "")], issuer("shop")),
            (vec![name, (ISSUER_KIND, "ClusterIssuer"), (ISSUER_GROUP, GROUP)], issuer("")),
            (vec![name, (ISSUER_KIND, "Issuer"), (ISSUER_GROUP, "awspca.cert-manager.io")], None),
            (vec![name, (ISSUER_KIND, "StepIssuer")], None),
            (vec![(ISSUER_KIND, "Issuer")], None),
        ] {
            let found = read(&owned, &annotations).and_then(|follows| follows.issuer);
            assert_eq!(found, wanted, "{annotations:?}");
        }
        assert_eq!(read(&[], &[name]), None, "not labelled by cert-manager");
    }

    #[test]
    fn names_without_a_namespace_are_in_the_same_one_and_a_secret_does_not_follow_itself() {
        let trust = read(&[], &[(names::TRUST, "ca, infra/root ,web")]).unwrap().trust;
        assert_eq!(trust, [Key::new("shop", "ca"), Key::new("infra", "root")]);
        assert_eq!(read(&[], &[(names::TRUST, "web")]), None);
    }

    #[test]
    fn a_secret_that_follows_nothing_any_more_is_looked_at_until_all_is_taken_back() {
        let entry = |announced: &str| {
            format!(
                r#"[{{"sha256":"{}","since":"2026-01-01T00:00:00Z"{announced}}}]"#,
                "0".repeat(64)
            )
        };
        let keeper = entry(r#","announced":"keeper""#);
        let person = entry(r#","announced":"person""#);
        assert!(read(&[], &[(names::CARRIED, &keeper)]).is_some());
        assert!(read(&[], &[(names::CARRIED, &person)]).is_none());
        assert!(read(&[], &[(names::CARRIED, &entry(""))]).is_none());
    }

    #[test]
    fn what_is_trusted_is_written_as_it_is_read() {
        let pairs = vec![("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())];
        assert_eq!(parse_trusted(&format_trusted(&pairs).unwrap()), pairs);
        assert_eq!((parse_trusted(""), format_trusted(&[])), (Vec::new(), None));
    }
}
