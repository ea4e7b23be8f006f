//! The output of `inspect` as JSON or YAML.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::names;
use crate::tools::inspect::Inspection;
use crate::tools::inspect::facts::{Facts, subject_alternative_names};
use crate::tools::inspect::lint::hexadecimal;
use crate::tools::registration::Registration;
use crate::tools::status::next;
use crate::tools::text::{name, printable, subject};
use crate::x509::certs::{Bundle, Certificate};

/// One object.
pub(super) fn one(Inspection { facts, findings }: &Inspection<'_>) -> Value {
    let identity = facts.object.identity.as_ref();
    let settings = &facts.outlook.settings;
    let chain = |bundle: &Bundle| -> Vec<Value> {
        bundle.certificates().iter().map(|c| certificate(c, facts)).collect()
    };
    let findings = findings.iter().map(|finding| {
        let which: Vec<_> = finding.certificates.iter().map(ToString::to_string).collect();
        json!({"rule": finding.rule.id(), "severity": finding.rule.severity().as_str(),
               "text": finding.text, "certificates": which})
    });
    json!({
        "source": printable(&facts.object.source),
        "namespace": identity.and_then(|identity| identity.namespace.as_deref()),
        "name": identity.map(|identity| &identity.name),
        "type": identity.map(|identity| &identity.kind),
        "keys": facts.object.keys,
        "mode": settings.mode.to_string(),
        "registration": facts.object.registration.as_ref().map(Registration::to_json),
        "leftAlone": facts.left_alone.map(super::explain),
        "leftAloneReason": facts.left_alone.map(super::reason),
        "phase": facts.object.labels.get(names::PHASE),
        "next": next(&facts.outlook),
        "trust": settings.trust.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "isSource": super::is_source(facts),
        "previous": super::previous(facts).iter().map(previous).collect::<Vec<_>>(),
        "ca.crt": facts.ca.certificates().iter().enumerate().map(|(i, c)| ca(i, c, facts)).collect::<Vec<_>>(),
        "tls.crt": chain(&facts.chain),
        "pending.tls.crt": chain(&facts.pending),
        "findings": findings.collect::<Vec<_>>(),
    })
}

fn previous((certificate, since): &(Certificate, Timestamp)) -> Value {
    json!({
        "sha256": certificate.fingerprint().to_string(),
        "subject": subject(certificate),
        "since": since,
    })
}

fn ca(index: usize, ca: &Certificate, facts: &Facts<'_>) -> Value {
    let mut value = certificate(ca, facts);
    let known = facts.known(ca);
    let carried = known.and_then(|known| known.carried);
    value["carried"] = carried.is_some().into();
    value["announced"] = json!(carried.and_then(|entry| entry.announced));
    value["since"] = json!(carried.map(|entry| entry.since));
    value["until"] = json!(known.filter(|_| carried.is_some()).and_then(|known| known.ends));
    value["active"] = facts.is_active(index).into();
    value["verifiesLeaf"] = (facts.verifies_leaf.get(index) == Some(&true)).into();
    value
}

fn certificate(certificate: &Certificate, facts: &Facts<'_>) -> Value {
    let parsed = certificate.parsed();
    let time = |seconds: i64| Timestamp::from_second(seconds).ok();
    let begin = parsed.as_ref().and_then(|p| time(p.validity().not_before.timestamp()));
    json!({
        "sha256": certificate.fingerprint().to_string(),
        "subject": subject(certificate),
        "issuer": parsed.as_ref().map(|p| name(p.issuer())),
        "serial": parsed.as_ref().map(|p| hexadecimal(p.raw_serial())),
        "notBefore": begin,
        "notAfter": time(certificate.not_after()),
        "isCa": certificate.is_ca(),
        "names": subject_alternative_names(certificate),
        "expired": certificate.is_expired(facts.now),
    })
}
