//! Applies the real manifests.

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

/// The namespace and the Secret of the trial write that shows whether the webhook is called.
const PROBE: &str = "ca-overlap-probe";
const IN_FORCE_TIMEOUT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// Changes to the manifests before they are applied.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patches<'a> {
    /// Sets the ClusterIP of the webhook's Service.
    pub cluster_ip: Option<Ipv4Addr>,
    /// Registers the webhook by this URL instead of by its Service, with this PEM as caBundle.
    pub url: Option<(&'a str, &'a str)>,
}

impl ControlPlane {
    /// Builds a kustomization, patches it and applies it server side with strict validation.
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

    /// Does what `kubectl apply --server-side --validate=strict --force-conflicts` does, with a
    /// tenth of the CPU time.
    async fn apply(&self, object: &Value) -> Result<(), Error> {
        let path = path_of(object)
            .ok_or_else(|| Error::Unexpected("an object has no kind or no name".into()))?;
        let query = "fieldManager=kubectl&force=true&fieldValidation=Strict";
        let kind = Some("application/apply-patch+yaml");
        let (path, body) = (format!("{path}?{query}"), object.to_string().into_bytes());
        let answer = send(&self.client().await?, "PATCH", &path, kind, body).await?;
        if answer.status().is_success() {
            return Ok(());
        }
        Err(Error::Unexpected(format!("{path}: {}", answer.body()["message"])))
    }

    /// Waits until the API server sends reviews to the webhook. It notices a new registration or
    /// caBundle some tenths of a second after the write. The test is the dry run of a rotation in a
    /// separate namespace: the API server calls the webhook for it as for a real write.
    pub async fn registration_in_force(&self) -> Result<(), Error> {
        let secrets = format!("/api/v1/namespaces/{PROBE}/secrets");
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": PROBE}});
        let secret = |ca: &str| {
            json!({
                "apiVersion": "v1",
                "kind": "Secret",
                // The label makes the webhook act in every default mode and with an object
                // selector.
                "metadata": {"name": PROBE, "labels": {names::MODE: "bundle"}},
                "data": {"ca.crt": BASE64_STANDARD.encode(ca)},
            })
        };
        let client = self.client().await?;
        let json = Some("application/json");
        // The namespace and the Secret exist from the second call on.
        let body = namespace.to_string().into_bytes();
        send(&client, "POST", "/api/v1/namespaces", json, body).await?;
        let first = pki::serving(&[])?.ca;
        send(&client, "POST", &secrets, json, secret(&first).to_string().into_bytes()).await?;
        let rotation = secret(&pki::serving(&[])?.ca).to_string().into_bytes();
        let path = format!("{secrets}/{PROBE}?dryRun=All");
        let deadline = Instant::now() + IN_FORCE_TIMEOUT;
        loop {
            let answer = send(&client, "PUT", &path, json, rotation.clone()).await?;
            // With --audit it warns instead.
            let is_warned = answer.headers().contains_key(http::header::WARNING);
            if answer.body()["metadata"]["annotations"][names::CARRIED].is_string() || is_warned {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Error::NotReady {
                    component: "the registration of the webhook".into(),
                    seconds: IN_FORCE_TIMEOUT.as_secs(),
                    last: format!("{}; the webhook did not change the Secret", answer.status()),
                    log: self.api_server_log_tail(),
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// The URL path of an object.
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

/// Returns the objects of a kustomization. Each kustomization is built once per process.
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
        message: format!("cannot parse the YAML from kustomize: {e}"),
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
        .ok_or_else(|| format!("it contains no {kind} {name}"))
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
            format!("it contains no Service {}", names::SERVICE)
        );
    }
}
