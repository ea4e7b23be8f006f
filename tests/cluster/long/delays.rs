//! Reports how long a rotation takes to reach the files of pods. The delay is not asserted, because
//! it depends on the kubelet.

use serde_json::json;

use ca_overlap::names;

use crate::cluster::{Cluster, eventually};
use crate::peers::{PEERS, Peers, SECRETS};
use crate::records::arrivals;

const ROTATIONS: usize = 4;

#[tokio::test]
#[ignore = "needs a cluster with default kubelet settings: make kind-test-full"]
async fn mounted_files_follow_a_rotation() {
    let cluster = Cluster::connect().await;
    let peers = Peers::start(&cluster, "peers-delays", &json!({names::MODE: "off"})).await;
    let mut seconds = Vec::new();
    for _ in 0..ROTATIONS {
        let rotation = peers.rotate().await;
        let written = peers.secret(SECRETS[2]).await;
        // The time of the generator's write, in whole seconds as the API server stores it.
        let managers = written.body["metadata"]["managedFields"].as_array().cloned().unwrap();
        let times = managers.iter().filter_map(|one| one["time"].as_str());
        let written: jiff::Timestamp = times.max().unwrap().parse().unwrap();
        let arrived = eventually("the new files in all pods", async || {
            let arrived = arrivals(&peers.records(0).await, &rotation.new);
            (arrived.len() == PEERS.len()).then_some(arrived)
        })
        .await;
        seconds.extend(arrived.values().map(|time| time.duration_since(written).as_secs_f64()));
    }
    seconds.sort_by(f64::total_cmp);
    let text: Vec<_> = seconds.iter().map(|one| format!("{one:.0}")).collect();
    eprintln!(
        "from the write of a Secret to the new file in a pod, {} samples, median {:.0} s, maximum {:.0} s: {}",
        seconds.len(),
        seconds[seconds.len() / 2],
        seconds[seconds.len() - 1],
        text.join(" ")
    );
    assert_eq!(seconds.len(), ROTATIONS * PEERS.len());
}
