//! SIGKILL at every step: the leader is killed at its n-th request, for each n that its task takes,
//! and a standby finishes. The stored result must be right, and no change may be made twice.
//!
//! Many such histories run at the same time on one API server. Each pair of keepers has a separate
//! Lease, and a proxy shows it one namespace alone.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use ca_overlap::names;
use futures::StreamExt;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::promote::wait_for_lease;
use super::proxy::Proxy;
use super::repair::recreate;
use super::setup::{Keeper, ROLE, Rotation, Setup, eventually};
use super::workload::Workload;
use devtools::certs::{self, bundle};
use devtools::secrets::{Answer, MERGE, tls_secret};

/// How many histories run at the same time.
const AT_ONCE: usize = 6;
/// The Secret whose CA is announced.
const SOURCE: &str = "source";
const WORKLOADS: [&str; 2] = ["deployment/first", "deployment/second"];

/// A task of the keeper.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Task {
    /// Announces the CA of a source.
    Announce,
    /// Takes that back.
    Withdraw,
    /// Retires a carried CA at its deadline.
    Retire,
    /// Restores the overlap and the settings of a Secret that was deleted and created.
    Repair,
    /// Restarts two workloads, one after the other.
    Restart,
    /// Promotes a waiting leaf, and then retires the previous CA.
    Stage,
}

/// The result of a history.
struct HistoryResult {
    task: Task,
    is_killed: bool,
    /// The number of requests that the leader made.
    requests: usize,
    /// The changes that both keepers made, in order.
    changes: Vec<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_at_any_request_the_standby_finishes_and_repeats_nothing() {
    let test = "after_a_crash_at_any_request_the_standby_finishes_and_repeats_nothing";
    let arguments = ["--staged", "--settle", "1s"];
    let Some(setup) = Setup::with(test, "staged", &arguments).await else { return };
    let setup = &setup;
    allow_any_lease(setup).await;
    wait_for_lease(&setup.cluster.namespace("trial").await).await;

    // Each task once without a crash.
    let tasks =
        [Task::Announce, Task::Withdraw, Task::Retire, Task::Repair, Task::Restart, Task::Stage];
    let whole = futures::stream::iter(tasks).map(|task| history(setup, task, usize::MAX));
    let whole: Vec<HistoryResult> = whole.buffered(AT_ONCE).collect().await;
    let cases = whole.iter().flat_map(|it| (1..=it.requests).map(|last| (it.task, last)));
    let killed = futures::stream::iter(cases).map(|(task, last)| history(setup, task, last));
    let killed: Vec<HistoryResult> = killed.buffer_unordered(AT_ONCE).collect().await;

    let mut said = String::new();
    for whole in &whole {
        let (task, changes) = (whole.task, &whole.changes);
        assert!(!whole.is_killed && !changes.is_empty());
        let runs: Vec<&HistoryResult> = killed.iter().filter(|it| it.task == task).collect();
        for run in &runs {
            assert_eq!(run.changes, *changes, "{task:?}, killed after {}", run.requests - 1);
        }
        let kills = runs.iter().filter(|it| it.is_killed).count();
        writeln!(said, "{task:?}: {} changes, {kills} kills", changes.len()).unwrap();
        // There is a read before each change. The number of polls depends on the clock.
        assert!(kills >= 2 * changes.len(), "{task:?}: {kills} of {}", whole.requests);
    }
    println!("{said}");
}

/// Lets keepers use any Lease, and creates a fresh Lease of the installation for the webhook.
pub async fn allow_any_lease(setup: &Setup) {
    let plane = &setup.cluster.plane;
    let mut role = plane.json("GET", ROLE, &Value::Null).await.unwrap();
    role["rules"][0].as_object_mut().unwrap().remove("resourceNames");
    plane.json("PUT", ROLE, &role).await.unwrap();
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": names::KEEPER_LEASE},
        "spec": {
            "holderIdentity": "one", "leaseDurationSeconds": 3600,
            "renewTime": format!("{:.6}", Timestamp::now()),
        },
    });
    let leases = "/apis/coordination.k8s.io/v1/namespaces/ca-overlap/leases";
    plane.json("POST", leases, &lease).await.unwrap();
}

/// Runs a task with a leader that is killed at its request `last`, and a standby.
async fn history(setup: &Setup, task: Task, last: usize) -> HistoryResult {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let lease_name = format!("{task:?}-{}", NUMBER.fetch_add(1, Ordering::Relaxed)).to_lowercase();
    let mut rotation = task.prepare(setup).await;
    let (mut leader, leader_proxy) = keeper(setup, &rotation, &lease_name, "a", last).await;
    leader.leads(true).await;
    let (standby, standby_proxy) = keeper(setup, &rotation, &lease_name, "b", usize::MAX).await;
    if task == Task::Repair {
        for keeper in [&leader, &standby] {
            eventually("the uid of the namespace", async || {
                keeper.log().contains("read the uid of a namespace").then_some(())
            })
            .await;
        }
    }
    if task == Task::Withdraw {
        eventually("an announcement", async || Task::Announce.is_done(setup, &rotation).await)
            .await;
    }
    leader_proxy.arm();
    standby_proxy.arm();
    task.begin(&mut rotation).await;
    let mut is_killed = false;
    let stored = eventually(&format!("the end of {lease_name}, {last}"), async || {
        if leader_proxy.has_stopped() && !is_killed {
            leader.process.signal("KILL");
            is_killed = true;
        }
        task.is_done(setup, &rotation).await
    })
    .await;
    task.check(setup, &rotation, &stored).await;
    let changes = [leader_proxy.changes(), standby_proxy.changes()].concat();
    let of_namespace = format!("/namespaces/{}/", rotation.secrets.namespace);
    let changes = changes.iter().map(|path| path.split(&of_namespace).nth(1).unwrap().to_owned());
    HistoryResult { task, is_killed, requests: leader_proxy.seen(), changes: changes.collect() }
}

/// Starts a keeper behind a proxy and waits until it is ready.
async fn keeper(
    setup: &Setup,
    rotation: &Rotation,
    lease_name: &str,
    replica: &str,
    last: usize,
) -> (Keeper, Proxy) {
    let proxy = Proxy::start(&setup.cluster.plane, &rotation.secrets.namespace, last).await;
    let identity = format!("{lease_name}-{replica}");
    let arguments = ["--lease", lease_name, "--settle", "1s"];
    let mut keeper = proxy.keeper(setup, &identity, &arguments).await;
    keeper.ready().await;
    (keeper, proxy)
}

impl Task {
    /// Creates what the task needs before it is due.
    async fn prepare(self, setup: &Setup) -> Rotation {
        let secrets = setup.cluster.namespace("kills").await;
        let annotations = match self {
            Self::Retire | Self::Stage => json!({names::WINDOW: "1s"}),
            Self::Repair => json!({names::KEEP: "2"}),
            Self::Restart => json!({names::RESTART: WORKLOADS.join(",")}),
            Self::Announce => json!({}),
            Self::Withdraw => json!({names::TRUST: SOURCE}),
        };
        let source = certs::ca_named("Source");
        let source = tls_secret(SOURCE, &source.pem, &source.leaf("source"));
        secrets.create(&source).await.ok();
        let rotation = Rotation::begin(&secrets, "envoy", annotations).await;
        let mode = if self == Self::Stage { "staged" } else { "bundle" };
        let mode = json!({"metadata": {"labels": {names::MODE: mode}}});
        secrets.patch("envoy", MERGE, "fieldManager=person", &mode).await.ok();
        if self == Self::Restart {
            for name in WORKLOADS {
                let workload = workload(setup, &rotation, name);
                workload.create(Some("envoy"), &json!({"spec": {"replicas": 1}})).await;
                workload.roll_out().await;
            }
            // Notes the current trust, so that the keeper has no restart to make yet.
            note_current_trust(setup, &rotation).await;
        }
        rotation
    }

    /// Makes the task due.
    async fn begin(self, rotation: &mut Rotation) {
        if let Self::Announce | Self::Withdraw = self {
            let trust = (self == Self::Announce).then_some(SOURCE);
            let patch = json!({"metadata": {"annotations": {names::TRUST: trust}}});
            rotation.secrets.patch(&rotation.name, MERGE, "fieldManager=person", &patch).await.ok();
            return;
        }
        if self != Self::Repair {
            let rotated = rotation.rotate().await;
            let phase = if self == Self::Stage { "staged" } else { "overlap" };
            assert_eq!(rotated.label(names::PHASE), Some(phase));
            return;
        }
        recreate(rotation).await;
    }

    async fn is_done(self, setup: &Setup, rotation: &Rotation) -> Option<Answer> {
        if self == Self::Restart {
            for name in WORKLOADS {
                workload(setup, rotation, name).roll_out().await;
            }
        }
        let stored = rotation.stored().await;
        let (old, new) = (&rotation.generation[0], rotation.generation.last().unwrap());
        let is_done = match self {
            Self::Announce => {
                let source = rotation.secrets.get(SOURCE).await.pem("ca.crt");
                stored.pem("ca.crt") == old.pem.clone() + &source
            }
            Self::Withdraw => stored.pem("ca.crt") == old.pem,
            Self::Retire | Self::Stage => stored.pem("ca.crt") == new.pem,
            Self::Repair => stored.pem("ca.crt") == bundle(&[new, old]),
            Self::Restart => {
                let mark = workload(setup, rotation, WORKLOADS[1]).mark().await;
                mark.is_some() && stored.annotation(names::RESTARTED) == mark.as_deref()
            }
        };
        is_done.then_some(stored)
    }

    async fn check(self, setup: &Setup, rotation: &Rotation, stored: &Answer) {
        assert_eq!(stored.annotation(names::ASK), None);
        assert_eq!(stored.annotation(names::STAGED), None);
        assert_eq!(stored.data(names::PENDING_TLS_KEY), None, "no key is left behind");
        let record = stored.annotation(names::CARRIED).unwrap();
        match self {
            Self::Announce => assert!(record.contains("keeper"), "{record}"),
            Self::Retire | Self::Stage | Self::Withdraw => {
                assert_eq!((record, stored.label(names::PHASE)), ("[]", None));
            }
            Self::Repair => {
                assert_eq!(stored.annotation(names::KEEP), Some("2"));
                assert_eq!(stored.label(names::MODE), Some("bundle"));
                assert!(record.contains("until"), "{record}");
            }
            Self::Restart => {
                for name in WORKLOADS {
                    let workload = workload(setup, rotation, name);
                    assert_eq!(
                        workload.mark().await.as_deref(),
                        stored.annotation(names::RESTARTED)
                    );
                    assert_eq!(workload.generation().await, 2, "{name}: restarted once");
                }
            }
        }
        if self != Self::Repair {
            assert_eq!(rotation.data_managers().await, ["helm"]);
        }
    }
}

fn workload<'a>(setup: &'a Setup, rotation: &'a Rotation, name: &'a str) -> Workload<'a> {
    Workload { plane: &setup.cluster.plane, namespace: &rotation.secrets.namespace, name }
}

/// Runs a separate keeper until it has noted the current trust.
async fn note_current_trust(setup: &Setup, rotation: &Rotation) {
    let lease_name = format!("note-{}", rotation.secrets.namespace);
    let (keeper, _proxy) = keeper(setup, rotation, &lease_name, "a", usize::MAX).await;
    eventually("a note of the current trust", async || {
        rotation.stored().await.annotation(names::RESTARTED).map(drop)
    })
    .await;
    drop(keeper);
}
