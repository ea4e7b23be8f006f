//! `legacy-certgen`: a certificate generator like those that many projects ship, for the demo and
//! tests.
//!
//! It creates a CA (with the same subject each time) and a leaf for each service, and overwrites
//! their Secrets at once: GET for the `resourceVersion`, then PUT of a fresh object. It knows
//! nothing of overlaps, annotations or ca-overlap, and does not use its library.
//!
//! It keeps each generation in `--state`, so that it can write the latest or the previous one
//! again. It uses the cluster of `KUBECONFIG`.

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
    /// A directory for the generations that were made so far.
    #[arg(long)]
    state: PathBuf,
    /// Writes the latest generation again instead of a new one.
    #[arg(long, conflicts_with = "rollback")]
    again: bool,
    /// Writes the generation before the latest, which becomes the latest.
    #[arg(long)]
    rollback: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(number) => {
            println!("wrote generation {number}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("legacy-certgen: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the number of the generation that was written.
async fn run(args: &Args) -> anyhow::Result<u32> {
    let latest = latest(&args.state)?;
    let number = if args.rollback {
        latest
            .checked_sub(1)
            .filter(|n| *n > 0)
            .context("--rollback: there is no older generation")?
    } else if args.again {
        Some(latest).filter(|n| *n > 0).context("--again: there is no generation yet")?
    } else {
        latest + 1
    };
    let file = args.state.join(format!("generation-{number}.json"));
    if !args.again && !args.rollback {
        std::fs::create_dir_all(&args.state).context("--state: create the directory")?;
        std::fs::write(&file, generate(&args.state, &args.namespace)?.to_string())?;
    }
    let objects: Vec<Value> = serde_json::from_slice(&std::fs::read(&file)?)?;
    let client = kube::Client::try_default().await?;
    for object in objects {
        overwrite(&Api::namespaced(client.clone(), &args.namespace), object).await?;
    }
    std::fs::write(args.state.join("latest"), number.to_string())?;
    Ok(number)
}

/// The number of the latest generation; 0 before the first run.
fn latest(state: &Path) -> anyhow::Result<u32> {
    match std::fs::read_to_string(state.join("latest")) {
        Ok(text) => text.parse().context("--state: the file latest does not hold a number"),
        Err(_) => Ok(0),
    }
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

/// Makes the Secrets of a new generation, as a JSON list.
fn generate(state: &Path, namespace: &str) -> anyhow::Result<Value> {
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
    Ok(Value::Array(objects))
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
