//! Chooses what the keeper does about a Secret that it has read. This module is pure.

use std::time::Duration;

use jiff::Timestamp;

use crate::names;
use crate::overlap::outlook::{self, Due, Outlook, PublicSecret, Rules, StageOutlook};
use crate::overlap::restart::{self, PendingRestart};
use crate::x509::certs::Fingerprint;

/// What the keeper does about a Secret now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Restart workloads that have not loaded the Secret's trust, or its leaf, yet.
    Restart(PendingRestart),
    /// Ask the webhook to act. Before it asks to promote, the keeper also checks the group
    /// ([`awaited`]).
    Ask(Due),
    /// Nothing is due.
    Nothing,
}

/// The shortest and the longest pause between two checks of something that the keeper waits for.
const POLLS: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(30)];

/// The pause before the next check of something that the keeper has waited for since `since`: a
/// tenth of that wait, within [`POLLS`].
pub(crate) fn pause(since: Timestamp, now: Timestamp) -> Duration {
    let [shortest, longest] = POLLS;
    (restart::age(since, now) / 10).clamp(shortest, longest)
}

/// Chooses the next action. An ask to retire comes first, then a restart, then any other ask. A
/// promotion that cannot wait any longer comes before a restart.
pub fn next_action(secret: &PublicSecret<'_>, outlook: &Outlook, now: Timestamp) -> Action {
    let is_urgent = outlook.stage.as_ref().is_some_and(|staged| staged.latest <= now);
    if !is_urgent
        && !matches!(outlook.due, Some(Due::Retire(_)))
        && let Some(wanted) = restart::pending_restart(secret, outlook)
    {
        return Action::Restart(wanted);
    }
    outlook.due.clone().map_or(Action::Nothing, Action::Ask)
}

/// The names of the Secrets that a promotion waits for. Every other Secret of the group that has a
/// `ca.crt` must hold the new CA and need no restart, and its `ca.crt` must not have changed during
/// the settle time.
pub fn awaited<'a>(
    secret: &PublicSecret<'_>,
    staged: &StageOutlook,
    group: &[PublicSecret<'a>],
    rules: &Rules,
    now: Timestamp,
) -> Vec<&'a str> {
    let is_other = |m: &&PublicSecret<'_>| m.name != secret.name && m.ca_crt.is_some();
    let others = group.iter().filter(is_other);
    others.filter(|member| !is_ready(member, staged, rules, now)).map(|it| it.name).collect()
}

/// Whether the readers of `member`, another Secret of the group, trust the new leaf.
fn is_ready(
    member: &PublicSecret<'_>,
    staged: &StageOutlook,
    rules: &Rules,
    now: Timestamp,
) -> bool {
    let outlook = outlook::outlook(member, rules, now);
    let trusts = |anchor: &Fingerprint| {
        outlook.certificates.iter().any(|k| k.certificate.fingerprint() == *anchor)
    };
    let changed = outlook.changed(member).unwrap_or(staged.stage.since);
    staged.anchors.iter().all(trusts)
        && staged.ready_after(changed, rules) <= now
        && !lacks_restart(member, &outlook)
}

/// Whether pods that cannot reload still lack the trust of this Secret. The answer is no for a
/// Secret that the keeper does not watch, because the keeper does not restart its pods.
fn lacks_restart(member: &PublicSecret<'_>, outlook: &Outlook) -> bool {
    let is_watched = [names::PHASE, names::MODE].iter().any(|l| member.labels.contains_key(*l));
    let wanted = restart::pending_restart(member, outlook).filter(|_| is_watched);
    wanted.is_some_and(|wanted| !wanted.is_first_sight && !wanted.is_for_leaf)
}
