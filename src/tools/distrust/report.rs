//! The output of `distrust`.

use std::fmt::Write as _;
use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::annotate::{CaOutcome, RemovalResult, SecretOutcome};
use super::argument::DistrustedCa;
use super::replicas::Replica;
use crate::kubernetes::list::Unread;
use crate::names;
use crate::tools::annotate::DryRun;
use crate::tools::elsewhere::{self, Place};
use crate::tools::error::exit_code;
use crate::tools::output::{self, Output};
use crate::tools::table::{Column, Row, Table, paragraph};
use crate::tools::text::{counted, day, sha256};
use crate::x509::certs::Fingerprint;

/// The results for all Secrets.
#[derive(Debug)]
pub(super) struct DistrustReport {
    pub(super) wanted: Vec<DistrustedCa>,
    pub(super) done: Vec<SecretOutcome>,
    pub(super) unread: Vec<Unread>,
    /// What was done outside of Secrets, if all namespaces were asked for.
    pub(super) everywhere: Option<EverywhereReport>,
    pub(super) dry_run: DryRun,
    /// Where the command looked, for people.
    pub(super) place: String,
    /// Whether only some Secrets of the namespaces counted.
    pub(super) is_part: bool,
    pub(super) output: Output,
}

/// The list of the cluster, and the places that are no Secrets.
#[derive(Debug)]
pub(super) struct EverywhereReport {
    /// Where ca-overlap is installed.
    pub(super) namespace: String,
    /// The SHA-256 of the list, if it was written, or why the CA is not on it.
    pub(super) listed: Result<Option<Fingerprint>, String>,
    /// The replicas that should use the list, or why they are not known.
    pub(super) replicas: Result<Vec<Replica>, String>,
    pub(super) places: Vec<Place>,
}

impl EverywhereReport {
    /// Why it is not known that every replica uses the list: a sentence for each reason.
    fn failures(&self) -> Vec<String> {
        if let Err(error) = &self.listed {
            return vec![format!("The CA could not be added to the list: {error}")];
        }
        let replicas = match &self.replicas {
            Err(error) => return vec![format!("The replicas could not be listed: {error}")],
            Ok(replicas) => replicas.iter().filter(|replica| !replica.uses),
        };
        let reason = |replica: &Replica| match &replica.error {
            Some(error) => format!("The log of pod {} could not be read: {error}", replica.pod),
            None => format!("Pod {} does not use the list yet.", replica.pod),
        };
        replicas.map(reason).collect()
    }
}

impl DistrustReport {
    /// Whether nothing holds the CA any more, and no leaf needs it.
    pub(super) fn is_clean(&self) -> bool {
        let is_clean = |outcome: &CaOutcome| {
            matches!(outcome.result, RemovalResult::Dropped | RemovalResult::Gone)
                && !is_leaf_refused(outcome)
        };
        !self.has_failed() && self.places().is_empty() && self.outcomes().all(is_clean)
    }

    /// Whether something could not be read or reached.
    fn has_failed(&self) -> bool {
        let everywhere = self.everywhere.as_ref();
        !self.unread.is_empty() || everywhere.is_some_and(|all| !all.failures().is_empty())
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        exit_code(!self.has_failed(), self.is_clean())
    }

    fn places(&self) -> &[Place] {
        self.everywhere.as_ref().map_or(&[], |everywhere| &everywhere.places)
    }

    fn outcomes(&self) -> impl Iterator<Item = &CaOutcome> {
        self.done.iter().flat_map(|done| &done.results)
    }

    fn count(&self, of: impl Fn(&CaOutcome) -> bool) -> usize {
        self.done.iter().filter(|done| done.results.iter().any(&of)).count()
    }
}

pub(super) fn to_text(report: &DistrustReport) -> String {
    if report.output == Output::Name {
        return output::names(report.done.iter().map(|it| it.name.as_str()));
    }
    let mut out = String::new();
    let is_trial = report.dry_run != DryRun::None;
    let title = if is_trial { "To distrust (dry run)" } else { "Distrusted" };
    let _ = writeln!(out, "{title}");
    for DistrustedCa { fingerprint, known } in &report.wanted {
        let _ = writeln!(out, "  sha256 {fingerprint}");
        if let Some((subject, not_after)) = known {
            let _ = writeln!(out, "         {subject}, expires {}", day(*not_after));
        }
    }
    out.push('\n');
    if report.done.is_empty() {
        let _ = writeln!(out, "{}", nowhere(report));
    } else {
        out.push_str(&table(report).render());
    }
    for (head, hint) in hints(report) {
        let _ = writeln!(out, "\n{head}");
        paragraph(&mut out, "  ", hint);
    }
    if let Some(everywhere) = &report.everywhere {
        out.push_str(&list(everywhere, is_trial));
        out.push_str(&elsewhere::to_text(&everywhere.places));
    } else {
        let _ = writeln!(out, "\nLooked at {} only", report.place);
        paragraph(
            &mut out,
            "  ",
            "The CA may stand in other places, and can come back there. -A, without --selector, looks everywhere and keeps the CA out.",
        );
    }
    out
}

/// The list of the cluster, and who uses it.
fn list(everywhere: &EverywhereReport, is_trial: bool) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "\nThe list of the cluster");
    let place = format!("ConfigMap {}/{}", everywhere.namespace, names::DISTRUSTED_CONFIG_MAP);
    let failures = everywhere.failures();
    let using = match &everywhere.replicas {
        Ok(replicas) if replicas.is_empty() => "No replica of webhook or keeper runs.".to_owned(),
        Ok(replicas) if failures.is_empty() => format!("All {} replicas use it.", replicas.len()),
        _ => String::new(),
    };
    let text = match (&everywhere.listed, is_trial) {
        (Err(_), _) => String::new(),
        (Ok(_), true) => format!("{place} would list it, and no Secret would carry it again."),
        (Ok(_), false) => format!("{place} lists it. {using}"),
    };
    for text in Some(text).into_iter().chain(failures).filter(|text| !text.is_empty()) {
        paragraph(&mut out, "  ", &text);
    }
    out
}

fn nowhere(report: &DistrustReport) -> String {
    let none = match (report.is_part, report.unread.is_empty()) {
        (true, _) => "None of",
        (false, true) => "No Secret in",
        (false, false) => "No Secret that was read in",
    };
    format!("{none} {} holds the CA in ca.crt.", report.place)
}

fn table(report: &DistrustReport) -> Table {
    let is_wide = report.output == Output::Wide;
    let columns = [
        Column { head: "CA", max_width: 8 },
        Column { head: "WAS", max_width: 7 },
        Column { head: "RESULT", max_width: 26 },
    ];
    let mut table = Table::of_secrets(20, columns).wide(is_wide);
    for done in &report.done {
        let column = |cell: &dyn Fn(&CaOutcome) -> String| done.results.iter().map(cell).collect();
        let mut row = Row::new(vec![
            vec![done.namespace.clone()],
            vec![done.name.clone()],
            column(&|outcome| sha256(outcome.ca.fingerprint, is_wide)),
            column(&|outcome| was(outcome).to_owned()),
            column(&|outcome| result(outcome, report.dry_run)),
        ]);
        if let Some(error) = &done.error {
            row.note(format!("failed: {error}"));
        }
        if done.annotation_too_long {
            row.note(
                "its annotation is longer than 4096 bytes: the webhook cannot restore it when a \
                 generator removes it",
            );
        }
        let carried = |outcome: &CaOutcome| outcome.result == RemovalResult::StillCarried;
        if done.is_off && done.results.iter().any(carried) {
            row.note(
                "mode off: the webhook leaves the data alone; remove the label ca-overlap.dev/mode",
            );
        }
        table.push(row);
    }
    table
}

fn was(outcome: &CaOutcome) -> &'static str {
    if outcome.ca.is_carried { "carried" } else { "own" }
}

fn result(outcome: &CaOutcome, dry_run: DryRun) -> String {
    let result = match (outcome.result, dry_run != DryRun::None) {
        (RemovalResult::Dropped, false) => "dropped",
        (RemovalResult::Dropped, true) => "would be dropped",
        (RemovalResult::Gone, _) => "gone meanwhile",
        (RemovalResult::Own, false) => "STILL THERE",
        (RemovalResult::Own, true) => "would stay",
        (RemovalResult::StillCarried, false) => "STILL CARRIED",
        (RemovalResult::StillCarried, true) => "would STILL be carried",
        (RemovalResult::Planned, _) => "would be annotated",
        (RemovalResult::Failed, _) => "FAILED",
    };
    let leaf = if is_leaf_refused(outcome) { ", leaf needs it" } else { "" };
    format!("{result}{leaf}")
}

/// Whether readers of the new `ca.crt` refuse the Secret's leaf.
fn is_leaf_refused(outcome: &CaOutcome) -> bool {
    outcome.result == RemovalResult::Dropped && outcome.ca.leaf_needs_it
}

/// What is left to do: a heading and a text for each kind of result that occurs.
fn hints(report: &DistrustReport) -> Vec<(String, &'static str)> {
    let mut hints = Vec::new();
    let mut hint = |count: usize, what: &str, text: &'static str| {
        if count > 0 {
            hints.push((format!("{what}: {}", counted(count, "Secret")), text));
        }
    };
    hint(
        report.count(|outcome| outcome.result == RemovalResult::Own),
        "The generator's own",
        "Only the generator can replace it: make it issue a new CA (certgen --overwrite, cmctl \
         renew, helm upgrade, …). The distrusted CA is then not carried. Until then it stays \
         trusted.",
    );
    hint(
        report.count(is_leaf_refused),
        "The leaf needs it",
        "Readers of the new ca.crt reject the leaf, because no other CA in it issued the leaf. \
         Make the generator issue a new leaf now, and restart processes that do not reload their \
         files.",
    );
    hint(
        report.count(|outcome| outcome.result == RemovalResult::StillCarried),
        "Still carried",
        "The webhook did not act. Is it running (kubectl -n ca-overlap get pods), and registered \
         for this Secret? Then run this command again. If the keeper runs, it asks the webhook \
         until the CA is gone.",
    );
    hint(
        report.count(|outcome| outcome.result == RemovalResult::Failed),
        "Failed",
        "The table gives the reasons. The command needs the rights to list, get and patch Secrets. \
         It is safe to run it again.",
    );
    if !report.done.is_empty() {
        hints.extend(report.dry_run.hint());
    }
    hints
}

pub(super) fn to_json(report: &DistrustReport) -> Value {
    let certificate = |wanted: &DistrustedCa| {
        json!({
            "sha256": wanted.fingerprint.to_string(),
            "subject": wanted.known.as_ref().map(|(subject, _)| subject),
            "notAfter": wanted.known.as_ref().and_then(|(_, it)| Timestamp::from_second(*it).ok()),
        })
    };
    let outcome = |outcome: &CaOutcome| {
        json!({
            "sha256": outcome.ca.fingerprint.to_string(),
            "was": was(outcome),
            "result": outcome.result,
            "leafNeedsIt": outcome.ca.leaf_needs_it,
        })
    };
    let secret = |done: &SecretOutcome| {
        json!({
            "namespace": done.namespace,
            "name": done.name,
            "results": done.results.iter().map(outcome).collect::<Vec<_>>(),
            "error": done.error,
        })
    };
    let fields = json!({
        "dryRun": report.dry_run != DryRun::None,
        "dryRunStrategy": report.dry_run,
        "clean": report.is_clean(),
        "certificates": report.wanted.iter().map(certificate).collect::<Vec<_>>(),
        "secrets": report.done.iter().map(secret).collect::<Vec<_>>(),
        "unread": report.unread,
        "list": report.everywhere.as_ref().map(|everywhere| json!({
            "namespace": everywhere.namespace,
            "configMap": names::DISTRUSTED_CONFIG_MAP,
            "sha256": everywhere.listed.as_ref().ok().and_then(Option::as_ref).map(ToString::to_string),
            "replicas": everywhere.replicas.as_ref().ok(),
            "failures": everywhere.failures(),
        })),
        "elsewhere": report.everywhere.as_ref().map(|everywhere| &everywhere.places),
    });
    output::document("DistrustReport", fields)
}
