//! What is kept of each Secret that is watched: little, so that ten thousand of them fit.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;

use super::events::Reason;
use crate::keeper::metrics::KeeperMetrics;
use crate::kubernetes::key::Key;
use crate::kubernetes::secret_view::SecretView;
use crate::names;
use crate::overlap::outlook::{Outlook, Problem};
use crate::x509::certs::Fingerprint;

/// One of the label selectors that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Secrets with a phase.
    Phase,
    /// Secrets with a mode.
    Mode,
}

impl Source {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Phase, Self::Mode];

    /// The label that selects.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Phase => names::PHASE,
            Self::Mode => names::MODE,
        }
    }
}

/// What is kept of one Secret.
#[derive(Clone, Debug)]
pub struct Tracked {
    /// The object's uid.
    pub(crate) uid: String,
    phase: Phase,
    /// With their ends, if they have any.
    carried: Vec<(Fingerprint, Option<Timestamp>)>,
    /// The chain that waits: the SHA-256 of its value.
    pending: Option<Fingerprint>,
    distrust: Vec<Fingerprint>,
    problems: Vec<Problem>,
    is_selected: [bool; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Overlap,
    Staged,
    None,
}

impl Tracked {
    /// Of what was read, at the moment of `outlook`.
    pub fn of(secret: &SecretView, outlook: &Outlook) -> Self {
        let carried = outlook.certificates.iter().filter(|known| known.carried.is_some());
        Self {
            uid: secret.object_uid().unwrap_or_default().to_owned(),
            phase: match secret.label(names::PHASE) {
                Some("staged") => Phase::Staged,
                Some(_) => Phase::Overlap,
                None => Phase::None,
            },
            carried: carried.map(|k| (k.certificate.fingerprint(), k.ends)).collect(),
            pending: outlook.stage.as_ref().map(|staged| staged.stage.pending),
            distrust: outlook.settings.distrust.clone(),
            problems: outlook.problems.clone(),
            is_selected: Source::ALL.map(|source| secret.label(source.label()).is_some()),
        }
    }

    /// Adds what the Secret alone does not tell.
    pub(crate) fn add(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Whether it has this problem.
    #[cfg(test)]
    pub(crate) fn has(&self, problem: &Problem) -> bool {
        self.problems.contains(problem)
    }

    /// Whether a watch of `source` shows it.
    pub(crate) fn is_selected(&self, source: Source) -> bool {
        self.is_selected[source as usize]
    }

    /// What a person may want to know of the change from `before` to `secret`, the same object, of
    /// which `outlook` is that at `now`.
    pub fn news(
        &self,
        before: Option<&Self>,
        secret: &SecretView,
        outlook: &Outlook,
        now: Timestamp,
    ) -> Vec<(Reason, String)> {
        let mut news = Vec::new();
        let (carried, problems) =
            before.map_or((&[][..], &[][..]), |before| (&before.carried[..], &before.problems[..]));
        for known in outlook.certificates.iter().filter(|known| known.carried.is_some()) {
            let fingerprint = known.certificate.fingerprint();
            if !carried.iter().any(|(carried, _)| *carried == fingerprint) {
                let until = known
                    .ends
                    .map_or_else(|| "the next rotation".to_owned(), |ends| ends.to_string());
                let text = format!("the previous CA {fingerprint} stays in ca.crt until {until}");
                news.push((Reason::Overlapping, text));
            }
        }
        let is_there = |f: Fingerprint| {
            outlook.certificates.iter().any(|known| known.certificate.fingerprint() == f)
        };
        // One that the generator has made its own is still there.
        news.extend(
            carried.iter().filter(|(f, _)| !is_there(*f)).map(|gone| self.gone(*gone, now)),
        );
        news.extend(before.and_then(|before| self.end_of_stage(before, secret)));
        if self.phase == Phase::Staged && before.is_none_or(|b| b.phase != Phase::Staged) {
            let text = "the new CA is in ca.crt; the new leaf waits in pending.tls.crt until the \
                        trust has spread";
            news.push((Reason::Staged, text.to_owned()));
        }
        for problem in self.problems.iter().filter(|problem| !problems.contains(problem)) {
            match problem {
                Problem::RetireBlocked(_) => {
                    news.push((Reason::RetireBlocked, problem.to_string()));
                }
                Problem::OwnDistrusted(_) => news.push((Reason::Distrusted, problem.to_string())),
                _ => {}
            }
        }
        news
    }

    /// A carried CA is not there any more: by the keeper's ask, or by another write.
    fn gone(
        &self,
        (gone, ends): (Fingerprint, Option<Timestamp>),
        now: Timestamp,
    ) -> (Reason, String) {
        if self.distrust.contains(&gone) {
            return (
                Reason::Distrusted,
                format!("the distrusted CA {gone} was taken out of ca.crt"),
            );
        }
        let why = if ends.is_some_and(|ends| ends <= now) {
            "because it was over"
        } else {
            "by a later rotation, or because its generator has ended the overlap"
        };
        (Reason::Retired, format!("the previous CA {gone} was taken out of ca.crt, {why}"))
    }

    /// A pair waits no longer, by the keeper's ask or by another write.
    fn end_of_stage(&self, before: &Self, secret: &SecretView) -> Option<(Reason, String)> {
        let pending = before.pending.filter(|_| self.phase != Phase::Staged)?;
        let serves = secret.view().tls_crt.map(Fingerprint::of) == Some(pending);
        let (reason, text) = if serves {
            (Reason::Promoted, "the leaf that waited is in tls.crt now")
        } else {
            (Reason::StageEnded, "the leaf that waited is gone, and tls.crt holds another one")
        };
        Some((reason, text.to_owned()))
    }
}

/// All that are watched, counted.
#[derive(Debug)]
pub(crate) struct Watched {
    secrets: HashMap<Key, Tracked>,
    phases: [usize; 3],
    problems: HashMap<&'static str, usize>,
    /// What is distrusted, and by how many.
    distrusted: HashMap<Fingerprint, usize>,
    metrics: KeeperMetrics,
}

impl Watched {
    /// None yet.
    pub(crate) fn new(metrics: KeeperMetrics) -> Self {
        Self {
            secrets: HashMap::new(),
            phases: [0; 3],
            problems: HashMap::new(),
            distrusted: HashMap::new(),
            metrics,
        }
    }

    /// What is kept of one.
    pub(crate) fn get(&self, key: &Key) -> Option<&Tracked> {
        self.secrets.get(key)
    }

    /// Keeps this of it.
    pub(crate) fn insert(&mut self, key: &Key, tracked: Tracked) {
        self.remove(key);
        self.phases[tracked.phase as usize] += 1;
        self.count(&tracked, |count| *count += 1);
        for fingerprint in &tracked.distrust {
            *self.distrusted.entry(*fingerprint).or_default() += 1;
        }
        self.secrets.insert(key.clone(), tracked);
        self.publish();
    }

    /// Keeps nothing of it any more.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<Tracked> {
        let tracked = self.secrets.remove(key)?;
        self.phases[tracked.phase as usize] -= 1;
        self.count(&tracked, |count| *count -= 1);
        for fingerprint in &tracked.distrust {
            if let Some(count) = self.distrusted.get_mut(fingerprint) {
                *count -= 1;
            }
        }
        self.distrusted.retain(|_, count| *count > 0);
        self.publish();
        Some(tracked)
    }

    /// Those that a watch of `source` has shown.
    pub(crate) fn of(&self, source: Source) -> impl Iterator<Item = &Key> {
        let selected = self.secrets.iter().filter(move |(_, tracked)| tracked.is_selected(source));
        selected.map(|(key, _)| key)
    }

    /// What any of them distrusts.
    pub(crate) fn distrusted(&self) -> Vec<Fingerprint> {
        self.distrusted.keys().copied().collect()
    }

    /// Counts Secrets, not problems: two of a kind on one Secret are one.
    fn count(&mut self, tracked: &Tracked, change: impl Fn(&mut usize)) {
        let names: BTreeSet<_> = tracked.problems.iter().map(Problem::name).collect();
        for name in names {
            let count = self.problems.entry(name).or_default();
            change(count);
            self.metrics.problem(name, *count);
        }
    }

    fn publish(&self) {
        let [overlap, staged, none] = self.phases;
        self.metrics.watched(overlap, staged, none);
    }
}
