//! Replicas of both editions serve one Service, as in a rollout, while generators rotate without a
//! pause and `failurePolicy` is `Fail`. Then back again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ca_overlap::names;
use devtools::control_plane::{ServiceProxy, Webhook};
use devtools::secrets::{Answer, Secrets};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::setup::{
    Edition, Generator, How, Installation, assert_at_rest, is_staged, record, unstaged,
};
use crate::keeper::promote::wait_for_lease;
use crate::keeper::setup::eventually;
use crate::support::sum;

const WEBHOOK: [&str; 4] = ["--staged", "--settle", "1s", "--drain-delay=3s"];
const REGISTRATION: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/ca-overlap";
/// How many writes each generator makes between two steps of the rollout.
const WRITES: usize = 12;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an earlier build: make upgrade-test"]
async fn replicas_of_both_editions_behind_one_service_keep_every_promise() {
    use Edition::{Current, Earlier};
    let test = "replicas_of_both_editions_behind_one_service_keep_every_promise";
    let Some(mut rollout) = Rollout::start(test, Earlier).await else { return };
    let mut keeper = rollout.it.keeper(Earlier, "1s").await;
    wait_for_lease(&rollout.it.cluster.namespace("trial").await).await;
    let secrets = rollout.it.cluster.namespace(test).await;
    let load = Load::start(&secrets).await;
    load.more("the earlier edition").await;

    // In the order of docs/upgrade.md: the webhook, its registration, the keeper.
    rollout.replace(Current).await;
    load.more("both webhooks, the earlier keeper").await;
    rollout.steady(test, [Earlier, Current]).await;
    let copy = copy(&secrets).await;
    rollout.replace(Current).await;
    load.more("this webhook, the earlier registration and keeper").await;
    rollout.register(Current).await;
    load.more("this webhook, its registration, the earlier keeper").await;
    drop(keeper);
    keeper = rollout.it.keeper(Current, "1s").await;
    load.more("this edition").await;
    a_copy_carries_nothing_of_its_source(copy).await;

    // And back, in the opposite order.
    drop(keeper);
    keeper = rollout.it.keeper(Earlier, "1s").await;
    load.more("this webhook, the earlier keeper").await;
    rollout.register(Earlier).await;
    rollout.replace(Earlier).await;
    load.more("both webhooks, the earlier registration and keeper").await;
    rollout.steady(test, [Current, Earlier]).await;
    rollout.replace(Earlier).await;
    load.more("the earlier edition again").await;

    // The keeper first, against the advice: what the webhook does not know is refused.
    drop(keeper);
    let _keeper = rollout.it.keeper(Current, "1s").await;
    load.more("the earlier webhook, this keeper").await;
    let written = load.finish().await;
    eprintln!("{written} writes, none rejected, all with their overlap");
    rollout.assert_no_failed_call().await;
}

struct Rollout {
    it: Installation,
    proxy: ServiceProxy,
    replicas: Vec<(Edition, Webhook)>,
    leaving: Vec<Webhook>,
}

impl Rollout {
    async fn start(test: &str, edition: Edition) -> Option<Self> {
        let mut it = Installation::of(edition, test).await?;
        let mut replicas = Vec::new();
        for _ in 0..2 {
            let listen = address(&it);
            replicas.push((edition, it.webhook(edition, listen, &WEBHOOK).await));
        }
        let backends = replicas.iter().map(|(_, webhook)| webhook.listen()).collect();
        let proxy = ServiceProxy::start(it.cluster.port_443(), backends).await.unwrap();
        for (_, webhook) in &mut replicas {
            webhook.ready().await.unwrap();
        }
        let rollout = Self { it, proxy, replicas, leaving: Vec::new() };
        rollout.register(edition).await;
        Some(rollout)
    }

    /// Applies the manifests of an edition, and lets failed calls reject writes.
    async fn register(&self, edition: Edition) {
        self.it.apply(edition).await;
        let plane = &self.it.cluster.plane;
        let configuration = plane.json("GET", REGISTRATION, &Value::Null).await.unwrap();
        let entries = configuration["webhooks"].as_array().unwrap().len();
        // Only this edition has a second entry; an apply of the earlier one removes it.
        assert_eq!(entries, if edition == Edition::Current { 2 } else { 1 });
        eventually("a caBundle in each entry", async || {
            let read = plane.json("GET", REGISTRATION, &Value::Null).await.unwrap();
            let all = read["webhooks"].as_array().unwrap().clone();
            all.iter().all(|it| it["clientConfig"]["caBundle"].is_string()).then_some(())
        })
        .await;
        let fail = |at| json!({"op": "add", "path": format!("/webhooks/{at}/failurePolicy"), "value": "Fail"});
        let patch = json!((0..entries).map(fail).collect::<Vec<_>>()).to_string();
        let arguments =
            ["patch", "mutatingwebhookconfiguration", "ca-overlap", "--type=json", "-p", &patch];
        plane.kubectl(&arguments, &[]).await.unwrap();
        plane.registration_in_force().await.unwrap();
    }

    /// Replaces the oldest replica, as a Deployment with maxSurge 1 does.
    async fn replace(&mut self, edition: Edition) {
        let listen = address(&self.it);
        let mut new = self.it.webhook(edition, listen, &WEBHOOK).await;
        new.ready().await.unwrap();
        let (_, mut old) = self.replicas.remove(0);
        self.replicas.push((edition, new));
        self.proxy.set_backends(self.replicas.iter().map(|(_, it)| it.listen()).collect());
        old.process().signal("TERM");
        // It drains while the API server keeps a connection to it.
        self.leaving.push(old);
    }

    /// Generators repeat their writes, and both replicas answer. Once this edition has completed the
    /// record, nothing is written.
    async fn steady(&self, test: &str, editions: [Edition; 2]) {
        let found: Vec<Edition> = self.replicas.iter().map(|(edition, _)| *edition).collect();
        assert_eq!(found, editions);
        let secrets = self.it.cluster.namespace(test).await;
        let mut generators = Vec::new();
        // Not by PATCH: the API server then dates the manager of `ca.crt` again each time.
        for (name, how) in [("put", How::Put), ("apply", How::Apply)] {
            let window = json!({names::WINDOW: "24h"});
            let mut it = Generator::begin(&secrets, name, how, json!({}), window).await;
            it.rotate().await;
            generators.push(it);
        }
        let calls = async || {
            let mut calls = Vec::new();
            for (_, webhook) in &self.replicas {
                calls.push(sum(&webhook.metrics().await.unwrap(), CALLS, &[]));
            }
            calls
        };
        let round = async || {
            let writes = generators.iter().map(|generator| async {
                generator.write().await.ok().resource_version().to_owned()
            });
            futures::future::join_all(writes).await
        };
        eventually("records that name their Secret", async || {
            round().await;
            for generator in &generators {
                let entries = record(&generator.stored().await);
                if entries.iter().any(|entry| entry["uid"].is_null()) {
                    return None;
                }
            }
            Some(())
        })
        .await;
        let (versions, begin) = (round().await, calls().await);
        let mut rounds = 0;
        eventually("many calls of both replicas", async || {
            assert_eq!(round().await, versions, "a re-apply writes nothing");
            rounds += 1;
            let calls = calls().await;
            let is_often = calls.iter().zip(&begin).all(|(now, before)| now - before >= 30.0);
            (is_often && rounds >= 30).then_some(())
        })
        .await;
    }

    async fn assert_no_failed_call(&self) {
        let metrics = self.it.cluster.plane.metrics().await.unwrap();
        for name in ["rejection_count", "fail_open_count"] {
            let family = format!("apiserver_admission_webhook_{name}");
            let failed = sum(&metrics, &family, &["ca-overlap.dev"]);
            assert!(failed < 0.5, "{failed} calls count as {name}");
        }
    }
}

const CALLS: &str = "ca_overlap_admissions_total";

fn address(it: &Installation) -> SocketAddr {
    (it.cluster.plane.next_cluster_ip().unwrap(), 8443).into()
}

/// Copies a Secret with a record as a replicator does, under another name.
async fn copy(secrets: &Secrets) -> Generator {
    let mut source = Generator::begin(secrets, "source", How::Put, json!({}), json!({})).await;
    source.rotate().await;
    let mut object = source.stored().await.body;
    let metadata = &object["metadata"];
    object["metadata"] = json!({
        "name": "copy", "labels": metadata["labels"], "annotations": metadata["annotations"],
    });
    let made = secrets.create(&object).await.ok();
    assert_eq!(source.cas(&made), [2, 1]);
    Generator { name: "copy".to_owned(), ..source }
}

/// The copy was made when nothing reviewed it. Its next rotation carries its own CA alone.
async fn a_copy_carries_nothing_of_its_source(mut copy: Generator) {
    let rotated = copy.rotate().await;
    assert_eq!(copy.cas(&rotated), [3, 2]);
    let entries = record(&rotated);
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0]["uid"], rotated.body["metadata"]["uid"]);
}

/// Generators that rotate without a pause, and check each answer.
struct Load {
    stop: Arc<AtomicBool>,
    written: Vec<Arc<AtomicUsize>>,
    tasks: Vec<JoinHandle<Generator>>,
}

impl Load {
    async fn start(secrets: &Secrets) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut written, mut tasks) = (Vec::new(), Vec::new());
        for (name, how, mode) in [
            ("put", How::Put, "bundle"),
            ("apply", How::Apply, "bundle"),
            ("patch", How::Patch, "bundle"),
            ("put-staged", How::Put, "staged"),
            ("apply-staged", How::Apply, "staged"),
            ("patch-staged", How::Patch, "staged"),
        ] {
            let labels = json!({names::MODE: mode});
            let mut generator = Generator::begin(secrets, name, how, labels, json!({})).await;
            let (stop, count) = (stop.clone(), Arc::new(AtomicUsize::new(0)));
            written.push(count.clone());
            tasks.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let answer = generator.rotate().await;
                    check(&generator, &answer);
                    let total = count.fetch_add(1, Ordering::Relaxed) + 1;
                    // Every other leaf waits until it is promoted; the rest is replaced before.
                    if total % 2 == 0 && is_staged(&answer) {
                        check(&generator, &unstaged(&generator).await);
                    }
                }
                generator
            }));
        }
        Self { stop, written, tasks }
    }

    /// Waits until each generator has written often in this step of the rollout.
    async fn more(&self, step: &str) {
        let counts = || self.written.iter().map(|count| count.load(Ordering::Relaxed));
        let before: Vec<usize> = counts().collect();
        // Without a limit of its own: a generator that makes no progress fails by itself.
        while !counts().zip(&before).all(|(now, before)| now - before >= WRITES) {
            assert!(self.tasks.iter().all(|task| !task.is_finished()), "a law is broken: {step}");
            sleep(Duration::from_millis(50)).await;
        }
        eprintln!("{step}: {:?} writes in all", counts().collect::<Vec<_>>());
    }

    /// Stops, and returns the number of writes. All Secrets come to rest.
    async fn finish(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            let generator = task.await.unwrap();
            let stored = unstaged(&generator).await;
            check(&generator, &stored);
            assert_at_rest(&generator, &stored);
        }
        self.written.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

/// The laws of one answer: the generator's CA comes first, and readers trust the CA of the leaf in
/// service, and that of the leaf before. One CA is carried, and the record is this object's.
fn check(generator: &Generator, answer: &Answer) {
    let name = &generator.name;
    let (newest, served) = (generator.pairs.len(), generator.served(answer));
    let cas = generator.cas(answer);
    assert_eq!(cas.first(), Some(&newest), "{name}: {cas:?}");
    assert_eq!(cas.len(), 2, "{name}: {cas:?}");
    if served == newest {
        // A leaf that waited can follow one that is older than the last.
        let is_previous = cas[1] + 1 == newest;
        assert!(is_previous || name.ends_with("-staged"), "{name}: {cas:?}");
    } else {
        assert_eq!(cas[1], served, "{name}: {cas:?}");
        assert!(is_staged(answer), "{name}");
    }
    let entries = record(answer);
    assert_eq!(entries.len(), 1, "{name}: {entries:?}");
    let uid = &answer.body["metadata"]["uid"];
    assert!(entries[0]["uid"].is_null() || entries[0]["uid"] == *uid, "{name}: {entries:?}");
}
