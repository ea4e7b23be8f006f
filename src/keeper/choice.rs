//! What one look at a Secret leads to. Pure: what was read goes in, what to do comes out.

use jiff::Timestamp;
use kube::Resource;

use super::restart::{self, Wanted};
use super::tracked::Source;
use crate::kubernetes::secret_view::SecretView;
use crate::overlap::outlook::{self, Due, Outlook, Rules, Staged};
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

/// What is over goes at once. Restarts come before a promotion, unless that cannot wait any longer.
pub fn choose(secret: &SecretView, outlook: &Outlook, now: Timestamp) -> Choice {
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
    secret: &SecretView,
    staged: &Staged,
    group: &[SecretView],
    rules: &Rules,
    now: Timestamp,
) -> bool {
    let name = &secret.meta().name;
    let is_other = |m: &&SecretView| m.meta().name != *name && m.view().ca_crt.is_some();
    staged.latest <= now
        || group.iter().filter(is_other).all(|member| is_ready(member, staged, rules, now))
}

/// Whether the readers of another Secret of the group are prepared for the new leaf.
fn is_ready(member: &SecretView, staged: &Staged, rules: &Rules, now: Timestamp) -> bool {
    let outlook = outlook::outlook(&member.view(), rules, now);
    let trusts = |anchor: &Fingerprint| {
        outlook.certificates.iter().any(|k| k.certificate.fingerprint() == *anchor)
    };
    let written = member.written().unwrap_or(staged.stage.since);
    staged.anchors.iter().all(trusts)
        && staged.ready_after(written, rules) <= now
        && !lacks_restart(member, &outlook)
}

/// Whether pods that cannot reload do not trust yet what their Secret holds. One that no watch of
/// the keeper shows is not waited for: nobody would restart its pods.
fn lacks_restart(member: &SecretView, outlook: &Outlook) -> bool {
    let is_watched = Source::ALL.iter().any(|source| member.label(source.label()).is_some());
    let wanted = restart::wanted(member, outlook).filter(|_| is_watched);
    wanted.is_some_and(|wanted| !wanted.is_first_sight && !wanted.is_for_leaf)
}
