//! The output of `check`.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::kubernetes::explain::{Audience, explain};
use crate::tools::error::exit_code;
use crate::tools::table::wrapped;
use crate::tools::text::{counted, is_colourful, printable};

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// In text and in JSON.
    pub(super) name: &'static str,
    pub(super) verdict: Verdict,
    pub(super) found: String,
    /// What to do; empty if nothing is to do.
    pub(super) advice: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    Bad,
    /// It could not be checked.
    Unknown,
}

impl Line {
    pub(super) fn good(name: &'static str, found: impl AsRef<str>) -> Self {
        Self::of(name, Verdict::Good, found.as_ref(), "")
    }

    pub(super) fn bad(name: &'static str, found: impl AsRef<str>, advice: impl AsRef<str>) -> Self {
        Self::of(name, Verdict::Bad, found.as_ref(), advice.as_ref())
    }

    pub(super) fn unknown(name: &'static str, why: impl AsRef<str>) -> Self {
        Self::of(name, Verdict::Unknown, &format!("not checked: {}", why.as_ref()), "")
    }

    /// Something could not be read.
    pub(super) fn unread(name: &'static str, error: &kube::Error) -> Self {
        Self::unknown(name, explain(error, Audience::Caller))
    }

    fn of(name: &'static str, verdict: Verdict, found: &str, advice: &str) -> Self {
        Self { name, verdict, found: printable(found), advice: printable(advice) }
    }
}

/// The width of all lines, and where their texts begin.
const WIDTH: usize = 80;
const INDENT: usize = 16;

pub(super) fn to_text(lines: &[Line]) -> String {
    let colour = is_colourful();
    let mut out = String::new();
    for Line { name, verdict, found, advice } in lines {
        let (sign, code) = match verdict {
            Verdict::Good => ("✓", 32),
            Verdict::Bad => ("✗", 31),
            Verdict::Unknown => ("–", 33),
        };
        let sign = if colour { format!("\x1b[{code}m{sign}\x1b[0m") } else { sign.to_owned() };
        let mut head = format!("{sign} {name:<width$}", width = INDENT - 2);
        let mut texts = wrapped(found, WIDTH - INDENT);
        if !advice.is_empty() {
            texts.extend(wrapped(&format!("→ {advice}"), WIDTH - INDENT));
        }
        for text in texts {
            let _ = writeln!(out, "{head}{text}");
            head = " ".repeat(INDENT);
        }
    }
    let count = |verdict| lines.iter().filter(|line| line.verdict == verdict).count();
    let _ = match (count(Verdict::Bad), count(Verdict::Unknown)) {
        (0, 0) => writeln!(out, "\nAll is well."),
        (0, unknown) => writeln!(out, "\n{} could not be made.", counted(unknown, "check")),
        (bad, _) => writeln!(out, "\n{} failed.", counted(bad, "check")),
    };
    out
}

pub(super) fn to_json(lines: &[Line]) -> Vec<Value> {
    let checks = lines.iter().map(|Line { name, verdict, found, advice }| {
        let result = match verdict {
            Verdict::Good => "good",
            Verdict::Bad => "bad",
            Verdict::Unknown => "unknown",
        };
        json!({"name": name, "result": result, "found": found, "advice": advice})
    });
    checks.collect()
}

/// 1 if a check failed, else 2 if one could not be made.
pub(super) fn exit_code_of(lines: &[Line]) -> ExitCode {
    let has = |verdict| lines.iter().any(|line| line.verdict == verdict);
    let is_fine = !has(Verdict::Bad);
    exit_code(!is_fine || !has(Verdict::Unknown), is_fine)
}
