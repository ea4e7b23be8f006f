//! Many Secrets: the time, memory and CPU time that the keeper needs. Each run of the tests has a
//! few hundred Secrets. `make keeper-scale` has ten thousand, measures a minute of rest, prints the
//! figures and checks the bars.

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
    let measured = number("CA_OVERLAP_SECRETS");
    let count = measured.unwrap_or(300);
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
    let at_rest = memory(pid, "VmRSS");
    let for_start = cpu(pid);
    let idle = number("CA_OVERLAP_IDLE").unwrap_or(0);
    tokio::time::sleep(Duration::from_secs(idle.into())).await;
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
    let peak = memory(pid, "VmHWM");
    println!(
        "{count} Secrets: ready after {:.1} s; {} retired {:.1} s after the webhook was back; \
         {at_rest:.1} MiB at rest, {peak:.1} at most",
        ready.as_secs_f64(),
        due.len(),
        begin.elapsed().as_secs_f64(),
    );
    println!(
        "CPU: {for_start:.2} s until it led, {for_idle:.2} s in {idle} s of rest, {:.1} ms per \
         retirement",
        (cpu(pid) - before) * 1000.0 / f64::from(u32::try_from(due.len()).unwrap()),
    );
    if measured.is_some() {
        assert!(ready <= MAX_READY && peak <= 64.0, "{ready:?}, {peak} MiB");
    }
}

/// The bar for the time until a keeper is ready. Only a measurement checks it.
pub(super) const MAX_READY: Duration = Duration::from_secs(10);

/// A number that the make target of a measurement sets.
pub(super) fn number(variable: &str) -> Option<u32> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

async fn overlapping(keeper: &Keeper) -> f64 {
    let metrics = keeper.metrics().await;
    sum(&metrics, "ca_overlap_keeper_secrets", &["phase=\"overlap\""])
}

/// The resident memory of a process in MiB: `VmRSS` is the current one, `VmHWM` the peak.
pub(super) fn memory(pid: u32, field: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.unwrap().trim_end_matches("kB").trim().parse::<f64>().unwrap() / 1024.0
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
