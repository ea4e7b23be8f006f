//! A log that nobody reads does not stop the keeper.

use std::fs::File;
use std::process::Command;

use serde_json::json;

use super::setup::{Rotation, Setup, eventually};
use crate::support::program::fill;

#[tokio::test]
async fn a_blocked_standard_error_stops_neither_the_keeper_nor_its_end() {
    let test = "a_blocked_standard_error_stops_neither_the_keeper_nor_its_end";
    let Some(setup) = Setup::start(test).await else { return };
    let pipe = setup.cluster.plane.scratch().path().join("keeper-0.log");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Whoever opens a pipe for both does not wait for another.
    let unread = File::options().read(true).write(true).open(&pipe).unwrap();
    fill(pipe.to_str().unwrap());
    let mut keeper = setup.keeper("keeper-0", &[]).await;
    // It is closed before the keeper is dropped, so that a failure ends, too.
    let _unread = unread;
    keeper.ready().await;
    keeper.leads(true).await;

    let secrets = setup.cluster.namespace(test).await;
    let window = json!({"ca-overlap.dev/window": "1s"});
    let mut rotation = Rotation::begin(&secrets, "envoy", window).await;
    rotation.rotate().await;
    rotation.wait_until_retired().await;
    setup.event(&rotation, "Retired").await;

    keeper.process.signal("TERM");
    let status = eventually("the keeper's end", async || keeper.process.ended()).await;
    assert!(status.success(), "{status}");
}
