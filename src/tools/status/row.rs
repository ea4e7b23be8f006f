//! One rotation, as it is shown. Pure.

use jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;

use crate::kubernetes::secret_view::SecretView;
use crate::names;
use crate::overlap::outlook::{BundleCertificate, Due, Outlook, Planned, Problem, Rules, outlook};
use crate::tools::text::{common_name, short};

/// A Secret with a rotation in flight, or with a problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rotation {
    pub(super) namespace: String,
    pub(super) name: String,
    /// `overlap`, `staged`, or none.
    pub(super) phase: Option<String>,
    /// What the generator wrote.
    pub(super) own: Vec<Ca>,
    /// What we added.
    pub(super) carried: Vec<Carried>,
    /// What happens next.
    pub(super) next: Option<Step>,
    pub(super) problems: Vec<Trouble>,
}

/// A certificate of `ca.crt`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ca {
    /// In full; people are shown the first digits.
    pub(super) sha256: String,
    pub(super) common_name: String,
    pub(super) not_after: Option<Timestamp>,
}

/// A carried one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Carried {
    #[serde(flatten)]
    pub(super) ca: Ca,
    pub(super) since: Timestamp,
    /// When its window ends; the next rotation and its expiry end it in any case.
    pub(super) until: Option<Timestamp>,
}

/// What happens next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::tools) struct Step {
    /// In words.
    pub(in crate::tools) what: String,
    /// When, if the clock decides; in the past if it is due.
    pub(in crate::tools) at: Option<Timestamp>,
}

/// What a person should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Trouble {
    /// As metrics call it.
    pub(super) reason: &'static str,
    pub(super) text: String,
}

impl Rotation {
    /// `None` if there is nothing to say about this Secret.
    pub(super) fn of(secret: &SecretView, rules: &Rules, now: Timestamp) -> Option<Self> {
        let outlook = outlook(&secret.view(), rules, now);
        let phase = secret.label(names::PHASE).map(str::to_owned);
        if phase.is_none() && outlook.problems.is_empty() {
            return None;
        }
        let trouble = |p: &Problem| Trouble { reason: p.name(), text: p.to_string() };
        Some(Self {
            namespace: secret.namespace().unwrap_or_default(),
            name: secret.name_any(),
            phase,
            own: outlook.certificates.iter().filter(|k| k.carried.is_none()).map(ca).collect(),
            carried: outlook.certificates.iter().filter_map(carried).collect(),
            next: next(&outlook),
            problems: outlook.problems.iter().map(trouble).collect(),
        })
    }
}

fn ca(known: &BundleCertificate) -> Ca {
    Ca {
        sha256: known.certificate.fingerprint().to_string(),
        common_name: common_name(&known.certificate),
        not_after: Timestamp::from_second(known.certificate.not_after()).ok(),
    }
}

fn carried(known: &BundleCertificate) -> Option<Carried> {
    let entry = known.carried?;
    let until = known.ends.filter(|_| !ends_by_expiry(known));
    Some(Carried { ca: ca(known), since: entry.since, until })
}

fn ends_by_expiry(known: &BundleCertificate) -> bool {
    known.ends.is_some_and(|ends| ends.as_second() == known.certificate.not_after())
}

/// What happens next to a Secret.
pub(in crate::tools) fn next(outlook: &Outlook) -> Option<Step> {
    let going = |what: String| Some(Step { what, at: None });
    match &outlook.due {
        Some(Due::Retire(which)) => {
            let which: Vec<_> = which.iter().map(|fingerprint| short(*fingerprint)).collect();
            return going(format!(
                "{} goes now: by the keeper, or with the next write of the Secret",
                which.join(" and ")
            ));
        }
        Some(Due::Promote(_)) => {
            return going(
                "the waiting leaf goes into service when all of its group has settled".into(),
            );
        }
        Some(Due::Withdraw) => return going("the keeper takes back what it asked".into()),
        None => {}
    }
    if let Some(next) = outlook.next {
        let by_expiry =
            |known: &BundleCertificate| known.ends == Some(next.at) && ends_by_expiry(known);
        let what = match next.what {
            Planned::Retire if outlook.certificates.iter().any(by_expiry) => {
                "the next rotation drops the previous CA, or its expiry"
            }
            Planned::Retire => "a previous CA goes",
            Planned::Promote => {
                "the waiting leaf goes into service, if all of its group has settled"
            }
        };
        return Some(Step { what: what.into(), at: Some(next.at) });
    }
    let is_carried = outlook.certificates.iter().any(|known| known.carried.is_some());
    is_carried.then(|| Step { what: "the next rotation drops the previous CA".into(), at: None })
}
