//! Many Secrets: the time, memory and CPU time that the keeper needs. Each run of the tests has a
//! few hundred Secrets. `make keeper-scale` has ten thousand, measures a minute of rest, and prints
//! the figures.

use std::time::{Duration, Instant};

use ca_overlap::names;
use futures::StreamExt;
use serde_json::json;

use super::setup::{Keeper, Setup, eventually};
use crate::support::sum;
use devtools::certs::{self, bundle};
use devtools::secrets::{MERGE, tls_secret};

#[tokio::test(flavor = "multi_thread")]
async fn the_keeper_watches_many_secrets_and_retires_those_that_are_due() {
    let test = "the_keeper_watches_many_secrets_and_retires_those_that_are_due";
    let count: u32 = std::env::var("CA_OVERLAP_SECRETS").map_or(300, |text| text.parse().unwrap());
    let Some(setup) = Setup::start(test).await else { return };
    let secrets = setup.cluster.namespace(test).await;
    let (old, new) = (certs::ca_named("CA1"), certs::ca_named("CA2"));
    let record = json!([{"sha256": old.sha256(), "since": "2026-01-01T00:00:00Z"}]).to_string();
    let mut object = tls_secret("x", &bundle(&[&new, &old]), &new.leaf("envoy"));
    object["metadata"]["labels"] = json!({names::PHASE: "overlap", names::MODE: "bundle"});
    object["metadata"]["annotations"] = json!({names::CARRIED: record});
    // The webhook would begin a record of their own.
    setup.stop_webhook().await;
    let creations = futures::stream::iter(0..count).map(|number| {
        let (secrets, mut object) = (secrets.clone(), object.clone());
        object["metadata"]["name"] = json!(format!("s{number}"));
        async move { drop(secrets.create(&object).await.ok()) }
    });
    creations.buffer_unordered(32).collect::<Vec<()>>().await;
    setup.start_webhook().await;

    let begin = Instant::now();
    let mut keeper = setup.keeper("keeper-0", &[]).await;
    keeper.ready().await;
    let ready = begin.elapsed();
    let watched = overlapping(&keeper).await;
    assert!((watched - f64::from(count)).abs() < 0.5, "{watched} of {count}");
    keeper.leads(true).await;
    let pid = keeper.process.pid();
    let at_rest = memory(pid);
    let for_start = cpu(pid);
    let idle: u64 = std::env::var("CA_OVERLAP_IDLE").map_or(0, |text| text.parse().unwrap());
    tokio::time::sleep(Duration::from_secs(idle)).await;
    let for_idle = cpu(pid) - for_start;

    // About a hundred Secrets become due at once.
    let due: Vec<String> = (0..count)
        .step_by(usize::try_from(count / 100).unwrap().max(1))
        .map(|n| format!("s{n}"))
        .collect();
    let shorter = json!({"metadata": {"annotations": {names::WINDOW: "1s"}}});
    setup.stop_webhook().await;
    for name in &due {
        secrets.patch(name, MERGE, "", &shorter).await.ok();
    }
    setup.start_webhook().await;
    let begin = Instant::now();
    let before = cpu(pid);
    eventually("the retirement of all that are due", async || {
        let gone = f64::from(count) - overlapping(&keeper).await;
        (gone > f64::from(u32::try_from(due.len()).unwrap()) - 0.5).then_some(())
    })
    .await;
    println!(
        "{count} Secrets: ready after {:.1} s; {} retired {:.1} s after the webhook was back; \
                 {at_rest} at rest, {} at the end",
        ready.as_secs_f64(),
        due.len(),
        begin.elapsed().as_secs_f64(),
        memory(pid),
    );
    println!(
        "CPU: {for_start:.2} s until it led, {for_idle:.2} s in {idle} s of rest, {:.1} ms per \
                 retirement",
        (cpu(pid) - before) * 1000.0 / f64::from(u32::try_from(due.len()).unwrap()),
    );
}

async fn overlapping(keeper: &Keeper) -> f64 {
    let metrics = keeper.metrics().await;
    sum(&metrics, "ca_overlap_keeper_secrets", &["phase=\"overlap\""])
}

/// The current and the peak resident memory of a process (`VmRSS` and `VmHWM`).
fn memory(pid: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let lines = status.lines().filter(|l| l.starts_with("VmRSS") || l.starts_with("VmHWM"));
    lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The peak resident memory of a process, in MiB.
pub(super) fn peak_memory(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim_end_matches("kB").trim().parse::<f64>().unwrap() / 1024.0
}

/// The CPU time of a process so far, in seconds.
fn cpu(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Fields 14 and 15 are user and system time (proc(5)). The name before them can contain spaces.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    let ticks: f64 = fields.filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / TICKS
}

/// Ticks per second (`USER_HZ`, the same on every Linux).
const TICKS: f64 = 100.0;
