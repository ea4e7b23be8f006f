//! Chooses what the keeper does about a Secret that it has read. This module is pure.

use std::time::Duration;

use jiff::Timestamp;

use crate::names;
use crate::overlap::outlook::{
    self, BundleCertificate, Due, Outlook, PublicSecret, Rules, StageOutlook,
};
use crate::overlap::restart::{self, PendingRestart};
use crate::x509::certs::Fingerprint;

/// What the keeper does about a Secret now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Restart workloads that have not loaded the Secret's trust, or its leaf, yet.
    Restart(PendingRestart),
    /// Ask the webhook to act. Before it asks to promote, the keeper also checks the other
    /// Secrets ([`awaited`]).
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

/// The names of the Secrets that a promotion waits for. Every other Secret that it concerns and that
/// has a `ca.crt` must have held the new CA for the settle time, and need no restart. `others` are the
/// Secrets of the group; without a group, those of type `kubernetes.io/tls` in the namespace, of which
/// only the peers count.
pub fn awaited<'a>(
    secret: &PublicSecret<'_>,
    staged: &StageOutlook,
    others: &[PublicSecret<'a>],
    rules: &Rules,
    now: Timestamp,
) -> Vec<&'a str> {
    let is_awaited = |member: &PublicSecret<'_>| {
        let outlook = outlook::outlook(member, rules, now);
        let concerns = secret.group().is_some() || is_peer(member, &outlook, staged);
        concerns && !is_ready(member, &outlook, staged, rules, now)
    };
    let is_other = |m: &&PublicSecret<'_>| m.name != secret.name && m.ca_crt.is_some();
    let others = others.iter().filter(is_other);
    others.filter(|member| is_awaited(member)).map(|member| member.name).collect()
}

/// Whether the readers of `member` meet the staged leaf, as far as the Secrets tell: the CA of the
/// held leaf is its own, or was until it got the new CA. Secrets that no webhook changes do not
/// count, because nothing would make them ready.
fn is_peer(member: &PublicSecret<'_>, outlook: &Outlook, staged: &StageOutlook) -> bool {
    let trusts_new = trusts_new(outlook, staged);
    let is_own = |known: &BundleCertificate| match known.carried {
        None => true,
        Some(_) => trusts_new && !known.is_announced(),
    };
    let is_held =
        |known: &&BundleCertificate| staged.held_anchors.contains(&known.certificate.fingerprint());
    outlook::may_change_data(member, &outlook.settings)
        && outlook.certificates.iter().filter(is_held).any(is_own)
}

fn trusts_new(outlook: &Outlook, staged: &StageOutlook) -> bool {
    let trusts = |anchor: &Fingerprint| {
        outlook.certificates.iter().any(|k| k.certificate.fingerprint() == *anchor)
    };
    staged.anchors.iter().all(trusts)
}

/// Whether the readers of `member`, whose outlook this is, trust the new leaf.
fn is_ready(
    member: &PublicSecret<'_>,
    outlook: &Outlook,
    staged: &StageOutlook,
    rules: &Rules,
    now: Timestamp,
) -> bool {
    let since = outlook.holds_since(&staged.anchors, member).unwrap_or(staged.stage.since);
    trusts_new(outlook, staged)
        && staged.ready_after(since, rules) <= now
        && !lacks_restart(member, outlook)
}

/// Whether pods that cannot reload still lack the trust of this Secret. The answer is no for a
/// Secret that the keeper does not watch, because the keeper does not restart its pods.
fn lacks_restart(member: &PublicSecret<'_>, outlook: &Outlook) -> bool {
    let is_watched = [names::PHASE, names::MODE].iter().any(|l| member.labels.contains_key(*l));
    let wanted = restart::pending_restart(member, outlook).filter(|_| is_watched);
    wanted.is_some_and(|wanted| !wanted.is_first_sight && !wanted.is_for_leaf)
}
