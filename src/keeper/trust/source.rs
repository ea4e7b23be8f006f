//! A source: what its Secret holds, what it held before, and which of that followers still need.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::kubernetes::key::Key;
use crate::overlap::announcement::MAX_ANNOUNCED;
use crate::overlap::distrust::Distrust;
use crate::x509::certs::{Certificate, Fingerprint};

/// A CA that a source offers to its followers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// The CA.
    pub(crate) certificate: Certificate,
    /// Since when it is a previous CA of the source. The window of each follower runs from there.
    pub(crate) since: Option<Timestamp>,
    /// Whether it only stays where it is announced already.
    pub(crate) stays_only: bool,
}

/// What was read of a source's Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SourceRead {
    /// Whether it exists.
    pub(crate) exists: bool,
    /// Whether it carries the label by which Secrets of other namespaces may trust it.
    pub(crate) consents: bool,
    /// The uid of its namespace.
    pub(crate) namespace_uid: Option<String>,
    /// What it passes on.
    pub(crate) held: Vec<Certificate>,
    /// What it held before, since when it does not.
    pub(crate) previous: Vec<(Certificate, Timestamp)>,
    /// What it distrusts.
    pub(crate) distrust: Distrust,
}

/// A source and its followers.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// Those that follow it.
    pub(super) followers: BTreeSet<Key>,
    /// How many of them were not read yet.
    pub(super) unread: usize,
    /// How many of them have a leaf of this CA.
    leaves: HashMap<Fingerprint, usize>,
    /// The Secret as it was last read, and when.
    pub(super) read: Option<SourceRead>,
    pub(super) read_at: Option<Instant>,
    former: Vec<Former>,
}

/// A CA that the source does not hold any more.
#[derive(Debug)]
struct Former {
    certificate: Certificate,
    /// Since when, if the source itself says so. Only then it is offered.
    since: Option<Timestamp>,
    need: Need,
}

/// Whether followers need a CA that the source does not hold any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Not all followers were read yet, and none that was has a leaf of it.
    Unknown,
    /// A follower has a leaf of it.
    Needed,
    /// None has any more. Pods can show such a leaf until this time.
    Lingers(Instant),
    /// None needs it.
    Over,
}

impl Source {
    /// Takes what was read. What the source does not hold any more lingers, unless it distrusts it.
    pub(super) fn take(&mut self, read: SourceRead, settle: Duration, now: Instant) {
        let lingers = Need::Lingers(now + settle);
        let before = self.read.take().map(|read| read.held).unwrap_or_default();
        let is_new = |former: &[Former], c: &Certificate| {
            former.iter().all(|former| former.certificate != *c)
        };
        for (certificate, since) in &read.previous {
            match self.former.iter_mut().find(|former| former.certificate == *certificate) {
                Some(former) => former.since = Some(*since),
                None => self.former.push(Former {
                    certificate: certificate.clone(),
                    since: Some(*since),
                    need: Need::Unknown,
                }),
            }
        }
        for certificate in
            before.into_iter().filter(|c| is_new(&self.former, c)).collect::<Vec<_>>()
        {
            self.former.push(Former { certificate, since: None, need: lingers });
        }
        for former in &mut self.former {
            let is_previous = read.previous.iter().any(|(c, _)| *c == former.certificate);
            if !is_previous && former.since.take().is_some() && former.need != Need::Over {
                former.need = lingers;
            }
        }
        self.former.retain(|former| {
            !read.held.contains(&former.certificate)
                && !read.distrust.contains(&former.certificate.fingerprint())
        });
        self.read = Some(read);
        self.read_at = Some(now);
        self.update(settle, now);
    }

    /// Notes that a follower has leaves of these CAs, and had leaves of those before.
    pub(super) fn count(&mut self, before: &[Fingerprint], after: &[Fingerprint]) {
        for fingerprint in before {
            if let Some(count) = self.leaves.get_mut(fingerprint) {
                *count = count.saturating_sub(1);
            }
        }
        for fingerprint in after {
            *self.leaves.entry(*fingerprint).or_default() += 1;
        }
        self.leaves.retain(|_, count| *count > 0);
    }

    /// Finds out again which former CAs are needed.
    pub(super) fn update(&mut self, settle: Duration, now: Instant) {
        let is_counted = self.unread == 0;
        for former in &mut self.former {
            let is_of_leaf = self.leaves.contains_key(&former.certificate.fingerprint());
            former.need = match former.need {
                _ if is_of_leaf && former.since.is_some() => Need::Needed,
                // Nobody knows for how long no follower has had a leaf of it.
                Need::Unknown | Need::Needed if is_counted => Need::Lingers(now + settle),
                Need::Lingers(until) if until <= now => Need::Over,
                other => other,
            };
        }
        self.former.retain(|former| former.since.is_some() || former.need != Need::Over);
    }

    /// The former CAs and how each is needed.
    pub(super) fn needs(&self) -> Vec<(Fingerprint, Need)> {
        self.former.iter().map(|it| (it.certificate.fingerprint(), it.need)).collect()
    }

    /// The followers that may have to be told something else than when its former CAs were needed so.
    /// All of them if one is needed now, or if `all` is true. If one only goes, those that `is_told`
    /// says the keeper announces something to.
    pub(super) fn followers_to_look_at(
        &self,
        before: &[(Fingerprint, Need)],
        all: bool,
        is_told: impl Fn(&Key) -> bool,
    ) -> Vec<Key> {
        let after = self.needs();
        let is_needed = |needs: &[(Fingerprint, Need)], ca| needs.contains(&(ca, Need::Needed));
        let stays = |needs: &[(Fingerprint, Need)], ca| {
            needs.iter().any(|(it, need)| *it == ca && *need != Need::Over)
        };
        let begins = after.iter().any(|(ca, _)| is_needed(&after, *ca) && !is_needed(before, *ca));
        let ends = before.iter().any(|(ca, _)| stays(before, *ca) && !stays(&after, *ca));
        let all = all || begins;
        if !all && !ends {
            return Vec::new();
        }
        self.followers.iter().filter(|key| all || is_told(key)).cloned().collect()
    }

    /// Whether it held this CA before, and does not any more.
    pub(super) fn is_former(&self, ca: Fingerprint) -> bool {
        self.former.iter().any(|former| former.certificate.fingerprint() == ca)
    }

    /// When something that lingers ends.
    pub(super) fn next(&self) -> Option<Instant> {
        let ends = self.former.iter().filter_map(|former| match former.need {
            Need::Lingers(until) => Some(until),
            _ => None,
        });
        ends.min()
    }

    /// What it offers; `None` if it was not read yet.
    pub(super) fn offers(&self) -> Option<Vec<Offer>> {
        let held = self.read.as_ref()?.held.iter().map(|certificate| Offer {
            certificate: certificate.clone(),
            since: None,
            stays_only: false,
        });
        let former = self.former.iter().filter(|former| former.need != Need::Over);
        let former = former.map(|former| Offer {
            certificate: former.certificate.clone(),
            since: former.since,
            stays_only: former.need != Need::Needed,
        });
        Some(held.chain(former).take(2 * MAX_ANNOUNCED).collect())
    }

    /// All CAs that can have issued the leaf of a follower.
    pub(super) fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        let held = self.read.iter().flat_map(|read| &read.held);
        held.chain(self.former.iter().map(|former| &former.certificate))
    }

    /// About the bytes that it takes.
    pub(super) fn size(&self) -> usize {
        const PLACES: usize = 512;
        PLACES + self.certificates().map(|certificate| certificate.der().len() + 256).sum::<usize>()
    }
}
