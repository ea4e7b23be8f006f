//! A simulated API server for Secrets. The webhook's own code reviews each write, and each write
//! that changes the Secret gives it a new resourceVersion.

use std::time::Duration;

use base64::prelude::*;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::generator::{NAMESPACE, dns_name, secret_name};
use super::handshake::PeerFiles;
use super::schedule::Millis;
use super::{Strategy, ToolError, inconsistent};
use crate::admission::respond::{Installation, respond};
use crate::admission::review;
use crate::kubernetes::secret_view::SecretView;
use crate::names;
use crate::overlap::settings::Defaults;
use crate::overlap::staged::KeeperHealth;

/// The virtual time begins on 1 January 2026, UTC; in seconds since the Unix epoch.
pub(super) const EPOCH: u64 = 1_767_225_600;
/// The field manager and ServiceAccount of the legacy generator.
const GENERATOR: &str = "certgen";
const CERT_MANAGER: &str = "cert-manager";
/// The group of all Secrets: they rotate together.
const GROUP: &str = "mesh";

/// The date of a virtual time.
pub(super) fn timestamp(at: Millis) -> Timestamp {
    let at = EPOCH * 1000 + at;
    // No simulation reaches the year 9999, so the fallback is never used.
    i64::try_from(at).ok().and_then(|at| Timestamp::from_millisecond(at).ok()).unwrap_or_default()
}

/// All Secrets, under one strategy.
pub(super) struct ApiServer {
    /// The webhook, and whether the keeper runs; `None` if the webhook is not installed.
    webhook: Option<(Installation, KeeperHealth)>,
    generator: Writer,
    secrets: Vec<Value>,
}

/// Who writes a Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    Generator,
    CertManager,
    Keeper,
}

impl Writer {
    fn manager(self) -> &'static str {
        match self {
            Self::Generator => GENERATOR,
            Self::CertManager => CERT_MANAGER,
            Self::Keeper => names::KEEPER_SERVICE_ACCOUNT,
        }
    }

    fn user(self) -> String {
        let namespace = match self {
            Self::Generator => NAMESPACE,
            Self::CertManager => CERT_MANAGER,
            Self::Keeper => names::NAMESPACE,
        };
        format!("system:serviceaccount:{namespace}:{}", self.manager())
    }

    fn options(self) -> &'static str {
        match self {
            Self::Generator => "UpdateOptions",
            Self::CertManager | Self::Keeper => "PatchOptions",
        }
    }
}

impl ApiServer {
    /// Creates the Secrets of the first generation, the issuer's last. The webhook would only begin
    /// their records.
    pub(super) fn new(
        strategy: Strategy,
        defaults: Defaults,
        settle: Duration,
        data: &[Value],
    ) -> Self {
        let installation = Installation { settle, ..Installation::new(defaults, names::NAMESPACE) };
        let keeper = if strategy.has_keeper() { KeeperHealth::Alive } else { KeeperHealth::Absent };
        let generator =
            if strategy.is_cert_manager() { Writer::CertManager } else { Writer::Generator };
        let issuer = data.len() - 1;
        let secret = |(index, data): (usize, &Value)| {
            let mut secret = fresh(index, data);
            secret["metadata"]["uid"] = json!(format!("uid-{index}"));
            secret["metadata"]["resourceVersion"] = json!("1");
            secret["metadata"]["creationTimestamp"] = json!(timestamp(0));
            if index < issuer {
                secret["metadata"]["labels"] = settings_label(strategy);
                secret["metadata"]["annotations"] = settings(strategy, index);
            }
            manage(&mut secret, generator, 0);
            secret
        };
        Self {
            webhook: (strategy != Strategy::None).then_some((installation, keeper)),
            generator,
            secrets: data.iter().enumerate().map(secret).collect(),
        }
    }

    /// A legacy generator replaces a Secret by a fresh object without labels and annotations;
    /// cert-manager applies its data. Returns whether the stored Secret changed.
    pub(super) fn generate(
        &mut self,
        secret: usize,
        data: &Value,
        now: Millis,
    ) -> Result<bool, ToolError> {
        let mut object = fresh(secret, data);
        if self.generator == Writer::CertManager {
            object["metadata"] = self.secrets[secret]["metadata"].clone();
        }
        self.write(secret, object, self.generator, now)
    }

    /// The keeper patches annotations; `None` removes one. Returns whether the stored Secret
    /// changed.
    pub(super) fn annotate(
        &mut self,
        secret: usize,
        changes: &[(&str, Option<String>)],
        now: Millis,
    ) -> Result<bool, ToolError> {
        let mut object = self.secrets[secret].clone();
        let mut annotations = object["metadata"]["annotations"].take();
        let map = annotations.as_object_mut().cloned().unwrap_or_default();
        let kept = map.into_iter().filter(|(key, _)| changes.iter().all(|(name, _)| name != key));
        let set = changes.iter().filter_map(|(name, value)| Some((*name, value.clone()?)));
        let set = set.map(|(name, value)| (name.to_owned(), Value::String(value)));
        object["metadata"]["annotations"] = Value::Object(kept.chain(set).collect());
        self.write(secret, object, Writer::Keeper, now)
    }

    /// A Secret as the keeper reads it.
    pub(super) fn view(&self, secret: usize) -> Result<SecretView, ToolError> {
        serde_json::from_value(self.secrets[secret].clone())
            .map_err(|_| inconsistent("a stored Secret is not readable"))
    }

    /// A Secret as its pods mount it.
    pub(super) fn files(&self, secret: usize) -> PeerFiles {
        let bytes = |key: &str| {
            let text = self.secrets[secret]["data"][key].as_str().unwrap_or_default();
            BASE64_STANDARD.decode(text).unwrap_or_default()
        };
        PeerFiles {
            name: dns_name(secret),
            ca: bytes(names::CA_CRT),
            certificate: bytes(names::TLS_CRT),
            key: bytes(names::TLS_KEY),
        }
    }

    /// Reviews a write and stores the result. Returns `false` if nothing changes: an API server
    /// drops such a write.
    fn write(
        &mut self,
        secret: usize,
        mut object: Value,
        writer: Writer,
        now: Millis,
    ) -> Result<bool, ToolError> {
        let stored = &self.secrets[secret];
        object["metadata"]["managedFields"] = stored["metadata"]["managedFields"].clone();
        if let Some((installation, keeper)) = &self.webhook {
            let review = review_of(&object, stored, writer, secret);
            let body = review.to_string();
            let request = review::read(body.as_bytes())
                .map_err(|_| inconsistent("a review is not readable"))?;
            let answer = respond(&request, installation, *keeper, timestamp(now));
            if let Some(patch) = &answer.patch {
                json_patch::patch(&mut object, patch)
                    .map_err(|_| inconsistent("a patch does not apply"))?;
            }
        }
        for kept in ["uid", "resourceVersion", "creationTimestamp"] {
            object["metadata"][kept] = stored["metadata"][kept].clone();
        }
        if object == *stored {
            return Ok(false);
        }
        let version = stored["metadata"]["resourceVersion"].as_str().map(str::parse::<u64>);
        let version = version.and_then(Result::ok).unwrap_or_default() + 1;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        manage(&mut object, writer, now);
        self.secrets[secret] = object;
        Ok(true)
    }
}

/// The object that a legacy generator writes.
fn fresh(secret: usize, data: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": secret_name(secret), "namespace": NAMESPACE},
        "type": "kubernetes.io/tls",
        "data": data,
    })
}

/// The annotations that an operator sets for a strategy.
fn settings(strategy: Strategy, secret: usize) -> Value {
    let mut annotations = Map::new();
    if strategy.is_staged() {
        annotations.insert(names::GROUP.to_owned(), json!(GROUP));
    }
    if strategy.is_cert_manager() {
        annotations.insert(names::CERT_MANAGER_CERTIFICATE.to_owned(), json!(secret_name(secret)));
    }
    if strategy.restarts() {
        let workload = format!("deployment/{}-legacy", secret_name(secret));
        annotations.insert(names::RESTART.to_owned(), json!(workload));
    }
    Value::Object(annotations)
}

fn settings_label(strategy: Strategy) -> Value {
    match strategy {
        Strategy::Staged | Strategy::StagedRestart => json!({names::MODE: "staged"}),
        Strategy::CertManagerAnnounce => json!({names::MODE: "bundle"}),
        Strategy::None | Strategy::Bundle | Strategy::CertManager => json!({}),
    }
}

/// The admission review that the API server sends to the webhook.
fn review_of(object: &Value, stored: &Value, writer: Writer, secret: usize) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "simulated",
            "kind": {"group": "", "version": "v1", "kind": "Secret"},
            "resource": {"group": "", "version": "v1", "resource": "secrets"},
            "name": secret_name(secret),
            "namespace": NAMESPACE,
            "operation": "UPDATE",
            "userInfo": {"username": writer.user()},
            "object": object,
            "oldObject": stored,
            "dryRun": false,
            "options": {"kind": writer.options(), "apiVersion": "meta.k8s.io/v1"},
        },
    })
}

/// Records the writer and the time in the managed fields, in whole seconds as the API server does.
fn manage(object: &mut Value, writer: Writer, now: Millis) {
    let mut fields = match object["metadata"]["managedFields"].take() {
        Value::Array(fields) => fields,
        _ => Vec::new(),
    };
    fields.retain(|field| field["manager"] != writer.manager());
    let time = format!("{:.0}", timestamp(now - now % 1000));
    fields.push(json!({"manager": writer.manager(), "operation": "Update", "time": time}));
    object["metadata"]["managedFields"] = Value::Array(fields);
}
