//! The fastest call is no call: the API server asks only where `ca.crt` or our keys change. Shown
//! by the webhook's own counter, on a cluster that nobody else writes to.

use base64::prelude::*;
use serde_json::json;

use super::setup::{NAME, Setup};
use crate::support::{Cluster, sum};
use devtools::secrets::MERGE;

/// A whole number, as the counters print it.
async fn calls(cluster: &Cluster) -> i64 {
    let total = sum(&cluster.metrics().await, "ca_overlap_admissions_total", &[]);
    format!("{total:.0}").parse().unwrap()
}

/// Those that the API server has counted so far.
async fn failures(cluster: &Cluster) -> String {
    let metrics = cluster.plane.metrics().await.unwrap();
    let of = |family| sum(&metrics, family, &["ca-overlap"]);
    let open = of("apiserver_admission_webhook_fail_open_count");
    let conditions = of("apiserver_admission_match_condition_evaluation_errors_total");
    format!("{open:.0} calls, {conditions:.0} conditions")
}

/// The API server tries a patch on its cached copy first, and where that copy is old asks the webhook
/// once more (`GuaranteedUpdate`). A read of at least the stored version waits until the cache has it.
async fn fresh_in_the_cache(setup: &Setup) {
    let stored = setup.secrets.get(NAME).await.ok();
    let query = format!("resourceVersion={}", stored.resource_version());
    setup.secrets.request("GET", NAME, &query, None, Vec::new()).await.ok();
}

#[tokio::test]
async fn the_api_server_calls_only_for_relevant_changes() {
    let Some(cluster) = Cluster::start("quiet", &[]).await else { return };
    let failed_before = failures(&cluster).await;
    let setup = Setup::new(cluster.namespace("quiet").await);
    setup.create("CA1", None).await;
    let label = |value: &str| json!({"metadata": {"labels": {"app": value}}});
    let other_key = json!({"data": {"other": BASE64_STANDARD.encode("x")}});
    let stored = setup.secrets.get(NAME).await.ok();
    let before = calls(&cluster).await;
    for patch in
        [label("a"), label("b"), other_key, json!({"metadata": {"annotations": {"n": "1"}}})]
    {
        setup.secrets.patch(NAME, MERGE, "", &patch).await.ok();
    }
    setup.put_ca_only(&stored.pem("ca.crt")).await;
    assert_eq!(calls(&cluster).await, before, "none of these concerns us");
    let mut expected = before;
    let ca2 = BASE64_STANDARD.encode(setup.pem("CA2"));
    for (patch, why) in [
        (json!({"data": {"ca.crt": ca2}}), "ca.crt changed"),
        (json!({"metadata": {"annotations": {"ca-overlap.dev/keep": "2"}}}), "a setting came"),
        (json!({"metadata": {"annotations": {"ca-overlap.dev/keep": null}}}), "a setting went"),
        (json!({"metadata": {"labels": {"ca-overlap.dev/phase": null}}}), "our state was touched"),
        (json!({"data": {"ca.crt": null}}), "ca.crt went"),
    ] {
        fresh_in_the_cache(&setup).await;
        setup.secrets.patch(NAME, MERGE, "", &patch).await.ok();
        expected += 1;
        assert_eq!(calls(&cluster).await, expected, "{why}");
    }
    assert_eq!(failures(&cluster).await, failed_before, "nothing failed open");
}
