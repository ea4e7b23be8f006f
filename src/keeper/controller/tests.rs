use std::time::Duration;

use http::Method;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::super::audit::Audit;
use super::super::election::{Leadership, LeadershipSwitch};
use super::super::mock::{MockApi, api, reconciler};
use super::*;
use crate::names;
use crate::overlap::ask::Ask;

fn controller(leads: bool) -> (Controller, Client, MockApi, LeadershipSwitch) {
    let (client, api) = api();
    let (switch, leadership) = Leadership::switched(leads);
    let reconciler = reconciler(&client, leadership);
    let (events, publisher) =
        Events::new(client.clone(), "me".to_owned(), KeeperMetrics::default());
    tokio::spawn(publisher);
    let (controller, _) = Controller::new(reconciler, events, KeeperMetrics::default());
    (controller, client, api, switch)
}

/// A Secret with an ask that is no longer needed, which is due to be withdrawn.
fn asked() -> Value {
    json!({"metadata": {
        "name": "s", "namespace": "n", "uid": "u", "resourceVersion": "7",
        "labels": {names::PHASE: "overlap"}, "annotations": {names::ASK: "retire #1"},
    }})
}

/// A Secret that carries a CA until `until`.
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
async fn a_replica_that_loses_the_lease_aborts_its_tasks_and_repeats_them_when_it_leads_again() {
    let (controller, client, mut api, switch) = controller(true);
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(controller.run(client, stopped));
    // Two lists, and then two watches that never send an event.
    let mut watches = Vec::new();
    let mut secret_read = None;
    while watches.len() < 2 || secret_read.is_none() {
        let call = api.call().await;
        match (call.path.contains("/namespaces/n/secrets/s"), call.path.contains("watch=")) {
            (true, _) => secret_read = Some(call),
            (_, true) => watches.push(call),
            _ => {
                let items = if call.path.contains("phase") { vec![asked()] } else { Vec::new() };
                call.answer(&json!({"metadata": {"resourceVersion": "7"}, "items": items}));
            }
        }
    }
    switch.set(false);
    secret_read.unwrap().given_up().await;
    assert!(api.is_quiet());
    switch.set(true);
    let call = api.expect(&Method::GET, "/api/v1/namespaces/n/secrets/s").await;
    call.answer(&asked());
    // The new task makes the write that the aborted one did not make.
    let call = api.expect(&Method::PATCH, "/api/v1/namespaces/n/secrets/s").await;
    assert_eq!(call.body["metadata"]["annotations"], json!({names::ASK: null}));
    assert_eq!(call.body["metadata"]["resourceVersion"], "7");
    stop.send_replace(true);
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_handled_a_second_late_because_other_clocks_may_be_slow() {
    let key = Key::new("n", "s");
    let until: Timestamp = "2089-01-01T00:00:00Z".parse().unwrap();
    let (mut controller, ..) = controller(true);
    controller.observe(&carrying(until));
    assert_eq!(
        controller.deadlines.first(Timestamp::now(), |_| true),
        Some(until + SignedDuration::from_secs(1))
    );
    assert_eq!(controller.queue.first(Instant::now(), |_| true), None);

    // Seen just after the deadline, and long after it.
    controller.observe(&carrying(Timestamp::now()));
    assert_eq!(controller.queue.pop(Instant::now(), |_| true), None);
    assert_eq!(controller.queue.pop(Instant::now() + DEADLINE_MARGIN, |_| true), Some(key.clone()));
    controller.observe(&carrying(Timestamp::now() - SignedDuration::from_hours(1)));
    assert_eq!(controller.queue.pop(Instant::now(), |_| true), Some(key));
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_is_always_refused_waits_until_it_changes() {
    let key = Key::new("n", "s");
    let (mut controller, ..) = controller(true);
    let secret = carrying(Timestamp::now() - SignedDuration::from_hours(1));
    let refused = |secret: &SecretView| super::super::reconcile::FinishedAsk {
        kind: crate::keeper::metrics::AskKind::Retire,
        result: AskResult::Refused,
        carried_again: Vec::new(),
        restored: Vec::new(),
        not_awaited: Vec::new(),
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
    // The watch may repeat the same version.
    controller.observe(&secret);
    assert_eq!(controller.queue.pop(Instant::now() + Duration::from_secs(86_000), |_| true), None);
    let mut changed = secret.clone();
    kube::Resource::meta_mut(&mut changed).resource_version = Some("8".to_owned());
    controller.observe(&changed);
    assert_eq!(controller.queue.pop(Instant::now(), |_| true), Some(key));
}

/// The webhook did not see an ask to retire.
fn not_seen(secret: &SecretView) -> super::super::reconcile::FinishedAsk {
    super::super::reconcile::FinishedAsk {
        kind: crate::keeper::metrics::AskKind::Retire,
        result: AskResult::NotSeen,
        carried_again: Vec::new(),
        restored: Vec::new(),
        not_awaited: Vec::new(),
        lateness: None,
        after: secret.clone(),
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_long_outage_a_write_that_the_webhook_saw_shortens_the_pause_to_a_minute() {
    let key = Key::new("n", "s");
    let (mut controller, ..) = controller(true);
    let mut waits = carrying(Timestamp::now() - SignedDuration::from_hours(24));
    kube::Resource::meta_mut(&mut waits)
        .annotations
        .get_or_insert_default()
        .insert(names::ASK.to_owned(), "retire #1".to_owned());
    for _ in 0..144 {
        controller.asked(&key, not_seen(&waits));
        tokio::time::advance(Duration::from_secs(600)).await;
    }
    controller.asked(&key, not_seen(&waits));
    let ten_minutes = Instant::now() + Duration::from_secs(600);
    assert_eq!(controller.queue.first(Instant::now(), |_| true), Some(ten_minutes));

    // Another Secret: its generator rotates.
    let rotates = |cas: &[&devtools::certs::Identity], record: &Value| -> SecretView {
        use base64::prelude::*;
        let object = json!({
            "metadata": {
                "name": "other", "namespace": "n", "uid": "o", "resourceVersion": "7",
                "labels": {names::MODE: "bundle"},
                "annotations": {names::CARRIED: record.to_string()},
            },
            "data": {"ca.crt": BASE64_STANDARD.encode(devtools::certs::bundle(cas))},
        });
        serde_json::from_value(object).unwrap()
    };
    let applied = |controller: &mut Controller, secret| {
        controller.watch_event(Selector::Mode, Ok(Event::Apply(secret)));
    };
    let [one, two] = [devtools::certs::ca(), devtools::certs::ca()];
    applied(&mut controller, rotates(&[&one], &json!([])));
    applied(&mut controller, rotates(&[&one], &json!([])));
    assert_eq!(
        controller.queue.first(Instant::now(), |_| true),
        Some(ten_minutes),
        "that says nothing of the webhook"
    );
    let record = json!([{"sha256": two.sha256(), "since": "2026-01-01T00:00:00Z"}]);
    applied(&mut controller, rotates(&[&one, &two], &record));
    let minute = Instant::now() + Duration::from_secs(60);
    assert_eq!(controller.queue.first(Instant::now(), |_| true), Some(minute));
    // A second sign does not put it off.
    tokio::time::advance(Duration::from_secs(30)).await;
    applied(&mut controller, rotates(&[&one], &json!([])));
    applied(&mut controller, rotates(&[&one, &two], &record));
    assert_eq!(controller.queue.first(Instant::now(), |_| true), Some(minute));
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_lost_its_labels_backs_off_like_any_other() {
    let key = Key::new("n", "s");
    let (mut controller, ..) = controller(true);
    let secret = carrying("2090-01-01T00:00:00Z".parse().unwrap());
    controller.observe(&secret);
    // A write dropped labels and record; the ask is stored, because the webhook is down.
    let mut wiped = secret.clone();
    let meta = kube::Resource::meta_mut(&mut wiped);
    meta.labels = None;
    meta.annotations = Some([(names::ASK.to_owned(), "repair #1".to_owned())].into());
    for pause in [1, 2, 4, 8] {
        controller.asked(
            &key,
            super::super::reconcile::FinishedAsk {
                kind: crate::keeper::metrics::AskKind::Repair,
                result: AskResult::NotSeen,
                carried_again: Vec::new(),
                restored: Vec::new(),
                not_awaited: Vec::new(),
                lateness: None,
                after: wiped.clone(),
            },
        );
        assert_eq!(
            controller.queue.first(Instant::now(), |_| true),
            Some(Instant::now() + Duration::from_secs(pause))
        );
    }
}

/// Nothing becomes of what is due, so only a pause keeps it from being due again at once.
#[tokio::test(start_paused = true)]
async fn with_audit_what_stays_due_is_said_once_and_looked_at_when_the_secret_changes() {
    let key = Key::new("n", "s");
    let (mut controller, client, mut api, _switch) = controller(true);
    let (events, publisher) = Events::new(client, "me".to_owned(), KeeperMetrics::default());
    controller.reconciler.audit = Some(Audit::new(events, KeeperMetrics::default()));
    controller.reconciler.leadership = controller.reconciler.leadership.clone().auditing();
    let secret = carrying(Timestamp::now() - SignedDuration::from_hours(1));
    for _ in 0..2 {
        controller.observe(&secret);
        let outlook =
            outlook::outlook(&secret.view(), &controller.reconciler.rules, Timestamp::now());
        let audit = controller.reconciler.audit.as_ref().unwrap();
        audit.ask(&secret, &outlook, AskKind::Retire, Some(&Ask::Retire));
        controller
            .finish(&key, ReconcileOutcome::Audited(Box::new(secret.clone()), AskKind::Retire));
        let pause = Instant::now() + Duration::from_secs(600);
        assert_eq!(controller.queue.first(Instant::now(), |_| true), Some(pause));
    }
    let mut changed = secret.clone();
    kube::Resource::meta_mut(&mut changed).resource_version = Some("8".to_owned());
    controller.observe(&changed);
    assert_eq!(controller.queue.pop(Instant::now(), |_| true), Some(key));

    drop(controller);
    let server = async {
        let call = api.expect(&Method::POST, "/apis/events.k8s.io/v1/namespaces/n/events").await;
        let note = call.body["note"].as_str().unwrap().to_owned();
        assert!(
            note.starts_with("Audit: would remove ") && note.ends_with(" from ca.crt"),
            "{note}"
        );
        assert_eq!(
            (&call.body["reason"], &call.body["type"]),
            (&json!("Retired"), &json!("Normal"))
        );
        let body = call.body.clone();
        call.answer(&body);
    };
    tokio::join!(publisher, server);
    assert!(api.is_quiet());
}
