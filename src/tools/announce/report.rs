//! The output of `announce`.

use std::fmt::Write as _;
use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::listed::{CaOutcome, Change};
use crate::kubernetes::list::Unread;
use crate::tools::annotate::DryRun;
use crate::tools::elsewhere::{self, Place};
use crate::tools::error::exit_code;
use crate::tools::output::{self, Output};
use crate::tools::table::{Column, Row, Table, paragraph};
use crate::tools::text::{counted, day, sha256, subject};
use crate::x509::certs::Certificate;

/// The results for all Secrets.
pub(super) struct AnnounceReport {
    pub(super) cas: Vec<Certificate>,
    pub(super) change: Change,
    pub(super) done: Vec<SecretOutcome>,
    pub(super) unread: Vec<Unread>,
    /// Where else a CA that was taken back stands.
    pub(super) places: Vec<Place>,
    pub(super) dry_run: DryRun,
    /// Where the command looked, for people.
    pub(super) place: String,
    /// Whether only some Secrets of the namespaces counted.
    pub(super) is_part: bool,
    pub(super) output: Output,
}

/// The result for one Secret.
pub(super) struct SecretOutcome {
    pub(super) namespace: String,
    pub(super) name: String,
    /// How it stands to each CA, or why it could not be written.
    pub(super) result: Result<Vec<CaOutcome>, String>,
}

impl AnnounceReport {
    pub(super) fn exit_code(&self) -> ExitCode {
        let follows = self.done.iter().all(|it| {
            it.result
                .as_ref()
                .is_ok_and(|all| all.iter().all(|one| is_as_wanted(*one, self.change)))
        });
        let has_some = !self.done.is_empty() || self.change == Change::Withdraw;
        exit_code(self.unread.is_empty(), follows && has_some && self.places.is_empty())
    }

    pub(super) fn to_text(&self) -> String {
        if self.output == Output::Name {
            return output::names(self.done.iter().map(|it| it.name.as_str()));
        }
        let mut out = String::new();
        let title = match (self.change, self.dry_run) {
            (Change::Until(until), DryRun::None) => format!("Announced until {until}"),
            (Change::Until(until), _) => format!("To announce until {until} (dry run)"),
            (Change::Withdraw, DryRun::None) => "Withdrawn".to_owned(),
            (Change::Withdraw, _) => "To withdraw (dry run)".to_owned(),
        };
        let _ = writeln!(out, "{title}");
        for ca in &self.cas {
            let _ = writeln!(out, "  sha256 {}", ca.fingerprint());
            let _ = writeln!(out, "         {}, expires {}", subject(ca), day(ca.not_after()));
        }
        out.push('\n');
        if self.done.is_empty() {
            let _ = writeln!(out, "{}", self.nothing());
        } else {
            out.push_str(&self.table().render());
        }
        for (head, hint) in self.hints() {
            let _ = writeln!(out, "\n{head}");
            paragraph(&mut out, "  ", hint);
        }
        out.push_str(&elsewhere::to_text(&self.places));
        out
    }

    fn nothing(&self) -> String {
        let none = if self.is_part { "None of" } else { "No Secret in" };
        let what = match self.change {
            Change::Until(_) => "has a ca.crt that ca-overlap may change",
            Change::Withdraw => "announces it",
        };
        format!("{none} {} {what}.", self.place)
    }

    fn table(&self) -> Table {
        let is_wide = self.output == Output::Wide;
        let columns =
            [Column { head: "CA", max_width: 8 }, Column { head: "RESULT", max_width: 35 }];
        let mut table = Table::of_secrets(20, columns).wide(is_wide);
        for SecretOutcome { namespace, name, result } in &self.done {
            let all = result.as_deref().unwrap_or_default();
            let of = self.cas.iter().take(all.len());
            let mut row = Row::new(vec![
                vec![namespace.clone()],
                vec![name.clone()],
                of.map(|ca| sha256(ca.fingerprint(), is_wide)).collect(),
                all.iter().map(|one| text(*one, self.change).to_owned()).collect(),
            ]);
            if let Err(error) = result {
                row.note(format!("FAILED: {error}"));
            }
            table.push(row);
        }
        table
    }

    /// What is left to do: a heading and a text for each kind of result that occurs.
    fn hints(&self) -> Vec<(String, &'static str)> {
        let count =
            |of: &dyn Fn(&SecretOutcome) -> bool| self.done.iter().filter(|it| of(it)).count();
        let has = |wanted: CaOutcome| {
            count(&|it| it.result.as_ref().is_ok_and(|all| all.contains(&wanted)))
        };
        let mut hints = Vec::new();
        let mut hint = |count: usize, what: &str, text: &'static str| {
            if count > 0 {
                hints.push((format!("{what}: {}", counted(count, "Secret")), text));
            }
        };
        match self.change {
            Change::Until(_) => hint(
                has(CaOutcome::Absent),
                "Not announced",
                "The webhook did not append it. Is it running (kubectl -n ca-overlap get pods), and \
                 registered for this Secret? Is the CA distrusted, the Secret left alone, or full? \
                 ca-overlap inspect NAMESPACE/NAME says so. The annotation stays: the webhook \
                 acts on the next write that it sees.",
            ),
            Change::Withdraw => {
                hint(
                    has(CaOutcome::Announced),
                    "Still announced",
                    "The webhook did not act. Is it running (kubectl -n ca-overlap get pods), and \
                     registered for this Secret? Its next write takes the CA out; if the keeper \
                     runs, it asks for that.",
                );
                hint(
                    has(CaOutcome::ByKeeper),
                    "Announced by the keeper",
                    "The keeper announces it as well, for as long as what it follows has this CA.",
                );
                hint(
                    has(CaOutcome::Carried),
                    "Carried",
                    "The Secret's own leaf needs it, or it is a previous CA. It goes as previous \
                     CAs do.",
                );
            }
        }
        hint(
            count(&|it| it.result.is_err()),
            "Failed",
            "The table gives the reasons. The command needs the rights to list, get and patch \
             Secrets. It is safe to run it again.",
        );
        if !self.done.is_empty() {
            hints.extend(self.dry_run.hint());
        }
        hints
    }

    pub(super) fn to_json(&self) -> Value {
        let ca = |ca: &Certificate| {
            json!({
                "sha256": ca.fingerprint().to_string(),
                "subject": subject(ca),
                "notAfter": Timestamp::from_second(ca.not_after()).ok(),
            })
        };
        let secret = |SecretOutcome { namespace, name, result }: &SecretOutcome| {
            let results = self.cas.iter().zip(result.as_deref().unwrap_or_default());
            let results = results.map(
                |(ca, result)| json!({"sha256": ca.fingerprint().to_string(), "result": result}),
            );
            json!({
                "namespace": namespace,
                "name": name,
                "results": results.collect::<Vec<_>>(),
                "error": result.as_ref().err(),
            })
        };
        let until = match self.change {
            Change::Until(until) => Some(until),
            Change::Withdraw => None,
        };
        let fields = json!({
            "dryRun": self.dry_run != DryRun::None,
            "dryRunStrategy": self.dry_run,
            "withdraw": self.change == Change::Withdraw,
            "until": until,
            "certificates": self.cas.iter().map(ca).collect::<Vec<_>>(),
            "secrets": self.done.iter().map(secret).collect::<Vec<_>>(),
            "elsewhere": self.places,
            "unread": self.unread,
        });
        output::document("AnnouncementReport", fields)
    }
}

/// Whether the Secret trusts the CA now, or does not announce it any more.
fn is_as_wanted(result: CaOutcome, change: Change) -> bool {
    match change {
        Change::Until(_) => {
            matches!(
                result,
                CaOutcome::Announced | CaOutcome::Carried | CaOutcome::Own | CaOutcome::Planned
            )
        }
        Change::Withdraw => {
            matches!(
                result,
                CaOutcome::Absent | CaOutcome::Gone | CaOutcome::Own | CaOutcome::Planned
            )
        }
    }
}

fn text(result: CaOutcome, change: Change) -> &'static str {
    match (change, result) {
        (_, CaOutcome::Gone) => "the Secret is gone",
        (_, CaOutcome::Own) => "the generator's own",
        (_, CaOutcome::Planned) => "would be annotated",
        (Change::Until(_), CaOutcome::Announced | CaOutcome::ByKeeper) => "announced",
        (Change::Until(_), CaOutcome::Carried) => "carried, and announced from its end on",
        (Change::Until(_), CaOutcome::Absent) => "NOT ANNOUNCED",
        (Change::Withdraw, CaOutcome::Absent) => "withdrawn",
        (Change::Withdraw, CaOutcome::Announced) => "STILL ANNOUNCED",
        (Change::Withdraw, CaOutcome::ByKeeper) => "announced by the keeper",
        (Change::Withdraw, CaOutcome::Carried) => "CARRIED",
    }
}
