//! Rotations by a Job while peers talk: who refuses whom, without the webhook, with it, and in
//! staged mode. One generator, one moment, three namespaces.

use serde_json::json;

use ca_overlap::names;

use crate::cluster::{Cluster, eventually};
use crate::peers::{PEERS, Peers, SECRETS};
use crate::records::{Count, Record, Rotation, arrivals, dials};
use devtools::secrets::MERGE;

/// More handshakes of each pair, after everything has arrived.
const MORE: usize = 8;

#[tokio::test]
#[ignore = "needs a cluster: make node-test"]
async fn handshakes_fail_only_where_the_mode_cannot_prevent_it() {
    let cluster = Cluster::connect().await;
    cluster.install_all().await;
    let (without, bundled, staged) =
        tokio::join!(without(&cluster), bundled(&cluster), staged(&cluster));
    eprintln!("{without}{bundled}{staged}");
}

/// The control: the same peers and the same generator, where the namespace has opted out. Both
/// directions fail, and go on to fail where nothing is read again.
async fn without(cluster: &Cluster) -> String {
    let peers = Peers::start(cluster, "peers-without", &json!({names::MODE: "off"})).await;
    let log = Log::rotate(&peers).await;
    assert_eq!(cas(&peers).await, [log.rotation.new.as_str()], "the generator's own bytes");
    let spread = log.spread(&peers).await;
    let end = more(&peers, spread).await;
    let records = peers.records(0).await;
    let (before, during, after) = log.phases(&records, spread, end);
    assert_eq!(before.failed, 0, "nothing fails before the rotation");
    assert!(
        after.old_leaf_refused > 0,
        "an old leaf must be refused, or the other scenes show nothing"
    );
    assert!(
        after.new_leaf_refused > 0,
        "a new leaf must be refused, or the staged scene shows nothing"
    );
    table(
        "without ca-overlap (the namespace opted out)",
        &[("before", &before), ("during", &during), ("after", &after)],
    )
}

/// With the webhook nobody refuses an old leaf. A new one is refused until the files arrive; where
/// they are not read again, until the keeper has restarted who cannot reload.
async fn bundled(cluster: &Cluster) -> String {
    let peers = Peers::start(cluster, "peers-bundled", &json!({})).await;
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
    assert_eq!(all.old_leaf_refused, 0, "the covered direction");
    assert_eq!(all.otherwise_refused, 0, "only a new leaf may be refused, by old files");
    assert!(all.old_leaf_accepted > 0, "the covered direction must have been tried");
    assert!(after.new_leaf_refused > 0, "who cannot reload must have been there");
    assert_eq!(last.failed, 0, "after the restarts nothing fails");
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

/// Staged, with `restart` where something cannot reload: not one handshake fails.
async fn staged(cluster: &Cluster) -> String {
    let peers = Peers::start(cluster, "peers-staged", &json!({})).await;
    for (secret, workload) in [
        ("envoy", Some("pinned")),
        ("envoy-gateway", None),
        ("envoy-rate-limit", Some("envoy-rate-limit")),
    ] {
        let patch = json!({"metadata": {
            "labels": {names::MODE: "staged"}, "annotations": {names::GROUP: "envoy"},
        }});
        peers.secrets.patch(secret, MERGE, "", &patch).await.ok();
        if let Some(workload) = workload {
            restart(&peers, secret, workload).await;
            // The keeper has seen it, and knows the trust that is there now.
            eventually("the keeper's note", async || {
                peers.secret(secret).await.annotation(names::RESTARTED).map(drop)
            })
            .await;
        }
    }
    let log = Log::rotate(&peers).await;
    for name in SECRETS {
        let secret = peers.secret(name).await;
        assert_eq!(secret.label(names::PHASE), Some(names::PHASE_STAGED), "{name}");
        assert_eq!(
            crate::records::issuer_id(&secret.pem("tls.crt")),
            log.rotation.old,
            "{name} holds its leaf"
        );
    }
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
    assert!(failures.is_empty(), "{} have failed:\n{}", failures.len(), failures.join("\n"));
    table(
        "with ca-overlap in staged mode, `restart` set",
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

fn failures(records: &[Record]) -> Vec<String> {
    let is_failure = |one: &&Record| !one.verdict.is_empty() && one.verdict != "ok";
    records.iter().filter(is_failure).map(Record::failure).collect()
}

/// Waits for more handshakes of all pairs, whatever comes of them.
async fn more(peers: &Peers, from: usize) -> usize {
    peers
        .until("more handshakes", from, |records| {
            let dials = dials(records);
            dials.len() == PEERS.len() * (PEERS.len() - 1) && dials.values().all(|n| *n >= MORE)
        })
        .await
}

/// What came of each stretch of the log.
fn table(title: &str, rows: &[(&str, &Count)]) -> String {
    let rows = rows.iter().map(|(name, count)| format!("  {name:<14} {}\n", count.row()));
    format!("\n{title}\n  {:<14} {}\n{}", "", Count::HEADING, rows.collect::<String>())
}

/// A rotation, and where in the records it began.
struct Log {
    rotation: Rotation,
    /// All pairs talk from here on,
    start: usize,
    /// and the generator runs from here on.
    begin: usize,
}

impl Log {
    async fn rotate(peers: &Peers) -> Self {
        let start = peers.steady(0).await;
        let begin = more(peers, start).await;
        Self { rotation: peers.rotate().await, start, begin }
    }

    /// Waits until the new CA is in the files of a pod of each peer; gives how many records there
    /// are then.
    async fn spread(&self, peers: &Peers) -> usize {
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

    /// Waits until those who read their files again show the new leaf to everybody.
    async fn shown(&self, peers: &Peers, from: usize) -> usize {
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

    fn phases(&self, records: &[Record], spread: usize, end: usize) -> (Count, Count, Count) {
        let count = |from: usize, to: usize| Count::of(&records[from..to], &self.rotation);
        (count(self.start, self.begin), count(self.begin, spread), count(spread, end))
    }
}

/// The Deployment of a pod.
fn of(pod: &str) -> &str {
    pod.rsplitn(3, '-').last().unwrap_or_default()
}
