//! The output of `inspect`. Prints certificates only, and no other value of a Secret.

mod document;

use std::fmt::Write as _;
use std::io;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Inspection;
use super::facts::{Facts, LeftAlone, subject_alternative_names};
use super::lint::Finding;
use super::rule::Severity;
use crate::kubernetes::list::Unread;
use crate::names;
use crate::overlap::exempt::Exemption;
use crate::overlap::source::{self, Previous};
use crate::tools::output::{self, Output};
use crate::tools::registration::Registration;
use crate::tools::status::next;
use crate::tools::table::{Column, Row, Table, paragraph};
use crate::tools::text::{
    age, carried, counted, data_left_alone, day, is_colourful, list, printable, subject,
};
use crate::x509::certs::{Bundle, Certificate};

/// How many names of a leaf are printed; the rest are counted.
const MAX_NAMES: usize = 8;

/// What was inspected, as far as it is printed: many Secrets need no memory for long.
pub(super) struct Inspected {
    output: Output,
    /// One table, instead of a text for each.
    table: Option<Table>,
    texts: Vec<String>,
    documents: Vec<Value>,
    problems: usize,
}

impl Inspected {
    /// Those of a whole scope are a table.
    pub(super) fn new(output: Output, is_scope: bool) -> Self {
        let columns = || {
            [
                Column { head: "PHASE", max_width: 7 },
                Column { head: "CAS", max_width: 3 },
                Column { head: "LEAF EXPIRES", max_width: 12 },
                Column { head: "PROBLEMS", max_width: 23 },
            ]
        };
        let table = is_scope.then(|| Table::of_secrets(14, columns()));
        Self { output, table, texts: Vec::new(), documents: Vec::new(), problems: 0 }
    }

    pub(super) fn push(&mut self, inspected: &Inspection<'_>) {
        self.problems += inspected.findings.len();
        match (self.output, &mut self.table) {
            (Output::Json | Output::Yaml, _) => self.documents.push(document::one(inspected)),
            (_, Some(table)) => table.push(row(inspected)),
            (_, None) => self.texts.push(one_to_text(inspected, is_colourful())),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        let is_table = self.table.as_ref().is_none_or(Table::is_empty);
        is_table && self.texts.is_empty() && self.documents.is_empty()
    }

    /// Whether no rule fired.
    pub(super) fn is_fine(&self) -> bool {
        self.problems == 0
    }

    pub(super) fn print(
        &self,
        registration: Option<&Registration>,
        unread: &[Unread],
    ) -> io::Result<()> {
        let text = || {
            let Some(table) = &self.table else { return self.texts.join("\n") };
            let mut out = String::new();
            if let Some(problem) = registration.and_then(Registration::problem) {
                paragraph(&mut out, "PROBLEM: ", &problem);
            }
            if !table.is_empty() {
                out.push_str(&table.render());
            }
            out
        };
        let document = || {
            let fields = json!({"inspected": self.documents, "unread": unread});
            output::document("InspectionList", fields)
        };
        self.output.print(text, document)
    }
}

/// The row of a Secret. `inspect NAMESPACE/NAME` explains it.
fn row(Inspection { facts, findings }: &Inspection<'_>) -> Row {
    let identity = facts.object.identity.as_ref();
    let namespace = identity.and_then(|it| it.namespace.as_deref()).unwrap_or_default();
    let name = identity.map_or("", |it| it.name.as_str());
    let phase = facts.object.labels.get(names::PHASE).map_or("-", String::as_str);
    let leaf = facts.leaf().map_or_else(|| "-".to_owned(), |leaf| day(leaf.not_after()));
    let problems = findings.iter().map(|finding| finding.rule.id());
    Row::new(vec![
        vec![printable(namespace)],
        vec![printable(name)],
        vec![printable(phase)],
        vec![facts.ca.certificates().len().to_string()],
        vec![leaf],
        problems.collect(),
    ])
}

fn one_to_text(inspected: &Inspection<'_>, colour: bool) -> String {
    let Inspection { facts, findings } = inspected;
    let mut out = String::new();
    head(&mut out, facts);
    if facts.object.ca_crt.is_some() {
        write_bundle(&mut out, names::CA_CRT, &facts.ca, |out, index, certificate| {
            write_ca(out, facts, index, certificate);
        });
    } else {
        write_no_ca(&mut out, &facts.object.keys);
    }
    for (key, chain) in [(names::TLS_CRT, &facts.chain), (names::PENDING_TLS_CRT, &facts.pending)] {
        if !chain.is_empty() {
            write_bundle(&mut out, key, chain, |out, index, certificate| {
                write_link(out, facts, index, certificate);
            });
        }
    }
    write_findings(&mut out, findings, colour);
    out
}

fn head(out: &mut String, facts: &Facts<'_>) {
    let Some(identity) = &facts.object.identity else {
        paragraph(
            out,
            "File      ",
            &format!("{}, read as ca.crt", printable(&facts.object.source)),
        );
        return;
    };
    let namespace = identity.namespace.as_deref().map(|namespace| format!("{namespace}/"));
    let name = format!("{}{}", namespace.unwrap_or_default(), identity.name);
    paragraph(out, "Secret    ", &format!("{}, {}", printable(&name), printable(&identity.kind)));
    let settings = &facts.outlook.settings;
    let problem = facts.object.registration.as_ref().and_then(Registration::problem);
    let webhook = match (problem, facts.left_alone) {
        (Some(problem), _) => format!("NOT IN FORCE: {problem}"),
        (None, Some(left_alone)) => explain(left_alone).to_owned(),
        (None, None) => format!(
            "carries previous CAs: mode {}, keep {}, window {}",
            settings.mode, settings.keep, settings.window
        ),
    };
    paragraph(out, "Webhook   ", &webhook);
    let phase = facts.object.labels.get(names::PHASE).map_or("none", String::as_str);
    let next = next(&facts.outlook).map(|step| {
        let at = step.at.map(|at| format!(" ({at})"));
        format!("; {}{}", step.what, at.unwrap_or_default())
    });
    let state = format!("phase {}{}", printable(phase), next.unwrap_or_default());
    paragraph(out, "State     ", &state);
    let trust: Vec<_> = settings.trust.iter().map(ToString::to_string).collect();
    if !trust.is_empty() {
        paragraph(out, "Trusts    ", &trust.join(", "));
    }
    if is_source(facts) {
        write_source(out, facts);
    }
}

/// Whether other Secrets may trust its CAs.
fn is_source(facts: &Facts<'_>) -> bool {
    source::is_source(facts.object.labels.get(names::SOURCE).map(String::as_str))
}

/// The CAs of a source that it held before. Its followers trust them as well.
fn write_source(out: &mut String, facts: &Facts<'_>) {
    let list = previous(facts);
    let count = if list.is_empty() { "none".to_owned() } else { list.len().to_string() };
    let text = format!("other Secrets may trust its CAs; previous ones: {count}");
    paragraph(out, "Source    ", &text);
    for (certificate, since) in list {
        paragraph(out, "          ", &format!("{}, since {since}", subject(&certificate)));
        let _ = writeln!(out, "          sha256 {}", certificate.fingerprint());
    }
}

/// The previous CAs of a source, and since when it does not hold them.
fn previous(facts: &Facts<'_>) -> Vec<(Certificate, Timestamp)> {
    let text = facts.object.annotations.get(names::PREVIOUS).map_or("", String::as_str);
    let read = |one: Previous| Some((Certificate::from_der(one.der)?, one.since));
    Previous::parse_list(text).into_iter().filter_map(read).collect()
}

fn explain(reason: LeftAlone) -> &'static str {
    match reason {
        LeftAlone::Data(reason) => data_left_alone(reason),
        LeftAlone::Immutable => "left alone: the Secret is immutable",
        LeftAlone::OwnNamespace => "left alone: it is in the webhook's own namespace",
        LeftAlone::ServiceAccountToken => "left alone: it is a ServiceAccount token",
    }
}

/// The same in a word.
fn reason(reason: LeftAlone) -> &'static str {
    match reason {
        LeftAlone::Data(Exemption::ComparingWriter) => "comparingWriter",
        LeftAlone::Data(Exemption::ForeignOverlap) => "foreignOverlap",
        LeftAlone::Data(Exemption::Off) => "off",
        LeftAlone::Data(Exemption::Signer) => "signer",
        LeftAlone::Immutable => "immutable",
        LeftAlone::OwnNamespace => "ownNamespace",
        LeftAlone::ServiceAccountToken => "serviceAccountToken",
    }
}

fn write_bundle(
    out: &mut String,
    key: &str,
    bundle: &Bundle,
    each: impl Fn(&mut String, usize, &Certificate),
) {
    let count = match bundle.certificates().len() {
        0 => "no readable certificate".to_owned(),
        some => counted(some, "certificate"),
    };
    let _ = writeln!(out, "\n{key}: {count}");
    list(out, bundle.certificates(), |out, index, certificate| {
        paragraph(out, &format!("  {:>2}. ", index + 1), &subject(certificate));
        each(out, index, certificate);
        let _ = writeln!(out, "      sha256 {}", certificate.fingerprint());
    });
}

/// Other keys under which generators write CAs (docs/generators).
const OTHER_TRUST: [&str; 6] =
    ["ca", "ca-cert.pem", "ca.pem", "cacert.pem", "root-cert.pem", "rootCA.crt"];

fn write_no_ca(out: &mut String, keys: &[String]) {
    let other = keys.iter().find(|key| OTHER_TRUST.contains(&key.as_str()));
    let text = other.map_or_else(
        || "none: there is nothing to overlap".to_owned(),
        |other| format!("none: the CAs may be under {other}, which gets no overlap"),
    );
    out.push('\n');
    paragraph(out, "ca.crt: ", &text);
}

fn write_ca(out: &mut String, facts: &Facts<'_>, index: usize, certificate: &Certificate) {
    let known = facts.known(certificate);
    let role = match known.and_then(|known| known.carried.map(|entry| (entry, known.ends))) {
        _ if facts.object.identity.is_none() => String::new(),
        None => "the generator's own".to_owned(),
        Some((entry, _)) if entry.deadline(facts.outlook.settings.window.length()).is_none() => {
            carried(&entry, None)
        }
        Some((entry, ends)) => {
            let ends = ends.map_or_else(|| "its end".to_owned(), |ends| ends.to_string());
            carried(&entry, Some(&ends))
        }
    };
    let has_context = facts.object.identity.is_some() || facts.leaf().is_some();
    let active = if has_context && facts.is_active(index) { "active" } else { "" };
    let verifies = facts.verifies_leaf.get(index) == Some(&true);
    let verifies = if verifies { "the leaf verifies against it" } else { "" };
    let parts = [&role, active, verifies, &expiry(certificate, facts)];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    paragraph(out, "      ", &parts.join("; "));
}

fn write_link(out: &mut String, facts: &Facts<'_>, index: usize, certificate: &Certificate) {
    let mut names = subject_alternative_names(certificate).unwrap_or_default();
    let more = names.len().saturating_sub(MAX_NAMES);
    names.truncate(MAX_NAMES);
    let more = if more > 0 { format!(" and {more} more names") } else { String::new() };
    let what = match index {
        0 if names.is_empty() => "the leaf".to_owned(),
        0 => format!("the leaf, for {}{more}", names.join(", ")),
        _ => "part of the chain".to_owned(),
    };
    paragraph(out, "      ", &format!("{what}; {}", expiry(certificate, facts)));
}

fn expiry(certificate: &Certificate, facts: &Facts<'_>) -> String {
    let end = day(certificate.not_after());
    if certificate.is_expired(facts.now) {
        return format!("EXPIRED on {end}");
    }
    match certificate.not_after().checked_sub(facts.now.as_second()) {
        Some(left) if end != "never" => format!("expires {end}, in {}", age(left)),
        _ => "never expires".to_owned(),
    }
}

fn write_findings(out: &mut String, findings: &[Finding], colour: bool) {
    let paint = |code: &str, text: &str| {
        if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    };
    if findings.is_empty() {
        let _ = writeln!(out, "\n{}", paint("32", "No lint rule fires."));
        return;
    }
    let _ = writeln!(out, "\nProblems: {}", findings.len());
    for Finding { rule, text, .. } in findings {
        let code = if rule.severity() == Severity::Error { "31" } else { "33" };
        let severity = paint(code, rule.severity().as_str());
        let _ = writeln!(out, "  {severity} {}", paint("1", &rule.id()));
        paragraph(out, "      ", text);
    }
}
