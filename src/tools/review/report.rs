//! The output of `review`. Shows only what the webhook itself reads, so no other value of the
//! Secret and no private key.

use std::fmt::Write as _;

use base64::prelude::*;
use diffy::DiffOptions;
use jiff::Timestamp;
use json_patch::{Patch, PatchOperation};
use serde_json::{Map, Value, json};

use crate::admission::respond::{AdmissionDecision, Answer};
use crate::admission::review::AdmissionRequest;
use crate::names;
use crate::overlap::Case;
use crate::overlap::record::Record;
use crate::tools::table::paragraph;
use crate::tools::text::{carried, counted, data_left_alone, day, list, printable, subject};
use crate::x509::certs::{Bundle, Certificate};

/// A decision and the Secret before and after it.
pub(super) struct Explanation {
    who: String,
    decision: AdmissionDecision,
    warnings: Vec<String>,
    operations: Vec<(String, String)>,
    incoming: VisibleParts,
    stored: VisibleParts,
    record: Record,
    now: Timestamp,
}

impl Explanation {
    pub(super) fn new(
        request: &AdmissionRequest<'_>,
        answer: &Answer,
        incoming: &Value,
        now: Timestamp,
    ) -> Self {
        let mut stored = incoming.clone();
        if let Some(patch) = &answer.patch {
            // The API server rejects a patch that does not apply: nothing is stored.
            if json_patch::patch(&mut stored, patch).is_err() {
                stored = Value::Null;
            }
        }
        let operations = serde_json::to_value(&answer.patch).unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let operations = operations.as_array().into_iter().flatten();
        Self {
            who: format!(
                "{}/{}",
                printable(request.namespace.as_deref().unwrap_or("-")),
                printable(request.name.as_deref().unwrap_or("-"))
            ),
            decision: answer.decision,
            warnings: answer.warnings.iter().map(ToString::to_string).collect(),
            operations: operations.map(|op| (text(&op["op"]), text(&op["path"]))).collect(),
            incoming: VisibleParts::of(incoming),
            stored: VisibleParts::of(&stored),
            record: answer.record.clone(),
            now,
        }
    }

    pub(super) fn to_text(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "Secret    {}", self.who);
        let _ = writeln!(out, "Decision  {}: {}", self.decision.as_str(), explain(self.decision));
        self.write_certificates(&mut out);
        let title = if self.operations.is_empty() {
            "\nPatch     none: stored as written"
        } else {
            "\nPatch"
        };
        let _ = writeln!(out, "{title}");
        for (op, path) in &self.operations {
            let _ = writeln!(out, "  {op:<6} {}", path.replace("~1", "/"));
        }
        if !self.warnings.is_empty() {
            let _ = writeln!(out, "\nWarnings to the writer");
        }
        for warning in &self.warnings {
            let _ = writeln!(out, "  {warning}");
        }
        out
    }

    fn write_certificates(&self, out: &mut String) {
        let Some(certificates) = self.stored.certificates() else {
            let _ = writeln!(out, "\nca.crt    none");
            return;
        };
        let count = counted(certificates.len(), "certificate");
        let _ = writeln!(out, "\nca.crt after the write: {count} readable");
        list(out, &certificates, |out, index, certificate| {
            let role = match self.record.entry(certificate.fingerprint()) {
                Some(entry) => {
                    carried(entry, entry.until.map(|until| until.to_string()).as_deref())
                }
                None => "written by the generator".to_owned(),
            };
            let expired = if certificate.is_expired(self.now) { " (EXPIRED)" } else { "" };
            let _ = writeln!(out, "  {}. {}", index + 1, subject(certificate));
            let _ = writeln!(out, "     {role}; expires {}{expired}", day(certificate.not_after()));
            let _ = writeln!(out, "     sha256 {}", certificate.fingerprint());
        });
        for note in self.notes(&certificates) {
            out.push('\n');
            paragraph(out, "Note      ", &note);
        }
    }

    /// Which readers the overlap harms, or does not help: those that cannot distinguish a carried
    /// CA from another one of its subject.
    fn notes(&self, certificates: &[Certificate]) -> Vec<String> {
        let key = |certificate: &Certificate| {
            certificate.parsed().map(|parsed| parsed.public_key().raw.to_vec())
        };
        let is_carried = |c: &Certificate| self.record.entry(c.fingerprint()).is_some();
        let pairs = certificates.iter().filter(|c| is_carried(c)).filter_map(|carried| {
            let is_namesake = |other: &&Certificate| {
                !is_carried(other)
                    && other.subject() == carried.subject()
                    && key(other) != key(carried)
            };
            Some((carried, certificates.iter().find(is_namesake)?))
        });
        let pairs: Vec<_> = pairs.collect();
        let mut notes = Vec::new();
        if !pairs.is_empty() {
            notes.push(
                "a carried CA has the same subject as a new one. Readers that file CAs under their \
                 subject (Jolokia, fabric8, ZooKeeper, Keycloak) keep only the carried one, and \
                 reject the new leaf. If such a reader uses this Secret, set the label \
                 ca-overlap.dev/mode=off."
                    .to_owned(),
            );
        }
        if pairs.iter().any(|(a, b)| a.subject_key_id().or(b.subject_key_id()).is_none()) {
            notes.push(
                "neither of the two has a key id. OpenSSL uses only the first one: the overlap has \
                 no effect there."
                    .to_owned(),
            );
        }
        notes
    }

    pub(super) fn to_json(&self) -> Value {
        let describe = |certificate: &Certificate| {
            let entry = self.record.entry(certificate.fingerprint());
            json!({
                "sha256": certificate.fingerprint().to_string(),
                "subject": subject(certificate),
                "notAfter": Timestamp::from_second(certificate.not_after()).ok(),
                "carried": entry.is_some(),
                "announced": entry.and_then(|entry| entry.announced),
                "since": entry.map(|entry| entry.since.to_string()),
                "until": entry.and_then(|entry| entry.until).map(|until| until.to_string()),
            })
        };
        let certificates = self.stored.certificates().unwrap_or_default();
        json!({
            "decision": self.decision.as_str(),
            "explanation": explain(self.decision),
            "ca.crt": self.stored.ca_crt,
            "certificates": certificates.iter().map(describe).collect::<Vec<_>>(),
            "notes": self.notes(&certificates),
            "labels": self.stored.labels,
            "annotations": self.stored.annotations,
        })
    }

    pub(super) fn to_diff(&self) -> String {
        let (before, after) = (self.incoming.lines(), self.stored.lines());
        DiffOptions::new()
            .set_context_len(2)
            .set_original_filename("as written")
            .set_modified_filename("as stored")
            .create_patch(&before, &after)
            .to_string()
    }
}

/// The parts of a Secret that may be printed.
struct VisibleParts {
    ca_crt: Option<String>,
    labels: Map<String, Value>,
    annotations: Map<String, Value>,
}

impl VisibleParts {
    fn of(secret: &Value) -> Self {
        let ours = |map: &Value| {
            let pairs = map.as_object().into_iter().flatten();
            pairs
                .filter(|(key, _)| key.starts_with(names::PREFIX))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect()
        };
        let ca_crt = secret["data"][names::CA_CRT]
            .as_str()
            .and_then(|text| BASE64_STANDARD.decode(text).ok())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Self {
            ca_crt: ca_crt.map(|text| without_keys(&text)),
            labels: ours(&secret["metadata"]["labels"]),
            annotations: ours(&secret["metadata"]["annotations"]),
        }
    }

    fn certificates(&self) -> Option<Vec<Certificate>> {
        let text = self.ca_crt.as_ref()?;
        Bundle::parse(text.as_bytes(), usize::MAX - 1).ok().map(|b| b.certificates().to_vec())
    }

    fn lines(&self) -> String {
        let mut out = String::new();
        for (title, map) in [("labels", &self.labels), ("annotations", &self.annotations)] {
            for (key, value) in map {
                let value = printable(value.as_str().unwrap_or_default());
                let _ = writeln!(out, "{title}: {key}: {value}");
            }
        }
        for line in self.ca_crt.iter().flat_map(|text| text.lines()) {
            let _ = writeln!(out, "ca.crt: {}", printable(line));
        }
        out
    }
}

/// Removes private keys from a patch: a patch that ends a staged rotation moves `tls.key`.
pub(super) fn without_private_keys(patch: &mut Patch) {
    for operation in &mut patch.0 {
        if let PatchOperation::Add(add) = operation
            && add.path.as_str().starts_with("/data/")
            && add.path.as_str().ends_with(names::TLS_KEY)
        {
            add.value = Value::String(String::new());
        }
    }
}

/// Replaces blocks of `ca.crt` that are not certificates: they may be private keys.
fn without_keys(text: &str) -> String {
    let mut shown = String::new();
    let mut position = 0;
    for block in crate::x509::pem::blocks(text.as_bytes()) {
        if block.is_certificate() {
            continue;
        }
        shown.push_str(text.get(position..block.span.start).unwrap_or_default());
        shown.push_str("# a block that is not a certificate is not shown\n");
        position = block.span.end;
    }
    shown.push_str(text.get(position..).unwrap_or_default());
    shown
}

fn explain(decision: AdmissionDecision) -> &'static str {
    match decision {
        AdmissionDecision::Case(case) => match case {
            Case::Created => "a new Secret; state that it brings is dropped, and a record begins",
            Case::FirstContact => {
                "no record yet and no new CA; the CAs that the write removes are carried"
            }
            Case::NoCa => "the old or the new Secret has no ca.crt; there is nothing to overlap",
            Case::NotReadable => "the new ca.crt holds no readable certificate",
            Case::Retirement => "the generator removed one of its own CAs; it is not carried",
            Case::Rollback => "the generator went back to a carried CA; the later CA is carried",
            Case::Rotation => "a new CA replaces the active one, which is carried",
            Case::Same => "the generator keeps its CAs; the carried CAs stay",
            Case::TrustStore => "more than 64 certificates are a trust store; data is left alone",
            Case::Unchanged => {
                "ca.crt is not changed; carried CAs that are over go, announced ones come"
            }
        },
        AdmissionDecision::Exempt(reason) => data_left_alone(reason),
        AdmissionDecision::Skipped(_) => "not a Secret that the webhook changes; stored as written",
    }
}
