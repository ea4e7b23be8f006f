//! What the handshakes say about a server. Pure.

use std::fmt;

/// What was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// The server does not resume, so it cannot hide a rotation.
    NoResumption,
    /// What could resume before the certificate changed cannot any more.
    RotatesTickets,
    /// The server resumes; its certificate has not changed while it was watched.
    CertificateUnchanged,
    /// The fault.
    ResumesAcrossRotation,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoResumption => "no resumption",
            Self::RotatesTickets => "rotates tickets",
            Self::CertificateUnchanged => "certificate unchanged so far",
            Self::ResumesAcrossRotation => "RESUMES ACROSS ROTATION",
        })
    }
}

/// How many of a number of attempts resumed.
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

/// All that counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Evidence {
    /// Attempts while the server had its first certificate: what shows that it resumes at all.
    pub(super) before: Tally,
    /// Whether the last of these resumed. If it did not, one that fails later says nothing.
    pub(super) last_resumed: bool,
    /// Whether every new connection gets another certificate by now.
    pub(super) rotated: bool,
    /// Attempts since then, with what the server gave before.
    pub(super) after: Tally,
}

/// The verdict on it.
pub(super) fn judge(evidence: &Evidence) -> Verdict {
    let Evidence { before, last_resumed, rotated, after } = *evidence;
    if after.resumed > 0 {
        Verdict::ResumesAcrossRotation
    } else if before.resumed == 0 || (rotated && !last_resumed) {
        Verdict::NoResumption
    } else if rotated && after.tried > 0 {
        Verdict::RotatesTickets
    } else {
        Verdict::CertificateUnchanged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(resumed: usize, tried: usize) -> Tally {
        Tally { resumed, tried }
    }

    #[test]
    fn verdicts() {
        let evidence = |before, last_resumed, rotated, after| Evidence {
            before,
            last_resumed,
            rotated,
            after,
        };
        let none = tally(0, 0);
        let cases = [
            (evidence(none, false, false, none), Verdict::NoResumption),
            (evidence(tally(0, 3), false, false, none), Verdict::NoResumption),
            (evidence(tally(2, 3), true, false, none), Verdict::CertificateUnchanged),
            (evidence(tally(2, 3), false, false, none), Verdict::CertificateUnchanged),
            (evidence(tally(3, 3), true, true, tally(0, 2)), Verdict::RotatesTickets),
            // It had stopped to resume before the rotation: that the latter stopped it is not shown.
            (evidence(tally(2, 3), false, true, tally(0, 2)), Verdict::NoResumption),
            // Nothing was left to try with.
            (evidence(tally(3, 3), true, true, none), Verdict::CertificateUnchanged),
            (evidence(tally(3, 3), true, true, tally(1, 2)), Verdict::ResumesAcrossRotation),
            // Seen is seen, whatever was before.
            (evidence(tally(0, 3), false, true, tally(1, 1)), Verdict::ResumesAcrossRotation),
        ];
        for (evidence, expected) in cases {
            assert_eq!(judge(&evidence), expected, "{evidence:?}");
        }
    }

    #[test]
    fn the_worst_is_the_greatest() {
        use Verdict::*;
        let all = [NoResumption, RotatesTickets, CertificateUnchanged, ResumesAcrossRotation];
        assert!(all.is_sorted());
    }
}
