//! The server's own certificate, and the CAs and leaves in the reviews.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, SanType,
    date_time_ymd,
};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::cipher_suite as suites;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// A CA that can issue leaves.
pub struct Authority {
    params: CertificateParams,
    key: KeyPair,
    /// Its certificate.
    pub pem: String,
}

/// A certificate with its private key.
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.not_before, params.not_after) =
            (date_time_ymd(2020, 1, 1), date_time_ymd(2090, 1, 1));
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { params, key, pem })
    }

    /// A leaf for 127.0.0.1, with or without the identifier of the issuer's key.
    pub fn leaf(&self, with_key_id: bool) -> Result<Pair> {
        let mut leaf = self.params.clone();
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.distinguished_name = DistinguishedName::new();
        leaf.distinguished_name.push(DnType::CommonName, "envoy");
        leaf.use_authority_key_identifier_extension = with_key_id;
        leaf.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
        let key = KeyPair::generate()?;
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = leaf.signed_by(&key, &issuer)?.pem();
        Ok(Pair { certificate, key: key.serialize_pem() })
    }
}

/// The files of a serving certificate, and a client that trusts it.
pub struct Serving {
    directory: tempfile::TempDir,
    pub client: Arc<ClientConfig>,
}

impl Serving {
    pub fn new() -> Result<Self> {
        let ca = Authority::new("bench")?;
        let pair = ca.leaf(true)?;
        let directory = tempfile::tempdir()?;
        std::fs::write(directory.path().join("tls.crt"), pair.certificate)?;
        std::fs::write(directory.path().join("tls.key"), pair.key)?;
        Ok(Self { client: client(&ca.pem)?, directory })
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn certificate(&self) -> PathBuf {
        self.path().join("tls.crt")
    }

    pub fn key(&self) -> PathBuf {
        self.path().join("tls.key")
    }
}

/// A client like the API server: it offers X25519MLKEM768 first, AES-128 before AES-256 (as Go's
/// client does on a CPU with AES), only HTTP/1.1, and resumes no session.
pub fn client(ca: &str) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(certificate.context("the CA")?)?;
    }
    let groups = aws_lc_rs::kx_group::X25519MLKEM768;
    let provider = CryptoProvider {
        kx_groups: vec![groups, aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::SECP256R1],
        cipher_suites: vec![
            suites::TLS13_AES_128_GCM_SHA256,
            suites::TLS13_AES_256_GCM_SHA384,
            suites::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..aws_lc_rs::default_provider()
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}
