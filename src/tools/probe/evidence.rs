//! The evidence that handshakes give about a server, and the verdict on it. Pure.

use std::fmt;

/// The verdict on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum ProbeVerdict {
    /// The server does not resume, so it cannot hide a rotation.
    NoResumption,
    /// Sessions from before the rotation do not resume any more.
    RotatesTickets,
    /// The server resumes, and its certificate did not change during the probe.
    CertificateUnchanged,
    /// The fault: sessions from before the rotation still resume.
    ResumesAcrossRotation,
}

impl fmt::Display for ProbeVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoResumption => "no resumption",
            Self::RotatesTickets => "rotates tickets",
            Self::CertificateUnchanged => "certificate unchanged so far",
            Self::ResumesAcrossRotation => "RESUMES ACROSS ROTATION",
        })
    }
}

/// How many attempts resumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) resumed: usize,
    pub(super) tried: usize,
}

impl Tally {
    pub(super) fn count(&mut self, resumed: bool) {
        self.tried += 1;
        self.resumed += usize::from(resumed);
    }
}

/// The attempts to resume, before and after the rotation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Evidence {
    /// Attempts with the first certificate in place. They show whether the server resumes at all.
    pub(super) before: Tally,
    /// How many of these attempts came after the last one that resumed.
    pub(super) since_resumed: usize,
    /// Whether every new connection gets another certificate.
    pub(super) rotated: bool,
    /// Attempts after the rotation, with sessions from before it.
    pub(super) after: Tally,
}

impl Evidence {
    /// Counts an attempt before the rotation.
    pub(super) fn count_before(&mut self, resumed: bool) {
        self.before.count(resumed);
        self.since_resumed = if resumed { 0 } else { self.since_resumed + 1 };
    }

    /// How many sessions from before the rotation prove that none of them resumes. Behind a load
    /// balancer only those resume that reach the replica they come from.
    pub(super) fn sessions_needed(&self) -> usize {
        match self.before {
            Tally { resumed, tried } if resumed < tried => {
                (SURE * tried / resumed.max(1)).min(MOST)
            }
            _ => FEWEST,
        }
    }

    /// Whether the server stopped resuming before the rotation, which then need not be the cause. One
    /// failure says nothing behind a load balancer: the row of failures must be improbable, given how
    /// often attempts failed before it.
    fn has_stopped(&self) -> bool {
        let Self { before: Tally { resumed, tried }, since_resumed, .. } = *self;
        let failed = tried - resumed - since_resumed + 1;
        // In millionths.
        let probability =
            (0..since_resumed).fold(1_000_000, |it, _| it * failed / (failed + resumed));
        probability < 10_000
    }
}

/// A miss has a probability below a thousandth after so many attempts for each replica.
const SURE: usize = 8;
/// The fewest and the most sessions that are kept. They expire, so more would not help.
const FEWEST: usize = 4;
const MOST: usize = 64;

/// The verdict on the evidence.
pub(super) fn judge(evidence: &Evidence) -> ProbeVerdict {
    let Evidence { before, rotated, after, .. } = *evidence;
    if after.resumed > 0 {
        ProbeVerdict::ResumesAcrossRotation
    } else if before.resumed == 0 || (rotated && evidence.has_stopped()) {
        ProbeVerdict::NoResumption
    } else if rotated && after.tried > 0 {
        ProbeVerdict::RotatesTickets
    } else {
        ProbeVerdict::CertificateUnchanged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(resumed: usize, tried: usize) -> Tally {
        Tally { resumed, tried }
    }

    #[test]
    fn the_verdict_follows_from_the_evidence() {
        let evidence = |before, since_resumed, rotated, after| Evidence {
            before,
            since_resumed,
            rotated,
            after,
        };
        let none = tally(0, 0);
        let cases = [
            (evidence(none, 0, false, none), ProbeVerdict::NoResumption),
            (evidence(tally(0, 3), 3, false, none), ProbeVerdict::NoResumption),
            (evidence(tally(2, 3), 0, false, none), ProbeVerdict::CertificateUnchanged),
            (evidence(tally(2, 3), 1, false, none), ProbeVerdict::CertificateUnchanged),
            (evidence(tally(3, 3), 0, true, tally(0, 2)), ProbeVerdict::RotatesTickets),
            // It stopped resuming before the rotation, so the rotation need not be the cause.
            (evidence(tally(9, 12), 3, true, tally(0, 2)), ProbeVerdict::NoResumption),
            // A replica of four, behind a balancer, failed the last attempts.
            (evidence(tally(9, 36), 9, true, tally(0, 2)), ProbeVerdict::RotatesTickets),
            (evidence(tally(9, 36), 9, true, tally(1, 9)), ProbeVerdict::ResumesAcrossRotation),
            // No session was left to try.
            (evidence(tally(3, 3), 0, true, none), ProbeVerdict::CertificateUnchanged),
            (evidence(tally(3, 3), 0, true, tally(1, 2)), ProbeVerdict::ResumesAcrossRotation),
            // A resumption after the rotation is the fault, whatever came before.
            (evidence(tally(0, 3), 3, true, tally(1, 1)), ProbeVerdict::ResumesAcrossRotation),
        ];
        for (evidence, expected) in cases {
            assert_eq!(judge(&evidence), expected, "{evidence:?}");
        }
    }

    #[test]
    fn more_sessions_are_kept_where_fewer_resume() {
        for (resumed, tried, needed) in [(6, 6, 4), (3, 6, 16), (1, 4, 32), (0, 9, 64), (1, 24, 64)]
        {
            let evidence = Evidence { before: tally(resumed, tried), ..Evidence::default() };
            assert_eq!(evidence.sessions_needed(), needed);
        }
    }

    #[test]
    fn the_worst_verdict_is_the_greatest() {
        use ProbeVerdict::*;
        let all = [NoResumption, RotatesTickets, CertificateUnchanged, ResumesAcrossRotation];
        assert!(all.is_sorted());
    }
}
