//! Several tenants: what one namespace makes the keeper read and remember costs no other one.

use ca_overlap::names;
use futures::StreamExt;
use serde_json::{Value, json};

use super::promote::{is_staged, stage, wait_for_lease};
use super::repair::{holds, label, logged, recreate};
use super::scale::{MAX_READY, memory, number};
use super::setup::{Rotation, Setup, eventually};
use crate::support::{sample, sum};
use devtools::certs;
use devtools::secrets::{Secrets, tls_secret};

/// Creates Secrets, some at a time.
async fn create(secrets: &Secrets, objects: impl Iterator<Item = Value>) {
    let creations = objects.map(|object| async move {
        secrets.create(&object).await.ok();
    });
    futures::stream::iter(creations).buffer_unordered(8).collect::<Vec<()>>().await;
}

#[tokio::test]
async fn deletions_in_one_namespace_leave_the_repairs_of_another_one() {
    let test = "deletions_in_one_namespace_leave_the_repairs_of_another_one";
    let Some(setup) = Setup::start(test).await else { return };
    let keeper = setup.leading_keeper(&[]).await;
    let busy = setup.cluster.namespace(test).await;
    let ca = certs::ca_named("busy");
    let mut object = tls_secret("x", &ca.pem, &ca.leaf("envoy"));
    object["metadata"]["labels"] = json!({names::MODE: "bundle"});
    let all = (0..300).map(|number| {
        let mut object = object.clone();
        object["metadata"]["name"] = json!(format!("s{number}"));
        object
    });
    create(&busy, all).await;
    let quiet = setup.cluster.namespace(test).await;
    let mut rotation = Rotation::begin(&quiet, "envoy", json!({})).await;
    label(&rotation, json!("bundle")).await;
    for secrets in [&busy, &quiet] {
        let of_namespace = format!("namespace=\"{}\"", secrets.namespace);
        logged(&keeper, &["read the uid of a namespace", &of_namespace]).await;
    }
    let remembered = async || sample(&keeper.metrics().await, "ca_overlap_keeper_remembered");
    eventually("all of them in memory", async || (remembered().await > 300.5).then_some(())).await;

    let collection = format!("/api/v1/namespaces/{}/secrets", busy.namespace);
    setup.cluster.plane.json("DELETE", &collection, &Value::Null).await.unwrap();
    eventually("more deletions than the keeper polls", async || {
        let metrics = keeper.metrics().await;
        let labels = ["budget=\"deletions\""];
        (sum(&metrics, "ca_overlap_keeper_over_budget_total", &labels) > 0.5).then_some(())
    })
    .await;
    let of_busy = format!("namespace=\"{}\"", busy.namespace);
    logged(&keeper, &["uses more than its share", "deletions", &of_busy]).await;
    recreate(&mut rotation).await;
    holds(&rotation, &[1, 0]).await;
}

/// The bar for the memory of the keeper. Its manifest allows 256 MiB.
const MAX_MIB: f64 = 128.0;

#[tokio::test(flavor = "multi_thread")]
async fn large_secrets_neither_fill_the_memory_nor_delay_a_rotation_beside_them() {
    let test = "large_secrets_neither_fill_the_memory_nor_delay_a_rotation_beside_them";
    let arguments = ["--staged", "--settle", "1s"];
    let Some(setup) = Setup::with(test, "staged", &arguments).await else { return };
    let measured = number("CA_OVERLAP_LARGE");
    let large = measured.unwrap_or(40);
    let mut first = setup.leading_keeper(&["--settle", "1h"]).await;
    let secrets = setup.cluster.namespace(test).await;
    wait_for_lease(&setup.cluster.namespace("trial").await).await;
    let (old, new) = (certs::ca_named("CA1"), certs::ca_named("CA2"));
    let leaf = new.leaf("envoy");
    let mut group = Vec::new();
    for number in 0..8 {
        group.push(stage(&secrets, &format!("envoy-{number}"), [&old, &new], &leaf).await);
    }
    first.process.signal("KILL");

    let filler = "A".repeat(1_000_000);
    // Beside the group, without labels.
    let unlabelled = (0..large * 2).map(|number| {
        let name = format!("large-{number}");
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
            "stringData": {"large": filler}})
    });
    create(&secrets, unlabelled).await;
    // Another namespace: labelled, and with a quarter of a megabyte of settings, too.
    let hostile = setup.cluster.namespace(test).await;
    let distrust = certs::ca_named("X").sha256() + ",";
    let labelled = (0..large).map(|number| {
        let mut object = tls_secret(&format!("large-{number}"), &old.pem, &old.leaf("envoy"));
        object["metadata"]["labels"] = json!({names::MODE: "bundle"});
        object["metadata"]["annotations"] = json!({names::DISTRUST: distrust.repeat(3500)});
        let (key, value) = match number % 2 {
            0 => ("large", filler.clone()),
            _ => ("ca.crt", format!("{}{filler}", old.pem)),
        };
        object["stringData"] = json!({key: value});
        object
    });
    create(&hostile, labelled).await;

    let begin = std::time::Instant::now();
    let arguments = ["--settle", "1s", "--group-wait", "1h"];
    let mut keeper = setup.keeper("keeper-1", &arguments).await;
    keeper.ready().await;
    let ready = begin.elapsed();
    let watched = sum(&keeper.metrics().await, "ca_overlap_keeper_secrets", &["phase=\"none\""]);
    for rotation in &group {
        eventually(&format!("a promotion of {}", rotation.name), async || {
            (!is_staged(&rotation.stored().await)).then_some(())
        })
        .await;
    }
    let peak = memory(keeper.process.pid(), "VmHWM");
    println!(
        "{large} labelled and {} other Secrets of 1 MB: ready after {:.1} s, the group of 8 promoted \
         after {:.1} s, {peak:.1} MiB at most",
        large * 2,
        ready.as_secs_f64(),
        begin.elapsed().as_secs_f64(),
    );
    assert!(watched > f64::from(large) - 0.5, "{watched} of {large}");
    assert!(peak <= MAX_MIB, "{peak} MiB");
    assert!(measured.is_none() || ready <= MAX_READY, "{ready:?}");
}
