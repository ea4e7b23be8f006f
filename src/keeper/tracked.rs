//! What is kept of each Secret that is watched: little, so that ten thousand of them fit.

use std::collections::HashMap;

use super::api::Key;
use super::due::{Outlook, Problem};
use super::events::Reason;
use super::secret_view::SecretView;
use crate::names;
use crate::overlap::certs::Fingerprint;
use crate::telemetry::KeeperMetrics;

/// One of the label selectors that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Secrets with a phase.
    Phase,
    /// Secrets with a mode.
    Mode,
}

impl Source {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Phase, Self::Mode];

    /// The label that selects.
    pub fn label(self) -> &'static str {
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
    pub uid: String,
    phase: Phase,
    carried: Vec<Fingerprint>,
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
            carried: carried.map(|known| known.certificate.fingerprint()).collect(),
            distrust: outlook.settings.distrust.clone(),
            problems: outlook.problems.clone(),
            is_selected: Source::ALL.map(|source| secret.label(source.label()).is_some()),
        }
    }

    /// Adds what the Secret alone does not tell.
    pub fn add(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Whether a watch of `source` shows it.
    pub fn is_selected(&self, source: Source) -> bool {
        self.is_selected[source as usize]
    }

    /// What a person may want to know of the change from `before`; the same object.
    pub fn news(&self, before: Option<&Self>, outlook: &Outlook) -> Vec<(Reason, String)> {
        let mut news = Vec::new();
        let nothing = Vec::new();
        let (carried, problems) =
            before.map_or((&nothing, &[][..]), |before| (&before.carried, &before.problems[..]));
        for known in outlook.certificates.iter().filter(|known| known.carried.is_some()) {
            let fingerprint = known.certificate.fingerprint();
            if !carried.contains(&fingerprint) {
                let until = known
                    .ends
                    .map_or_else(|| "the next rotation".to_owned(), |ends| ends.to_string());
                let text = format!("the previous CA {fingerprint} stays in ca.crt until {until}");
                news.push((Reason::Overlapping, text));
            }
        }
        for gone in carried.iter().filter(|gone| !self.carried.contains(gone)) {
            if self.distrust.contains(gone) {
                let text = format!("the distrusted CA {gone} was taken out of ca.crt");
                news.push((Reason::Distrusted, text));
            }
        }
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
}

/// All that are watched, counted.
#[derive(Debug)]
pub struct Watched {
    secrets: HashMap<Key, Tracked>,
    phases: [usize; 3],
    problems: HashMap<&'static str, usize>,
    /// What is distrusted, and by how many.
    distrusted: HashMap<Fingerprint, usize>,
    metrics: KeeperMetrics,
}

impl Watched {
    /// None yet.
    pub fn new(metrics: KeeperMetrics) -> Self {
        Self {
            secrets: HashMap::new(),
            phases: [0; 3],
            problems: HashMap::new(),
            distrusted: HashMap::new(),
            metrics,
        }
    }

    /// What is kept of one.
    pub fn get(&self, key: &Key) -> Option<&Tracked> {
        self.secrets.get(key)
    }

    /// Keeps this of it.
    pub fn insert(&mut self, key: &Key, tracked: Tracked) {
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
    pub fn remove(&mut self, key: &Key) -> Option<Tracked> {
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
    pub fn of(&self, source: Source) -> impl Iterator<Item = &Key> {
        let selected = self.secrets.iter().filter(move |(_, tracked)| tracked.is_selected(source));
        selected.map(|(key, _)| key)
    }

    /// What any of them distrusts.
    pub fn distrusted(&self) -> Vec<Fingerprint> {
        self.distrusted.keys().copied().collect()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.secrets.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty()
    }

    /// Counts Secrets, not problems: two of a kind on one Secret are one.
    fn count(&mut self, tracked: &Tracked, change: impl Fn(&mut usize)) {
        for name in Problem::NAMES {
            if tracked.problems.iter().any(|problem| problem.name() == name) {
                let count = self.problems.entry(name).or_default();
                change(count);
                self.metrics.problem(name, *count);
            }
        }
    }

    fn publish(&self) {
        let [overlap, staged, none] = self.phases;
        self.metrics.watched(overlap, staged, none);
    }
}
