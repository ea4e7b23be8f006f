//! Applying the real manifests.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::access::{kubectl, send};
use super::{Assets, ControlPlane, Error, pki};
use crate::names;

/// Namespace and Secret of the trial that tells whether the webhook is called.
const PROBE: &str = "ca-overlap-probe";
const IN_FORCE_TIMEOUT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// What differs from the manifests as they are on disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patches<'a> {
    /// The ClusterIP of our Service.
    pub cluster_ip: Option<Ipv4Addr>,
    /// Registers the webhook by this URL instead of by its Service, with this PEM as caBundle.
    pub url: Option<(&'a str, &'a str)>,
}

impl ControlPlane {
    /// Builds a kustomization, patches it and applies it: server side, with strict validation.
    pub async fn install(&self, kustomization: &Path, patches: Patches<'_>) -> Result<(), Error> {
        let mut objects = render(&self.assets, kustomization).await?;
        patches
            .apply(&mut objects)
            .map_err(|message| Error::Manifests { path: kustomization.to_owned(), message })?;
        for object in &objects {
            self.apply(object).await?;
        }
        Ok(())
    }

    /// As `kubectl apply --server-side --validate=strict --force-conflicts` does, in a tenth of
    /// its CPU time.
    async fn apply(&self, object: &Value) -> Result<(), Error> {
        let path = path_of(object)
            .ok_or_else(|| Error::Unexpected("an object without kind or name".into()))?;
        let query = "fieldManager=kubectl&force=true&fieldValidation=Strict";
        let kind = Some("application/apply-patch+yaml");
        let (path, body) = (format!("{path}?{query}"), object.to_string().into_bytes());
        let answer = send(&self.client().await?, "PATCH", &path, kind, body).await?;
        if answer.status().is_success() {
            return Ok(());
        }
        Err(Error::Unexpected(format!("{path}: {}", answer.body()["message"])))
    }

    /// Waits until the API server sends reviews to the webhook: it notices a new registration, or
    /// a new caBundle, some tenths of a second after it was written. Tried with the dry run of a
    /// rotation in a namespace of its own, which is as good as a real one (DESIGN §6).
    pub async fn registration_in_force(&self) -> Result<(), Error> {
        let secrets = format!("/api/v1/namespaces/{PROBE}/secrets");
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": PROBE}});
        let secret = |ca: &str| {
            json!({
                "apiVersion": "v1",
                "kind": "Secret",
                // Whatever the default mode, and by an object selector too.
                "metadata": {"name": PROBE, "labels": {names::MODE: "bundle"}},
                "data": {"ca.crt": BASE64_STANDARD.encode(ca)},
            })
        };
        let client = self.client().await?;
        let json = Some("application/json");
        // They exist already when this is asked for the second time.
        let body = namespace.to_string().into_bytes();
        send(&client, "POST", "/api/v1/namespaces", json, body).await?;
        let first = pki::serving(&[])?.ca;
        send(&client, "POST", &secrets, json, secret(&first).to_string().into_bytes()).await?;
        let rotation = secret(&pki::serving(&[])?.ca).to_string().into_bytes();
        let path = format!("{secrets}/{PROBE}?dryRun=All");
        let deadline = Instant::now() + IN_FORCE_TIMEOUT;
        loop {
            let answer = send(&client, "PUT", &path, json, rotation.clone()).await?;
            if answer.body()["metadata"]["annotations"][names::CARRIED].is_string() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Error::NotReady {
                    component: "the registration of the webhook".into(),
                    seconds: IN_FORCE_TIMEOUT.as_secs(),
                    last: format!("{}; the Secret is not mutated", answer.status()),
                    log: self.api_server_log_tail(),
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Where an object is: its kind in the plural, in small letters, below its group.
fn path_of(object: &Value) -> Option<String> {
    let version = object["apiVersion"].as_str()?;
    let root = if version.contains('/') { "apis" } else { "api" };
    let kind = object["kind"].as_str()?.to_lowercase();
    let kinds = kind.strip_suffix('y').map_or(format!("{kind}s"), |stem| format!("{stem}ies"));
    let name = object["metadata"]["name"].as_str()?;
    let namespace = object["metadata"]["namespace"].as_str();
    let within = namespace.map_or_else(String::new, |it| format!("namespaces/{it}/"));
    Some(format!("/{root}/{version}/{within}{kinds}/{name}"))
}

/// Builds a kustomization into its objects; each once for the life of the process.
pub async fn render(assets: &Assets, kustomization: &Path) -> Result<Vec<Value>, Error> {
    static BUILT: Mutex<BTreeMap<PathBuf, Vec<Value>>> = Mutex::const_new(BTreeMap::new());
    let mut built = BUILT.lock().await;
    if let Some(objects) = built.get(kustomization) {
        return Ok(objects.clone());
    }
    let objects = build(assets, kustomization).await?;
    built.insert(kustomization.to_owned(), objects.clone());
    Ok(objects)
}

async fn build(assets: &Assets, kustomization: &Path) -> Result<Vec<Value>, Error> {
    let directory = kustomization.display().to_string();
    let yaml = kubectl(&assets.kubectl, None, &["kustomize", &directory], &[]).await?;
    serde_saphyr::from_multiple(&yaml).map_err(|e| Error::Manifests {
        path: kustomization.to_owned(),
        message: format!("kustomize made YAML that cannot be read: {e}"),
    })
}

impl Patches<'_> {
    fn apply(self, objects: &mut [Value]) -> Result<(), String> {
        if let Some(address) = self.cluster_ip {
            let service = find(objects, "Service", names::SERVICE)?;
            service["spec"]["clusterIP"] = json!(address);
        }
        if let Some((url, ca)) = self.url {
            let registration =
                find(objects, "MutatingWebhookConfiguration", names::WEBHOOK_CONFIGURATION)?;
            registration["webhooks"][0]["clientConfig"] = json!({
                "url": url,
                "caBundle": BASE64_STANDARD.encode(ca),
            });
        }
        Ok(())
    }
}

fn find<'v>(objects: &'v mut [Value], kind: &str, name: &str) -> Result<&'v mut Value, String> {
    objects
        .iter_mut()
        .find(|o| o["kind"] == kind && o["metadata"]["name"] == name)
        .ok_or_else(|| format!("no {kind} {name} in it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_an_object_includes_its_group() {
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "x", "namespace": "n"},
        });
        let path = "/apis/networking.k8s.io/v1/namespaces/n/networkpolicies/x";
        assert_eq!(path_of(&policy).unwrap(), path);
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}});
        assert_eq!(path_of(&namespace).unwrap(), "/api/v1/namespaces/n");
    }

    #[test]
    fn only_our_service_gets_the_address() {
        let other = json!({"kind": "Service", "metadata": {"name": "x"}, "spec": {}});
        let ours = json!({"kind": "Service", "metadata": {"name": names::SERVICE}, "spec": {}});
        let mut objects = [other.clone(), ours];
        let patches = Patches { cluster_ip: Some(Ipv4Addr::new(127, 1, 2, 3)), url: None };
        patches.apply(&mut objects).unwrap();
        assert_eq!(objects[0], other);
        assert_eq!(objects[1]["spec"]["clusterIP"], "127.1.2.3");
        assert_eq!(
            patches.apply(&mut [other]).unwrap_err(),
            format!("no Service {} in it", names::SERVICE)
        );
    }
}
