//! The stage: an API server, the webhook under its real registration, and the generator.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ca_overlap::names;
use devtools::certs::sha256;
use devtools::control_plane::{
    Assets, ControlPlane, Options, Patches, Webhook, WebhookOptions, can_listen, free_port, serving,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::Args;
use crate::view::View;
use devtools::handshake::Files;

/// The TLS Secrets that the generator writes.
pub(super) const TLS_SECRETS: [&str; 3] = ["envoy", "envoy-gateway", "envoy-rate-limit"];
/// The Secret without certificates that it writes too.
pub(super) const HMAC_SECRET: &str = "envoy-oidc-hmac";
/// The overlay that is installed; its image is not pulled here, the process takes its place.
const OVERLAY: &str = "overlays/kind";
const GENERATOR_ACCOUNT: &str = "certgen";

/// What runs.
// Fields are dropped in this order.
pub(super) struct World {
    webhook: Option<Webhook>,
    plane: ControlPlane,
    manifests: PathBuf,
    program: PathBuf,
    generator: PathBuf,
    by_url: bool,
}

/// What a Secret holds at one moment.
#[derive(Clone)]
pub(super) struct Holding {
    pub(super) name: &'static str,
    pub(super) resource_version: String,
    /// SHA-256 of the value that is not about certificates, if any.
    pub(super) opaque: Option<String>,
    /// The certificates of `ca.crt`.
    pub(super) cas: Vec<CertificateDer<'static>>,
    /// Fingerprints that the record says are carried, hexadecimal.
    carried: Vec<String>,
    marked: bool,
    /// As a pod sees it.
    pub(super) files: Option<Files>,
}

impl World {
    /// Starts the API server; the webhook comes later.
    pub(super) async fn start(args: &Args, view: View) -> anyhow::Result<Self> {
        let (program, generator) = (args.program()?, args.generator()?);
        let manifests = std::path::absolute(args.manifests.join(OVERLAY))?;
        let shown = manifests.display();
        ensure!(manifests.is_dir(), "no {shown}: run in the repository, or set --manifests");
        let assets = Assets::find(args.assets.as_deref())?;
        let plane = Box::pin(ControlPlane::start(Options::new(assets))).await?;
        view.done("starting etcd and kube-apiserver");
        Ok(Self { webhook: None, plane, manifests, program, generator, by_url: args.by_url })
    }

    /// Installs the real manifests and starts the webhook behind them.
    pub(super) async fn install(&mut self, view: View) -> anyhow::Result<()> {
        let service = self.plane.next_cluster_ip()?;
        match can_listen(SocketAddr::from((service, 443))) {
            Ok(()) if !self.by_url => self.install_by_service(service, view).await?,
            refused => {
                let why = match refused {
                    Ok(()) => "asked for by --by-url".into(),
                    Err(e) => format!("{service}:443 cannot be listened on: {e}"),
                };
                view.line("  Registered by URL instead of by Service:");
                view.line(&format!("  {why}"));
                self.install_by_url(view).await?;
            }
        }
        self.plane.registration_in_force().await?;
        view.done("waiting until the API server calls it");
        Ok(())
    }

    async fn install_by_service(&mut self, service: Ipv4Addr, view: View) -> anyhow::Result<()> {
        let patches = Patches { cluster_ip: Some(service), url: None };
        self.plane.install(&self.manifests, patches).await?;
        view.done(&format!("applying manifests/{OVERLAY}, Service at {service}"));
        let listen = SocketAddr::from((service, 443));
        self.start_webhook(listen, (service, 8081).into(), Vec::new(), view).await
    }

    /// The certificate's name must then be that of the URL, so it comes from files.
    async fn install_by_url(&mut self, view: View) -> anyhow::Result<()> {
        let local = Ipv4Addr::LOCALHOST;
        let (port, admin) = (free_port(local.into())?, free_port(local.into())?);
        let serving = serving(&[local.to_string()])?;
        let scratch = self.plane.scratch();
        let certificate = scratch.write("webhook.crt", &serving.certificate)?;
        let key = scratch.write("webhook.key", &serving.key)?;
        let url = format!("https://{local}:{port}{}", names::MUTATE_PATH);
        let patches = Patches { cluster_ip: None, url: Some((&url, &serving.ca)) };
        self.plane.install(&self.manifests, patches).await?;
        view.done(&format!("applying manifests/{OVERLAY} with {url}"));
        let arguments = vec![
            "--tls-cert".into(),
            certificate.display().to_string(),
            "--tls-key".into(),
            key.display().to_string(),
        ];
        self.start_webhook((local, port).into(), (local, admin).into(), arguments, view).await
    }

    async fn start_webhook(
        &mut self,
        listen: SocketAddr,
        admin: SocketAddr,
        arguments: Vec<String>,
        view: View,
    ) -> anyhow::Result<()> {
        let program = self.program.clone();
        let options = WebhookOptions { program, name: "webhook".into(), listen, admin, arguments };
        let mut webhook = Webhook::start(&self.plane, options).await?;
        webhook.ready().await?;
        view.done("starting ca-overlap webhook as its ServiceAccount");
        self.webhook = Some(webhook);
        Ok(())
    }

    /// A namespace with a generator that may write Secrets in it.
    pub(super) async fn settle(&self, namespace: &str) -> anyhow::Result<()> {
        let object =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        self.plane.json("POST", "/api/v1/namespaces", &object).await?;
        let account = json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": GENERATOR_ACCOUNT},
        });
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        self.plane.json("POST", &path, &account).await?;
        // Not the ClusterRole `edit`: it is put together by a controller that does not run here.
        let group = "rbac.authorization.k8s.io";
        let role = json!({
            "apiVersion": format!("{group}/v1"),
            "kind": "Role",
            "metadata": {"name": GENERATOR_ACCOUNT},
            "rules": [{
                "apiGroups": [""],
                "resources": ["secrets"],
                "verbs": ["get", "create", "update"],
            }],
        });
        let binding = json!({
            "apiVersion": format!("{group}/v1"),
            "kind": "RoleBinding",
            "metadata": {"name": GENERATOR_ACCOUNT},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": GENERATOR_ACCOUNT},
            "subjects": [{"kind": "ServiceAccount", "name": GENERATOR_ACCOUNT, "namespace": namespace}],
        });
        for (resource, object) in [("roles", role), ("rolebindings", binding)] {
            let path = format!("/apis/{group}/v1/namespaces/{namespace}/{resource}");
            self.plane.json("POST", &path, &object).await?;
        }
        Ok(())
    }

    /// Runs the generator; `action` is a flag of its, or empty for a new generation.
    pub(super) async fn generate(&self, namespace: &str, action: &str) -> anyhow::Result<()> {
        let kubeconfig =
            self.plane.service_account_kubeconfig(namespace, GENERATOR_ACCOUNT).await?;
        let state = self.plane.scratch().path().join(format!("{namespace}.state"));
        let output = tokio::process::Command::new(&self.generator)
            .args(["--namespace", namespace, "--state"])
            .arg(&state)
            .args(Some(action).filter(|a| !a.is_empty()))
            .env("KUBECONFIG", OsStr::new(&kubeconfig))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .with_context(|| self.generator.display().to_string())?;
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the generator {action} failed: {}", message.trim());
        Ok(())
    }

    /// What the Secrets hold now: the TLS Secrets, then the HMAC one.
    pub(super) async fn holdings(&self, namespace: &str) -> anyhow::Result<Vec<Holding>> {
        let mut holdings = Vec::new();
        for name in TLS_SECRETS.into_iter().chain([HMAC_SECRET]) {
            let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
            let secret = self.plane.json("GET", &path, &Value::Null).await?;
            holdings.push(Holding::read(name, namespace, &secret)?);
        }
        Ok(holdings)
    }

    pub(super) fn webhook_log_tail(&self) -> Option<String> {
        self.webhook.as_ref().map(Webhook::log_tail)
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.plane.admin_kubeconfig()
    }

    pub(super) fn kubectl(&self) -> &Path {
        self.plane.kubectl_path()
    }
}

impl Holding {
    fn read(name: &'static str, namespace: &str, secret: &Value) -> anyhow::Result<Self> {
        let wrong = |message: &str| format!("secret {namespace}/{name}: {message}");
        let value = |key: &str| {
            secret["data"][key].as_str().and_then(|text| BASE64_STANDARD.decode(text).ok())
        };
        let resource_version = secret["metadata"]["resourceVersion"]
            .as_str()
            .with_context(|| wrong("no resourceVersion"))?
            .to_owned();
        let mut holding = Self {
            name,
            resource_version,
            opaque: value("hmac-secret").map(|value| sha256(&value)),
            cas: Vec::new(),
            carried: carried(&secret["metadata"]["annotations"][names::CARRIED]),
            marked: ["labels", "annotations"].iter().any(|map| {
                let map = secret["metadata"][*map].as_object();
                map.is_some_and(|map| map.keys().any(|key| key.starts_with(names::PREFIX)))
            }),
            files: None,
        };
        if let Some(ca) = value(names::CA_CRT) {
            holding.cas = CertificateDer::pem_slice_iter(&ca)
                .collect::<Result<_, _>>()
                .ok()
                .with_context(|| wrong("ca.crt is not PEM"))?;
            let (Some(certificate), Some(key)) = (value(names::TLS_CRT), value("tls.key")) else {
                bail!(wrong("no tls.crt or no tls.key"));
            };
            let name = format!("{name}.{namespace}.svc");
            holding.files = Some(Files { name, ca, certificate, key });
        }
        Ok(holding)
    }

    /// Whether it carries a label or annotation of ours.
    pub(super) fn is_marked(&self) -> bool {
        self.marked
    }

    /// The leaf certificate.
    pub(super) fn leaf(&self) -> Option<CertificateDer<'static>> {
        let files = self.files.as_ref()?;
        CertificateDer::pem_slice_iter(&files.certificate).next()?.ok()
    }

    /// Whether the record says that we put it there.
    pub(super) fn is_carried(&self, ca: &CertificateDer<'_>) -> bool {
        self.carried.contains(&sha256(ca))
    }
}

fn carried(record: &Value) -> Vec<String> {
    let entries: Vec<Value> =
        record.as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    entries.iter().filter_map(|entry| entry["sha256"].as_str()).map(str::to_owned).collect()
}
