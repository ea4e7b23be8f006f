//! The API server calls the webhook only if `ca.crt` or our keys change. The webhook's own counter
//! shows it, on a cluster that no other test writes to.

use base64::prelude::*;
use serde_json::json;

use super::setup::{NAME, Setup};
use crate::support::{Cluster, sum};
use devtools::secrets::MERGE;

/// The number of reviews that the webhook has answered.
async fn calls(cluster: &Cluster) -> i64 {
    let total = sum(&cluster.metrics().await, "ca_overlap_admissions_total", &[]);
    format!("{total:.0}").parse().unwrap()
}

/// The failures that the API server has counted.
async fn failures(cluster: &Cluster) -> String {
    let metrics = cluster.plane.metrics().await.unwrap();
    let of = |family| sum(&metrics, family, &["ca-overlap"]);
    let open = of("apiserver_admission_webhook_fail_open_count");
    let conditions = of("apiserver_admission_match_condition_evaluation_errors_total");
    format!("{open:.0} calls, {conditions:.0} conditions")
}

/// Waits until the API server's cache has the stored version. The API server tries a patch on its
/// cached copy first, and calls the webhook again if that copy is old (`GuaranteedUpdate`).
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
    let before = calls(&cluster).await;
    setup.create("CA1", None).await;
    assert_eq!(calls(&cluster).await, before, "a new Secret that brings nothing of ours");
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
    assert_eq!(calls(&cluster).await, before, "none of these changes is relevant");
    let mut expected = before;
    let ours = [
        ("/metadata/labels", "ca-overlap.dev/mode", "bundle"),
        ("/metadata/annotations", "ca-overlap.dev/carried", "[]"),
        ("/data", "pending.tls.crt", ""),
        ("/data", "pending.tls.key", ""),
    ];
    for (number, (map, key, value)) in ours.into_iter().enumerate() {
        let mut copy = setup.fresh("CA1", &setup.leaf("CA1"));
        copy["metadata"] =
            json!({"name": format!("copy-{number}"), "labels": {}, "annotations": {}});
        copy.pointer_mut(map).unwrap()[key] = json!(value);
        let stored = setup.secrets.create(&copy).await.ok();
        expected += 1;
        assert_eq!(calls(&cluster).await, expected, "a new Secret with {key}");
        assert_eq!(stored.annotation("ca-overlap.dev/carried"), Some("[]"));
        assert!(stored.body["data"].get("pending.tls.key").is_none(), "no key is left");
    }
    let ca2 = BASE64_STANDARD.encode(setup.pem("CA2"));
    for (patch, why) in [
        (json!({"data": {"ca.crt": ca2}}), "ca.crt changed"),
        (label("c"), "a phase is stored"),
        (json!({"metadata": {"annotations": {"ca-overlap.dev/keep": "2"}}}), "a setting was added"),
        (
            json!({"metadata": {"annotations": {"ca-overlap.dev/keep": null}}}),
            "a setting was removed",
        ),
        (json!({"metadata": {"labels": {"ca-overlap.dev/phase": null}}}), "our state was changed"),
        (json!({"data": {"ca.crt": null}}), "ca.crt was removed"),
    ] {
        fresh_in_the_cache(&setup).await;
        setup.secrets.patch(NAME, MERGE, "", &patch).await.ok();
        expected += 1;
        assert_eq!(calls(&cluster).await, expected, "{why}");
    }
    assert_eq!(failures(&cluster).await, failed_before, "no call or condition failed");
}
