//! kube-controller-manager, for tests in which workloads really roll out.
//!
//! No node is there: Pods stay unscheduled, and whoever wants them to be ready writes their status.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{ControlPlane, Error, Supervised, log_tail};

/// What workloads need, from their Pods to what is left behind. Those of nodes are off: they would
/// take Pods away from nodes that do not exist.
const CONTROLLERS: &str = "deployment-controller,replicaset-controller,statefulset-controller,\
    daemonset-controller,garbage-collector-controller,namespace-controller,serviceaccount-controller,\
    serviceaccount-token-controller,root-ca-certificate-publisher-controller,job-controller";
/// Usual is two seconds.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);
/// The first thing that it does.
const FIRST_DEED: &str = "/api/v1/namespaces/default/serviceaccounts/default";

/// Starts it and waits until it has done something.
pub(super) async fn start(plane: &ControlPlane) -> Result<Supervised, Error> {
    let program = plane.assets.controller_manager()?;
    let directory = plane.scratch.path();
    let controllers = format!("--controllers={CONTROLLERS}");
    let arguments = [
        "--kubeconfig=admin.kubeconfig",
        &controllers,
        "--leader-elect=false",
        // Nobody asks it anything.
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
        let done = plane.json("GET", FIRST_DEED, &Value::Null).await;
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
