//! kube-controller-manager, for tests that need real rollouts of workloads.
//!
//! There are no nodes: Pods stay unscheduled, and a test writes the status of those that it needs
//! ready.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{ControlPlane, Error, Supervised, log_tail};

/// The controllers of workloads and the cleanup after them. The node controllers are off: they
/// would evict Pods from nodes that do not exist.
const CONTROLLERS: &str = "deployment-controller,replicaset-controller,statefulset-controller,\
    daemonset-controller,garbage-collector-controller,namespace-controller,serviceaccount-controller,\
    serviceaccount-token-controller,root-ca-certificate-publisher-controller,job-controller";
/// Starting usually takes two seconds.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);
/// The first object that it creates.
const FIRST_OBJECT: &str = "/api/v1/namespaces/default/serviceaccounts/default";

/// Starts it and waits until it has created its first object.
pub(super) async fn start(plane: &ControlPlane) -> Result<Supervised, Error> {
    let program = plane.assets.controller_manager()?;
    let directory = plane.scratch.path();
    let controllers = format!("--controllers={CONTROLLERS}");
    let arguments = [
        "--kubeconfig=admin.kubeconfig",
        &controllers,
        "--leader-elect=false",
        // Its HTTP endpoint is not used.
        "--secure-port=0",
        "--service-account-private-key-file=sa.key",
        "--root-ca-file=ca.crt",
        "--concurrent-gc-syncs=2",
        "--profiling=false",
    ];
    let name = "kube-controller-manager";
    let log = directory.join("kube-controller-manager.log");
    let mut process = Supervised::start(name, program, arguments, &[], directory, log)?;
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        let done = plane.json("GET", FIRST_OBJECT, &Value::Null).await;
        process.still_running()?;
        match done {
            Ok(_) => return Ok(process),
            Err(_) if Instant::now() < deadline => tokio::time::sleep(POLL).await,
            Err(e) => {
                return Err(Error::NotReady {
                    component: name.into(),
                    seconds: READY_TIMEOUT.as_secs(),
                    last: e.to_string(),
                    log: log_tail(process.log()),
                });
            }
        }
    }
}
