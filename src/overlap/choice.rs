//! What one look at a Secret leads to. Pure: what was read goes in, what to do comes out.

use std::time::Duration;

use jiff::Timestamp;

use crate::names;
use crate::overlap::outlook::{self, Due, Outlook, Rules, Staged, View};
use crate::overlap::restart::{self, Wanted};
use crate::x509::certs::Fingerprint;

/// What is to be done about a Secret now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Its workloads do not have its trust, or its leaf, yet.
    Restart(Wanted),
    /// The webhook has something to do. A promotion has to wait for the group, too.
    Ask(Due),
    /// All is well, or it is too early.
    Nothing,
}

/// What is waited for is looked at so often at first, and later as seldom as that.
const POLLS: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(30)];

/// After how long to look again at what has been waited for since then.
pub(crate) fn pause(since: Timestamp, now: Timestamp) -> Duration {
    let [often, seldom] = POLLS;
    (restart::age(since, now) / 10).clamp(often, seldom)
}

/// What is over goes at once. Restarts come before a promotion, unless that cannot wait any longer.
pub fn choose(secret: &View<'_>, outlook: &Outlook, now: Timestamp) -> Choice {
    let is_urgent = outlook.stage.as_ref().is_some_and(|staged| staged.latest <= now);
    if !is_urgent
        && !matches!(outlook.due, Some(Due::Retire(_)))
        && let Some(wanted) = restart::wanted(secret, outlook)
    {
        return Choice::Restart(wanted);
    }
    outlook.due.clone().map_or(Choice::Nothing, Choice::Ask)
}

/// Whether all Secrets of the group that hold a `ca.crt` trust the new CA, have done so for long
/// enough, and their restarts are done; or whether it cannot wait any longer.
pub fn is_group_ready(
    secret: &View<'_>,
    staged: &Staged,
    group: &[View<'_>],
    rules: &Rules,
    now: Timestamp,
) -> bool {
    let is_other = |m: &&View<'_>| m.name != secret.name && m.ca_crt.is_some();
    staged.latest <= now
        || group.iter().filter(is_other).all(|member| is_ready(member, staged, rules, now))
}

/// Whether the readers of another Secret of the group are prepared for the new leaf.
fn is_ready(member: &View<'_>, staged: &Staged, rules: &Rules, now: Timestamp) -> bool {
    let outlook = outlook::outlook(member, rules, now);
    let trusts = |anchor: &Fingerprint| {
        outlook.certificates.iter().any(|k| k.certificate.fingerprint() == *anchor)
    };
    let written = member.written.unwrap_or(staged.stage.since);
    staged.anchors.iter().all(trusts)
        && staged.ready_after(written, rules) <= now
        && !lacks_restart(member, &outlook)
}

/// Whether pods that cannot reload do not trust yet what their Secret holds. One that no watch of
/// the keeper shows is not waited for: nobody would restart its pods.
fn lacks_restart(member: &View<'_>, outlook: &Outlook) -> bool {
    let is_watched = [names::PHASE, names::MODE].iter().any(|l| member.labels.contains_key(*l));
    let wanted = restart::wanted(member, outlook).filter(|_| is_watched);
    wanted.is_some_and(|wanted| !wanted.is_first_sight && !wanted.is_for_leaf)
}
