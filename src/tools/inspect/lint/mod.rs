//! Checks an object by the lint rules. Pure.

mod bundle;
mod leaf;
mod state;
mod store;

pub(super) use self::bundle::hexadecimal;
use super::facts::Facts;
use super::rule::Rule;
use crate::x509::certs::{Certificate, Fingerprint};

/// A rule that fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) rule: Rule,
    /// What was found and what to do.
    pub(super) text: String,
    /// The certificates that the finding is about.
    pub(super) certificates: Vec<Fingerprint>,
}

impl Finding {
    fn new(rule: Rule, text: impl Into<String>) -> Self {
        Self { rule, text: text.into(), certificates: Vec::new() }
    }

    fn about<'a>(mut self, certificates: impl IntoIterator<Item = &'a Certificate>) -> Self {
        self.certificates = certificates.into_iter().map(Certificate::fingerprint).collect();
        self
    }
}

/// All findings, the most serious first.
pub(super) fn lint(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    leaf::check(facts, &mut findings);
    bundle::check(facts, &mut findings);
    store::check(facts, &mut findings);
    state::check(facts, &mut findings);
    findings.sort_by_key(|finding| (finding.rule.severity() as u8, finding.rule));
    findings
}

/// `certificate 1`, `certificates 1 and 3`: counts from one.
fn numbered(indexes: &[usize]) -> String {
    let numbers: Vec<String> = indexes.iter().map(|index| (index + 1).to_string()).collect();
    match numbers.split_last() {
        Some((last, [])) => format!("certificate {last}"),
        Some((last, others)) => format!("certificates {} and {last}", others.join(", ")),
        None => String::new(),
    }
}
