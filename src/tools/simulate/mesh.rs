//! Tracks which peers can connect to each other, and how long outages last.

use super::ToolError;
use super::handshake::{Authentication, FilesId, Tls};
use super::schedule::{Millis, PeerPair, Schedule};

/// The number of classes of pairs. Their results are reported separately.
pub(super) const CLASSES: usize = 3;
/// Both reload their files, and both show certificates.
pub(super) const MUTUAL: usize = 0;
/// Both reload their files, and only the server shows a certificate.
pub(super) const ONE_WAY: usize = 1;
/// At least one of the two reads its files only when it starts.
pub(super) const NEVER: usize = 2;

/// The results of all pairs of one class.
#[derive(Clone, Debug, Default)]
pub(super) struct PairClass {
    /// The number of pairs.
    pub(super) pairs: usize,
    /// The number of handshakes.
    pub(super) handshakes: usize,
    /// The number of failed handshakes.
    pub(super) failures: usize,
    /// The time of the first failure.
    pub(super) first: Option<Millis>,
    /// The time of the last failure.
    pub(super) last: Option<Millis>,
    /// The longest time during which one pair could not connect, whether it tried or not.
    pub(super) longest_outage: Millis,
    /// How many pairs cannot connect at the end.
    pub(super) left: usize,
}

/// How many pairs of each class cannot connect from a time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutageSample {
    pub(super) at: Millis,
    pub(super) failing: [usize; CLASSES],
}

/// All peers, and the files that each has read.
pub(super) struct Mesh<'a> {
    schedule: &'a Schedule,
    holds: Vec<FilesId>,
    /// For each pair, since when it cannot connect.
    since: Vec<Option<Millis>>,
    classes: [PairClass; CLASSES],
    /// How many pairs of each class cannot connect now.
    failing: [usize; CLASSES],
    samples: Vec<OutageSample>,
}

impl<'a> Mesh<'a> {
    /// All pairs can connect.
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

    /// A peer has read its files.
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
            let connects = tls.connects(client, server, pair.authentication)?;
            self.note(index, connects, now);
        }
        if self.samples.last().is_none_or(|last| last.failing != self.failing) {
            self.samples.push(OutageSample { at: now, failing: self.failing });
        }
        Ok(())
    }

    /// A pair does a handshake.
    pub(super) fn meet(&mut self, pair: usize, now: Millis, tls: &Tls) -> Result<(), ToolError> {
        let pair = &self.schedule.pairs[pair];
        let connects =
            tls.handshake(self.holds[pair.client], self.holds[pair.server], pair.authentication)?;
        let class = self.class(pair);
        let class = &mut self.classes[class];
        class.handshakes += 1;
        if !connects {
            class.failures += 1;
            class.first.get_or_insert(now);
            class.last = Some(now);
        }
        Ok(())
    }

    /// Ends the simulation: counts the outages that last until the end.
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

    fn note(&mut self, pair: usize, connects: bool, now: Millis) {
        let class = self.class(&self.schedule.pairs[pair]);
        let since = &mut self.since[pair];
        match (*since, connects) {
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
    /// Whether no pair ever failed.
    pub(super) fn is_clean(&self) -> bool {
        self.failures == 0 && self.longest_outage == 0
    }

    /// The sum of several classes.
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
