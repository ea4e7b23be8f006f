//! What `distrust` prints.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::act::{Done, Fate, Outcome};
use super::wanted::Wanted;
use crate::kubernetes::list::{Namespaces, Unread};
use crate::tools::table::{Column, Row, Table, paragraph};
use crate::tools::text::{counted, short};

/// Everything that was found and done.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) wanted: Vec<Wanted>,
    pub(super) done: Vec<Done>,
    pub(super) unread: Vec<Unread>,
    pub(super) dry_run: bool,
    pub(super) scope: Namespaces,
}

impl Report {
    /// Whether nothing is left to do.
    pub(super) fn is_clean(&self) -> bool {
        let is_clean = |outcome: &Outcome| {
            matches!(outcome.result, Fate::Dropped | Fate::Gone) && !is_leaf_refused(outcome)
        };
        self.unread.is_empty() && self.outcomes().all(is_clean)
    }

    fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.done.iter().flat_map(|done| &done.results)
    }

    fn count(&self, of: impl Fn(&Outcome) -> bool) -> usize {
        self.done.iter().filter(|done| done.results.iter().any(&of)).count()
    }
}

pub(super) fn to_text(report: &Report) -> String {
    let mut out = String::new();
    let title = if report.dry_run { "To distrust (dry run)" } else { "Distrusted" };
    let _ = writeln!(out, "{title}");
    for Wanted { fingerprint, known } in &report.wanted {
        let _ = writeln!(out, "  sha256 {fingerprint}");
        if let Some((subject, day)) = known {
            let _ = writeln!(out, "         {subject}, expires {day}");
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
    if !report.unread.is_empty() {
        let _ = writeln!(out, "\nNot read, so the CA may be there too:");
    }
    for Unread { namespace, error } in &report.unread {
        let namespace = namespace
            .as_deref()
            .map_or("all namespaces".to_owned(), |name| format!("namespace {name}"));
        paragraph(&mut out, "  ", &format!("{namespace}: {error}"));
    }
    out
}

fn nowhere(report: &Report) -> String {
    let more = match report.scope {
        Namespaces::All => "",
        Namespaces::One(_) => " (-A looks into all)",
    };
    let read = if report.unread.is_empty() { "No Secret" } else { "No Secret that was read" };
    format!("{read} in {} holds it in ca.crt{more}.", report.scope)
}

fn table(report: &Report) -> Table {
    let mut table = Table::new(vec![
        Column { head: "SECRET", most: 42 },
        Column { head: "CA", most: 8 },
        Column { head: "WAS", most: 7 },
        Column { head: "RESULT", most: 37 },
    ]);
    for done in &report.done {
        let column = |cell: &dyn Fn(&Outcome) -> String| done.results.iter().map(cell).collect();
        let mut row = Row::new(vec![
            vec![format!("{}/{}", done.namespace, done.name)],
            column(&|outcome| short(outcome.holding.fingerprint)),
            column(&|outcome| was(outcome).to_owned()),
            column(&|outcome| result(outcome, report.dry_run)),
        ]);
        if let Some(error) = &done.error {
            row.note(format!("failed: {error}"));
        }
        if done.annotation_too_long {
            row.note(
                "its list is longer than 4096 bytes: a generator that wipes it wipes it for good",
            );
        }
        let carried = |outcome: &Outcome| outcome.result == Fate::StillCarried;
        if done.is_off && done.results.iter().any(carried) {
            row.note(
                "mode off: the webhook changes no data here; remove the label ca-overlap.dev/mode",
            );
        }
        table.push(row);
    }
    table
}

fn was(outcome: &Outcome) -> &'static str {
    if outcome.holding.is_carried { "carried" } else { "own" }
}

fn result(outcome: &Outcome, dry_run: bool) -> String {
    let result = match (outcome.result, dry_run) {
        (Fate::Dropped, false) => "dropped",
        (Fate::Dropped, true) => "would be dropped",
        (Fate::Gone, _) => "gone meanwhile",
        (Fate::Own, false) => "STILL THERE",
        (Fate::Own, true) => "would stay",
        (Fate::StillCarried, false) => "STILL CARRIED",
        (Fate::StillCarried, true) => "would STILL be carried",
        (Fate::Failed, _) => "FAILED",
    };
    let leaf = if is_leaf_refused(outcome) { ", leaf needs it" } else { "" };
    format!("{result}{leaf}")
}

/// Whether the Secret serves a leaf that readers of its new `ca.crt` refuse.
fn is_leaf_refused(outcome: &Outcome) -> bool {
    outcome.result == Fate::Dropped && outcome.holding.leaf_needs_it
}

/// What is left to do, for what of it there is.
fn hints(report: &Report) -> Vec<(String, &'static str)> {
    let mut hints = Vec::new();
    let mut hint = |count: usize, what: &str, text: &'static str| {
        if count > 0 {
            hints.push((format!("{what}: {}", counted(count, "Secret")), text));
        }
    };
    hint(
        report.count(|outcome| outcome.result == Fate::Own),
        "The generator's own",
        "Only the generator can replace it: make it issue a new CA (certgen --overwrite, cmctl \
         renew, helm upgrade, …). What is distrusted is not carried beside the new one. Until then \
         it stays trusted.",
    );
    hint(
        report.count(is_leaf_refused),
        "The leaf needs it",
        "Only this CA vouches for the leaf, so readers of the new ca.crt refuse it. Have the \
         generator issue a new leaf now, and restart what does not re-read its files.",
    );
    hint(
        report.count(|outcome| outcome.result == Fate::StillCarried),
        "Still carried",
        "The webhook did not act. Is it running (kubectl -n ca-overlap get pods), and registered for \
         this Secret? Then run this command again; the keeper, if installed, asks by itself until \
         the CA is gone.",
    );
    hint(
        report.count(|outcome| outcome.result == Fate::Failed),
        "Failed",
        "The reasons stand in the table. Needed are the rights to list, get and patch Secrets. \
         Running this command again repeats nothing that is done.",
    );
    if report.dry_run && !report.done.is_empty() {
        hints.push((
            "Nothing was stored".to_owned(),
            "This is what the API server and the webhook answered to a dry run. Without --dry-run \
             the same happens.",
        ));
    }
    hints
}

pub(super) fn to_json(report: &Report) -> Value {
    let certificate = |wanted: &Wanted| {
        json!({
            "sha256": wanted.fingerprint.to_string(),
            "subject": wanted.known.as_ref().map(|(subject, _)| subject),
            "notAfter": wanted.known.as_ref().map(|(_, day)| day),
        })
    };
    let outcome = |outcome: &Outcome| {
        json!({
            "sha256": outcome.holding.fingerprint.to_string(),
            "was": was(outcome),
            "result": outcome.result,
            "leafNeedsIt": outcome.holding.leaf_needs_it,
        })
    };
    let secret = |done: &Done| {
        json!({
            "namespace": done.namespace,
            "name": done.name,
            "results": done.results.iter().map(outcome).collect::<Vec<_>>(),
            "error": done.error,
        })
    };
    json!({
        "dryRun": report.dry_run,
        "clean": report.is_clean(),
        "certificates": report.wanted.iter().map(certificate).collect::<Vec<_>>(),
        "secrets": report.done.iter().map(secret).collect::<Vec<_>>(),
        "unread": report.unread,
    })
}
