//! Waits until every replica of webhook and keeper uses the list.
//!
//! A replica logs the SHA-256 of each list that it begins to use. The log is what a person may
//! usually read, and it needs no right of the replica's.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DynamicObject, ListParams, LogParams};
use kube::{Api, Client, ResourceExt};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::kubernetes::explain::{Audience, explain};
use crate::tools::progress_line;
use crate::x509::certs::Fingerprint;

/// The pods of webhook and keeper. Each has one container, with the name of the component.
const SELECTOR: &str =
    "app.kubernetes.io/name=ca-overlap,app.kubernetes.io/component in (webhook,keeper)";
const COMPONENT: &str = "app.kubernetes.io/component";
/// How often the logs are read.
const PAUSE: Duration = Duration::from_secs(2);
/// How much older than the last reading the lines can be that are read, in seconds.
const OVERLAP: i64 = 60;
/// The most bytes of one log that are read at a time.
const MAX_LOG: i64 = 16 << 20;

/// A replica of webhook or keeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Replica {
    /// The name of its pod.
    pub(super) pod: String,
    /// Whether it uses the list.
    pub(super) uses: bool,
    /// Why its log could not be read.
    pub(super) error: Option<String>,
    /// Whether to try again is of no use.
    #[serde(skip)]
    is_forbidden: bool,
}

/// Waits until all replicas use the list with this SHA-256, at most for `limit`. Returns the
/// replicas that run at the end, or why they cannot be listed.
pub(super) async fn wait(
    client: &Client,
    namespace: &str,
    sha256: Fingerprint,
    limit: Duration,
) -> Result<Vec<Replica>, String> {
    // Read as plain JSON: the code that reads whole pods would add a hundred kilobytes.
    let resource = ApiResource::erase::<Pod>(&());
    let pods: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let logs: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let sha256 = sha256.to_string();
    let counts = Cell::new((0, 0));
    let work = async {
        let end = Instant::now().checked_add(limit);
        let mut known = BTreeMap::new();
        loop {
            known = look(&pods, &logs, &sha256, known).await?;
            let using = known.values().filter(|replica| replica.uses).count();
            counts.set((using, known.len()));
            let is_over = end.is_some_and(|end| Instant::now() >= end);
            if using == known.len() || known.values().any(|r| r.is_forbidden) || is_over {
                return Ok(known.into_values().collect());
            }
            sleep(PAUSE).await;
        }
    };
    let line = || {
        let (using, all) = counts.get();
        format!("waiting until every replica uses the list, {using} of {all}")
    };
    progress_line::during(line, work).await
}

/// The replicas that run now. `known` are those of the last look: one that used the list then uses
/// it still.
async fn look(
    pods: &Api<DynamicObject>,
    logs: &Api<Pod>,
    sha256: &str,
    mut known: BTreeMap<String, Replica>,
) -> Result<BTreeMap<String, Replica>, String> {
    let parameters = ListParams::default().labels(SELECTOR);
    let list = pods.list(&parameters).await.map_err(|error| explain(&error, Audience::Caller))?;
    let running = list.items.into_iter().filter(|pod| {
        pod.data["status"]["phase"] == "Running" && pod.metadata.deletion_timestamp.is_none()
    });
    let looks = running.map(|pod| {
        let before = known.remove(&pod.name_any()).filter(|replica| replica.uses);
        async move {
            match before {
                Some(replica) => replica,
                None => read(logs, &pod, sha256).await,
            }
        }
    });
    let looks: Vec<_> = looks.collect();
    let found = join_all(looks).await.into_iter();
    Ok(found.map(|replica| (replica.pod.clone(), replica)).collect())
}

/// Looks for the SHA-256 in the latest lines of a log.
async fn read(logs: &Api<Pod>, pod: &DynamicObject, sha256: &str) -> Replica {
    let name = pod.name_any();
    let parameters = LogParams {
        container: pod.labels().get(COMPONENT).cloned(),
        // By the clock of the node, which may differ from ours.
        since_seconds: Some(OVERLAP),
        limit_bytes: Some(MAX_LOG),
        ..LogParams::default()
    };
    let mut replica = Replica { pod: name, uses: false, error: None, is_forbidden: false };
    match logs.logs(&replica.pod, &parameters).await {
        Ok(log) => replica.uses = log.contains(sha256),
        Err(error) => {
            replica.is_forbidden = matches!(&error, kube::Error::Api(s) if s.code == 403);
            replica.error = Some(explain(&error, Audience::Caller));
        }
    }
    replica
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, phase: &str) -> Value {
        let labels = json!({COMPONENT: "webhook"});
        json!({"metadata": {"name": name, "labels": labels}, "status": {"phase": phase}})
    }

    /// The client of a cluster with these pods. `log` gives the log of a pod at each reading.
    fn cluster(
        pods: &[Value],
        log: impl Fn(&str, usize) -> (u16, String) + Send + Sync + 'static,
    ) -> Client {
        let list = json!({"metadata": {}, "items": pods}).to_string();
        let (log, readings) = (Arc::new(log), Arc::new(AtomicUsize::new(0)));
        let service = tower::service_fn(move |request: Request<Body>| {
            let path = request.uri().path().to_owned();
            let (status, text) = match path.strip_suffix("/log").and_then(|p| p.rsplit('/').next())
            {
                Some(pod) => log(pod, readings.fetch_add(1, Ordering::SeqCst)),
                None => (200, list.clone()),
            };
            let answer = Response::builder().status(status).body(Body::from(text.into_bytes()));
            async move { answer.map_err(tower::BoxError::from) }
        });
        Client::new(service, "ca-overlap")
    }

    async fn waited(client: &Client, limit: u64) -> Vec<(String, bool, Option<String>)> {
        let sha256 = Fingerprint::of(b"list");
        let found = wait(client, "ca-overlap", sha256, Duration::from_secs(limit)).await.unwrap();
        found.into_iter().map(|replica| (replica.pod, replica.uses, replica.error)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn every_running_replica_is_waited_for() {
        let sha256 = Fingerprint::of(b"list");
        let log = move |pod: &str, reading| match (pod, reading) {
            ("slow", 0..5) => (200, "sha256=another\n".to_owned()),
            _ => (200, format!("first line\n{{\"sha256\":\"{sha256}\"}}\n")),
        };
        let pods = ["quick", "slow"].map(|name| pod(name, "Running"));
        let client = cluster(&[&pods[..], &[pod("done", "Succeeded")]].concat(), log);
        let uses = |name: &str, uses| (name.to_owned(), uses, None);
        let begin = Instant::now();
        assert_eq!(waited(&client, 60).await, [uses("quick", true), uses("slow", true)]);
        assert!(begin.elapsed() >= PAUSE);

        // The wait is bounded, and says who is missing.
        let client = cluster(&[pod("old", "Running")], |_, _| (200, String::new()));
        assert_eq!(waited(&client, 60).await, [uses("old", false)]);
        assert!(waited(&cluster(&[], |_, _| (200, String::new())), 60).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_may_not_be_read_ends_the_wait() {
        let refusal = json!({"kind": "Status", "code": 403, "message": "pods/log is forbidden"});
        let client = cluster(&[pod("a", "Running")], move |_, _| (403, refusal.to_string()));
        let begin = Instant::now();
        let found = waited(&client, 3600).await;
        assert_eq!(found, [("a".to_owned(), false, Some("pods/log is forbidden".to_owned()))]);
        assert!(begin.elapsed() < Duration::from_secs(1));
    }
}
