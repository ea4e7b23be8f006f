//! Rules for the problems that keeper and `status` also report.

use super::{Finding, Rule};
use crate::names;
use crate::overlap::outlook::Problem;
use crate::tools::inspect::facts::Facts;
use crate::x509::certs::Fingerprint;

pub(super) fn check(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    for problem in &facts.outlook.problems {
        let Some(rule) = rule(problem, facts) else { continue };
        let mut finding = Finding::new(rule, sentence(&problem.to_string()));
        finding.certificates = about(problem, facts);
        findings.push(finding);
    }
}

/// The rule of a problem; `None` if another rule covers it.
fn rule(problem: &Problem, facts: &Facts<'_>) -> Option<Rule> {
    let comes = |when: &jiff::Timestamp, rule| (*when > facts.now).then_some(rule);
    match problem {
        Problem::LeafExpiring(when) => comes(when, Rule::LeafExpiring),
        Problem::OwnExpiring(_, when) => comes(when, Rule::CaExpiring),
        Problem::OwnDistrusted(_) => Some(Rule::DistrustedCa),
        Problem::RetireBlocked(_) => Some(Rule::RetireBlocked),
        Problem::RecordUnreadable => Some(Rule::RecordUnreadable),
        Problem::RestartUnreadable(_) | Problem::SettingUnreadable(_) => {
            Some(Rule::SettingUnreadable)
        }
        Problem::StageLost | Problem::StageUnreadable => Some(Rule::StageUnreadable),
        Problem::StageImmutable | Problem::StageOverdue => Some(Rule::StageOverdue),
        Problem::AskNotSeen | Problem::AskRefused => Some(Rule::AskNotSeen),
    }
}

fn about(problem: &Problem, facts: &Facts<'_>) -> Vec<Fingerprint> {
    match problem {
        Problem::OwnExpiring(which, _)
        | Problem::OwnDistrusted(which)
        | Problem::RetireBlocked(which) => vec![*which],
        Problem::LeafExpiring(_) => facts.outlook.leaf.iter().map(|l| l.fingerprint).collect(),
        _ => Vec::new(),
    }
}

fn sentence(text: &str) -> String {
    // A key stays as it is.
    if text.starts_with(names::PREFIX) {
        return format!("{text}.");
    }
    let mut characters = text.chars();
    let first = characters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    let end = if text.ends_with(['.', '?']) { "" } else { "." };
    format!("{first}{}{end}", characters.as_str())
}
