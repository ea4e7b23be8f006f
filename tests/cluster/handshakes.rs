//! A Job rotates the CA while peers do handshakes: the test counts refusals without the webhook,
//! with it, and in staged mode. The three cases run at the same time in three namespaces.

use serde_json::json;

use ca_overlap::names;

use crate::cluster::{Cluster, eventually};
use crate::peers::{PEERS, Peers, SECRETS};
use crate::records::{Count, Record, Rotation, arrivals, dials};
use devtools::secrets::MERGE;

/// The number of further handshakes of each pair, after the files have arrived.
const MORE: usize = 8;

#[tokio::test]
#[ignore = "needs a cluster: make kind-test"]
async fn handshakes_fail_only_where_the_mode_cannot_prevent_it() {
    let cluster = Cluster::connect().await;
    cluster.install_all().await;
    let (without, bundled, staged) = tokio::join!(
        without(&cluster),
        bundled(&cluster),
        staged(&cluster, "peers-staged", async || ())
    );
    eprintln!("{without}{bundled}{staged}");
    // Peers that continue shaking hands take the processors from the tests that follow.
    cluster.kubectl("delete namespace peers-without peers-bundled peers-staged --wait=false").await;
}

/// The control: the same peers and generator in a namespace that has opted out. Peers reject old
/// and new leaves, and those that do not reload keep refusing.
async fn without(cluster: &Cluster) -> String {
    let peers = Peers::start(cluster, "peers-without", &json!({names::MODE: "off"})).await;
    let log = Log::rotate(&peers).await;
    assert_eq!(cas(&peers).await, [log.rotation.new.as_str()], "only the generator's own CA");
    let spread = log.spread(&peers).await;
    let end = more(&peers, spread).await;
    let records = peers.records(0).await;
    let (before, during, after) = log.phases(&records, spread, end);
    assert_eq!(before.failed, 0, "nothing fails before the rotation");
    assert!(
        after.old_leaf_refused > 0,
        "an old leaf must be refused here, or the bundled case proves nothing"
    );
    assert!(
        after.new_leaf_refused > 0,
        "a new leaf must be refused here, or the staged case proves nothing"
    );
    table(
        "without ca-overlap (the namespace opted out)",
        &[("before", &before), ("during", &during), ("after", &after)],
    )
}

/// With the webhook no peer rejects an old leaf. A peer rejects a new leaf until its files arrive
/// or, if it does not reload them, until the keeper has restarted it.
async fn bundled(cluster: &Cluster) -> String {
    let peers = Peers::start(cluster, "peers-bundled", &json!({})).await;
    for name in SECRETS {
        let patch = json!({"metadata": {"labels": {names::MODE: "bundle"}}});
        peers.secrets.patch(name, MERGE, "", &patch).await.ok();
    }
    let log = Log::rotate(&peers).await;
    for name in SECRETS {
        let ids = crate::records::key_ids(&peers.secret(name).await.pem("ca.crt"));
        assert_eq!(ids, [log.rotation.new.as_str(), log.rotation.old.as_str()], "{name}");
    }
    let spread = log.spread(&peers).await;
    let spread_end = more(&peers, spread).await;
    let pinned = (peers.pod("pinned").await, peers.pod("envoy-rate-limit").await);

    for (secret, workload) in [("envoy", "pinned"), ("envoy-rate-limit", "envoy-rate-limit")] {
        restart(&peers, secret, workload).await;
    }
    eventually("restarts by the keeper", async || {
        let now = (peers.pod("pinned").await, peers.pod("envoy-rate-limit").await);
        (now.0 != pinned.0 && now.1 != pinned.1).then_some(())
    })
    .await;
    peers.ready().await;
    let restarted = peers.records(0).await.len();
    let end = more(&peers, restarted).await;

    let records = peers.records(0).await;
    let (before, during, after) = log.phases(&records, spread, spread_end);
    let restarts = Count::of(&records[spread_end..restarted], &log.rotation);
    let last = Count::of(&records[restarted..end], &log.rotation);
    assert_eq!(before.failed, 0, "nothing fails before the rotation");
    let all = Count::of(&records[log.start..], &log.rotation);
    assert_eq!(all.old_leaf_refused, 0, "no peer with new files refuses an old leaf");
    assert_eq!(all.otherwise_refused, 0, "only peers with old files refuse a new leaf");
    assert!(all.old_leaf_accepted > 0, "an old leaf was shown to a peer with new files");
    assert!(after.new_leaf_refused > 0, "a peer that cannot reload refuses a new leaf");
    assert_eq!(last.failed, 0, "no handshake fails after the restarts");
    table(
        "with ca-overlap: the previous CA bundled",
        &[
            ("before", &before),
            ("during", &during),
            ("after", &after),
            ("restarts", &restarts),
            ("restarted", &last),
        ],
    )
}

/// With the default mode, and `restart` for peers that cannot reload, no handshake fails, whatever
/// `disturb` does while the new CA spreads. Nothing else is annotated.
pub async fn staged(cluster: &Cluster, namespace: &str, disturb: impl AsyncFnOnce()) -> String {
    let peers = Peers::start(cluster, namespace, &json!({})).await;
    for (secret, workload) in [("envoy", "pinned"), ("envoy-rate-limit", "envoy-rate-limit")] {
        restart(&peers, secret, workload).await;
    }
    let log = Log::rotate(&peers).await;
    for name in SECRETS {
        let secret = peers.secret(name).await;
        assert_eq!(secret.label(names::PHASE), Some(names::PHASE_STAGED), "{name}");
        assert_eq!(
            crate::records::issuer_id(&secret.pem("tls.crt")),
            log.rotation.old,
            "{name} keeps its leaf"
        );
    }
    disturb().await;
    let spread = log.spread(&peers).await;
    eventually("all leaves promoted", async || {
        for name in SECRETS {
            if peers.leaf_issuer(name).await != log.rotation.new {
                return None;
            }
        }
        Some(())
    })
    .await;
    let promoted = peers.records(0).await.len();
    let arrived = log.shown(&peers, promoted).await;
    let end = more(&peers, arrived).await;

    let records = peers.records(0).await;
    let (before, during, waiting) = log.phases(&records, spread, promoted);
    let promotion = Count::of(&records[promoted..arrived], &log.rotation);
    let after = Count::of(&records[arrived..end], &log.rotation);
    let failures = failures(&records[log.start..]);
    assert!(failures.is_empty(), "{} handshakes failed:\n{}", failures.len(), failures.join("\n"));
    table(
        "with ca-overlap as overlays/full installs it, `restart` set",
        &[
            ("before", &before),
            ("trust spreads", &during),
            ("waiting", &waiting),
            ("leaf spreads", &promotion),
            ("after", &after),
        ],
    )
}

async fn restart(peers: &Peers, secret: &str, workload: &str) {
    let value = format!("deployment/{workload}");
    let patch = json!({"metadata": {"annotations": {names::RESTART: value}}});
    peers.secrets.patch(secret, MERGE, "", &patch).await.ok();
}

async fn cas(peers: &Peers) -> Vec<String> {
    crate::records::key_ids(&peers.secret(SECRETS[0]).await.pem("ca.crt"))
}

pub fn failures(records: &[Record]) -> Vec<String> {
    let is_failure = |one: &&Record| !one.verdict.is_empty() && one.verdict != "ok";
    records.iter().filter(is_failure).map(Record::failure).collect()
}

/// Waits for more handshakes of all pairs, whether they succeed or fail.
pub async fn more(peers: &Peers, from: usize) -> usize {
    peers
        .until("more handshakes", from, |records| {
            let dials = dials(records);
            dials.len() == PEERS.len() * (PEERS.len() - 1) && dials.values().all(|n| *n >= MORE)
        })
        .await
}

/// Formats the counts of each phase as a table.
pub fn table(title: &str, rows: &[(&str, &Count)]) -> String {
    let rows = rows.iter().map(|(name, count)| format!("  {name:<14} {}\n", count.row()));
    format!("\n{title}\n  {:<14} {}\n{}", "", Count::HEADING, rows.collect::<String>())
}

/// A rotation, and its place in the records.
pub struct Log {
    pub rotation: Rotation,
    /// The record from which on all pairs do handshakes.
    pub start: usize,
    /// The record at which the generator started.
    pub begin: usize,
}

/// What is recorded before a rotation.
pub struct Before {
    start: usize,
    begin: usize,
}

impl Before {
    pub fn of(self, rotation: Rotation) -> Log {
        Log { rotation, start: self.start, begin: self.begin }
    }
}

impl Log {
    pub async fn begin(peers: &Peers) -> Before {
        let start = peers.steady(0).await;
        Before { start, begin: more(peers, start).await }
    }

    async fn rotate(peers: &Peers) -> Self {
        let before = Self::begin(peers).await;
        before.of(peers.rotate().await)
    }

    /// Waits until a pod of each peer has the new CA in its files. Returns the number of records.
    pub async fn spread(&self, peers: &Peers) -> usize {
        peers
            .until("the new files in all pods", self.begin, |records| {
                let arrived = arrivals(records, &self.rotation.new);
                PEERS.iter().all(|peer| {
                    arrived.keys().any(|pod| of(pod) == peer.name)
                        || records.iter().any(|one| {
                            one.kind == "start"
                                && one.from == peer.name
                                && one.trusts(&self.rotation.new)
                        })
                })
            })
            .await
    }

    /// Waits until all peers that reload their files show the new leaf.
    pub async fn shown(&self, peers: &Peers, from: usize) -> usize {
        peers
            .until("the new leaf, shown by all that reload", from, |records| {
                let of_reloading = PEERS.iter().filter(|peer| peer.at_start != "all");
                of_reloading.into_iter().all(|peer| {
                    let mut shown =
                        records.iter().rev().filter(|one| one.is_dial() && one.to == peer.name);
                    shown.next().is_some_and(|one| one.issuer == self.rotation.new)
                })
            })
            .await
    }

    pub fn phases(&self, records: &[Record], spread: usize, end: usize) -> (Count, Count, Count) {
        let count = |from: usize, to: usize| Count::of(&records[from..to], &self.rotation);
        (count(self.start, self.begin), count(self.begin, spread), count(spread, end))
    }
}

/// The name of a pod's Deployment.
fn of(pod: &str) -> &str {
    pod.rsplitn(3, '-').last().unwrap_or_default()
}
