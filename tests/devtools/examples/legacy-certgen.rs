//! `legacy-certgen`: a certificate generator like those that many projects ship, for the demo and
//! tests.
//!
//! It creates a CA (with the same subject each time) and a leaf for each service, and overwrites
//! their Secrets at once: GET for the `resourceVersion`, then PUT of a fresh object. It knows
//! nothing of overlaps, annotations or ca-overlap, and does not use its library.
//!
//! It keeps the HMAC key in `--state`. It uses the cluster of `KUBECONFIG`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::Parser;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::{Value, json};

const SERVICES: [&str; 3] = ["envoy", "envoy-gateway", "envoy-rate-limit"];
const HMAC_SECRET: &str = "envoy-oidc-hmac";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Overwrites the TLS Secrets of a namespace with a new CA and new leaf certificates.
#[derive(Parser)]
#[command(name = "legacy-certgen")]
struct Args {
    /// The namespace of the Secrets.
    #[arg(long)]
    namespace: String,
    /// A directory for the HMAC key.
    #[arg(long)]
    state: PathBuf,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("legacy-certgen: {e:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.state).context("--state: create the directory")?;
    let client = kube::Client::try_default().await?;
    for object in generate(&args.state, &args.namespace)? {
        overwrite(&Api::namespaced(client.clone(), &args.namespace), object).await?;
    }
    Ok(())
}

/// PUTs the object as it is. Everything else on the Secret is lost.
async fn overwrite(api: &Api<Secret>, object: Value) -> anyhow::Result<()> {
    let mut secret: Secret = serde_json::from_value(object)?;
    let name = secret.metadata.name.clone().context("a Secret has no name")?;
    match api.get_opt(&name).await? {
        Some(existing) => {
            secret.metadata.resource_version = existing.metadata.resource_version;
            api.replace(&name, &PostParams::default(), &secret).await?;
        }
        None => {
            api.create(&PostParams::default(), &secret).await?;
        }
    }
    Ok(())
}

/// Makes the Secrets of a new generation.
fn generate(state: &Path, namespace: &str) -> anyhow::Result<Vec<Value>> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "envoy-gateway");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, 5 * 365);
    let ca = params.self_signed(&key)?.pem();
    let issuer = Issuer::new(params, key);

    let mut objects = Vec::new();
    for service in SERVICES {
        let (certificate, key) = leaf(&issuer, service, namespace)?;
        let data = json!({
            "ca.crt": BASE64_STANDARD.encode(&ca),
            "tls.crt": BASE64_STANDARD.encode(certificate),
            "tls.key": BASE64_STANDARD.encode(key),
        });
        objects.push(object(service, "kubernetes.io/tls", &data));
    }
    objects.push(object(HMAC_SECRET, "Opaque", &json!({"hmac-secret": hmac(state)?})));
    Ok(objects)
}

fn leaf(
    issuer: &Issuer<'_, KeyPair>,
    service: &str,
    namespace: &str,
) -> anyhow::Result<(String, String)> {
    let key = KeyPair::generate()?;
    let names = [format!("{service}.{namespace}.svc"), service.to_owned()];
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, service);
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    set_validity(&mut params, 365);
    Ok((params.signed_by(&key, issuer)?.pem(), key.serialize_pem()))
}

/// Makes the certificate valid from yesterday on.
fn set_validity(params: &mut CertificateParams, days: u32) {
    let now = SystemTime::now();
    params.not_before = (now - DAY).into();
    params.not_after = (now + DAY * days).into();
}

/// The HMAC key. It is made once, because sessions that it signed must stay valid.
fn hmac(state: &Path) -> anyhow::Result<String> {
    let file = state.join("hmac");
    if let Ok(value) = std::fs::read_to_string(&file) {
        return Ok(value);
    }
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).context("get random bytes")?;
    let value = BASE64_STANDARD.encode(bytes);
    std::fs::write(file, &value)?;
    Ok(value)
}

fn object(name: &str, kind: &str, data: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "type": kind,
        "data": data,
    })
}
