//! Starts what the demo needs: an API server, the generator, and the webhook and the keeper with
//! their manifests.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ca_overlap::names;
use devtools::control_plane::{
    Assets, ControlPlane, Options, Patches, Serving, Supervised, Webhook, WebhookOptions,
    can_listen, free_port, serving,
};
use devtools::handshake::Files;
use serde_json::{Value, json};

use crate::Args;
use crate::printer::Printer;

/// The Secrets that the generator writes and that peers mount.
pub(super) const SECRETS: [&str; 3] = ["envoy", "envoy-gateway", "envoy-rate-limit"];
/// `--settle` and `--window` of the keeper and the webhook.
pub(super) const SETTLE: &str = "5s";
pub(super) const WINDOW: &str = "8s";
const FULL: [&str; 6] = ["--default-mode", "staged", "--settle", SETTLE, "--window", WINDOW];
const GENERATOR_ACCOUNT: &str = "certgen";
const PATIENCE: Duration = Duration::from_secs(60);
/// How much of a log is shown if something fails.
const LOG_LINES: usize = 8;
const POLL: Duration = Duration::from_millis(100);

/// The API server, and what runs beside it.
// Fields are dropped in this order.
pub(super) struct Setup {
    keeper: Option<Supervised>,
    webhook: Option<Webhook>,
    plane: ControlPlane,
    addresses: Addresses,
    manifests: PathBuf,
    program: PathBuf,
    generator: PathBuf,
}

/// Where the programs listen, and how the webhook is registered.
struct Addresses {
    webhook: SocketAddr,
    webhook_admin: SocketAddr,
    keeper_admin: SocketAddr,
    cluster_ip: Option<Ipv4Addr>,
    /// For a registration by URL: the certificate then has the name of the URL.
    by_url: Option<(String, Serving)>,
}

/// A Secret at one moment.
pub(super) struct Snapshot {
    /// What a peer reads of it.
    pub(super) files: Files,
    /// `pending.tls.crt`, if a new leaf waits.
    pub(super) waiting: Option<Vec<u8>>,
    /// The SHA-256 of each certificate that ca-overlap added to `ca.crt`, hexadecimal.
    pub(super) carried: Vec<String>,
}

impl Setup {
    /// Starts the API server and nothing else.
    pub(super) async fn start(args: &Args, printer: Printer) -> anyhow::Result<Self> {
        let (program, generator) = (args.program()?, args.generator()?);
        let manifests = std::path::absolute(&args.manifests)?;
        let shown = manifests.display();
        ensure!(manifests.is_dir(), "no {shown}: run in the repository, or set --manifests");
        let assets = Assets::find(args.assets.as_deref())?;
        printer.line("Starting etcd and kube-apiserver on this machine ...");
        let plane = Box::pin(ControlPlane::start(Options::new(assets))).await?;
        let addresses = Addresses::choose(&plane, args.by_url, printer)?;
        Ok(Self { keeper: None, webhook: None, plane, addresses, manifests, program, generator })
    }

    /// Applies the manifests in `directory`, and starts the webhook and, if asked for, the keeper.
    /// Stops the webhook of the previous part.
    pub(super) async fn install(
        &mut self,
        directory: &str,
        is_full: bool,
        has_keeper: bool,
    ) -> anyhow::Result<()> {
        self.webhook = None;
        let Addresses { cluster_ip, by_url, .. } = &self.addresses;
        let url = by_url.as_ref().map(|(url, serving)| (url.as_str(), serving.ca.as_str()));
        let patches = Patches { cluster_ip: *cluster_ip, url };
        self.plane.install(&self.manifests.join(directory), patches).await?;
        if has_keeper {
            self.keeper = Some(self.start_keeper().await?);
        }
        let mut arguments = Vec::new();
        if is_full {
            arguments.extend(["--staged"].into_iter().chain(FULL).map(str::to_owned));
        }
        if let Some((_, serving)) = by_url {
            for (flag, pem) in [("--tls-cert", &serving.certificate), ("--tls-key", &serving.key)] {
                let file = self.plane.scratch().write(&format!("webhook{flag}"), pem)?;
                arguments.extend([flag.into(), file.display().to_string()]);
            }
        }
        let options = WebhookOptions {
            program: self.program.clone(),
            name: "webhook".into(),
            listen: self.addresses.webhook,
            admin: self.addresses.webhook_admin,
            arguments,
        };
        let mut webhook = Webhook::start(&self.plane, options).await?;
        webhook.ready().await?;
        self.webhook = Some(webhook);
        Ok(self.plane.registration_in_force().await?)
    }

    /// Starts the real program with its `ServiceAccount`.
    async fn start_keeper(&self) -> anyhow::Result<Supervised> {
        let (namespace, account) = (names::NAMESPACE, names::KEEPER_SERVICE_ACCOUNT);
        let kubeconfig = self.plane.service_account_kubeconfig(namespace, account).await?;
        let admin = self.addresses.keeper_admin.to_string();
        let flags = ["--follow-issuers", "--admin-listen", &admin, "--namespace", namespace];
        let scratch = self.plane.scratch().path();
        Ok(Supervised::start(
            "keeper",
            &self.program,
            [&["keeper", "--identity", "demo"], &flags[..], &FULL].concat(),
            &[("KUBECONFIG", kubeconfig.as_os_str()), ("NO_COLOR", OsStr::new("1"))],
            scratch,
            scratch.join("keeper.log"),
        )?)
    }

    /// Creates a namespace, and a `ServiceAccount` of the generator that may write its Secrets.
    pub(super) async fn namespace(&self, namespace: &str) -> anyhow::Result<()> {
        // Not the ClusterRole `edit`: the controller that fills it does not run here.
        let group = "rbac.authorization.k8s.io";
        let (version, account) = (format!("{group}/v1"), GENERATOR_ACCOUNT);
        let role = json!({
            "apiVersion": version,
            "kind": "Role",
            "metadata": {"name": account},
            "rules": [{
                "apiGroups": [""],
                "resources": ["secrets"],
                "verbs": ["get", "create", "update"],
            }],
        });
        let binding = json!({
            "apiVersion": version,
            "kind": "RoleBinding",
            "metadata": {"name": account},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": account},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
        });
        let named = |kind: &str, name: &str| {
            let metadata = json!({"name": name});
            json!({"apiVersion": "v1", "kind": kind, "metadata": metadata})
        };
        let core = format!("/api/v1/namespaces/{namespace}");
        let rbac = format!("/apis/{version}/namespaces/{namespace}");
        for (path, object) in [
            ("/api/v1/namespaces".into(), named("Namespace", namespace)),
            (format!("{core}/serviceaccounts"), named("ServiceAccount", account)),
            (format!("{rbac}/roles"), role),
            (format!("{rbac}/rolebindings"), binding),
        ] {
            self.plane.json("POST", &path, &object).await?;
        }
        Ok(())
    }

    /// Runs the generator: it writes a new CA, and a new leaf into each Secret.
    pub(super) async fn generate(&self, namespace: &str) -> anyhow::Result<()> {
        let kubeconfig =
            self.plane.service_account_kubeconfig(namespace, GENERATOR_ACCOUNT).await?;
        let output = tokio::process::Command::new(&self.generator)
            .args(["--namespace", namespace, "--state"])
            .arg(self.plane.scratch().path().join(format!("{namespace}.state")))
            .env("KUBECONFIG", OsStr::new(&kubeconfig))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .with_context(|| self.generator.display().to_string())?;
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the generator failed: {}", message.trim());
        Ok(())
    }

    /// Waits until the webhook knows that a keeper runs. Before that it bundles. Tries it with dry
    /// runs of a rotation.
    pub(super) async fn staging_in_force(&self, namespace: &str) -> anyhow::Result<()> {
        let new = serving(&[])?;
        let encode = |pem: &str| BASE64_STANDARD.encode(pem);
        let rotated = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRETS[0]},
            "type": "kubernetes.io/tls",
            "data": {
                names::CA_CRT: encode(&new.ca),
                names::TLS_CRT: encode(&new.certificate),
                names::TLS_KEY: encode(&new.key),
            },
        });
        let path = format!("{}?dryRun=All", path(namespace, SECRETS[0]));
        self.wait_for("webhook that stages", async || {
            let answer = self.plane.json("PUT", &path, &rotated).await?;
            Ok(answer["data"][names::PENDING_TLS_CRT].is_string())
        })
        .await
    }

    /// Waits until the keeper has put all waiting leaves into service.
    pub(super) async fn all_promoted(&self, namespace: &str) -> anyhow::Result<()> {
        self.wait_for("keeper that promotes all leaves", async || {
            Ok(self.secrets(namespace).await?.iter().all(|secret| secret.waiting.is_none()))
        })
        .await
    }

    /// Waits until the keeper has retired all that the Secrets carry.
    pub(super) async fn all_retired(&self, namespace: &str) -> anyhow::Result<()> {
        self.wait_for("keeper that retires the old CA", async || {
            Ok(self.secrets(namespace).await?.iter().all(|secret| secret.carried.is_empty()))
        })
        .await
    }

    async fn wait_for(
        &self,
        what: &str,
        mut is_there: impl AsyncFnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let begin = Instant::now();
        while !is_there().await? {
            if begin.elapsed() > PATIENCE {
                bail!("no {what} after {PATIENCE:?}\n{}", self.logs());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// What the Secrets hold now.
    pub(super) async fn secrets(&self, namespace: &str) -> anyhow::Result<Vec<Snapshot>> {
        let mut secrets = Vec::new();
        for name in SECRETS {
            let secret = self.plane.json("GET", &path(namespace, name), &Value::Null).await?;
            let snapshot = Snapshot::read(format!("{name}.{namespace}.svc"), &secret);
            secrets.push(snapshot.with_context(|| format!("a value is missing in Secret {name}"))?);
        }
        Ok(secrets)
    }

    /// The last lines that webhook and keeper logged.
    pub(super) fn logs(&self) -> String {
        let webhook = self.webhook.as_ref().map(Webhook::log);
        let keeper = self.keeper.as_ref().map(Supervised::log);
        let tail = |log: &Path| {
            let text = std::fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
            format!("{}:\n{last}\n", log.display())
        };
        [webhook, keeper].into_iter().flatten().map(tail).collect()
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.plane.admin_kubeconfig()
    }

    pub(super) fn kubectl(&self) -> &Path {
        self.plane.kubectl_path()
    }
}

fn path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/secrets/{name}")
}

impl Addresses {
    /// A Service with a loopback ClusterIP if port 443 can be listened on, else a URL.
    fn choose(plane: &ControlPlane, by_url: bool, printer: Printer) -> anyhow::Result<Self> {
        let ip = plane.next_cluster_ip()?;
        let why = match can_listen((ip, 443).into()) {
            Ok(()) if !by_url => {
                return Ok(Self {
                    webhook: (ip, 443).into(),
                    webhook_admin: (ip, 8081).into(),
                    keeper_admin: (ip, 8082).into(),
                    cluster_ip: Some(ip),
                    by_url: None,
                });
            }
            Ok(()) => "--by-url asks for it".into(),
            Err(e) => format!("{ip}:443 cannot be listened on: {e}"),
        };
        printer.line("The webhook will be registered by URL instead of by Service:");
        printer.line(&format!("{why}."));
        let local = Ipv4Addr::LOCALHOST;
        let free = || anyhow::Ok(SocketAddr::from((local, free_port(local.into())?)));
        let webhook = free()?;
        Ok(Self {
            webhook,
            webhook_admin: free()?,
            keeper_admin: free()?,
            cluster_ip: None,
            by_url: Some((
                format!("https://{webhook}{}", names::MUTATE_PATH),
                serving(&[local.to_string()])?,
            )),
        })
    }
}

impl Snapshot {
    /// `None` if a value is missing that each of these Secrets has.
    fn read(name: String, secret: &Value) -> Option<Self> {
        let value = |key: &str| BASE64_STANDARD.decode(secret["data"][key].as_str()?).ok();
        let record = secret["metadata"]["annotations"][names::CARRIED].as_str();
        let record: Vec<Value> =
            record.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let carried = record.iter().filter_map(|entry| entry["sha256"].as_str());
        Some(Self {
            files: Files {
                name,
                ca: value(names::CA_CRT)?,
                certificate: value(names::TLS_CRT)?,
                key: value(names::TLS_KEY)?,
            },
            waiting: value(names::PENDING_TLS_CRT),
            carried: carried.map(str::to_owned).collect(),
        })
    }
}
