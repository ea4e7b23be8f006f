//! Leader election: one replica acts, and the next one only after it has stopped.

use ca_overlap::names;
use serde_json::{Value, json};

use super::setup::{Keeper, ROLE, Rotation, Setup, eventually, past};

#[tokio::test]
async fn the_standby_finishes_after_the_leader_is_killed() {
    let test = "the_standby_finishes_after_the_leader_is_killed";
    let Some(setup) = Setup::start(test).await else { return };
    let secrets = setup.cluster.namespace(test).await;
    let mut keepers = [setup.keeper("keeper-0", &[]).await, setup.keeper("keeper-1", &[]).await];
    for keeper in &mut keepers {
        keeper.ready().await;
    }
    // The deadlines are spread over the time in which the leader is killed.
    let mut rotations = Vec::new();
    for number in 0..12 {
        let window = format!("{}s", 2 + number / 2);
        let annotations = json!({names::WINDOW: window});
        let mut rotation = Rotation::begin(&secrets, &format!("r{number}"), annotations).await;
        rotation.rotate().await;
        rotations.push(rotation);
    }
    let leader = eventually("a leader", async || setup.holder().await).await;
    let (mut killed, survivor): (Vec<Keeper>, Vec<Keeper>) =
        keepers.into_iter().partition(|keeper| keeper.identity == leader);
    assert!(!survivor[0].is_leader().await, "two leaders");
    eventually("a first retirement", async || {
        let retired = futures::future::join_all(rotations.iter().map(Rotation::retired)).await;
        retired.iter().any(Option::is_some).then_some(())
    })
    .await;
    killed[0].process.signal("KILL");
    for rotation in &rotations {
        rotation.wait_until_retired().await;
        assert_eq!(rotation.data_managers().await, ["helm"]);
    }
    survivor[0].leads(true).await;
    assert_eq!(setup.holder().await.as_deref(), Some(&*survivor[0].identity));
    println!("the survivor retired {}", survivor[0].asks("retire", "done").await);
}

#[tokio::test]
async fn a_leader_that_cannot_renew_its_lease_stops_by_its_own_clock() {
    let test = "a_leader_that_cannot_renew_its_lease_stops_by_its_own_clock";
    let Some(setup) = Setup::start(test).await else { return };
    let secrets = setup.cluster.namespace(test).await;
    let keeper = setup.leading_keeper(&[]).await;
    let role = setup.cluster.plane.json("GET", ROLE, &Value::Null).await.unwrap();
    let mut revoked = role.clone();
    revoked["rules"][0]["verbs"] = json!(["get", "list", "watch"]);
    setup.cluster.plane.json("PUT", ROLE, &revoked).await.unwrap();
    keeper.leads(false).await;
    // The Lease still names it as the holder, and it still sees what becomes due.
    assert_eq!(setup.holder().await.as_deref(), Some("keeper-0"));
    let mut rotation = Rotation::begin(&secrets, "envoy", json!({names::WINDOW: "1s"})).await;
    let rotated = rotation.rotate().await;
    let record = rotated.annotation(names::CARRIED).unwrap();
    let record: Value = serde_json::from_str(record).unwrap();
    past(record[0]["until"].as_str().unwrap()).await;
    assert!(rotation.retired().await.is_none());
    assert!(keeper.asks("retire", "done").await < 1.0);

    let role = {
        let mut current = setup.cluster.plane.json("GET", ROLE, &Value::Null).await.unwrap();
        current["rules"] = role["rules"].clone();
        current
    };
    setup.cluster.plane.json("PUT", ROLE, &role).await.unwrap();
    rotation.wait_until_retired().await;
    assert!(keeper.is_leader().await);
}

#[tokio::test]
async fn leadership_pauses_while_the_api_server_is_away() {
    let test = "leadership_pauses_while_the_api_server_is_away";
    let Some(setup) = Setup::start(test).await else { return };
    let secrets = setup.cluster.namespace(test).await;
    let keeper = setup.leading_keeper(&[]).await;
    let mut rotation = Rotation::begin(&secrets, "envoy", json!({names::WINDOW: "5s"})).await;
    rotation.rotate().await;
    let [api_server, _] = setup.cluster.plane.pids();
    signal(api_server, "STOP");
    // Its connections do not fail, they are only silent: it must stop by its own clock.
    keeper.leads(false).await;
    signal(api_server, "CONT");
    rotation.wait_until_retired().await;
    assert!(keeper.is_leader().await);
}

fn signal(pid: u32, name: &str) {
    let pid = pid.to_string();
    assert!(
        std::process::Command::new("kill").args(["-s", name, &pid]).status().unwrap().success()
    );
}

#[tokio::test]
async fn a_terminated_leader_releases_the_lease() {
    let test = "a_terminated_leader_releases_the_lease";
    let Some(setup) = Setup::start(test).await else { return };
    let mut keeper = setup.leading_keeper(&["--lease-duration", "3600s"]).await;
    assert_eq!(setup.holder().await.as_deref(), Some("keeper-0"));
    keeper.process.signal("TERM");
    let status = eventually("the keeper's end", async || keeper.process.ended()).await;
    assert!(status.success(), "{status}:\n{}", keeper.log());
    assert_eq!(setup.holder().await, None);
    // The next keeper leads at once and does not wait for the Lease of an hour to expire.
    let mut next = setup.keeper("keeper-1", &[]).await;
    next.ready().await;
    next.leads(true).await;
}
