//! Finds the distrusted certificates in a Secret and computes its new annotation. Pure.

use std::time::Duration;

use jiff::Timestamp;

use crate::kubernetes::secret_view::SecretView;
use crate::names;
use crate::overlap::announcement::Announcement;
use crate::overlap::ask::Ask;
use crate::overlap::outlook::{Outlook, Rules, outlook};
use crate::overlap::settings::Defaults;
use crate::tools::elsewhere::fingerprints;
use crate::x509::certs::Fingerprint;

/// A distrusted certificate that a Secret holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FoundCa {
    pub(super) fingerprint: Fingerprint,
    /// Whether the webhook put it there, or is asked to; else it is the generator's own.
    pub(super) is_carried: bool,
    /// Whether the Secret's leaf verifies against no other CA that stays trusted.
    pub(super) leaf_needs_it: bool,
}

/// Whether `ca.crt` holds one of `wanted`, in any block that a reader may take for a certificate,
/// or one would be brought back.
pub(super) fn holds(secret: &SecretView, wanted: &[Fingerprint]) -> bool {
    let held = in_ca_crt(secret).chain(asked_back(secret));
    held.into_iter().any(|fingerprint| wanted.contains(&fingerprint))
}

/// The certificates of `wanted` that `ca.crt` holds or that would be brought back.
pub(super) fn found(secret: &SecretView, wanted: &[Fingerprint], now: Timestamp) -> Vec<FoundCa> {
    let found: Vec<Fingerprint> = in_ca_crt(secret).collect();
    let asked_back = asked_back(secret);
    let outlook = look(secret, now);
    let ca = |fingerprint: Fingerprint| FoundCa {
        fingerprint,
        is_carried: is_carried(&outlook, fingerprint) || !found.contains(&fingerprint),
        leaf_needs_it: leaf_needs(&outlook, fingerprint, wanted),
    };
    let is_held = |wanted: &Fingerprint| found.contains(wanted) || asked_back.contains(wanted);
    wanted.iter().copied().filter(is_held).map(ca).collect()
}

/// The new value of the annotation, or `None` if there is nothing to write.
pub(super) fn annotation(secret: &SecretView, found: &[FoundCa]) -> Option<String> {
    let stored = secret.annotation(names::DISTRUST).unwrap_or_default();
    let listed: Vec<_> =
        stored.split(',').filter_map(|item| Fingerprint::parse(item.trim())).collect();
    let missing = found.iter().filter(|ca| !listed.contains(&ca.fingerprint));
    let mut items: Vec<String> = Some(stored.trim().trim_end_matches(','))
        .filter(|stored| !stored.is_empty())
        .map(str::to_owned)
        .into_iter()
        .collect();
    let before = items.len();
    items.extend(missing.map(|ca| ca.fingerprint.to_string()));
    if items.len() > before {
        return Some(items.join(","));
    }
    // The certificate is listed and still carried, so the webhook was away. Only a changed value
    // calls it again: an empty item at the end changes the value and not its meaning.
    found.iter().any(|ca| ca.is_carried).then(|| {
        let end = if stored.trim_end().ends_with(',') { "" } else { "," };
        format!("{}{end}", items.join(","))
    })
}

/// Whether the webhook cannot restore the annotation after a generator removed it.
pub(super) fn is_too_long(annotation: &str) -> bool {
    annotation.len() > names::MAX_RESTORED
}

/// The outlook of a Secret. Uses default flags: none of them changes which certificates are carried
/// or which one issued the leaf.
fn look(secret: &SecretView, now: Timestamp) -> Outlook {
    let rules = Rules { defaults: Defaults::default(), settle: Duration::from_secs(300) };
    outlook(&secret.view(), &rules, now)
}

fn is_carried(outlook: &Outlook, fingerprint: Fingerprint) -> bool {
    let mut carried = outlook.certificates.iter().filter(|known| known.carried.is_some());
    carried.any(|known| known.certificate.fingerprint() == fingerprint)
}

fn leaf_needs(outlook: &Outlook, fingerprint: Fingerprint, wanted: &[Fingerprint]) -> bool {
    let issuers = outlook.certificates.iter().filter(|known| known.issued_leaf);
    let issuers: Vec<_> = issuers.map(|known| known.certificate.fingerprint()).collect();
    let is_distrusted =
        |f: &Fingerprint| wanted.contains(f) || outlook.settings.distrust.contains(f);
    issuers.contains(&fingerprint) && issuers.iter().all(is_distrusted)
}

fn in_ca_crt(secret: &SecretView) -> impl Iterator<Item = Fingerprint> {
    secret.view().ca_crt.into_iter().flat_map(fingerprints)
}

/// The certificates that a pending ask of the keeper, or the annotation `announce`, would bring
/// back.
fn asked_back(secret: &SecretView) -> Vec<Fingerprint> {
    let listed = secret.annotation(names::ANNOUNCE).unwrap_or_default();
    let announced = Announcement::parse_list(listed).0;
    let asked = match secret.annotation(names::ASK).map(Ask::parse) {
        Some(Ok(Ask::Repair(all))) => all.certificates.into_iter().map(|one| one.der).collect(),
        Some(Ok(Ask::Announce(all))) => all.into_iter().map(|one| one.der).collect(),
        _ => Vec::new(),
    };
    let all = announced.into_iter().map(|one| one.der).chain(asked);
    all.map(|der| Fingerprint::of(&der)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(distrust: Option<&str>) -> SecretView {
        let mut annotations = serde_json::Map::new();
        if let Some(value) = distrust {
            annotations.insert(names::DISTRUST.into(), value.into());
        }
        let object = serde_json::json!({"metadata": {"name": "a", "annotations": annotations}});
        serde_json::from_value(object).unwrap()
    }

    fn ca(text: &[u8], is_carried: bool) -> FoundCa {
        FoundCa { fingerprint: Fingerprint::of(text), is_carried, leaf_needs_it: false }
    }

    #[test]
    fn a_new_fingerprint_is_appended_to_the_annotation() {
        let (old, new) = (Fingerprint::of(b"old"), Fingerprint::of(b"new"));
        let held = [ca(b"new", false)];
        assert_eq!(annotation(&secret(None), &held), Some(new.to_string()));
        assert_eq!(annotation(&secret(Some("")), &held), Some(new.to_string()));
        let listed = format!("{old}, ,nonsense,");
        let both = format!("{old}, ,nonsense,{new}");
        assert_eq!(annotation(&secret(Some(&listed)), &held), Some(both.clone()));
        assert_eq!(annotation(&secret(Some(&both)), &held), None, "own, and listed: nothing to do");
    }

    #[test]
    fn a_certificate_in_a_pending_ask_counts_as_held() {
        let (stolen, other) = (Fingerprint::of(b"stolen"), Fingerprint::of(b"other"));
        let ask = Ask::Repair(vec![b"stolen".to_vec().into()].into()).to_annotation(3);
        let object =
            serde_json::json!({"metadata": {"name": "a", "annotations": {names::ASK: ask}}});
        let secret: SecretView = serde_json::from_value(object).unwrap();
        assert!(holds(&secret, &[other, stolen]) && !holds(&secret, &[other]));
        let now = "2026-03-01T10:00:00Z".parse().unwrap();
        let held = found(&secret, &[other, stolen], now);
        let expected = FoundCa { fingerprint: stolen, is_carried: true, leaf_needs_it: false };
        assert_eq!(held, [expected]);
        assert_eq!(annotation(&secret, &held), Some(stolen.to_string()));
    }

    #[test]
    fn an_announced_certificate_counts_as_held_before_the_webhook_has_seen_it() {
        let announced = Announcement { der: b"stolen".to_vec(), until: None }.to_string();
        let object = serde_json::json!(
            {"metadata": {"name": "a", "annotations": {names::ANNOUNCE: announced}}});
        let secret: SecretView = serde_json::from_value(object).unwrap();
        assert!(holds(&secret, &[Fingerprint::of(b"stolen")]));
    }

    #[test]
    fn a_listed_certificate_that_is_still_carried_changes_the_annotation_each_time() {
        let held = [ca(b"new", true)];
        let mut value = Fingerprint::of(b"new").to_string();
        for _ in 0..3 {
            let next = annotation(&secret(Some(&value)), &held).unwrap();
            assert_ne!(next, value);
            assert_eq!(next.trim_end_matches(','), value.trim_end_matches(','));
            value = next;
        }
    }
}
