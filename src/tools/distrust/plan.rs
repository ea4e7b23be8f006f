//! What a Secret has to do with the distrusted certificates. Pure.

use std::time::Duration;

use jiff::Timestamp;

use crate::kubernetes::secret_view::SecretView;
use crate::names;
use crate::overlap::ask::Ask;
use crate::overlap::outlook::{Outlook, Rules, outlook};
use crate::overlap::settings::Defaults;
use crate::x509::certs::Fingerprint;
use crate::x509::pem;

/// One of the certificates in a Secret's `ca.crt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holding {
    pub(super) fingerprint: Fingerprint,
    /// Whether we put it there, or are asked to; else it is the generator's own.
    pub(super) is_carried: bool,
    /// Whether the Secret's own leaf verifies by nothing else that is trusted.
    pub(super) leaf_needs_it: bool,
}

/// Whether `ca.crt` holds one of these, in any block that a reader may take for a certificate, or
/// is to get it back.
pub(super) fn holds(secret: &SecretView, wanted: &[Fingerprint]) -> bool {
    let held = fingerprints(secret).chain(asked_back(secret));
    held.into_iter().any(|fingerprint| wanted.contains(&fingerprint))
}

/// Those of `wanted` that `ca.crt` holds, or is to get back.
pub(super) fn holdings(
    secret: &SecretView,
    wanted: &[Fingerprint],
    now: Timestamp,
) -> Vec<Holding> {
    let found: Vec<Fingerprint> = fingerprints(secret).collect();
    let asked_back = asked_back(secret);
    let outlook = look(secret, now);
    let holding = |fingerprint: Fingerprint| Holding {
        fingerprint,
        is_carried: is_carried(&outlook, fingerprint) || !found.contains(&fingerprint),
        leaf_needs_it: leaf_needs(&outlook, fingerprint, wanted),
    };
    let is_held = |wanted: &Fingerprint| found.contains(wanted) || asked_back.contains(wanted);
    wanted.iter().copied().filter(is_held).map(holding).collect()
}

/// The new value of the annotation, or `None` if there is nothing to write.
pub(super) fn annotation(secret: &SecretView, holdings: &[Holding]) -> Option<String> {
    let stored = secret.annotation(names::DISTRUST).unwrap_or_default();
    let listed: Vec<_> =
        stored.split(',').filter_map(|item| Fingerprint::parse(item.trim())).collect();
    let missing = holdings.iter().filter(|holding| !listed.contains(&holding.fingerprint));
    let mut items: Vec<String> = Some(stored.trim().trim_end_matches(','))
        .filter(|stored| !stored.is_empty())
        .map(str::to_owned)
        .into_iter()
        .collect();
    let before = items.len();
    items.extend(missing.map(|holding| holding.fingerprint.to_string()));
    if items.len() > before {
        return Some(items.join(","));
    }
    // Listed and still carried: the webhook was away. It is called when the value changes, and an
    // empty item at the end changes nothing else.
    holdings.iter().any(|holding| holding.is_carried).then(|| {
        let end = if stored.trim_end().ends_with(',') { "" } else { "," };
        format!("{}{end}", items.join(","))
    })
}

/// Whether a generator that wipes the annotation wipes it for good.
pub(super) fn is_too_long(annotation: &str) -> bool {
    annotation.len() > names::MAX_RESTORED
}

/// The settings of the installation do not matter for what is asked here.
fn look(secret: &SecretView, now: Timestamp) -> Outlook {
    let rules = Rules { defaults: Defaults::default(), settle: Duration::from_secs(120) };
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

fn fingerprints(secret: &SecretView) -> impl Iterator<Item = Fingerprint> {
    let blocks = secret.view().ca_crt.into_iter().flat_map(pem::blocks);
    let contents = blocks.filter(pem::Block::is_certificate_to_some).filter_map(|b| b.contents());
    contents.map(|der| Fingerprint::of(&der))
}

/// What an ask of the keeper that still stands there would bring back.
fn asked_back(secret: &SecretView) -> Vec<Fingerprint> {
    match secret.annotation(names::ASK).map(Ask::parse) {
        Some(Ok(Ask::Repair(all))) => {
            all.certificates.iter().map(|one| Fingerprint::of(&one.der)).collect()
        }
        _ => Vec::new(),
    }
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

    fn holding(text: &[u8], is_carried: bool) -> Holding {
        Holding { fingerprint: Fingerprint::of(text), is_carried, leaf_needs_it: false }
    }

    #[test]
    fn what_is_there_stays_and_what_is_new_follows() {
        let (old, new) = (Fingerprint::of(b"old"), Fingerprint::of(b"new"));
        let held = [holding(b"new", false)];
        assert_eq!(annotation(&secret(None), &held), Some(new.to_string()));
        assert_eq!(annotation(&secret(Some("")), &held), Some(new.to_string()));
        let listed = format!("{old}, ,nonsense,");
        let both = format!("{old}, ,nonsense,{new}");
        assert_eq!(annotation(&secret(Some(&listed)), &held), Some(both.clone()));
        assert_eq!(annotation(&secret(Some(&both)), &held), None, "own, and listed: nothing to do");
    }

    #[test]
    fn what_a_standing_ask_would_bring_back_is_held() {
        let (stolen, other) = (Fingerprint::of(b"stolen"), Fingerprint::of(b"other"));
        let ask = Ask::Repair(vec![b"stolen".to_vec().into()].into()).to_annotation(3);
        let object =
            serde_json::json!({"metadata": {"name": "a", "annotations": {names::ASK: ask}}});
        let secret: SecretView = serde_json::from_value(object).unwrap();
        assert!(holds(&secret, &[other, stolen]) && !holds(&secret, &[other]));
        let now = "2026-03-01T10:00:00Z".parse().unwrap();
        let held = holdings(&secret, &[other, stolen], now);
        let expected = Holding { fingerprint: stolen, is_carried: true, leaf_needs_it: false };
        assert_eq!(held, [expected]);
        assert_eq!(annotation(&secret, &held), Some(stolen.to_string()));
    }

    #[test]
    fn what_is_listed_and_still_carried_is_written_anew_each_time() {
        let held = [holding(b"new", true)];
        let mut value = Fingerprint::of(b"new").to_string();
        for _ in 0..3 {
            let next = annotation(&secret(Some(&value)), &held).unwrap();
            assert_ne!(next, value);
            assert_eq!(next.trim_end_matches(','), value.trim_end_matches(','));
            value = next;
        }
    }
}
