//! The API server calls the webhook only if `ca.crt` or our keys change. The webhook's own counter
//! shows it, on a cluster that no other test writes to.

use base64::prelude::*;
use ca_overlap::names;
use ca_overlap::overlap::source::Previous;
use serde_json::{Value, json};

use super::setup::{NAME, Setup};
use crate::support::{Cluster, sum};
use devtools::secrets::{MERGE, secret};

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
async fn fresh_in_the_cache(setup: &Setup, name: &str) {
    let stored = setup.secrets.get(name).await.ok();
    let query = format!("resourceVersion={}", stored.resource_version());
    setup.secrets.request("GET", name, &query, None, Vec::new()).await.ok();
}

#[tokio::test]
async fn the_api_server_calls_only_for_relevant_changes() {
    let Some(cluster) = Cluster::start("quiet", &[]).await else { return };
    let failed_before = failures(&cluster).await;
    let setup = Setup::new(cluster.namespace("quiet").await);
    let before = calls(&cluster).await;
    setup.create("CA1", None).await;
    assert_eq!(calls(&cluster).await, before, "a new Secret that brings none of our keys");
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
        fresh_in_the_cache(&setup, NAME).await;
        setup.secrets.patch(NAME, MERGE, "", &patch).await.ok();
        expected += 1;
        assert_eq!(calls(&cluster).await, expected, "{why}");
    }
    assert_eq!(failures(&cluster).await, failed_before, "no call or condition failed");
    expected += only_for_the_pair_of_a_source(&cluster, &setup).await;
    assert_eq!(calls(&cluster).await, expected);
    assert_eq!(failures(&cluster).await, failed_before, "no call or condition failed");
}

/// A CA Secret as a user makes it has no `ca.crt`. Returns how many calls are expected.
async fn only_for_the_pair_of_a_source(cluster: &Cluster, setup: &Setup) -> i64 {
    let root = |ca: &str| {
        let pem = setup.pem(ca);
        secret("root", "kubernetes.io/tls", &[("tls.crt", pem.as_bytes()), ("tls.key", b"key")])
    };
    let before = calls(cluster).await;
    let write = async |patch: Value| setup.secrets.patch("root", MERGE, "", &patch).await.ok();
    setup.secrets.create(&root("CA1")).await.ok();
    setup.secrets.put("root", &root("CA2")).await.ok();
    assert_eq!(calls(cluster).await, before, "it is no source");
    let label = |key: &str, value: &str| json!({"metadata": {"labels": {key: value}}});
    write(label("ca-overlap.dev/source", "true")).await;
    assert_eq!(calls(cluster).await, before + 1, "it becomes a source");
    write(label("app", "a")).await;
    write(json!({"data": {"other": BASE64_STANDARD.encode("x")}})).await;
    write(json!({"metadata": {"annotations": {"n": "1"}}})).await;
    assert_eq!(calls(cluster).await, before + 1, "its label alone costs no call");
    fresh_in_the_cache(setup, "root").await;
    let pair = json!({"data": {"tls.crt": BASE64_STANDARD.encode(setup.pem("CA3"))}});
    let stored = write(pair).await;
    assert_eq!(calls(cluster).await, before + 2, "its tls.crt changed");
    assert_eq!(stored.pem("tls.crt"), setup.pem("CA3"), "the data is the writer's");
    let previous = Previous::parse_list(stored.annotation(names::PREVIOUS).unwrap());
    let ders: Vec<_> = previous.iter().map(|one| one.der.as_slice()).collect();
    assert_eq!(ders, [&*setup.ca("CA2").der]);
    fresh_in_the_cache(setup, "root").await;
    // A fresh object lacks what is ours.
    let again = setup.secrets.put("root", &root("CA4")).await.ok();
    assert_eq!(again.label(names::SOURCE), Some("true"));
    assert_eq!(Previous::parse_list(again.annotation(names::PREVIOUS).unwrap()).len(), 2);
    3
}
