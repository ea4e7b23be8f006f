//! The evidence that handshakes give about a server, and the verdict on it. Pure.

use std::fmt;

/// The verdict on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    /// Whether the last of these attempts resumed. If not, a later failure proves nothing.
    pub(super) last_resumed: bool,
    /// Whether every new connection gets another certificate.
    pub(super) rotated: bool,
    /// Attempts after the rotation, with sessions from before it.
    pub(super) after: Tally,
}

/// The verdict on the evidence.
pub(super) fn judge(evidence: &Evidence) -> ProbeVerdict {
    let Evidence { before, last_resumed, rotated, after } = *evidence;
    if after.resumed > 0 {
        ProbeVerdict::ResumesAcrossRotation
    } else if before.resumed == 0 || (rotated && !last_resumed) {
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
        let evidence = |before, last_resumed, rotated, after| Evidence {
            before,
            last_resumed,
            rotated,
            after,
        };
        let none = tally(0, 0);
        let cases = [
            (evidence(none, false, false, none), ProbeVerdict::NoResumption),
            (evidence(tally(0, 3), false, false, none), ProbeVerdict::NoResumption),
            (evidence(tally(2, 3), true, false, none), ProbeVerdict::CertificateUnchanged),
            (evidence(tally(2, 3), false, false, none), ProbeVerdict::CertificateUnchanged),
            (evidence(tally(3, 3), true, true, tally(0, 2)), ProbeVerdict::RotatesTickets),
            // It stopped resuming before the rotation, so the rotation need not be the cause.
            (evidence(tally(2, 3), false, true, tally(0, 2)), ProbeVerdict::NoResumption),
            // No session was left to try.
            (evidence(tally(3, 3), true, true, none), ProbeVerdict::CertificateUnchanged),
            (evidence(tally(3, 3), true, true, tally(1, 2)), ProbeVerdict::ResumesAcrossRotation),
            // A resumption after the rotation is the fault, whatever came before.
            (evidence(tally(0, 3), false, true, tally(1, 1)), ProbeVerdict::ResumesAcrossRotation),
        ];
        for (evidence, expected) in cases {
            assert_eq!(judge(&evidence), expected, "{evidence:?}");
        }
    }

    #[test]
    fn the_worst_verdict_is_the_greatest() {
        use ProbeVerdict::*;
        let all = [NoResumption, RotatesTickets, CertificateUnchanged, ResumesAcrossRotation];
        assert!(all.is_sorted());
    }
}
