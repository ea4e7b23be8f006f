//! The output of `check --pre`: a table for a meeting, JSON and YAML.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::super::report::{self, Line};
use super::Plan;
use super::plan::{Outcome, Planned};
use super::readers::{Reader, never_sees_new_files};
use crate::kubernetes::key::Key;
use crate::kubernetes::list::{Namespaces, Unread};
use crate::kubernetes::pod_secrets::SecretUse;
use crate::names;
use crate::overlap::exempt;
use crate::tools::output;
use crate::tools::table::{Column, Row, Table, paragraph};
use crate::tools::text::counted;

/// What is reported.
pub(super) struct Report<'a> {
    pub(super) lines: &'a [Line],
    pub(super) plan: &'a Plan,
    pub(super) scope: &'a Namespaces,
    /// Where pods could not be read.
    pub(super) unread_pods: &'a [Unread],
}

/// What an outcome means.
fn meaning(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Staged => "a new leaf waits until its readers trust the new CA",
        Outcome::Announced => "its readers trust the next CA before the first leaf of it",
        Outcome::Bundled => "the old CA stays beside the new one",
        Outcome::LeftAlone => "nothing is changed",
    }
}

/// As people read it.
fn heading(outcome: Outcome) -> &'static str {
    if outcome == Outcome::LeftAlone { "left alone" } else { outcome.name() }
}

fn use_name(how: SecretUse) -> &'static str {
    match how {
        SecretUse::Mount => "mount",
        SecretUse::SubPath => "subPath",
        SecretUse::Environment => "environment",
        SecretUse::InitContainer => "initContainer",
        SecretUse::Other => "other",
    }
}

impl Report<'_> {
    pub(super) fn to_text(&self) -> String {
        let mut out = report::to_text(self.lines);
        let tokens = self.plan.values().filter(|it| is_token(it)).count();
        let whom = match self.scope {
            Namespaces::All => "all namespaces".to_owned(),
            Namespaces::One(name) => format!("namespace {name}"),
        };
        let number = counted(self.plan.len() - tokens, "Secret");
        let _ = writeln!(out, "\nThe plan of overlays/full for {whom}: {number}\n");
        for outcome in Outcome::ALL {
            let count = self.shown().filter(|(_, it)| it.outcome == outcome).count();
            let _ = writeln!(out, "  {count:>5}  {:<10}  {}", heading(outcome), meaning(outcome));
        }
        let readers = self.readers();
        let blind = readers.iter().filter(|(.., never)| *never).count();
        let _ = writeln!(
            out,
            "\n  {:>5}  readers, {blind} of which never see a new file",
            readers.len()
        );
        if tokens > 0 {
            let tokens = counted(tokens, "ServiceAccount token");
            let _ = writeln!(out, "\n{tokens} with a ca.crt: left alone, and not listed.");
        }
        if self.plan.len() > tokens {
            let _ = write!(out, "\n{}", self.table());
        }
        self.write_advice(&mut out);
        out
    }

    fn shown(&self) -> impl Iterator<Item = (&Key, &Planned)> {
        self.plan.iter().filter(|(_, planned)| !is_token(planned))
    }

    fn are_readers_known(&self, key: &Key) -> bool {
        let is_here = |it: &Unread| it.namespace.as_ref().is_none_or(|it| it == key.namespace());
        !self.unread_pods.iter().any(is_here)
    }

    /// All readers, and whether each never sees a new file of one of its Secrets.
    fn readers(&self) -> BTreeSet<(&str, &Reader, bool)> {
        let mut found = BTreeSet::new();
        for (key, planned) in self.plan {
            for (reader, uses) in &planned.readers {
                found.insert((key.namespace(), reader, never_sees_new_files(uses)));
            }
        }
        let blind: BTreeSet<_> = found.iter().filter(|it| it.2).map(|it| (it.0, it.1)).collect();
        let is_counted_once = |it: &&(&str, &Reader, bool)| it.2 || !blind.contains(&(it.0, it.1));
        found.iter().filter(is_counted_once).copied().collect()
    }

    fn table(&self) -> String {
        let column = |head, max_width| Column { head, max_width };
        let columns = [column("PLAN", 10), column("READER", 30), column("NEW FILES", 20)];
        let mut table = Table::of_secrets(20, columns);
        for (key, planned) in self.shown() {
            let text = |text: &str| vec![text.to_owned()];
            let readers: Vec<_> = if self.are_readers_known(key) {
                planned.readers.keys().map(ToString::to_string).collect()
            } else {
                text("not known")
            };
            let new_files = planned.readers.values().map(|uses| {
                if !never_sees_new_files(uses) {
                    return "cannot be told".to_owned();
                }
                let blind = uses.iter().filter(|how| **how != SecretUse::Mount);
                let blind = blind.map(|how| use_name(*how)).collect::<Vec<_>>();
                format!("never: {}", blind.join(", "))
            });
            let mut row = Row::new(vec![
                text(key.namespace()),
                text(key.name()),
                text(heading(planned.outcome)),
                readers,
                new_files.collect(),
            ]);
            if let Some(why) = &planned.why {
                row.note(why.text.as_str());
            }
            let sources: Vec<_> = planned.sources.iter().map(ToString::to_string).collect();
            if !sources.is_empty() {
                row.note(format!("the next CA comes from {}", sources.join(", ")));
            }
            table.push(row);
        }
        table.render()
    }

    fn write_advice(&self, out: &mut String) {
        let restarts: Vec<_> =
            self.plan.iter().filter_map(|(key, it)| Some((key, restart(it)?))).collect();
        if !restarts.is_empty() {
            out.push('\n');
            paragraph(
                out,
                "",
                "These readers never see a new file. Have the keeper restart them, now or later:",
            );
        }
        for (key, workloads) in restarts {
            let _ = writeln!(
                out,
                "  kubectl annotate secret -n {} {} --overwrite \\\n    {}={workloads}",
                key.namespace(),
                key.name(),
                names::RESTART
            );
        }
        let by_hand = self.plan.iter().flat_map(|(key, it)| {
            let readers = blind(it).filter(|reader| reader.workload().is_none());
            readers.map(move |reader| format!("{} {reader}", key.namespace()))
        });
        let by_hand: BTreeSet<String> = by_hand.collect();
        if !by_hand.is_empty() {
            out.push('\n');
            paragraph(
                out,
                "",
                "Neither do these, which are no Deployment, StatefulSet or DaemonSet. Restart them \
                 yourself after a rotation:",
            );
            for reader in by_hand {
                paragraph(out, "  ", &reader);
            }
        }
        let mut all = self.plan.values().filter(|it| it.outcome != Outcome::LeftAlone);
        if all.any(|it| it.readers.values().any(|uses| !never_sees_new_files(uses))) {
            out.push('\n');
            paragraph(
                out,
                "",
                "Whether a process reads its mounted files again cannot be told from outside. Ask its \
                 documentation; if it reads them only when it starts, add its workload in the same \
                 way. Readers without a pod at this moment, and those that read Secrets from the API \
                 server, are not found.",
            );
        }
    }

    pub(super) fn to_json(&self) -> Value {
        let count = |outcome| self.plan.values().filter(|it| it.outcome == outcome).count();
        let mut summary = json!({"secrets": self.plan.len()});
        for outcome in Outcome::ALL {
            summary[outcome.name()] = count(outcome).into();
        }
        let readers = self.readers();
        summary["readers"] = readers.len().into();
        summary["readersThatNeverSeeNewFiles"] =
            readers.iter().filter(|(.., never)| *never).count().into();
        let secrets = self.plan.iter().map(|(key, it)| self.secret(key, it));
        let fields = json!({
            "checks": report::to_json(self.lines),
            "summary": summary,
            "secrets": secrets.collect::<Vec<_>>(),
        });
        output::document("InstallationPlan", fields)
    }

    fn secret(&self, key: &Key, planned: &Planned) -> Value {
        let readers = planned.readers.iter().map(|(reader, uses)| {
            let never = never_sees_new_files(uses);
            json!({
                "kind": reader.kind,
                "group": reader.group,
                "name": reader.name,
                "uses": uses.iter().map(|how| use_name(*how)).collect::<Vec<_>>(),
                "newFiles": if never { "never" } else { "unknown" },
            })
        });
        let why = planned.why.as_ref();
        json!({
            "namespace": key.namespace(),
            "name": key.name(),
            "type": planned.kind,
            "plan": planned.outcome.name(),
            "reason": why.map(|why| &why.name),
            "message": why.map(|why| &why.text),
            "announcedFrom": planned.sources.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "readers": self.are_readers_known(key).then(|| readers.collect::<Vec<_>>()),
            "restart": restart(planned),
        })
    }
}

fn is_token(planned: &Planned) -> bool {
    exempt::is_token(Some(&planned.kind))
}

/// The readers that never see a new file, if anything is going to change.
fn blind(planned: &Planned) -> impl Iterator<Item = &Reader> {
    let all = planned.readers.iter().filter(|_| planned.outcome != Outcome::LeftAlone);
    all.filter(|(_, uses)| never_sees_new_files(uses)).map(|(reader, _)| reader)
}

/// What the annotation `restart` should be; `None` if it is so already.
fn restart(planned: &Planned) -> Option<String> {
    let named: Vec<String> = planned.restart.iter().map(ToString::to_string).collect();
    let missing = blind(planned).filter_map(Reader::workload).map(|it| it.to_string());
    let missing: Vec<String> = missing.filter(|it| !named.contains(it)).collect();
    (!missing.is_empty()).then(|| [named, missing].concat().join(","))
}
