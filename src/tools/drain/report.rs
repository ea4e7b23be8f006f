//! The output of `drain`.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Drained;
use super::end::EndedBy;
use crate::tools::output;
use crate::tools::table::paragraph;
use crate::tools::text::counted;

/// What was ended and by whom, and what is left.
pub(super) fn to_text(drained: &Drained, place: &str, is_trial: bool) -> String {
    let Drained { ended, waiting, unread } = drained;
    let mut out = String::new();
    for (by, what, note) in [
        (EndedBy::Webhook, "by the webhook", ""),
        (
            EndedBy::Command,
            "by this command, because the webhook was not called",
            "It moved the pair itself. The API server now notes ca-overlap-drain as the manager of \
             tls.crt and tls.key: a generator that applies server side without force gets a \
             conflict.",
        ),
        (EndedBy::Other, "by another writer", ""),
    ] {
        let keys: Vec<_> = ended.iter().filter(|(_, it)| **it == by).map(|(key, _)| key).collect();
        if keys.is_empty() {
            continue;
        }
        let _ = writeln!(out, "Ended {what}: {}", counted(keys.len(), "stage"));
        for key in keys {
            let _ = writeln!(out, "  {key}");
        }
        if !note.is_empty() {
            paragraph(&mut out, "  ", note);
        }
        out.push('\n');
    }
    if !waiting.is_empty() {
        let what = if is_trial { "To end (dry run)" } else { "STILL WAITING" };
        let _ = writeln!(out, "{what}: {}", counted(waiting.len(), "Secret"));
        for (key, obstacle) in waiting {
            let _ = writeln!(out, "  {key}");
            if !is_trial {
                paragraph(&mut out, "    ", &obstacle.reason);
            }
        }
    }
    if waiting.is_empty() && unread.is_empty() {
        let mut text = format!("No leaf waits in {place}.");
        if !is_trial {
            text += " The keeper works again from now on: if you uninstall ca-overlap, continue at once.";
        }
        paragraph(&mut out, "", &text);
    }
    out
}

/// The same for programs.
pub(super) fn to_json(drained: &Drained, is_trial: bool) -> Value {
    let ended = drained
        .ended
        .iter()
        .map(|(key, by)| json!({"namespace": key.namespace(), "name": key.name(), "endedBy": by}));
    let waiting = drained.waiting.iter().map(|(key, obstacle)| {
        json!({"namespace": key.namespace(), "name": key.name(), "reason": obstacle.reason})
    });
    let fields = json!({
        "dryRun": is_trial,
        "ended": ended.collect::<Vec<_>>(),
        "waiting": waiting.collect::<Vec<_>>(),
        "unread": drained.unread,
    });
    output::document("DrainReport", fields)
}
