//! The annotation `announce` of one Secret, before and after a change. Pure.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::kubernetes::secret_view::SecretView;
use crate::names;
use crate::overlap::announcement::Announcement;
use crate::overlap::outlook::{BundleCertificate, Outlook, Rules, may_change_data, outlook};
use crate::overlap::record::Announcer;
use crate::overlap::settings::Defaults;
use crate::x509::certs::Certificate;

/// What to do with the CAs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Announce them until then.
    Until(Timestamp),
    /// Take them back.
    Withdraw,
}

/// How a Secret stands to one CA after the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum CaOutcome {
    /// It announces the CA.
    Announced,
    /// The CA is in `ca.crt`, as a previous one.
    Carried,
    /// The Secret is gone.
    Gone,
    /// The keeper announces the CA, too.
    ByKeeper,
    /// The generator writes the CA itself.
    Own,
    /// The CA is not in `ca.crt`.
    Absent,
    /// The Secret would be written, and what the webhook does then was not asked.
    Planned,
}

/// Whether the change is about this Secret, where the command line does not name it.
pub(super) fn is_concerned(secret: &SecretView, cas: &[Certificate], change: Change) -> bool {
    let outlook = look(secret, Timestamp::MIN);
    let is_announced = |known: &BundleCertificate| {
        let by = known.carried.and_then(|entry| entry.announced);
        by == Some(Announcer::Person) && cas.contains(&known.certificate)
    };
    match change {
        Change::Until(_) => {
            !outlook.certificates.is_empty() && may_change_data(&secret.view(), &outlook.settings)
        }
        Change::Withdraw => {
            announcements(secret).iter().any(|one| is_one_of(one, cas))
                || outlook.certificates.iter().any(is_announced)
        }
    }
}

/// The new value of the annotation; null removes it. `None` if there is nothing to write. What has
/// ended is left out. Fails where the webhook would not read it.
pub(super) fn annotation(
    secret: &SecretView,
    cas: &[Certificate],
    change: Change,
    now: Timestamp,
) -> Result<Option<Value>, String> {
    let outlook = look(secret, now);
    let lives = |one: &Announcement| one.until.is_none_or(|until| until > now);
    let others = announcements(secret).into_iter().filter(|one| lives(one) && !is_one_of(one, cas));
    let mut all: Vec<Announcement> = others.collect();
    if let Change::Until(until) = change {
        let is_own =
            |ca: &&Certificate| known(&outlook, ca).is_some_and(|known| known.carried.is_none());
        let added = cas.iter().filter(|ca| !is_own(ca));
        let added = added.map(|ca| Announcement { der: ca.der().to_vec(), until: Some(until) });
        let before = all.len();
        all.extend(added);
        if all.len() == before {
            return Ok(None);
        }
    }
    let text = all.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let longest = names::max_restored(names::ANNOUNCE);
    if text.len() > longest {
        return Err(format!("its annotation would be longer than {longest} bytes"));
    }
    let stored = secret.annotation(names::ANNOUNCE);
    let value = if all.is_empty() { Value::Null } else { text.as_str().into() };
    let is_there = if all.is_empty() { stored.is_none() } else { stored == Some(&text) };
    Ok((!is_there).then_some(value))
}

/// How a Secret stands to each CA.
pub(super) fn results(
    secret: &SecretView,
    cas: &[Certificate],
    change: Change,
    now: Timestamp,
) -> Vec<CaOutcome> {
    let outlook = look(secret, now);
    let result = |ca: &Certificate| match known(&outlook, ca).map(|known| known.carried) {
        None => CaOutcome::Absent,
        Some(None) => CaOutcome::Own,
        Some(Some(entry)) => match entry.announced {
            None => CaOutcome::Carried,
            Some(Announcer::Keeper) if change == Change::Withdraw => CaOutcome::ByKeeper,
            Some(_) => CaOutcome::Announced,
        },
    };
    cas.iter().map(result).collect()
}

fn known<'a>(outlook: &'a Outlook, ca: &Certificate) -> Option<&'a BundleCertificate> {
    outlook.certificates.iter().find(|known| known.certificate == *ca)
}

fn announcements(secret: &SecretView) -> Vec<Announcement> {
    Announcement::parse_list(secret.annotation(names::ANNOUNCE).unwrap_or_default()).0
}

fn is_one_of(announcement: &Announcement, cas: &[Certificate]) -> bool {
    cas.iter().any(|ca| ca.der() == announcement.der)
}

/// The outlook of a Secret. Uses default flags: none of them changes what is announced.
fn look(secret: &SecretView, now: Timestamp) -> Outlook {
    let rules = Rules { defaults: Defaults::default(), settle: Duration::from_secs(300) };
    outlook(&secret.view(), &rules, now)
}

#[cfg(test)]
mod tests {
    use std::slice;

    use base64::prelude::*;
    use devtools::certs;
    use serde_json::json;

    use super::*;
    use crate::overlap::record::{Entry, Record};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn ca() -> Certificate {
        Certificate::from_der(certs::ca().der.to_vec()).unwrap()
    }

    fn until(ca: &Certificate, until: Option<&str>) -> String {
        Announcement { der: ca.der().to_vec(), until: until.map(at) }.to_string()
    }

    /// A Secret with these CAs, the last of them in the record if there is an entry for it.
    fn secret(announce: Option<&str>, cas: &[&Certificate], entry: Option<Entry>) -> SecretView {
        let mut pem = Vec::new();
        for ca in cas {
            crate::x509::pem::encode_certificate(ca.der(), &mut pem);
        }
        let record = entry.map(|entry| Record::new(vec![entry]).to_annotation(None));
        let annotations: serde_json::Map<String, Value> =
            [(names::ANNOUNCE, announce.map(str::to_owned)), (names::CARRIED, record)]
                .into_iter()
                .filter_map(|(key, value)| Some((key.to_owned(), value?.into())))
                .collect();
        serde_json::from_value(json!({
            "metadata": {"name": "a", "namespace": "n", "annotations": annotations},
            "data": {"ca.crt": BASE64_STANDARD.encode(pem)},
        }))
        .unwrap()
    }

    const NOW: &str = "2026-03-01T10:00:00Z";
    const END: &str = "2026-03-31T10:00:00Z";

    #[test]
    fn a_ca_is_listed_once_with_its_new_end_and_what_has_ended_goes() {
        let (own, next, other, ended) = (ca(), ca(), ca(), ca());
        let stored = [
            until(&next, Some("2026-03-02T10:00:00Z")),
            until(&other, None),
            until(&ended, Some(NOW)),
        ];
        let secret = secret(Some(&stored.join(",")), &[&own], None);
        let change = |change| annotation(&secret, slice::from_ref(&next), change, at(NOW)).unwrap();
        let expected = format!("{},{}", until(&other, None), until(&next, Some(END)));
        assert_eq!(change(Change::Until(at(END))), Some(json!(expected)));
        assert_eq!(change(Change::Withdraw), Some(json!(until(&other, None))));
    }

    #[test]
    fn the_last_one_that_is_withdrawn_takes_the_annotation_away() {
        let (own, next) = (ca(), ca());
        let listed = secret(Some(&until(&next, None)), &[&own], None);
        let withdraw =
            |secret| annotation(secret, slice::from_ref(&next), Change::Withdraw, at(NOW));
        assert_eq!(withdraw(&listed), Ok(Some(Value::Null)));
        assert_eq!(withdraw(&secret(None, &[&own], None)), Ok(None));
    }

    #[test]
    fn an_own_ca_is_not_announced_and_too_many_do_not_fit() {
        let (own, next) = (ca(), ca());
        let secret = secret(None, &[&own], None);
        let change = Change::Until(at(END));
        assert_eq!(annotation(&secret, slice::from_ref(&own), change, at(NOW)), Ok(None));
        let many: Vec<_> = std::iter::repeat_with(ca).take(40).collect();
        assert!(annotation(&secret, &many, change, at(NOW)).unwrap_err().contains("16384 bytes"));
        assert!(is_concerned(&secret, slice::from_ref(&next), change));
    }

    #[test]
    fn the_result_says_who_still_needs_it() {
        let (own, next) = (ca(), ca());
        let entry = |announced| Entry {
            announced,
            ..Entry::starting(next.fingerprint(), at("2026-02-28T10:00:00Z"), None)
        };
        let results = |secret: &SecretView| {
            results(secret, slice::from_ref(&next), Change::Withdraw, at(NOW))
        };
        let with = |entry| secret(Some(&until(&next, None)), &[&own, &next], entry);
        let announced = with(Some(entry(Some(Announcer::Person))));
        assert_eq!(results(&announced), [CaOutcome::Announced]);
        assert!(is_concerned(&announced, slice::from_ref(&next), Change::Withdraw));
        let by_keeper = with(Some(entry(Some(Announcer::Keeper))));
        assert_eq!(results(&by_keeper), [CaOutcome::ByKeeper]);
        assert_eq!(results(&with(Some(entry(None)))), [CaOutcome::Carried]);
        assert_eq!(results(&with(None)), [CaOutcome::Own]);
        assert_eq!(results(&secret(None, &[&own], None)), [CaOutcome::Absent]);
        assert!(!is_concerned(
            &secret(None, &[&own], None),
            slice::from_ref(&next),
            Change::Withdraw
        ));
    }
}
