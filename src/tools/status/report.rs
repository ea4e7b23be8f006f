//! The output of `status`.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::row::{Ca, CarriedCa, Rotation};
use super::told::Would;
use crate::kubernetes::list::Namespaces;
use crate::tools::cluster::ScopedClient;
use crate::tools::registration::Registration;
use crate::tools::table::{Column, Row, Table, paragraph};
use crate::tools::text::{TAKEN_BACK, age, day};

/// What was seen.
pub(super) struct Seen<'a> {
    pub(super) rotations: &'a [Rotation],
    /// Whether everything could be read.
    pub(super) is_complete: bool,
    pub(super) now: Timestamp,
}

/// The table. An empty one says so only if everything could be read.
pub(super) fn to_text(
    seen: &Seen<'_>,
    registration: &Registration,
    cluster: &ScopedClient,
    is_wide: bool,
) -> String {
    let Seen { rotations, is_complete, now } = *seen;
    let mut out = String::new();
    if let Some(problem) = registration.problem() {
        paragraph(&mut out, "PROBLEM: ", &problem);
    }
    if rotations.is_empty() && is_complete {
        let is_one = !cluster.is_part() && cluster.scope != Namespaces::All;
        let more = if is_one { " (-A looks at all namespaces)" } else { "" };
        let _ = writeln!(out, "No rotation in flight in {}{more}.", cluster.place());
    } else if !rotations.is_empty() {
        let mut table = table(is_wide).wide(is_wide);
        for rotation in rotations {
            table.push(row(rotation, now));
        }
        out.push_str(&table.render());
    }
    out
}

/// What would have been done, if nothing is.
pub(super) fn audit(registration: &Registration, would: &[Would]) -> String {
    let mut out = String::new();
    if *registration == Registration::Audit {
        let text = "nothing is changed (--audit); metrics and log of the webhook count what would be \
                    bundled and staged; Events of the keeper say what it would do";
        paragraph(&mut out, "AUDIT: ", text);
    }
    for Would { namespace, name, at, what } in would {
        let _ = writeln!(out, "{namespace}/{name}  {at:.0}");
        paragraph(&mut out, "    ", &format!("would {what}"));
    }
    out
}

/// A table without rows, with more columns if it is wide.
pub(super) fn table(is_wide: bool) -> Table {
    let more = if is_wide { WIDE } else { &[] };
    let usual = [
        Column { head: "PHASE", max_width: 7 },
        Column { head: "OWN CA", max_width: 12 },
        Column { head: "CARRIED CA", max_width: 12 },
        Column { head: "SINCE", max_width: 5 },
        Column { head: "UNTIL", max_width: 8 },
    ];
    Table::of_secrets(13, usual.into_iter().chain(more.iter().copied()))
}

/// What `-o wide` shows more, of the carried CAs.
const WIDE: &[Column] =
    &[Column { head: "EXPIRES", max_width: 10 }, Column { head: "SHA256", max_width: 64 }];

/// The row of one rotation. Its notes are what happens next and the problems.
pub(super) fn row(rotation: &Rotation, now: Timestamp) -> Row {
    let carried = |cell: &dyn Fn(&CarriedCa) -> String| rotation.carried.iter().map(cell).collect();
    let mut row = Row::new(vec![
        vec![rotation.namespace.clone()],
        vec![rotation.name.clone()],
        vec![rotation.phase.clone().unwrap_or_else(|| "-".into())],
        rotation.own.iter().map(name).collect(),
        carried(&|carried| name(&carried.ca)),
        carried(&|carried| age(now.as_second() - carried.since.as_second())),
        carried(&|carried| carried.until.map_or_else(|| "-".into(), |until| left(until, now))),
        carried(&|carried| {
            carried.ca.not_after.map_or_else(|| day(i64::MAX), |it| day(it.as_second()))
        }),
        carried(&|carried| carried.ca.sha256.clone()),
    ]);
    for carried in &rotation.carried {
        let Some(by) = carried.announced else { continue };
        let until = carried.until.map_or_else(|| TAKEN_BACK.to_owned(), |until| until.to_string());
        let name = name(&carried.ca);
        row.note(format!("{name}: announced by {by}, until {until}"));
    }
    if let Some(next) = &rotation.next {
        let at = next.at.map(|at| format!(" {} ({at})", left(at, now)));
        row.note(format!("next: {}{}", next.what, at.unwrap_or_default()));
    }
    if let Some(why) = &rotation.not_staged {
        row.note(format!("not staged: {}", why.text));
    }
    for problem in &rotation.problems {
        row.note(format!("PROBLEM: {}", problem.text));
    }
    row
}

fn name(ca: &Ca) -> String {
    let digits: String = ca.sha256.chars().take(8).collect();
    format!("{digits} {}", ca.common_name)
}

fn left(until: Timestamp, now: Timestamp) -> String {
    let seconds = until.as_second() - now.as_second();
    if seconds <= 0 { "over".to_owned() } else { format!("in {}", age(seconds)) }
}
