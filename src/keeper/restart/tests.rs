use http::Method;

use super::super::act::{Actor, Before, Outcome};
use super::super::api::Secrets;
use super::super::mock::{Api, api};
use super::*;
use crate::overlap::policy::Defaults;

const TRUSTS: [&str; 2] = ["T1", "T2"];

fn now() -> Timestamp {
    "2026-03-01T10:00:00Z".parse().unwrap()
}

fn rules() -> Rules {
    Rules { defaults: Defaults::default(), settle: Duration::from_secs(120) }
}

/// A Secret of the group `g`, last written so many seconds ago.
fn secret(name: &str, restart: &str, age: i64) -> SecretView {
    let written = now() - SignedDuration::from_secs(age);
    let object = json!({
        "metadata": {
            "name": name, "namespace": "n",
            "annotations": {names::GROUP: "g", names::RESTART: restart},
            "managedFields": [{"manager": "helm", "time": written.to_string()}],
        },
        "data": {"ca.crt": "Y2E="},
    });
    serde_json::from_value(object).unwrap()
}

fn wanted(secret: &SecretView, trust: &str) -> Wanted {
    Wanted {
        trust: trust.to_owned(),
        workloads: list(secret.annotation(names::RESTART).unwrap()).0,
        progress: None,
        is_first_sight: false,
        is_for_leaf: false,
        scope: scope(secret),
        mark: mark(secret),
    }
}

/// Restarts `deployment/a` for one Secret, unless that was done.
fn restart(state: &mut State, group: &[SecretView], which: usize, trust: &str) -> bool {
    let wanted = wanted(&group[which], trust);
    if wanted.before(state, now()) == Some(Step::Started) {
        return false;
    }
    let workload = Workload::parse("deployment/a").unwrap();
    for (key, value) in wanted.marks(&workload, group, &rules(), state, now()) {
        match value {
            Value::String(value) => drop(state.restarted_for.insert(key, value)),
            _ => drop(state.restarted_for.remove(&key)),
        }
    }
    true
}

#[test]
fn two_of_a_group_with_different_cas_restart_what_they_share_once() {
    let group = ["a", "b"].map(|name| secret(name, "deployment/a", 60));
    let trust_of_b = trust(&outlook::outlook(&group[1].view(), &rules(), now()), false);
    let mut state = State::default();
    assert!(restart(&mut state, &group, 0, "T1"));
    assert!(!restart(&mut state, &group, 1, &trust_of_b), "its pods have found that, too");
    // Written since: what they have found of it is over.
    assert!(restart(&mut state, &group, 1, "another"));
    // The CA before comes back, and goes again.
    for trust in TRUSTS {
        assert!(restart(&mut state, &group[..1], 0, "between"));
        assert!(restart(&mut state, &group[..1], 0, trust));
        assert!(!restart(&mut state, &group[..1], 0, trust));
    }
}

#[test]
fn only_who_wants_a_workload_restarted_marks_it_and_who_has_left_does_not() {
    let group = [secret("a", "deployment/a", 60), secret("b", "deployment/b", 60)];
    let mut state = State::default();
    assert!(restart(&mut state, &group, 0, "T1"));
    let keys = |state: &State| state.restarted_for.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&state), [RESTARTED_AT.to_owned(), mark(&group[0])]);
    let left = format!("{}left", scope(&group[0]));
    let foreign = format!("{RESTARTED_FOR}.other.left");
    for key in [&left, &foreign] {
        state.restarted_for.insert(key.clone(), "T0".to_owned());
    }
    assert!(restart(&mut state, &group, 0, "T2"));
    assert!(!state.restarted_for.contains_key(&left) && state.restarted_for.contains_key(&foreign));
}

#[test]
fn a_group_is_waited_for_while_it_is_written_but_not_for_long() {
    let group = |ages: &[i64]| -> Vec<SecretView> {
        ages.iter().map(|age| secret("s", "deployment/a", *age)).collect()
    };
    let waited = |seconds| Some(now() - SignedDuration::from_secs(seconds));
    for (ages, waits, expected) in [
        (&[60, 4][..], None, true),
        (&[4, 60], waited(29), true),
        (&[4, 60], waited(30), false),
        (&[5, 60], None, false),
        // Nobody else is to come.
        (&[0], None, false),
        (&[], None, false),
    ] {
        assert_eq!(is_on_its_way(&group(ages), &rules(), waits, now()), expected, "{ages:?}");
    }
}

#[test]
fn a_workload_has_its_rest_whoever_flips_its_ca() {
    let mut state =
        State { restarted_at: Some(now() - SignedDuration::from_secs(589)), ..State::default() };
    let other = wanted(&secret("a", "deployment/a", 60), "T2");
    assert_eq!(other.before(&state, now()), Some(Step::Waiting));
    state.restarted_at = Some(now() - SignedDuration::from_secs(590));
    assert_eq!(other.before(&state, now()), None);
    state.restarted_at = Some(now() + SignedDuration::from_secs(86_400));
    assert_eq!(other.before(&state, now()), None, "a clock that was put back");
    state.is_paused = true;
    assert_eq!(other.before(&state, now()), Some(Step::Waiting));
}

#[test]
fn a_list_that_was_edited_goes_on_behind_the_same_workload() {
    let mut it = wanted(&secret("a", "deployment/a,deployment/b", 60), "T");
    let workload = "deployment/b".to_owned();
    it.progress = Some(Progress { workload, since: now(), is_waiting: false, is_for_leaf: false });
    it.workloads = list("statefulset/new,deployment/b,deployment/a").0;
    assert_eq!(it.position().map(|(index, _)| index), Some(1));
    it.workloads = list("deployment/a").0;
    assert_eq!(it.position(), None);
}

const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/n/deployments/a";

/// A restarter, and the API server that it calls.
fn restarter() -> (Restarter, Api) {
    let (client, api) = api();
    let (_, leadership) = Leadership::given(true);
    (Restarter::new(client, leadership), api)
}

#[tokio::test]
async fn a_workload_is_changed_as_it_was_read_and_what_the_answer_says_counts() {
    let workload = Workload::parse("deployment/a").unwrap();
    let key = Key::new("n", "s");
    for (status, reason, expected) in [
        (200, "", Ok(Step::Started)),
        // Its owner has changed it in between: it is read again.
        (409, "Conflict", Err(CallError::Conflict)),
        // The workload has gone, not the Secret.
        (404, "NotFound", Ok(MISSING)),
        (403, "Forbidden", Ok(Step::Denied)),
    ] {
        let (restarter, mut api) = restarter();
        let state = State { resource_version: Some("41".to_owned()), ..State::default() };
        let marks = Map::from_iter([("a".to_owned(), json!("b"))]);
        let server = async {
            let call = api.expect(&Method::PATCH, DEPLOYMENT).await;
            assert_eq!(call.body["metadata"]["resourceVersion"], "41");
            assert_eq!(call.body["spec"]["template"]["metadata"]["annotations"], json!({"a": "b"}));
            if status == 200 {
                call.answer(&json!({"metadata": {"name": "a"}}));
            } else {
                call.refuse(status, reason);
            }
        };
        let (step, ()) = tokio::join!(restarter.start(&key, &workload, &state, marks), server);
        assert_eq!(step, expected, "{status}");
    }
}

#[tokio::test]
async fn a_workload_that_does_not_exist_is_not_the_secret_that_has_gone() {
    let (client, mut api) = api();
    let (_, leadership) = Leadership::given(true);
    let actor = Actor {
        secrets: Secrets::new(client.clone(), leadership.clone()),
        restarter: Restarter::new(client, leadership.clone()),
        rules: rules(),
        leadership,
    };
    let key = Key::new("n", "s");
    let mut stored = json!({
        "metadata": {
            "name": "s", "namespace": "n", "uid": "u", "resourceVersion": "7",
            "annotations": {names::RESTART: "deployment/a", names::RESTARTED: "another"},
        },
        "data": {"ca.crt": base64::Engine::encode(
            &base64::prelude::BASE64_STANDARD, devtools::certs::ca().pem,
        )},
    });
    let server = async {
        let secret = "/api/v1/namespaces/n/secrets/s";
        api.expect(&Method::GET, secret).await.answer(&stored);
        api.expect(&Method::GET, DEPLOYMENT).await.refuse(404, "NotFound");
        let call = api.expect(&Method::PATCH, secret).await;
        let noted = call.body["metadata"]["annotations"][names::RESTARTED].clone();
        assert!(!noted.as_str().unwrap().contains(' '), "complete: {noted}");
        stored["metadata"]["annotations"][names::RESTARTED] = noted;
        call.answer(&stored);
    };
    let (outcome, ()) = tokio::join!(actor.look(&key, Before::default()), server);
    let Outcome::Restarting(restarting) = outcome else { panic!("another outcome") };
    assert_eq!(restarting.steps, [("deployment/a".to_owned(), MISSING)]);
}
