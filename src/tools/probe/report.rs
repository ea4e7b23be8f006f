//! The output of `probe`.

use std::fmt::Write as _;

use rustls::pki_types::ServerName;
use serde_json::{Value, json};

use super::ConnectionError;
use super::connect::{ClientOptions, Endpoint, TlsVersion};
use super::evidence::{ProbeVerdict, Tally};
use super::observe::{Observer, ObserverError};
use super::trust::CertificateRequest;
use crate::tools::output;
use crate::tools::table::{Column, Row, Table, line_width, wrapped};
use crate::tools::text::{counted, day, short, subject};
use crate::x509::certs::Certificate;

/// The results for all TLS versions.
pub(super) struct ProbeReport<'a> {
    endpoint: &'a Endpoint,
    name: &'a ServerName<'static>,
    watched: bool,
    /// The server's request for a client certificate.
    request: Option<CertificateRequest>,
    sent: bool,
    versions: Vec<(TlsVersion, Result<Observer<'a>, ObserverError>)>,
}

impl<'a> ProbeReport<'a> {
    pub(super) fn new(
        endpoint: &'a Endpoint,
        settings: &'a ClientOptions,
        watched: bool,
        versions: Vec<(TlsVersion, Result<Observer<'a>, ObserverError>)>,
    ) -> Self {
        let (request, sent) = (settings.certificate.request(), settings.certificate.is_given());
        Self { endpoint, name: &settings.name, watched, request, sent, versions }
    }

    /// Whether no fault was found and nothing failed.
    pub(super) fn is_fine(&self) -> bool {
        let is_any = self.observers().next().is_some();
        is_any
            && self.versions.iter().all(|(_, result)| match result {
                Ok(observer) => is_fine(observer),
                Err(error) => is_not_offered(error),
            })
    }

    /// The errors, if no version could be observed.
    pub(super) fn failures(&self) -> Vec<String> {
        if self.observers().next().is_some() {
            return Vec::new();
        }
        let failures = self.versions.iter().filter_map(|(_, result)| result.as_ref().err());
        let mut failures: Vec<_> = failures.map(ObserverError::to_string).collect();
        failures.dedup();
        failures
    }

    /// The worst verdict of all versions.
    fn verdict(&self) -> Option<ProbeVerdict> {
        self.observers().map(Observer::verdict).max()
    }

    fn observers(&self) -> impl Iterator<Item = &Observer<'a>> {
        self.versions.iter().filter_map(|(_, result)| result.as_ref().ok())
    }
}

/// Whether the server does not offer the version. That is no failure if it offers another one.
fn is_not_offered(error: &ObserverError) -> bool {
    matches!(error, ObserverError::Connection(ConnectionError::Version(..)))
}

fn is_fine(observer: &Observer<'_>) -> bool {
    let is_trusted = observer.new.as_ref().is_none_or(|(_, trusted)| trusted.is_ok());
    let is_fault = observer.verdict() == ProbeVerdict::ResumesAcrossRotation;
    !is_fault && is_trusted && observer.failed.is_none()
}

pub(super) fn to_text(report: &ProbeReport<'_>) -> String {
    if report.observers().next().is_none() {
        return report
            .request
            .as_ref()
            .map(|request| clients(request, report.sent))
            .unwrap_or_default();
    }
    let mut table = Table::new(vec![
        Column { head: "TLS", max_width: 3 },
        Column { head: "VERDICT", max_width: 23 },
        Column { head: "GIVEN", max_width: 10 },
        Column { head: "RESUMED", max_width: 8 },
        Column { head: "AFTERWARDS", max_width: 10 },
        Column { head: "CERTIFICATE", max_width: 16 },
    ]);
    let mut notes: Vec<_> =
        report.versions.iter().map(|(version, result)| notes(*version, result, report)).collect();
    for (at, (version, result)) in report.versions.iter().enumerate() {
        let mut row = match result {
            Ok(observer) => row(*version, observer),
            Err(error) => failed_row(*version, error),
        };
        // A note for both versions is printed once, below the second row.
        let (own, later) = notes[at..].split_at_mut(1);
        for note in own.iter().flatten().filter(|note| !later.iter().flatten().any(|l| l == *note))
        {
            row.note(note);
        }
        table.push(row);
    }
    let mut out = table.render();
    out.push('\n');
    match &report.request {
        None => out.push_str("Client certificate: not requested.\n"),
        Some(request) => out.push_str(&clients(request, report.sent)),
    }
    out
}

fn row(version: TlsVersion, observer: &Observer<'_>) -> Row {
    let evidence = observer.evidence();
    let of = |tally: Tally| match tally.tried {
        0 => "-".to_owned(),
        tried => format!("{} of {tried}", tally.resumed),
    };
    let thing = if version == TlsVersion::Tls13 { "ticket" } else { "session" };
    let given = match observer.given {
        0 => "nothing".to_owned(),
        some => counted(some, thing),
    };
    let mut certificates: Vec<_> = observer.old.iter().map(name).collect();
    certificates.extend(observer.new.iter().map(|(new, _)| format!("→ {}", name(new))));
    Row::new(vec![
        vec![version.to_string()],
        vec![observer.verdict().to_string()],
        vec![given],
        vec![of(evidence.before)],
        vec![of(evidence.after)],
        certificates,
    ])
}

fn failed_row(version: TlsVersion, error: &ObserverError) -> Row {
    let verdict = if is_not_offered(error) { "not offered" } else { "none" };
    let dash = || vec!["-".to_owned()];
    let verdict = vec![verdict.to_owned()];
    Row::new(vec![vec![version.to_string()], verdict, dash(), dash(), dash(), dash()])
}

/// The notes below the row of a version.
fn notes(
    version: TlsVersion,
    result: &Result<Observer<'_>, ObserverError>,
    report: &ProbeReport<'_>,
) -> Vec<String> {
    let mut notes = Vec::new();
    let observer = match result {
        Ok(observer) => observer,
        Err(error) if is_not_offered(error) => return notes,
        Err(error) => return vec![format!("FAILED: {error}")],
    };
    notes.extend(explained(version, observer, report.watched).map(str::to_owned));
    if observer.old.len() > 1 {
        let text = "The server showed several certificates at first, so several servers answer at \
                    this address. Probe each of them, or wait until all show the same certificate.";
        notes.push(text.to_owned());
    }
    if let Some((_, Err(why))) = &observer.new {
        notes.push(format!(
            "PROBLEM: the new certificate is not trusted: {why}. A client that resumes does not \
             notice it."
        ));
    }
    if observer.new.is_some() && !observer.evidence().rotated {
        notes.push("The server shows both the old and a new certificate.".to_owned());
    }
    if let Some(failed) = &observer.failed {
        notes.push(format!("FAILED: {failed} ({} connections failed)", observer.failures));
    }
    notes
}

/// What the verdict means and what to do, where this is not obvious.
fn explained(version: TlsVersion, observer: &Observer<'_>, watched: bool) -> Option<&'static str> {
    let evidence = observer.evidence();
    Some(match observer.verdict() {
        ProbeVerdict::ResumesAcrossRotation => {
            "Clients from before the rotation resume and do not see the new certificate. Change \
             the ticket keys and empty the session cache together with the certificate."
        }
        ProbeVerdict::NoResumption if evidence.before.resumed > 0 => {
            "It resumed at first, but not any more just before the certificate changed: its \
             tickets expire within --interval, or it changes its ticket keys at other times."
        }
        ProbeVerdict::NoResumption if observer.given > 0 => {
            "It does not accept its own tickets or sessions: several servers without common ticket \
             keys answer at this address, or it does not keep sessions."
        }
        ProbeVerdict::NoResumption if version == TlsVersion::Tls13 => "It sends no tickets.",
        ProbeVerdict::NoResumption => "It sends neither tickets nor session IDs.",
        ProbeVerdict::CertificateUnchanged if !watched => {
            "It resumes. Run --watch and rotate its certificate to see whether sessions from \
             before still resume."
        }
        ProbeVerdict::CertificateUnchanged | ProbeVerdict::RotatesTickets => return None,
    })
}

/// The text about the server's request for a client certificate.
fn clients(request: &CertificateRequest, sent: bool) -> String {
    let sent = if sent { "one was sent" } else { "none was sent (--cert, --key)" };
    let mut text = format!("Client certificate: requested, {sent}.\n");
    if request.authorities.is_empty() {
        text.push_str("The server does not name the CAs that it accepts.\n");
    } else {
        text.push_str("The server accepts client certificates of these CAs:\n");
    }
    for name in &request.authorities {
        for (at, part) in wrapped(name, line_width(4)).into_iter().enumerate() {
            let _ = writeln!(text, "  {}{part}", if at > 0 { "  " } else { "" });
        }
    }
    text
}

fn name(certificate: &Certificate) -> String {
    let fingerprint = short(certificate.fingerprint());
    format!("{fingerprint}, expires {}", day(certificate.not_after()))
}

pub(super) fn to_json(report: &ProbeReport<'_>) -> Value {
    let tally = |tally: Tally| json!({"resumed": tally.resumed, "tried": tally.tried});
    let version =
        |(version, result): &(TlsVersion, Result<Observer<'_>, ObserverError>)| match result {
            Ok(observer) => json!({
                "tls": version.to_string(),
                "offered": true,
                "verdict": observer.verdict().to_string(),
                "result": observer.verdict(),
                "given": observer.given,
                "before": tally(observer.evidence().before),
                "after": tally(observer.evidence().after),
                "certificates": observer.old.iter().map(certificate).collect::<Vec<_>>(),
                "newCertificate": observer.new.as_ref().map(|(new, trusted)| {
                    let mut object = certificate(new);
                    object["problem"] = json!(trusted.as_ref().err());
                    object
                }),
                "error": observer.failed.as_ref().map(ToString::to_string),
            }),
            Err(error) => json!({
                "tls": version.to_string(),
                "offered": !is_not_offered(error),
                "verdict": null,
                "result": null,
                "error": error.to_string(),
            }),
        };
    let fields = json!({
        "target": report.endpoint.to_string(),
        "serverName": report.name.to_str(),
        "fine": report.is_fine(),
        "verdict": report.verdict().map(|verdict| verdict.to_string()),
        "result": report.verdict(),
        "versions": report.versions.iter().map(version).collect::<Vec<_>>(),
        "clientCertificate": {
            "requested": report.request.is_some(),
            "sent": report.request.is_some() && report.sent,
            "authorities": report.request.as_ref().map_or(&[][..], |request| &request.authorities),
        },
    });
    output::document("ProbeReport", fields)
}

fn certificate(certificate: &Certificate) -> Value {
    json!({
        "sha256": certificate.fingerprint().to_string(),
        "subject": subject(certificate),
        "notAfter": jiff::Timestamp::from_second(certificate.not_after()).ok(),
    })
}
