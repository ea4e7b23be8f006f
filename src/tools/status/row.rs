//! One row of `status`: a rotation and what happens next. Pure.

use jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;

use crate::kubernetes::secret_view::SecretView;
use crate::names;
use crate::overlap::action::awaited;
use crate::overlap::outlook::{BundleCertificate, Due, Outlook, Planned, Problem, Rules, outlook};
use crate::overlap::record::Announcer;
use crate::tools::text::{common_name, printable, short};

/// A Secret with a rotation in flight, or with a problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rotation {
    pub(super) namespace: String,
    pub(super) name: String,
    /// `overlap`, `staged`, or none.
    pub(super) phase: Option<String>,
    /// The CAs that the generator wrote.
    pub(super) own: Vec<Ca>,
    /// The CAs that the webhook added.
    pub(super) carried: Vec<CarriedCa>,
    /// What happens next.
    pub(super) next: Option<NextStep>,
    /// The Secrets of the group that a promotion waits for, which is due otherwise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) waits_for: Vec<String>,
    /// Why the last rotation was not staged, although the mode asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) not_staged: Option<ReportedProblem>,
    pub(super) problems: Vec<ReportedProblem>,
}

/// A certificate of `ca.crt`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ca {
    /// All digits; the table shows the first eight.
    pub(super) sha256: String,
    pub(super) common_name: String,
    pub(super) not_after: Option<Timestamp>,
}

/// A carried certificate of `ca.crt`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct CarriedCa {
    #[serde(flatten)]
    pub(super) ca: Ca,
    pub(super) since: Timestamp,
    /// Who announces it; none for a previous CA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) announced: Option<Announcer>,
    /// When its window ends. It ends earlier at the next rotation or at its expiry.
    pub(super) until: Option<Timestamp>,
}

/// What happens next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::tools) struct NextStep {
    pub(in crate::tools) action: NextAction,
    /// Whether nothing is left to wait for but the keeper, or the next write.
    pub(in crate::tools) due: bool,
    /// A sentence for people.
    pub(in crate::tools) what: String,
    /// When it happens, if a deadline decides. A time in the past means that it is due.
    pub(in crate::tools) at: Option<Timestamp>,
}

/// What happens next, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::tools) enum NextAction {
    /// A previous CA is dropped.
    Retire,
    /// A previous CA is dropped by the next rotation, or at its expiry.
    RetireAtRotation,
    /// An announced CA is dropped.
    EndAnnouncement,
    /// The waiting leaf goes into service.
    Promote,
    /// The stage ends.
    Unstage,
    /// The keeper removes its ask.
    WithdrawAsk,
}

/// A problem of a Secret, as it is printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct ReportedProblem {
    /// The value of the label `reason` in metrics.
    pub(super) reason: &'static str,
    pub(super) text: String,
}

impl Rotation {
    /// `None` if the Secret has no rotation in flight and no problem.
    /// `failed_restart` says which of its restarts failed, if one did.
    pub(super) fn of(
        secret: &SecretView,
        failed_restart: Option<&str>,
        rules: &Rules,
        now: Timestamp,
    ) -> Option<Self> {
        let outlook = outlook(&secret.view(), rules, now);
        let phase = secret.label(names::PHASE).map(str::to_owned);
        if phase.is_none() && outlook.problems.is_empty() && failed_restart.is_none() {
            return None;
        }
        let failed_restart = failed_restart
            .map(|text| ReportedProblem { reason: "restart_failed", text: printable(text) });
        let problem = |p: &Problem| ReportedProblem { reason: p.name(), text: p.to_string() };
        Some(Self {
            namespace: secret.namespace().unwrap_or_default(),
            name: secret.name_any(),
            phase,
            own: outlook.certificates.iter().filter(|k| k.carried.is_none()).map(ca).collect(),
            carried: outlook.certificates.iter().filter_map(carried).collect(),
            next: next(&outlook),
            waits_for: Vec::new(),
            not_staged: not_staged(&outlook),
            problems: outlook.problems.iter().map(problem).chain(failed_restart).collect(),
        })
    }

    /// Names the Secrets that the promotion of `secret` waits for. `all` holds those of the namespace
    /// that are in a group or of type `kubernetes.io/tls`.
    pub(super) fn name_awaited(
        &mut self,
        secret: &SecretView,
        all: &[SecretView],
        rules: &Rules,
        now: Timestamp,
    ) {
        let secret = secret.view();
        let outlook = outlook(&secret, rules, now);
        let (Some(Due::Promote(_)), Some(staged)) = (&outlook.due, &outlook.stage) else { return };
        let counts = |other: &&SecretView| match secret.group() {
            Some(group) => other.view().group() == Some(group),
            None => other.is_tls(),
        };
        let others: Vec<_> = all.iter().filter(counts).map(SecretView::view).collect();
        let awaited = awaited(&secret, staged, &others, rules, now);
        self.waits_for = awaited.into_iter().map(str::to_owned).collect();
        if let Some(next) = self.next.as_mut().filter(|_| !self.waits_for.is_empty()) {
            let names = self.waits_for.join(", ");
            next.what =
                format!("{}, at the latest after --group-wait; waits for {names}", next.what);
        }
    }
}

fn not_staged(outlook: &Outlook) -> Option<ReportedProblem> {
    let entries = outlook.certificates.iter().filter_map(|known| known.carried);
    let why = entries.max_by_key(|entry| entry.since)?.not_staged?;
    Some(ReportedProblem { reason: why.reason(), text: why.why_not_staged()?.into() })
}

fn ca(known: &BundleCertificate) -> Ca {
    Ca {
        sha256: known.certificate.fingerprint().to_string(),
        common_name: common_name(&known.certificate),
        not_after: Timestamp::from_second(known.certificate.not_after()).ok(),
    }
}

fn carried(known: &BundleCertificate) -> Option<CarriedCa> {
    let entry = known.carried?;
    let until = known.ends.filter(|_| !ends_by_expiry(known));
    Some(CarriedCa { ca: ca(known), since: entry.since, announced: entry.announced, until })
}

fn ends_by_expiry(known: &BundleCertificate) -> bool {
    known.ends.is_some_and(|ends| ends.as_second() == known.certificate.not_after())
}

/// What happens next to a Secret.
pub(in crate::tools) fn next(outlook: &Outlook) -> Option<NextStep> {
    let step = |action, due, what: &str, at| NextStep { action, due, what: what.to_owned(), at };
    match &outlook.due {
        Some(Due::Retire(which)) => {
            let which: Vec<_> = which.iter().map(|fingerprint| short(*fingerprint)).collect();
            let what = format!(
                "{} is dropped at the next write of the Secret; the keeper asks for it",
                which.join(" and ")
            );
            return Some(step(NextAction::Retire, true, &what, None));
        }
        Some(Due::Promote(_)) => {
            let what = "the waiting leaf goes into service when the other Secrets are ready";
            return Some(step(NextAction::Promote, true, what, None));
        }
        Some(Due::Unstage) => {
            let what = "the keeper asks to end the stage";
            return Some(step(NextAction::Unstage, true, what, None));
        }
        Some(Due::Withdraw) => {
            let what = "the keeper removes its ask";
            return Some(step(NextAction::WithdrawAsk, true, what, None));
        }
        None => {}
    }
    if let Some(next) = outlook.next {
        let goes =
            |known: &BundleCertificate| known.carried.is_some() && known.ends == Some(next.at);
        let by_expiry = |known: &BundleCertificate| goes(known) && ends_by_expiry(known);
        let announced = |known: &BundleCertificate| goes(known) && known.is_announced();
        let (action, what) = match next.what {
            Planned::Retire if outlook.certificates.iter().any(announced) => {
                (NextAction::EndAnnouncement, "an announced CA is dropped")
            }
            Planned::Retire if outlook.certificates.iter().any(by_expiry) => (
                NextAction::RetireAtRotation,
                "previous CA is dropped at the next rotation or at expiry",
            ),
            Planned::Retire => (NextAction::Retire, "a previous CA is dropped"),
            Planned::Promote => (
                NextAction::Promote,
                "the waiting leaf goes into service if the other Secrets are ready",
            ),
        };
        return Some(step(action, false, what, Some(next.at)));
    }
    let is_previous = |known: &BundleCertificate| known.carried.is_some() && !known.is_announced();
    let what = "previous CA is dropped at the next rotation";
    let at_rotation = step(NextAction::RetireAtRotation, false, what, None);
    outlook.certificates.iter().any(is_previous).then_some(at_rotation)
}
