//! Who can talk to whom, at every moment, and for how long not.

use super::ToolError;
use super::handshake::{Authentication, FilesId, Tls};
use super::schedule::{Millis, PeerPair, Schedule};

/// Pairs that tell different stories.
pub(super) const CLASSES: usize = 3;
/// Both re-read their files, and both show certificates.
pub(super) const MUTUAL: usize = 0;
/// Both re-read their files, and the server alone shows a certificate.
pub(super) const ONE_WAY: usize = 1;
/// At least one reads its files only when it starts.
pub(super) const NEVER: usize = 2;

/// What has happened to the pairs of one class.
#[derive(Clone, Debug, Default)]
pub(super) struct PairClass {
    /// How many pairs there are.
    pub(super) pairs: usize,
    /// How often one of them was drawn for a handshake.
    pub(super) handshakes: usize,
    /// How many of these failed,
    pub(super) failures: usize,
    /// the first one when,
    pub(super) first: Option<Millis>,
    /// and the last one.
    pub(super) last: Option<Millis>,
    /// The longest time during which one pair could not talk, whether it tried or not.
    pub(super) longest_outage: Millis,
    /// How many pairs cannot talk when everything is over.
    pub(super) left: usize,
}

/// How many pairs of each class cannot talk, from a moment on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutageSample {
    pub(super) at: Millis,
    pub(super) failing: [usize; CLASSES],
}

/// All peers and the files that they have read.
pub(super) struct Mesh<'a> {
    schedule: &'a Schedule,
    holds: Vec<FilesId>,
    /// Since when a pair cannot talk.
    since: Vec<Option<Millis>>,
    classes: [PairClass; CLASSES],
    /// How many pairs cannot talk now.
    failing: [usize; CLASSES],
    samples: Vec<OutageSample>,
}

impl<'a> Mesh<'a> {
    /// All can talk.
    pub(super) fn new(schedule: &'a Schedule, holds: Vec<FilesId>) -> Self {
        let mut mesh = Self {
            schedule,
            holds,
            since: vec![None; schedule.pairs.len()],
            classes: Default::default(),
            failing: [0; CLASSES],
            samples: vec![OutageSample { at: 0, failing: [0; CLASSES] }],
        };
        for pair in &schedule.pairs {
            mesh.classes[mesh.class(pair)].pairs += 1;
        }
        mesh
    }

    /// A peer has read its files anew.
    pub(super) fn read(
        &mut self,
        peer: usize,
        files: FilesId,
        now: Millis,
        tls: &mut Tls,
    ) -> Result<(), ToolError> {
        if std::mem::replace(&mut self.holds[peer], files) == files {
            return Ok(());
        }
        for index in self.schedule.pairs_of(peer) {
            let pair = &self.schedule.pairs[index];
            let (client, server) = (self.holds[pair.client], self.holds[pair.server]);
            let fit = tls.fit(client, server, pair.authentication)?;
            self.note(index, fit, now);
        }
        if self.samples.last().is_none_or(|last| last.failing != self.failing) {
            self.samples.push(OutageSample { at: now, failing: self.failing });
        }
        Ok(())
    }

    /// A pair was drawn for a handshake.
    pub(super) fn meet(&mut self, pair: usize, now: Millis, tls: &Tls) -> Result<(), ToolError> {
        let pair = &self.schedule.pairs[pair];
        let fit =
            tls.shake(self.holds[pair.client], self.holds[pair.server], pair.authentication)?;
        let class = self.class(pair);
        let class = &mut self.classes[class];
        class.handshakes += 1;
        if !fit {
            class.failures += 1;
            class.first.get_or_insert(now);
            class.last = Some(now);
        }
        Ok(())
    }

    /// Everything is over.
    pub(super) fn end(mut self, now: Millis) -> ([PairClass; CLASSES], Vec<OutageSample>) {
        for (pair, since) in self.schedule.pairs.iter().zip(&self.since) {
            if let Some(since) = since {
                let class = self.class(pair);
                self.classes[class].left += 1;
                self.classes[class].lasted(now - since);
            }
        }
        (self.classes, self.samples)
    }

    fn class(&self, pair: &PeerPair) -> usize {
        let [client, server] = [pair.client, pair.server].map(|peer| &self.schedule.peers[peer]);
        match pair.authentication {
            _ if !client.reloads || !server.reloads => NEVER,
            Authentication::Mutual => MUTUAL,
            Authentication::OneWay => ONE_WAY,
        }
    }

    fn note(&mut self, pair: usize, fit: bool, now: Millis) {
        let class = self.class(&self.schedule.pairs[pair]);
        let since = &mut self.since[pair];
        match (*since, fit) {
            (None, false) => {
                *since = Some(now);
                self.failing[class] += 1;
            }
            (Some(begin), true) => {
                *since = None;
                self.failing[class] -= 1;
                self.classes[class].lasted(now - begin);
            }
            _ => {}
        }
    }
}

impl PairClass {
    /// Whether all could always talk.
    pub(super) fn is_clean(&self) -> bool {
        self.failures == 0 && self.longest_outage == 0
    }

    /// All together.
    pub(super) fn of_all(classes: &[Self]) -> Self {
        classes.iter().fold(Self::default(), |all, class| Self {
            pairs: all.pairs + class.pairs,
            handshakes: all.handshakes + class.handshakes,
            failures: all.failures + class.failures,
            first: all.first.into_iter().chain(class.first).min(),
            last: all.last.max(class.last),
            longest_outage: all.longest_outage.max(class.longest_outage),
            left: all.left + class.left,
        })
    }

    fn lasted(&mut self, outage: Millis) {
        self.longest_outage = self.longest_outage.max(outage);
    }
}
