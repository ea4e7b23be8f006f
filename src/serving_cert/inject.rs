//! The caBundle: the CAs that the API server trusts when it calls the webhook.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::{Value, json};

use super::objects::WebhookConfiguration;
use crate::names;
use crate::server::tls::{provider, roots};
use crate::x509::pem::encode_certificate;

/// Encodes the certificates as PEM, in the given order.
pub fn bundle<'a>(cas: impl IntoIterator<Item = &'a CertificateDer<'static>>) -> String {
    let mut pem = Vec::new();
    for ca in cas {
        encode_certificate(ca, &mut pem);
    }
    String::from_utf8_lossy(&pem).into_owned()
}

/// Reads the certificates of a `clientConfig.caBundle`, which is base64 of PEM. Leaves out what is
/// not readable, as the API server does.
pub fn certificates(ca_bundle: &str) -> Vec<CertificateDer<'static>> {
    let pem = STANDARD.decode(ca_bundle).unwrap_or_default();
    CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).take(MAX_BUNDLE).collect()
}

/// Whether an API server with these trust anchors accepts `leaf` for `dns_name` at `now`.
pub(super) fn verifies(
    cas: &[CertificateDer<'static>],
    leaf: &CertificateDer<'static>,
    dns_name: &str,
    now: Timestamp,
) -> bool {
    let verify = || {
        // Each is checked alone: an unusable certificate must not hide the others.
        let usable: Vec<_> =
            cas.iter().filter(|ca| roots(&[(*ca).clone()]).is_ok()).cloned().collect();
        let verifier =
            WebPkiServerVerifier::builder_with_provider(roots(&usable).ok()?, provider()).build();
        let name = ServerName::try_from(dns_name).ok()?;
        let now = Duration::from_secs(u64::try_from(now.as_second()).ok()?);
        let now = UnixTime::since_unix_epoch(now);
        let verifier: Arc<WebPkiServerVerifier> = verifier.ok()?;
        verifier.verify_server_cert(leaf, &[], &name, &[], now).ok()
    };
    verify().is_some()
}

/// The patch that sets the caBundle of each of our entries to `cas`, or `None` if none needs a change.
///
/// It contains the `resourceVersion` that was read. So a write in between causes a conflict, and
/// the patch never changes the entry of another webhook.
pub(super) fn patch(
    read: &WebhookConfiguration,
    cas: &[CertificateDer<'static>],
) -> Result<Option<Value>, NoSuchWebhook> {
    let mut entries = read.ca_bundles().peekable();
    entries.peek().ok_or(NoSuchWebhook)?;
    let value = STANDARD.encode(bundle(cas));
    let differs = |(_, current): &(usize, &str)| certificates(current) != cas;
    let set = |(at, _)| {
        let path = format!("/webhooks/{at}/clientConfig/caBundle");
        json!({"op": "add", "path": path, "value": value})
    };
    let mut operations: Vec<Value> = entries.filter(differs).map(set).collect();
    if operations.is_empty() {
        return Ok(None);
    }
    let version = read.resource_version();
    let version = json!({"op": "add", "path": "/metadata/resourceVersion", "value": version});
    operations.insert(0, version);
    Ok(Some(operations.into()))
}

/// The CAs that every one of our entries trusts: the API server may call any of them.
pub(super) fn trusted(read: &WebhookConfiguration) -> Vec<CertificateDer<'static>> {
    let mut bundles = read.ca_bundles().map(|(_, bundle)| certificates(bundle));
    let mut trusted = bundles.next().unwrap_or_default();
    for bundle in bundles {
        trusted.retain(|ca| bundle.contains(ca));
    }
    trusted
}

/// The configuration has no webhook with our name.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("it has no webhook named {}: apply the manifests", names::WEBHOOK)]
pub(super) struct NoSuchWebhook;

/// The most certificates of a caBundle that are read. We never write so many.
const MAX_BUNDLE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serving_cert::issue::Authority;

    const NAME: &str = "ca-overlap-webhook.ca-overlap.svc";

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn authority() -> Authority {
        Authority::generate(now(), Duration::from_secs(86_400)).unwrap()
    }

    #[test]
    fn a_bundle_of_two_cas_verifies_only_their_leaves() {
        let [one, two, three] = [0, 1, 2].map(|_| authority());
        let text = STANDARD.encode(bundle([one.certificate(), two.certificate()]));
        let cas = certificates(&text);
        assert_eq!(cas, [one.certificate().clone(), two.certificate().clone()]);
        for (ca, expected) in [(&one, true), (&two, true), (&three, false)] {
            let leaf = ca.issue(&[NAME.to_owned()], now(), Duration::from_secs(60)).unwrap();
            assert_eq!(verifies(&cas, &leaf.certificate, NAME, now()), expected);
            assert!(!verifies(&cas, &leaf.certificate, "other.ca-overlap.svc", now()));
            let later = Timestamp::from_second(now().as_second() + 61).unwrap();
            assert!(!verifies(&cas, &leaf.certificate, NAME, later), "expired");
        }
    }

    #[test]
    fn garbage_in_the_bundle_is_skipped() {
        let one = authority();
        assert!(certificates("%%%").is_empty());
        let text = format!(
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n{}",
            bundle([one.certificate()])
        );
        let cas = certificates(&STANDARD.encode(text));
        let leaf = one.issue(&[NAME.to_owned()], now(), Duration::from_secs(60)).unwrap();
        assert!(verifies(&cas, &leaf.certificate, NAME, now()));
    }

    #[test]
    fn only_a_different_bundle_is_patched_and_only_in_our_webhook() {
        let one = authority();
        let cas = [one.certificate().clone()];
        let read = |more: &[Value]| -> WebhookConfiguration {
            let other = json!({"name": "other.example", "clientConfig": {"caBundle": "AAAA"}});
            let webhooks = [&[other], more].concat();
            let metadata = json!({"resourceVersion": "7"});
            serde_json::from_value(json!({"metadata": metadata, "webhooks": webhooks})).unwrap()
        };
        let entry = |name: &str, config: &Value| json!({"name": name, "clientConfig": config});
        let encoded = STANDARD.encode(bundle(&cas));
        let patch = |ours| super::patch(&read(&[entry(names::WEBHOOK, &ours)]), &cas).unwrap();
        assert_eq!(patch(json!({"caBundle": encoded})), None);
        let expected = json!([
            {"op": "add", "path": "/metadata/resourceVersion", "value": "7"},
            {"op": "add", "path": "/webhooks/1/clientConfig/caBundle", "value": encoded},
        ]);
        assert_eq!(patch(json!({})), Some(expected));
        // Each entry gets it, and what only one of them has is not trusted yet.
        let current = json!({"caBundle": encoded});
        let both = |second: &Value| {
            read(&[entry(names::WEBHOOK, &current), entry(names::STRANGER_WEBHOOK, second)])
        };
        let two = both(&json!({}));
        let patched = super::patch(&two, &cas).unwrap().unwrap();
        assert_eq!(patched[1]["path"], "/webhooks/2/clientConfig/caBundle");
        assert_eq!(patched.as_array().unwrap().len(), 2);
        assert_eq!(trusted(&two), []);
        let two = both(&current);
        assert_eq!((super::patch(&two, &cas).unwrap(), trusted(&two)), (None, cas.to_vec()));
        let empty = json!({"metadata": {"resourceVersion": "7"}});
        assert!(super::patch(&serde_json::from_value(empty).unwrap(), &cas).is_err());
    }
}
