//! Restarts with a real kube-controller-manager, which creates the Pods of each rollout. There are
//! no nodes, so the test writes when a Pod is ready.

use ca_overlap::names;
use devtools::control_plane::{ControlPlane, Options, send};
use serde_json::{Value, json};

use super::setup::{Rotation, Setup, eventually};
use super::workload::Workload;
use crate::support::{Plane, assets, skip};
use devtools::secrets::MERGE;

const REPLICAS: u32 = 2;

/// The Pods of a namespace.
struct Pods<'a> {
    plane: &'a ControlPlane,
    namespace: &'a str,
}

impl Pods<'_> {
    async fn of(&self, app: &str) -> Vec<Value> {
        let path = format!("/api/v1/namespaces/{}/pods?labelSelector=app%3D{app}", self.namespace);
        let list = self.plane.json("GET", &path, &Value::Null).await.unwrap();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// Makes all Pods ready, in place of a kubelet. A Pod that has just been deleted is skipped.
    async fn make_ready(&self, app: &str) {
        let client = self.plane.client().await.unwrap();
        for pod in self.of(app).await {
            let name = pod["metadata"]["name"].as_str().unwrap();
            if pod["status"]["phase"] == "Running" {
                continue;
            }
            let condition = json!({
                "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z",
            });
            let status = json!({"status": {"phase": "Running", "conditions": [condition]}});
            let path = format!("/api/v1/namespaces/{}/pods/{name}/status", self.namespace);
            let body = status.to_string().into_bytes();
            drop(send(&client, "PATCH", &path, Some(MERGE), body).await);
        }
    }

    /// The names of the ready Pods that were started for this trust, or before any restart.
    async fn ready(&self, app: &str, trust: Option<&str>) -> Vec<String> {
        let pods = self.of(app).await;
        let is_of = |pod: &&Value| {
            let annotations = pod["metadata"]["annotations"].as_object();
            let mut marks = annotations.into_iter().flatten();
            let mark = marks.find(|(key, _)| key.starts_with(names::RESTARTED_FOR));
            pod["status"]["phase"] == "Running" && mark.and_then(|(_, v)| v.as_str()) == trust
        };
        let named = |pod: &Value| pod["metadata"]["name"].as_str().unwrap().to_owned();
        pods.iter().filter(is_of).map(named).collect()
    }

    /// Makes Pods ready until all Pods of the workload are ready and of this trust.
    async fn roll_out(&self, app: &str, trust: Option<&str>) -> Vec<String> {
        eventually(&format!("the rollout of {app}"), async || {
            self.make_ready(app).await;
            let ready = self.ready(app, trust).await;
            let all = self.of(app).await.len();
            (ready.len() == all && all == REPLICAS as usize).then_some(ready)
        })
        .await
    }
}

#[tokio::test]
async fn the_keeper_waits_for_a_real_rollout_before_the_next_workload() {
    let test = "the_keeper_waits_for_a_real_rollout_before_the_next_workload";
    let Some(assets) = assets(test) else { return };
    if assets.kube_controller_manager.is_none() {
        return skip(test, "no kube-controller-manager: run make control-plane").unwrap_or(());
    }
    let options = Options::new(assets).with_controllers();
    let Some(setup) = Setup::on(Plane::with(options).await, test, "keeper", &[]).await else {
        return;
    };
    let keeper = setup.leading_keeper(&[]).await;
    let secrets = setup.cluster.namespace(test).await;
    let restart = json!({names::RESTART: "deployment/web,statefulset/db"});
    let mut rotation = Rotation::begin(&secrets, "envoy", restart).await;
    let (plane, namespace) = (&setup.cluster.plane, secrets.namespace.as_str());
    let web = Workload { plane, namespace, name: "deployment/web" };
    let db = Workload { plane, namespace, name: "statefulset/db" };
    let pods = Pods { plane, namespace };
    let replicas = json!({"spec": {"replicas": REPLICAS}});
    web.create(Some("envoy"), &replicas).await;
    db.create(Some("envoy"), &replicas).await;
    let old_web = pods.roll_out("web", None).await;
    pods.roll_out("db", None).await;

    rotation.rotate().await;
    let trust = eventually("a restart of web", async || web.mark().await).await;
    // None of its new Pods is ready: the old ones serve, and no other workload is restarted.
    let waits = || keeper.log().matches("waiting for others to be ready").count();
    let so_far = waits();
    eventually("two checks of the rollout", async || (waits() >= so_far + 2).then_some(())).await;
    assert_eq!(pods.ready("web", None).await.len(), old_web.len(), "the old ones still serve");
    assert_eq!(db.generation().await, 1, "db is not restarted yet");

    let new_web = pods.roll_out("web", Some(&trust)).await;
    assert!(new_web.iter().all(|name| !old_web.contains(name)), "{new_web:?}, {old_web:?}");
    let of_db = eventually("a restart of db", async || db.mark().await).await;
    assert_eq!(of_db, trust);
    pods.roll_out("db", Some(&trust)).await;
    eventually("the end of the restart", async || {
        let stored = rotation.stored().await;
        stored.annotation(names::RESTARTED).is_some_and(|n| n == trust).then_some(())
    })
    .await;
    assert_eq!((web.generation().await, db.generation().await), (2, 2), "each restarted once");
    let path = format!("/apis/apps/v1/namespaces/{namespace}/replicasets");
    let sets = plane.json("GET", &path, &Value::Null).await.unwrap();
    let sizes = sets["items"].as_array().unwrap().iter().map(|set| set["spec"]["replicas"].clone());
    let mut sizes: Vec<u64> = sizes.map(|size| size.as_u64().unwrap()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [0, u64::from(REPLICAS)], "the old ReplicaSet and the new one");
    setup.event(&rotation, "Restarted").await;
    assert!(setup.events(&rotation, "RestartFailed").await.is_empty());
}
