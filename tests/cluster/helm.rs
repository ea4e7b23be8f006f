//! The Helm chart: installed as the README says, upgraded under load, and uninstalled.

use ca_overlap::names;

use crate::cluster::{Cluster, eventually};
use crate::load::Load;
use crate::nodes::run_apart;
use crate::readme::commands;
use crate::uninstall::leftovers;

#[tokio::test]
#[ignore = "needs a cluster: make kind-test"]
async fn the_chart_installs_upgrades_under_load_and_uninstalls() {
    let cluster = Cluster::connect().await;
    let namespace = names::NAMESPACE;
    cluster.uninstall().await;

    let install: Vec<_> = commands().into_iter().filter(|line| line.starts_with("helm ")).collect();
    let [install] = &install[..] else { panic!("not exactly one helm command: {install:?}") };
    eprintln!("$ {install}");
    shell(&cluster, install).await;
    cluster.rolled_out().await;
    cluster.registration_in_force().await;

    assert_eq!(cluster.our_pods("keeper").await.len(), 2, "the keeper came with the command");

    // The keeper may not hold its Lease yet.
    let test = format!("helm test ca-overlap --namespace {namespace} --logs --timeout 60s");
    let said =
        eventually("a check that passes", async || cluster.shell(&test, "").await.ok()).await;
    assert!(said.contains("All is well."), "{said}");

    // A lost call shows as a rejected write only with failurePolicy: Fail.
    let values = "registration.failurePolicy=Fail,keeper.enabled=false";
    upgrade(&cluster, &format!("{values},staged.enabled=false,defaults.mode=")).await;
    cluster.rolled_out().await;
    eventually("the end of the keeper", async || {
        cluster.our_pods("keeper").await.is_empty().then_some(())
    })
    .await;
    let load = Load::start(&cluster, "load-helm").await;
    upgrade(&cluster, "log.level=debug,keeper.enabled=true").await;
    cluster.rolled_out().await;
    run_apart(&cluster, "the chart, after an upgrade").await;
    load.more(50).await;
    let total = load.end().await;
    eprintln!("an upgrade with Helm: {} writes, {} rejected", total.writes, total.rejected.len());
    total.all_overlap();

    shell(&cluster, &format!("helm uninstall ca-overlap --namespace {namespace}")).await;
    cluster.remove_pods().await;
    cluster.kubectl(&format!("delete namespace {namespace} --timeout=200s")).await;
    let leftovers = leftovers(&cluster).await;
    assert!(leftovers.is_empty(), "left behind:\n{}", leftovers.join("\n"));
}

async fn upgrade(cluster: &Cluster, values: &str) {
    let namespace = names::NAMESPACE;
    let line = format!(
        "helm upgrade ca-overlap manifests/chart --namespace {namespace} \
         --reset-then-reuse-values --set {values}"
    );
    shell(cluster, &line).await;
}

async fn shell(cluster: &Cluster, line: &str) {
    cluster.shell(line, "").await.unwrap_or_else(|error| panic!("{error}"));
}
