use std::time::Duration;

use http::Method;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::super::lease::{Given, Leadership};
use super::super::mock::{Api, api};
use super::super::reconcile::Actor;
use super::super::secrets::Secrets;
use super::super::workloads::Restarter;
use super::*;
use crate::names;
use crate::overlap::outlook::Rules;
use crate::overlap::settings::Defaults;

fn controller(leads: bool) -> (Controller, Client, Api, Given) {
    let (client, api) = api();
    let (given, leadership) = Leadership::given(leads);
    let actor = Actor {
        secrets: Secrets::new(client.clone(), leadership.clone()),
        restarter: Restarter::new(client.clone(), leadership.clone()),
        rules: Rules { defaults: Defaults::default(), settle: Duration::from_secs(120) },
        leadership,
    };
    let (events, publisher) =
        Events::new(client.clone(), "me".to_owned(), KeeperMetrics::default());
    tokio::spawn(publisher);
    let (controller, _) = Controller::new(actor, events, KeeperMetrics::default());
    (controller, client, api, given)
}

/// With an ask that nobody needs any more: it is due to be taken back.
fn asked() -> Value {
    json!({"metadata": {
        "name": "s", "namespace": "n", "uid": "u", "resourceVersion": "7",
        "labels": {names::PHASE: "overlap"}, "annotations": {names::ASK: "retire #1"},
    }})
}

/// Carries a CA until then.
fn carrying(until: Timestamp) -> SecretView {
    use base64::prelude::*;
    use devtools::certs;
    let (old, new) = (certs::ca(), certs::ca());
    let record = json!([{
        "sha256": old.sha256(),
        "since": "2026-01-01T00:00:00Z", "until": until.to_string(),
    }]);
    let object = json!({
        "metadata": {
            "name": "s", "namespace": "n", "uid": "u", "resourceVersion": "7",
            "labels": {names::PHASE: "overlap"},
            "annotations": {names::CARRIED: record.to_string()},
        },
        "data": {"ca.crt": BASE64_STANDARD.encode(new.pem + &old.pem)},
    });
    serde_json::from_value(object).unwrap()
}

#[tokio::test]
async fn who_loses_the_lease_gives_up_what_is_under_way_and_takes_it_up_when_it_leads_again() {
    let (controller, client, mut api, given) = controller(true);
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(controller.run(client, stopped));
    // The watches: two lists, and then nothing comes any more.
    let mut watches = Vec::new();
    let mut looked = None;
    while watches.len() < 2 || looked.is_none() {
        let call = api.call().await;
        match (call.path.contains("/namespaces/n/secrets/s"), call.path.contains("watch=")) {
            (true, _) => looked = Some(call),
            (_, true) => watches.push(call),
            _ => {
                let items = if call.path.contains("phase") { vec![asked()] } else { Vec::new() };
                call.answer(&json!({"metadata": {"resourceVersion": "7"}, "items": items}));
            }
        }
    }
    given.set(false);
    looked.unwrap().given_up().await;
    assert!(api.is_quiet());
    given.set(true);
    let call = api.expect(&Method::GET, "/api/v1/namespaces/n/secrets/s").await;
    call.answer(&asked());
    // And goes on to what it was about to write.
    let call = api.expect(&Method::PATCH, "/api/v1/namespaces/n/secrets/s").await;
    assert_eq!(call.body["metadata"]["annotations"], json!({names::ASK: null}));
    assert_eq!(call.body["metadata"]["resourceVersion"], "7");
    stop.send_replace(true);
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_acted_on_a_second_late_because_other_clocks_may_be_slow() {
    let key = Key::new("n", "s");
    let until: Timestamp = "2089-01-01T00:00:00Z".parse().unwrap();
    let (mut controller, ..) = controller(true);
    controller.observe(&carrying(until));
    assert_eq!(controller.deadlines.first(), Some(until + SignedDuration::from_secs(1)));
    assert_eq!(controller.looks.first(), None);

    // Seen when it is just over, and when it has been for long.
    controller.observe(&carrying(Timestamp::now()));
    assert_eq!(controller.looks.pop(Instant::now()), None);
    assert_eq!(controller.looks.pop(Instant::now() + SLACK), Some(key.clone()));
    controller.observe(&carrying(Timestamp::now() - SignedDuration::from_hours(1)));
    assert_eq!(controller.looks.pop(Instant::now()), Some(key));
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_good_is_left_until_the_secret_has_changed() {
    let key = Key::new("n", "s");
    let (mut controller, ..) = controller(true);
    let secret = carrying(Timestamp::now() - SignedDuration::from_hours(1));
    let refused = |secret: &SecretView| super::super::reconcile::Asked {
        kind: crate::keeper::metrics::AskKind::Retire,
        result: AskResult::Refused,
        carried_again: Vec::new(),
        restored: Vec::new(),
        lateness: Some(3600.0),
        after: secret.clone(),
    };
    for count in 1..=5 {
        let is_problem = |controller: &Controller| {
            let tracked = controller.watched.get(&key);
            tracked.is_some_and(|it| it.has(&Problem::AskRefused))
        };
        assert!(!is_problem(&controller), "before refusal {count}");
        controller.asked(&key, refused(&secret));
        assert_eq!(is_problem(&controller), count == 5);
    }
    // Whatever the watch repeats.
    controller.observe(&secret);
    assert_eq!(controller.looks.pop(Instant::now() + Duration::from_secs(86_000)), None);
    let mut changed = secret.clone();
    kube::Resource::meta_mut(&mut changed).resource_version = Some("8".to_owned());
    controller.observe(&changed);
    assert_eq!(controller.looks.pop(Instant::now()), Some(key));
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_lost_its_labels_waits_for_the_webhook_as_patiently_as_any() {
    let key = Key::new("n", "s");
    let (mut controller, ..) = controller(true);
    let secret = carrying("2090-01-01T00:00:00Z".parse().unwrap());
    controller.observe(&secret);
    // Overwritten without labels and record; the ask was stored, for the webhook was down.
    let mut wiped = secret.clone();
    let meta = kube::Resource::meta_mut(&mut wiped);
    meta.labels = None;
    meta.annotations = Some([(names::ASK.to_owned(), "repair #1".to_owned())].into());
    for pause in [1, 2, 4, 8] {
        controller.asked(
            &key,
            super::super::reconcile::Asked {
                kind: crate::keeper::metrics::AskKind::Repair,
                result: AskResult::NotSeen,
                carried_again: Vec::new(),
                restored: Vec::new(),
                lateness: None,
                after: wiped.clone(),
            },
        );
        assert_eq!(controller.looks.first(), Some(Instant::now() + Duration::from_secs(pause)));
    }
}
