//! With `--renew-leaves` a renewed root is all that a person does: the keeper has the leaves issued
//! again, once each, also where it is killed at any of its requests.

use std::sync::atomic::{AtomicUsize, Ordering};

use ca_overlap::names;
use devtools::handshake::Tally;
use devtools::secrets::MERGE;
use futures::StreamExt;
use serde_json::json;

use super::family::{Certificate, Family, Kind};
use super::peers::add;
use super::rig::{Rig, SELF_SIGNED};
use crate::keeper::kills::allow_any_lease;
use crate::keeper::proxy::Proxy;
use crate::keeper::setup::eventually;

/// How many histories run at the same time.
const AT_ONCE: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn leaves_are_renewed_after_their_root() {
    let test = "leaves_are_renewed_after_their_root";
    let Some(rig) = Rig::start(test).await else { return };
    let rig = &rig;
    allow_any_lease(&rig.setup).await;

    // Control: without the flag no leaf is renewed, though all trust the new root.
    let arguments = ["--lease", "control", "--follow-issuers", "--settle", "1s"];
    let keeper = rig.setup.leading_keeper(&arguments).await;
    let mut late = Family::followed(rig, "late", Kind::ECDSA, 3).await;
    let before = late.requests().await;
    late.renew_root().await;
    late.trusts_root().await;
    late.step().await;
    late.settle();
    late.renew(0).await;
    let [first, second, third] = before[..] else { unreachable!() };
    assert_eq!(late.requests().await, [first + 1, second, third]);
    drop(keeper);

    let arguments = ["--lease", "cascade", "--follow-issuers", "--renew-leaves", "--settle", "20s"];
    let keeper = rig.setup.leading_keeper(&arguments).await;
    tokio::join!(
        finished(late, vec![first + 1, second + 1, third + 1]),
        renewed(rig, "many", Kind::ECDSA, 20),
        renewed(rig, "int", Kind::INTERMEDIATE, 6),
        opted_out(rig, "off"),
    );
    let metrics = keeper.metrics().await;
    assert!(metrics.contains("ca_overlap_keeper_renewals_total{result=\"failed\"} 0"), "{metrics}");
    drop(keeper);

    let arguments = ["--lease", "held", "--follow-issuers", "--renew-leaves"];
    let arguments = [&arguments[..], &["--settle", "1s", "--group-wait", "3s"]].concat();
    let keeper = rig.setup.leading_keeper(&arguments).await;
    held(rig, "held").await;
    drop(keeper);

    // The leader once without a crash, and then killed at each of its requests.
    let whole = history(rig, usize::MAX).await;
    assert!(!whole.is_killed && whole.requests >= 8, "{} requests", whole.requests);
    let killed = futures::stream::iter(1..=whole.requests).map(|last| history(rig, last));
    let killed: Vec<History> = killed.buffer_unordered(AT_ONCE).collect().await;
    let kills = killed.iter().filter(|it| it.is_killed).count();
    println!("{} requests, {kills} kills", whole.requests);
    // The number of polls depends on the clock.
    assert!(kills >= 8, "{kills} kills of {} requests", whole.requests);
}

/// Only the root is renewed by a person. Every leaf follows, once, and no handshake fails.
async fn renewed(rig: &Rig, name: &'static str, kind: Kind, leaves: usize) {
    let mut family = Family::followed(rig, name, kind, leaves).await;
    let requests = family.requests().await;
    family.renew_root().await;
    family.trusts_root().await;
    finished(family, requests.iter().map(|count| count + 1).collect()).await;
}

/// Waits until all leaves are of the present root, and were requested that often.
async fn finished(mut family: Family<'_>, requests: Vec<usize>) {
    let announcement = family.step().await;
    assert_eq!(announcement.succeeded, announcement.tried, "{}", family.name);
    // The keeper waits for --settle, in which all peers read their files.
    family.settle();
    let root = family.root.stored().await.pem("tls.crt");
    let mut tally = Tally::default();
    eventually(&format!("all leaves of {} renewed", family.name), async || {
        add(&mut tally, family.step().await);
        family.are_of(&root).await.then_some(())
    })
    .await;
    add(&mut tally, family.step().await);
    println!(
        "{}: {} of {} handshakes fail",
        family.name,
        tally.tried - tally.succeeded,
        tally.tried
    );
    assert!(tally.tried > 0 && tally.all(), "{}: {tally:?}", family.name);
    let made = family.requests().await;
    let more: usize = made.iter().zip(&requests).map(|(made, least)| made - least).sum();
    // On a busy machine cert-manager can see its own Secret late, and then issues again.
    assert!(more <= made.len() / 4, "{}: {made:?}, not once each: {requests:?}", family.name);
    family.assert_managed_by_cert_manager().await;
}

/// A leaf whose Secret is opted out stays as it is, and the others do not wait for it.
async fn opted_out(rig: &Rig, name: &'static str) {
    let mut family = Family::followed(rig, name, Kind::ECDSA, 3).await;
    let requests = family.requests().await;
    let off = &family.leaves[2];
    let mode = json!({"metadata": {"labels": {names::MODE: "off"}}});
    off.secrets.patch(&off.name, MERGE, "fieldManager=person", &mode).await.ok();
    family.renew_root().await;
    let root = family.root.stored().await.pem("tls.crt");
    for leaf in &family.leaves[..2] {
        let what = format!("{} renewed", leaf.name);
        eventually(&what, async || leaf.is_of(rig, &root).await.then_some(())).await;
    }
    let expected = [requests[0] + 1, requests[1] + 1, requests[2]];
    assert_eq!(family.requests().await, expected);
}

/// A Secret of the issuer cannot be told the new root: nobody is renewed before it is gone.
async fn held(rig: &Rig, name: &'static str) {
    let mut family = Family::followed(rig, name, Kind::ECDSA, 2).await;
    let requests = family.requests().await;
    let leaf = &family.leaves[0];
    let secrets = leaf.secrets.clone();
    let mut copy = leaf.stored().await.body;
    let of = |key: &str| copy["metadata"][key].clone();
    copy["metadata"] =
        json!({"name": "stranger", "labels": of("labels"), "annotations": of("annotations")});
    copy["immutable"] = json!(true);
    secrets.create(&copy).await.ok();
    family.renew_root().await;
    let root = family.root.stored().await.pem("tls.crt");
    let source = family.root.rotation();
    let event = rig.setup.event(&source, "RenewalBlocked").await;
    let text = event["note"].as_str().unwrap();
    assert!(text.contains(&format!("{}/stranger (1 in all)", secrets.namespace)), "{text}");
    assert_eq!(family.requests().await, requests, "{text}");
    secrets.delete("stranger").await.ok();
    let renewed = async || family.are_of(&root).await.then_some(());
    eventually("all leaves renewed", renewed).await;
    let renewed = rig.setup.event(&family.leaves[0].rotation(), "Renewed").await;
    assert_eq!(renewed["type"], "Normal");
    let expected: Vec<usize> = requests.iter().map(|count| count + 1).collect();
    assert_eq!(family.requests().await, expected);
}

/// The result of a history.
struct History {
    is_killed: bool,
    /// The number of requests that the leader made.
    requests: usize,
}

/// Two leaves are renewed by a leader that is killed at its request `last`, and a standby.
async fn history(rig: &Rig, last: usize) -> History {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let lease_name = format!("cascade-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let secrets = rig.setup.cluster.namespace("cascade").await;
    let namespace = secrets.namespace.clone();
    let mut root = Certificate::new(&secrets, "root".to_owned());
    root.create(rig, Kind::ECDSA, true, "ClusterIssuer", SELF_SIGNED).await;
    root.wait(rig).await;
    rig.create_issuer(Some(&namespace), "ca", "root").await;
    let mut leaves = ["one", "two"].map(|name| Certificate::new(&secrets, name.to_owned()));
    for leaf in &mut leaves {
        leaf.create(rig, Kind::ECDSA, false, "Issuer", "ca").await;
        leaf.wait(rig).await;
    }
    let arguments = ["--follow-issuers", "--renew-leaves", "--settle", "5s"];
    let arguments = [&["--lease", &lease_name], &arguments[..]].concat();
    let keeper = async |replica, last| {
        let proxy = Proxy::start(&rig.setup.cluster.plane, &namespace, last).await;
        let identity = format!("{lease_name}-{replica}");
        let mut keeper = proxy.keeper(&rig.setup, &identity, &arguments).await;
        keeper.ready().await;
        (keeper, proxy)
    };
    let (mut leader, leader_proxy) = keeper("a", last).await;
    leader.leads(true).await;
    let (_standby, standby_proxy) = keeper("b", usize::MAX).await;
    eventually("a root that is followed", async || {
        (root.stored().await.label(names::SOURCE) == Some("issuer")).then_some(())
    })
    .await;
    let mut requests = Vec::new();
    for leaf in &leaves {
        requests.push(leaf.requests(rig).await);
    }
    root.renew(rig).await;
    let new = root.stored().await.pem("tls.crt");
    for leaf in &leaves {
        leaf.trusts(&new).await;
    }
    // Within the settle time: from now on there are renewals only.
    leader_proxy.arm();
    standby_proxy.arm();
    let mut is_killed = false;
    eventually(&format!("the end of {lease_name}, {last}"), async || {
        if leader_proxy.has_stopped() && !is_killed {
            leader.process.signal("KILL");
            is_killed = true;
        }
        for leaf in &leaves {
            if !leaf.is_of(rig, &new).await {
                return None;
            }
        }
        Some(())
    })
    .await;
    let changes = [leader_proxy.changes(), standby_proxy.changes()].concat();
    for (leaf, before) in leaves.iter().zip(requests) {
        let status = format!("/certificates/{}/status", leaf.name);
        let marks = changes.iter().filter(|path| path.ends_with(&status)).count();
        // What is forwarded while the other leaf's request ends the leader may not arrive.
        assert!(marks == 1 || (is_killed && marks == 2), "{}, {last}: {changes:?}", leaf.name);
        let made = leaf.requests(rig).await - before;
        // On a busy machine cert-manager can see its own Secret late, and then issues again.
        assert!(made == 1 || (made == 2 && marks == 1), "{}, {last}: {made}", leaf.name);
    }
    History { is_killed, requests: leader_proxy.seen() }
}
