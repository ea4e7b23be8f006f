//! The output of `announce`.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::listed::{CaOutcome, Change};
use crate::kubernetes::list::{Namespaces, Unread};
use crate::tools::elsewhere::{self, Place};
use crate::tools::error::exit_code;
use crate::tools::table::{Column, Row, Table, paragraph};
use crate::tools::text::{counted, day, short, subject};
use crate::x509::certs::Certificate;

/// The results for all Secrets.
pub(super) struct AnnounceReport {
    pub(super) cas: Vec<Certificate>,
    pub(super) change: Change,
    pub(super) done: Vec<SecretOutcome>,
    pub(super) unread: Vec<Unread>,
    /// Where else a CA that was taken back stands.
    pub(super) places: Vec<Place>,
    pub(super) dry_run: bool,
    pub(super) scope: Namespaces,
    /// Whether the command line names the Secrets.
    pub(super) is_named: bool,
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
        let mut out = String::new();
        let title = match (self.change, self.dry_run) {
            (Change::Until(until), false) => format!("Announced until {until}"),
            (Change::Until(until), true) => format!("To announce until {until} (dry run)"),
            (Change::Withdraw, false) => "Withdrawn".to_owned(),
            (Change::Withdraw, true) => "To withdraw (dry run)".to_owned(),
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
        match self.change {
            _ if self.is_named => "None of these Secrets could be read.".to_owned(),
            Change::Until(_) => {
                format!("No Secret in {} has a ca.crt that ca-overlap may change.", self.scope)
            }
            Change::Withdraw => format!("No Secret in {} announces it.", self.scope),
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::new(vec![
            Column { head: "SECRET", max_width: 42 },
            Column { head: "CA", max_width: 8 },
            Column { head: "RESULT", max_width: 44 },
        ]);
        for SecretOutcome { namespace, name, result } in &self.done {
            let all = result.as_deref().unwrap_or_default();
            let of = self.cas.iter().take(all.len());
            let mut row = Row::new(vec![
                vec![format!("{namespace}/{name}")],
                of.map(|ca| short(ca.fingerprint())).collect(),
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
        if self.dry_run && !self.done.is_empty() {
            hints.push((
                "Nothing was stored".to_owned(),
                "The API server and the webhook answered a dry run. Run the command without \
                 --dry-run to store the result.",
            ));
        }
        hints
    }

    pub(super) fn to_json(&self) -> Value {
        let ca = |ca: &Certificate| {
            json!({
                "sha256": ca.fingerprint().to_string(),
                "subject": subject(ca),
                "notAfter": day(ca.not_after()),
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
        json!({
            "dryRun": self.dry_run,
            "withdraw": self.change == Change::Withdraw,
            "until": until,
            "certificates": self.cas.iter().map(ca).collect::<Vec<_>>(),
            "secrets": self.done.iter().map(secret).collect::<Vec<_>>(),
            "elsewhere": self.places,
            "unread": self.unread,
        })
    }
}

/// Whether the Secret trusts the CA now, or does not announce it any more.
fn is_as_wanted(result: CaOutcome, change: Change) -> bool {
    match change {
        Change::Until(_) => {
            matches!(result, CaOutcome::Announced | CaOutcome::Carried | CaOutcome::Own)
        }
        Change::Withdraw => {
            matches!(result, CaOutcome::Absent | CaOutcome::Gone | CaOutcome::Own)
        }
    }
}

fn text(result: CaOutcome, change: Change) -> &'static str {
    match (change, result) {
        (_, CaOutcome::Gone) => "the Secret is gone",
        (_, CaOutcome::Own) => "the generator's own",
        (Change::Until(_), CaOutcome::Announced | CaOutcome::ByKeeper) => "announced",
        (Change::Until(_), CaOutcome::Carried) => "carried, and announced from its end on",
        (Change::Until(_), CaOutcome::Absent) => "NOT ANNOUNCED",
        (Change::Withdraw, CaOutcome::Absent) => "withdrawn",
        (Change::Withdraw, CaOutcome::Announced) => "STILL ANNOUNCED",
        (Change::Withdraw, CaOutcome::ByKeeper) => "announced by the keeper",
        (Change::Withdraw, CaOutcome::Carried) => "CARRIED",
    }
}
