//! The accepted cost of the hot path: `benches/instructions.json`, one line for each case.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// A change of instructions within this counts as none, in percent.
const MARGIN: f64 = 3.0;
/// The same with another compiler, C library or CPU.
const WIDE_MARGIN: f64 = 10.0;

/// The counts of a run.
#[derive(Deserialize)]
pub(crate) struct Baseline {
    pub(crate) environment: Environment,
    pub(crate) cases: BTreeMap<String, Figures>,
}

/// The environment, on which counts also depend.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Environment {
    /// As `rustc --version` says.
    pub(crate) rustc: String,
    /// The C library and its version: allocation and copying are in it.
    pub(crate) libc: String,
    /// The CPU that valgrind emulates: the architecture, and extensions that libraries use.
    pub(crate) cpu: String,
}

/// The cost of one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) instructions: u64,
    pub(crate) allocations: u64,
    /// The most bytes allocated at one time.
    pub(crate) peak_bytes: u64,
}

/// The result of a comparison.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Each fails the gate.
    pub(crate) failures: Vec<String>,
    /// Each is printed and fails nothing.
    pub(crate) notes: Vec<String>,
}

impl Baseline {
    /// The file's text, with the cases in this order.
    pub(crate) fn to_text(environment: &Environment, cases: &[(&str, Figures)]) -> String {
        let environment = serde_json::to_string(environment).unwrap_or_default();
        let environment = environment.replace("\",\"", "\",\n    \"");
        let environment = environment.trim_matches(['{', '}']);
        let mut text =
            format!("{{\n  \"environment\": {{\n    {environment}\n  }},\n  \"cases\": {{\n");
        for (index, (name, figures)) in cases.iter().enumerate() {
            let Figures { instructions, allocations, peak_bytes } = figures;
            let comma = if index + 1 < cases.len() { "," } else { "" };
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "    {:<19} {{\"instructions\": {instructions:>8}, \"allocations\": {allocations:>4}, \"peak_bytes\": {peak_bytes:>7}}}{comma}",
                format!("\"{name}\":")
            );
        }
        text + "  }\n}\n"
    }

    /// Compares a measurement with this baseline.
    pub(crate) fn compare(
        &self,
        environment: &Environment,
        measured: &[(&str, Figures)],
    ) -> Findings {
        let mut findings = Findings::default();
        let margin = self.margin(environment, &mut findings);
        for (name, figures) in measured {
            match self.cases.get(*name) {
                Some(accepted) => figures.compare(name, accepted, margin, &mut findings),
                None => findings.failures.push(format!("{name}: not in the baseline")),
            }
        }
        for name in self.cases.keys().filter(|name| measured.iter().all(|(m, _)| m != name)) {
            findings.failures.push(format!("{name}: in the baseline, and not measured"));
        }
        findings
    }

    fn margin(&self, here: &Environment, findings: &mut Findings) -> f64 {
        let architecture = |environment: &Environment| {
            environment.cpu.split(' ').next().unwrap_or_default().to_owned()
        };
        let (accepted, measured) = (architecture(&self.environment), architecture(here));
        if accepted != measured {
            findings.failures.push(format!(
                "the baseline is of {accepted}, this is {measured}: nothing can be compared"
            ));
        }
        let pairs = [
            (&self.environment.rustc, &here.rustc),
            (&self.environment.libc, &here.libc),
            (&self.environment.cpu, &here.cpu),
        ];
        let differing: Vec<_> = pairs.into_iter().filter(|(a, b)| a != b).collect();
        for (accepted, measured) in &differing {
            findings.notes.push(format!(
                "the baseline is of {accepted}, this is {measured}: {WIDE_MARGIN} % are allowed \
                 instead of {MARGIN} %, until the baseline is accepted again"
            ));
        }
        if differing.is_empty() { MARGIN } else { WIDE_MARGIN }
    }
}

impl Figures {
    fn compare(&self, name: &str, accepted: &Self, margin: f64, findings: &mut Findings) {
        let percent = change(accepted.instructions, self.instructions);
        let words = format!(
            "{name}: {percent:+.1} % instructions ({} to {})",
            accepted.instructions, self.instructions
        );
        if percent > margin {
            findings.failures.push(words);
        } else if percent < -margin {
            findings.notes.push(format!("{words}: accept the new baseline"));
        }
        for (what, accepted, measured) in [
            ("allocations", accepted.allocations, self.allocations),
            ("bytes at the peak", accepted.peak_bytes, self.peak_bytes),
        ] {
            if accepted != measured {
                findings.failures.push(format!("{name}: {accepted} {what} became {measured}"));
            }
        }
    }
}

/// In percent.
#[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(crate) fn change(from: u64, to: u64) -> f64 {
    (to as f64 / from as f64 - 1.0) * 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIGURES: Figures = Figures { instructions: 100_000, allocations: 20, peak_bytes: 3_000 };

    fn environment() -> Environment {
        Environment { rustc: "rustc 1".into(), libc: "glibc 2".into(), cpu: "x86_64 avx2".into() }
    }

    fn baseline() -> Baseline {
        let text = Baseline::to_text(&environment(), &[("a", FIGURES), ("b", FIGURES)]);
        serde_json::from_str(&text).unwrap()
    }

    fn failures(environment: &Environment, measured: &[(&str, Figures)]) -> usize {
        baseline().compare(environment, measured).failures.len()
    }

    #[test]
    fn a_baseline_reads_back_as_written() {
        let baseline = baseline();
        assert!(baseline.environment == environment());
        assert_eq!(baseline.cases["a"], FIGURES);
        assert_eq!(baseline.cases.len(), 2);
        let findings = baseline.compare(&environment(), &[("a", FIGURES), ("b", FIGURES)]);
        assert!(findings.failures.is_empty() && findings.notes.is_empty(), "{findings:?}");
    }

    #[test]
    fn more_instructions_fail_and_fewer_are_noted() {
        let with = |instructions| Figures { instructions, ..FIGURES };
        for (instructions, fails, says) in
            [(103_010, 1, 0), (102_990, 0, 0), (97_010, 0, 0), (96_990, 0, 1)]
        {
            let measured = [("a", FIGURES), ("b", with(instructions))];
            let findings = baseline().compare(&environment(), &measured);
            assert_eq!(findings.failures.len(), fails, "{instructions}");
            assert_eq!(findings.notes.len(), says, "{instructions}");
        }
    }

    #[test]
    fn any_other_allocation_fails() {
        for other in [
            Figures { allocations: 21, ..FIGURES },
            Figures { allocations: 19, ..FIGURES },
            Figures { peak_bytes: 3_001, ..FIGURES },
        ] {
            assert_eq!(failures(&environment(), &[("a", other), ("b", FIGURES)]), 1);
        }
    }

    #[test]
    fn a_missing_or_an_extra_case_fails() {
        assert_eq!(failures(&environment(), &[("a", FIGURES)]), 1);
        assert_eq!(failures(&environment(), &[("a", FIGURES), ("b", FIGURES), ("c", FIGURES)]), 1);
    }

    #[test]
    fn another_compiler_is_noted_and_widens_the_margin() {
        let other = Environment { rustc: "rustc 2".into(), ..environment() };
        for (instructions, fails) in [(109_990, 0), (110_010, 1)] {
            let measured = [("a", FIGURES), ("b", Figures { instructions, ..FIGURES })];
            let findings = baseline().compare(&other, &measured);
            assert_eq!((findings.failures.len(), findings.notes.len()), (fails, 1));
        }
        let arm = Environment { cpu: "aarch64".into(), ..environment() };
        assert_eq!(failures(&arm, &[("a", FIGURES), ("b", FIGURES)]), 1);
    }
}
