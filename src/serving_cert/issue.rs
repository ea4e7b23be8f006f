//! Makes our own CAs and their leaves. All keys are P-256, and none is printed.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::digest;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

use super::rotation::{CaFacts, Observed};
use crate::server::tls::validity;
use crate::x509::certs::Fingerprint;

/// One of our CAs, with its key.
pub(super) struct Authority {
    certificate: CertificateDer<'static>,
    key: KeyPair,
    subject: String,
    facts: CaFacts,
}

impl Authority {
    /// Makes a new CA. It is valid from five minutes before `now`, because clocks differ, until
    /// `lifetime` after it.
    ///
    /// Its subject and key id are unique, so that a verifier can distinguish the CAs of a caBundle.
    pub(super) fn generate(now: Timestamp, lifetime: Duration) -> Result<Self, IssueError> {
        let key = KeyPair::generate()?;
        let public = digest::digest(&digest::SHA256, &key.subject_public_key_info());
        let tag = public.as_ref().first_chunk().map_or(0, |tag| u64::from_be_bytes(*tag));
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&format!("ca-overlap webhook CA {tag:016x}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let to = now.as_second().saturating_add(whole(lifetime));
        limit(&mut params, now.as_second() - BACKDATED, to)?;
        let certificate = params.self_signed(&key)?;
        Self::from_parts(certificate.into(), key, now, None)
    }

    /// Reads a stored CA. Fails if the key does not belong to it, or if it is not a CA.
    pub(super) fn from_pem(
        certificate: &str,
        key: &str,
        added: Timestamp,
        active: Option<Timestamp>,
    ) -> Result<Self, IssueError> {
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|_| IssueError::Stored)?;
        let key = KeyPair::from_pem(key).map_err(|_| IssueError::Stored)?;
        Self::from_parts(certificate, key, added, active)
    }

    fn from_parts(
        certificate: CertificateDer<'static>,
        key: KeyPair,
        added: Timestamp,
        active: Option<Timestamp>,
    ) -> Result<Self, IssueError> {
        let (not_before, not_after) = validity(&certificate).map_err(|_| IssueError::Stored)?;
        let subject = {
            let (_, parsed) =
                X509Certificate::from_der(&certificate).map_err(|_| IssueError::Stored)?;
            if !parsed.is_ca() || parsed.public_key().raw != key.subject_public_key_info() {
                return Err(IssueError::Stored);
            }
            let name = parsed.subject().iter_common_name().next();
            name.and_then(|name| name.as_str().ok()).ok_or(IssueError::Stored)?.to_owned()
        };
        let id = Fingerprint::of(&certificate);
        let facts =
            CaFacts { id, not_before, not_after, added, active, observed: Observed::default() };
        Ok(Self { certificate, key, subject, facts })
    }

    /// Issues a leaf with a new key for `dns_names`. It expires after `lifetime`, but not after its
    /// CA.
    pub(super) fn issue(
        &self,
        dns_names: &[String],
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<ServingLeaf, IssueError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(dns_names)?;
        params.distinguished_name = common_name("ca-overlap webhook");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let from = (now.as_second() - BACKDATED).max(self.facts.not_before.as_second());
        let to = now.as_second().saturating_add(whole(lifetime));
        let to = to.min(self.facts.not_after.as_second());
        limit(&mut params, from, to)?;

        let mut ca = CertificateParams::default();
        ca.distinguished_name = common_name(&self.subject);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.signed_by(&key, &Issuer::new(ca, &self.key))?;
        let not_after = Timestamp::from_second(to).map_err(|_| IssueError::Lifetime)?;
        Ok(ServingLeaf {
            issuer: self.facts.id,
            certificate: certificate.into(),
            key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            issued: now,
            not_after,
        })
    }

    /// The facts that [`super::rotation`] needs, except for what was observed.
    pub(super) fn facts(&self) -> &CaFacts {
        &self.facts
    }

    /// Records that its leaves are served from `now` on.
    pub(super) fn activate(&mut self, now: Timestamp) {
        self.facts.active = Some(now);
    }

    /// Moves the time of its addition behind `last`, when the previous CA was added.
    pub(super) fn add_after(&mut self, last: Timestamp) {
        let next = last.checked_add(SignedDuration::from_millis(1)).unwrap_or(last);
        self.facts.added = self.facts.added.max(next);
    }

    /// Its certificate, as DER.
    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Its key, as PKCS#8 PEM. Only the Secret may hold it.
    pub(super) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("facts", &self.facts).finish_non_exhaustive()
    }
}

/// A serving certificate that one of our CAs issued.
pub(super) struct ServingLeaf {
    /// The CA that issued it.
    pub(super) issuer: Fingerprint,
    /// DER.
    pub(super) certificate: CertificateDer<'static>,
    /// PKCS#8.
    pub(super) key: PrivateKeyDer<'static>,
    /// When it was issued.
    pub(super) issued: Timestamp,
    /// When it expires.
    pub(super) not_after: Timestamp,
}

impl ServingLeaf {
    /// Whether two thirds of its lifetime have passed, or the clock was set back to before its
    /// issue.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        let life = self.not_after.duration_since(self.issued).as_millis();
        let age = now.duration_since(self.issued).as_millis();
        age * 3 >= life * 2 || age < -i128::from(BACKDATED) * 1000
    }
}

impl fmt::Debug for ServingLeaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServingLeaf").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// Why a certificate cannot be issued, or a stored CA cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum IssueError {
    /// The certificate would expire after the year 9999.
    #[error("the lifetime is too long for a certificate")]
    Lifetime,
    /// The library refused the parameters.
    #[error("cannot issue a certificate: {0}")]
    Refused(#[from] rcgen::Error),
    /// The stored certificate and key are not a CA with its key.
    #[error("the stored CA and its key are not usable")]
    Stored,
}

/// How far certificates are backdated, in seconds, because the clocks of nodes differ.
const BACKDATED: i64 = 300;

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn whole(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// Sets the validity, in Unix times. X.509 allows none after the year 9999.
fn limit(params: &mut CertificateParams, from: i64, to: i64) -> Result<(), IssueError> {
    let time = |unix| ASN1Time::from_timestamp(unix).map_err(|_| IssueError::Lifetime);
    params.not_before = time(from)?.to_datetime();
    params.not_after = time(to)?.to_datetime();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: Duration = Duration::from_secs(365 * 86_400);
    const WEEK: Duration = Duration::from_secs(7 * 86_400);

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    #[test]
    fn two_cas_share_neither_subject_nor_key_id() {
        let [one, two] = [0, 1].map(|_| Authority::generate(now(), YEAR).unwrap());
        let [a, b] = [&one, &two].map(|ca| X509Certificate::from_der(&ca.certificate).unwrap().1);
        assert_ne!(a.subject(), b.subject());
        let key_id = |c: &X509Certificate<'_>| {
            c.iter_extensions().find_map(|e| match e.parsed_extension() {
                x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => {
                    Some(id.0.to_vec())
                }
                _ => None,
            })
        };
        assert!(key_id(&a).is_some());
        assert_ne!(key_id(&a), key_id(&b));
        assert!(a.is_ca());
        assert_eq!(a.validity().not_before.timestamp(), 1_800_000_000 - 300);
        assert_eq!(a.validity().not_after.timestamp(), 1_800_000_000 + 365 * 86_400);
    }

    #[test]
    fn a_leaf_never_outlives_its_ca_and_is_renewed_at_two_thirds() {
        let names = ["a.b.svc".to_owned()];
        let ca = Authority::generate(now(), YEAR).unwrap();
        let leaf = ca.issue(&names, now(), WEEK).unwrap();
        let after = |seconds: i64| Timestamp::from_second(now().as_second() + seconds).unwrap();
        assert_eq!(leaf.not_after, after(7 * 86_400));
        assert!(!leaf.is_due(after(7 * 86_400 * 2 / 3 - 1)));
        assert!(leaf.is_due(after(7 * 86_400 * 2 / 3)));
        assert!(leaf.is_due(after(-301)), "the clock went back");

        let late = after(364 * 86_400);
        let leaf = ca.issue(&names, late, WEEK).unwrap();
        assert_eq!(leaf.not_after, ca.facts().not_after);
        assert_eq!(validity(&leaf.certificate).unwrap().1, ca.facts().not_after);
    }

    #[test]
    fn a_key_of_another_ca_is_refused() {
        let [one, two] = [0, 1].map(|_| Authority::generate(now(), YEAR).unwrap());
        let pem = super::super::inject::bundle([one.certificate()]);
        assert!(Authority::from_pem(&pem, &one.key_pem(), now(), None).is_ok());
        assert!(Authority::from_pem(&pem, &two.key_pem(), now(), None).is_err());
        let leaf = one.issue(&["a.b.svc".to_owned()], now(), WEEK).unwrap();
        let pem = super::super::inject::bundle([&leaf.certificate]);
        assert!(Authority::from_pem(&pem, &one.key_pem(), now(), None).is_err());
    }
}
