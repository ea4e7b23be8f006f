//! Rolling restarts of both replicas with a CA rotation in each round, under a constant load of
//! writes.

use std::time::Duration;

use serde_json::Value;

use super::setup::{Setup, Writers, wait_for};

/// The number of rounds. `make rollout-test-full` runs the 20 that docs/reliability.md reports.
fn rounds() -> usize {
    std::env::var("CA_OVERLAP_ROLLOUTS").map_or(2, |text| text.parse().expect("a number"))
}

#[tokio::test]
async fn rollouts_and_rotations_reject_no_write() {
    let arguments = [
        "--leaf-lifetime=9s",
        "--ca-lifetime=10m",
        "--trust-settle=1s",
        "--reconcile-interval=250ms",
        "--drain-delay=3s",
    ];
    let Some(mut setup) = Setup::start("rollouts", 2, &arguments).await else { return };
    let writers = Writers::start(&setup.cluster, 3).await;
    let mut newest = setup.wait_until_served(&Value::Null).await;
    for round in 0..rounds() {
        for _ in 0..setup.replicas.len() {
            setup.replace_oldest(&format!("round-{round}")).await;
        }
        setup.wait_until_rotatable(Duration::from_secs(1)).await;
        wait_for("room for one more CA", async || {
            (setup.authorities().await.len() < 4).then_some(())
        })
        .await;
        setup.force_rotation();
        newest = setup.wait_until_served(&newest).await;
        eprintln!("round {}: both replicas replaced, CA rotated", round + 1);
    }
    let written = writers.finish().await;
    eprintln!("{written} writes, none rejected, all bundled");
    assert!(written > 100, "{written} writes are too few");
    assert!(!setup.has_failed_calls().await);
}
