//! Rotations under a constant load of writes.

use std::time::Duration;

use serde_json::Value;

use super::setup::{Setup, Writers, wait_for};
use crate::support::sum;

#[tokio::test]
async fn forced_rotations_and_renewals_reject_no_write() {
    let arguments = [
        "--leaf-lifetime=9s",
        "--ca-lifetime=10m",
        "--trust-settle=1s",
        "--reconcile-interval=250ms",
    ];
    let Some(mut setup) = Setup::start("load", 2, &arguments).await else { return };
    let writers = Writers::start(&setup.cluster, 3).await;
    let mut newest = setup.wait_until_served(&Value::Null).await;
    setup.wait_until_rotatable(Duration::from_secs(1)).await;
    for rotation in 1..=3 {
        setup.force_rotation();
        newest = setup.wait_until_served(&newest).await;
        let cas = setup.authorities().await.len();
        assert!(cas <= 1 + rotation, "{cas} CAs after {rotation} rotations");
    }
    wait_for("the old CAs to be dropped", async || {
        let left = setup.authorities().await;
        let gone = left.len() == 1 && setup.ca_bundle().await.len() == 1;
        gone.then(|| assert_eq!(left[0]["certificate"], newest["certificate"]))
    })
    .await;
    for replica in &setup.replicas {
        let metrics = replica.metrics().await.unwrap();
        let family = "ca_overlap_serving_certificate_refreshes_total";
        let renewals = sum(&metrics, family, &["ok"]);
        assert!(renewals >= 6.0, "one at the start, three for new CAs, some for age: {renewals}");
        assert!(sum(&metrics, family, &["failed"]) < 1.0);
        assert!(sum(&metrics, "ca_overlap_admissions_total", &["rotation"]) > 0.0);
    }
    let written = writers.finish().await;
    assert!(written > 100, "{written} writes are too few");
    assert!(!setup.has_failed_calls().await);
}
