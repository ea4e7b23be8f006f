//! The next action for a Secret, and when a group lets a leaf go into service.

use std::time::Duration;

use base64::prelude::*;
use ca_overlap::kubernetes::secret_view::SecretView;
use ca_overlap::names;
use ca_overlap::overlap::action::{Action, awaited, next_action};
use ca_overlap::overlap::outlook::{Due, Outlook, Rules, Sighting, outlook};
use ca_overlap::overlap::restart::RestartProgress;
use ca_overlap::overlap::settings::Defaults;
use ca_overlap::overlap::staged::Stage;
use ca_overlap::x509::certs::Fingerprint;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use devtools::certs::{self, Identity, bundle};

const WRITTEN: &str = "2026-03-01T10:00:00Z";
const SETTLED: &str = "2026-03-01T10:02:00Z";
const RULES: fn() -> Rules =
    || Rules { defaults: Defaults::default(), settle: Duration::from_secs(120) };

/// A rotation of a group from CA1 to CA2.
struct Group {
    old: Identity,
    new: Identity,
    held: Identity,
    waiting: Identity,
}

impl Group {
    fn new() -> Self {
        let (old, new) = (certs::ca_named("CA"), certs::ca_named("CA"));
        let (held, waiting) = (old.leaf("envoy"), new.leaf("envoy"));
        Self { old, new, held, waiting }
    }

    /// A Secret of the group, before or after its leaf went into service.
    fn secret(&self, name: &str, is_staged: bool, annotations: &Value) -> Value {
        let encoded = |text: &str| BASE64_STANDARD.encode(text);
        let since = WRITTEN.parse().unwrap();
        let print = |leaf: &Identity| Fingerprint::of(leaf.pem.as_bytes());
        let (held, pending) = (print(&self.held), print(&self.waiting));
        let stage = Stage { since, held, pending, moved: 0 }.to_annotation(None);
        let sha256 = Fingerprint::of(&self.old.der);
        let record = json!([{"sha256": sha256.to_string(), "since": WRITTEN}]).to_string();
        let served = if is_staged { &self.held } else { &self.waiting };
        let mut secret = json!({
            "metadata": {
                "name": name, "namespace": "n",
                "labels": {names::MODE: "staged", names::PHASE: "staged"},
                "annotations": {names::GROUP: "g", names::CARRIED: record},
                "managedFields": [{"manager": "certgen", "time": WRITTEN}],
            },
            "data": {
                "ca.crt": encoded(&bundle(&[&self.new, &self.old])),
                "tls.crt": encoded(&served.pem),
            },
        });
        if is_staged {
            secret["metadata"]["annotations"][names::STAGED] = stage.into();
            secret["data"]["pending.tls.crt"] = encoded(&self.waiting.pem).into();
        } else {
            secret["metadata"]["labels"][names::PHASE] = "overlap".into();
        }
        json_patch::merge(&mut secret["metadata"]["annotations"], annotations);
        secret
    }
}

fn view(secret: &Value) -> SecretView {
    serde_json::from_value(secret.clone()).unwrap()
}

fn outlook_at(secret: &SecretView, now: &str) -> Outlook {
    outlook(&secret.view(), &RULES(), now.parse().unwrap())
}

fn action(secret: &Value, now: &str) -> Action {
    let secret = view(secret);
    next_action(&secret.view(), &outlook_at(&secret, now), now.parse().unwrap())
}

/// Whether the group lets `secret` be promoted beside `other`.
fn is_ready(secret: &Value, other: &Value, now: &str) -> bool {
    let (secret, other) = (view(secret), view(other));
    let now: Timestamp = now.parse().unwrap();
    let outlook = outlook(&secret.view(), &RULES(), now);
    let staged = outlook.stage.as_ref().unwrap();
    let group = [secret.view(), other.view()];
    awaited(&secret.view(), staged, &group, &RULES(), now).is_empty()
}

const RESTART: &str = "deployment/a";

/// The trust that the pods have to be restarted for.
fn trust(secret: &Value) -> String {
    match action(secret, SETTLED) {
        Action::Restart(wanted) => wanted.trust,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_retirement_comes_before_a_restart_and_a_restart_before_a_promotion() {
    let group = Group::new();
    let plain = group.secret("a", true, &json!({}));
    assert_eq!(action(&plain, WRITTEN), Action::Nothing);
    assert!(matches!(action(&plain, SETTLED), Action::Ask(Due::Promote(_))));
    let mut restarted = group.secret("a", true, &json!({names::RESTART: RESTART}));
    let trust = trust(&restarted);
    assert!(matches!(action(&restarted, WRITTEN), Action::Restart(_)));
    restarted["metadata"]["annotations"][names::RESTARTED] = trust.into();
    assert!(matches!(action(&restarted, SETTLED), Action::Ask(Due::Promote(_))));
    let over = json!({names::RESTART: RESTART, names::WINDOW: "1m"});
    let over = group.secret("a", false, &over);
    assert!(matches!(action(&over, SETTLED), Action::Ask(Due::Retire(_))));
    assert!(matches!(action(&over, WRITTEN), Action::Restart(_)));
}

#[test]
fn a_leaf_waits_until_all_pods_of_the_group_are_restarted_for_its_ca() {
    let group = Group::new();
    let secret = group.secret("a", true, &json!({}));
    let mut other = group.secret("b", true, &json!({names::RESTART: RESTART}));
    let staged_trust = trust(&other);
    let note = |other: &mut Value, text: &str| {
        other["metadata"]["annotations"][names::RESTARTED] = text.into();
    };
    assert!(!is_ready(&secret, &other, SETTLED), "not begun");
    let progress = |is_for_leaf| RestartProgress {
        workload: RESTART.into(),
        since: WRITTEN.parse().unwrap(),
        is_waiting: false,
        is_for_leaf,
    };
    note(&mut other, &progress(false).to_annotation(&staged_trust));
    assert!(!is_ready(&secret, &other, SETTLED), "under way");
    note(&mut other, &staged_trust);
    assert!(is_ready(&secret, &other, SETTLED), "done");
    assert!(!is_ready(&secret, &other, WRITTEN), "but not for long enough");

    // The other Secret was promoted first: its pods trust the CA, and now restart for their leaf.
    let mut promoted = group.secret("b", false, &json!({names::RESTART: RESTART}));
    let final_trust = trust(&promoted);
    assert_ne!(final_trust, staged_trust);
    note(&mut promoted, &staged_trust);
    assert!(is_ready(&secret, &promoted, SETTLED), "no further wait");
    assert!(matches!(action(&promoted, SETTLED), Action::Restart(w) if w.is_for_leaf));
    note(&mut promoted, &progress(true).to_annotation(&final_trust));
    assert!(is_ready(&secret, &promoted, SETTLED), "that restart does not delay either");
    // The other Secret was promoted or bundled before its pods were restarted for the CA.
    note(&mut promoted, &progress(false).to_annotation(&staged_trust));
    assert!(!is_ready(&secret, &promoted, SETTLED));
    note(&mut promoted, &progress(false).to_annotation(&final_trust));
    assert!(!is_ready(&secret, &promoted, SETTLED));
}

#[test]
fn the_settle_time_counts_from_the_last_change_of_ca_crt_and_not_from_other_writes() {
    let (early, late): (Timestamp, Timestamp) =
        ("2026-03-01T11:00:00Z".parse().unwrap(), "2026-03-01T12:00:00Z".parse().unwrap());
    let dated: Timestamp = WRITTEN.parse().unwrap();
    let group = Group::new();
    for (is_dated, seen, written, expected) in [
        (true, None, late, dated),
        (true, Some(Sighting::Found(early)), late, dated),
        (true, Some(Sighting::Changed(early)), late, early),
        (true, Some(Sighting::Changed(dated - SignedDuration::from_secs(1))), late, dated),
        (false, Some(Sighting::Changed(early)), late, early),
        (false, Some(Sighting::Found(early)), late, early),
        (false, Some(Sighting::Found(late)), early, early),
        (false, None, late, late),
    ] {
        let record = if is_dated { json!({}) } else { json!({names::CARRIED: "[]"}) };
        let mut member = group.secret("b", false, &record);
        member["metadata"]["managedFields"][0]["time"] = written.to_string().into();
        let member = view(&member);
        let member = if let Some(seen) = seen { member.with_sighting(seen) } else { member };
        let changed = outlook_at(&member, SETTLED).changed(&member.view());
        assert_eq!(changed, Some(expected), "{is_dated} {seen:?} {written}");
    }
    // The stage is dated, too. A touch at each second does not delay a promotion.
    let secret = group.secret("a", true, &json!({}));
    for is_staged in [true, false] {
        let mut touched = group.secret("b", is_staged, &json!({}));
        touched["metadata"]["managedFields"][0]["time"] = SETTLED.into();
        assert!(is_ready(&secret, &touched, SETTLED), "{is_staged}");
    }
}

#[test]
fn a_leaf_goes_into_service_at_once_where_all_held_its_announced_ca_for_long_enough() {
    let group = Group::new();
    let told = |name, is_staged, since: &str| {
        let entry =
            json!({"sha256": group.old.sha256(), "since": WRITTEN, "successorSince": since});
        group.secret(name, is_staged, &json!({names::CARRIED: json!([entry]).to_string()}))
    };
    let (early, late) = ("2026-03-01T09:58:00Z", "2026-03-01T09:58:01Z");
    assert!(matches!(action(&told("a", true, early), WRITTEN), Action::Ask(Due::Promote(_))));
    assert_eq!(action(&told("a", true, late), WRITTEN), Action::Nothing);
    let ready = |other: &Value| is_ready(&told("a", true, early), other, WRITTEN);
    for is_staged in [true, false] {
        assert!(ready(&told("b", is_staged, early)), "{is_staged}");
        assert!(!ready(&told("b", is_staged, late)), "{is_staged}");
        assert!(!ready(&group.secret("b", is_staged, &json!({}))), "{is_staged}: nothing tells");
    }
    // One that has not rotated yet, and changed just now for another reason.
    let announced = |since: &str| {
        let entry = json!({"sha256": group.new.sha256(), "since": since, "announced": "keeper"});
        let mut other =
            group.secret("b", false, &json!({names::CARRIED: json!([entry]).to_string()}));
        other["data"]["ca.crt"] = BASE64_STANDARD.encode(bundle(&[&group.old, &group.new])).into();
        other["data"]["tls.crt"] = BASE64_STANDARD.encode(&group.held.pem).into();
        other
    };
    assert!(ready(&announced(early)) && !ready(&announced(late)));
    // The wait for others is as long as ever.
    let secret = view(&told("a", true, early));
    let outlook = outlook_at(&secret, WRITTEN);
    let wait = Duration::from_secs(360);
    let is_over =
        |at: &str| outlook.stage.as_ref().unwrap().is_wait_over(wait, at.parse().unwrap());
    assert!(!is_over("2026-03-01T10:05:59Z") && is_over("2026-03-01T10:06:00Z"));
}

#[test]
fn a_promotion_of_one_secret_does_not_delay_the_others_of_its_group() {
    let group = Group::new();
    let secret = group.secret("a", true, &json!({}));
    // The date of the previous CA starts again at the promotion, which leaves `ca.crt` alone.
    let entry = json!({"sha256": group.old.sha256(), "since": SETTLED});
    let carried = |entry: &Value| json!({names::CARRIED: json!([entry]).to_string()});
    let mut promoted = group.secret("b", false, &carried(&entry));
    assert!(is_ready(&secret, &promoted, SETTLED));
    // An announcement is dated by the keeper's own write.
    let mut announced = entry.clone();
    announced["announced"] = "keeper".into();
    assert!(!is_ready(&secret, &group.secret("b", false, &carried(&announced)), SETTLED));
    // The generator has just written: this is a rotation.
    promoted["metadata"]["managedFields"][0]["time"] = SETTLED.into();
    assert!(!is_ready(&secret, &promoted, SETTLED));
}

#[test]
fn pods_restart_for_an_announced_ca_and_not_for_the_end_of_a_previous_one() {
    let group = Group::new();
    let secret = |ca_crt: &[&Identity], record: Value| {
        let annotations = json!({
            names::RESTART: RESTART, names::RESTARTED: "before", names::CARRIED: record.to_string(),
        });
        let mut secret = group.secret("a", false, &annotations);
        secret["data"]["ca.crt"] = BASE64_STANDARD.encode(bundle(ca_crt)).into();
        trust(&secret)
    };
    let (own, both) = ([&group.new], [&group.new, &group.old]);
    let mut entry = json!({"sha256": group.old.sha256(), "since": WRITTEN});
    assert_eq!(secret(&both, json!([entry])), secret(&own, json!([])));
    entry["announced"] = "keeper".into();
    assert_ne!(secret(&both, json!([entry])), secret(&own, json!([])));
}

#[test]
fn a_secret_to_which_the_new_ca_is_announced_delays_a_promotion_only_by_the_settle_time() {
    let group = Group::new();
    let secret = group.secret("a", true, &json!({}));
    // Its generator has not written the new CA yet.
    let laggard = |ca_crt: &[&Identity], record: Value| {
        let mut other = group.secret("b", false, &json!({names::CARRIED: record.to_string()}));
        let encoded = |text: &str| BASE64_STANDARD.encode(text);
        other["data"] = json!({
            "ca.crt": encoded(&bundle(ca_crt)), "tls.crt": encoded(&group.held.pem),
        });
        other
    };
    let unaware = laggard(&[&group.old], json!([]));
    assert!(!is_ready(&secret, &unaware, "2026-03-01T12:00:00Z"));
    let entry = json!([{"sha256": group.new.sha256(), "since": WRITTEN, "announced": "keeper"}]);
    let told = laggard(&[&group.old, &group.new], entry);
    assert!(!is_ready(&secret, &told, WRITTEN));
    assert!(is_ready(&secret, &told, SETTLED));
}

#[test]
fn a_group_waits_for_its_bundled_secrets_too() {
    let group = Group::new();
    let secret = group.secret("a", true, &json!({}));
    let mut bundled = group.secret("b", false, &json!({names::RESTART: RESTART}));
    let trust = trust(&bundled);
    bundled["metadata"]["annotations"][names::RESTARTED] = "before".into();
    assert!(!is_ready(&secret, &bundled, SETTLED), "its pods know the old CA only");
    bundled["metadata"]["annotations"][names::RESTARTED] = trust.into();
    assert!(is_ready(&secret, &bundled, SETTLED));
    // The keeper does not watch it any more, so its pods are never restarted.
    bundled["metadata"]["annotations"][names::RESTARTED] = "before".into();
    bundled["metadata"]["labels"] = json!({});
    assert!(is_ready(&secret, &bundled, SETTLED));
    // The wait is limited, also by the life of the held leaf.
    let staged = outlook_at(&view(&secret), SETTLED).stage.unwrap();
    bundled["metadata"]["labels"] = json!({names::PHASE: "overlap"});
    let (secret, bundled) = (view(&secret), view(&bundled));
    let group = [secret.view(), bundled.view()];
    assert_eq!(awaited(&group[0], &staged, &group, &RULES(), staged.ready), ["b"]);
    let second = SignedDuration::from_secs(1);
    let wait = Duration::from_secs(360);
    let over = staged.ready + SignedDuration::from_secs(360);
    assert!(!staged.is_wait_over(wait, over - second) && staged.is_wait_over(wait, over));
    let year = Duration::from_secs(100 * 365 * 86_400);
    let latest = staged.latest;
    assert!(!staged.is_wait_over(year, latest - second) && staged.is_wait_over(year, latest));
}

#[test]
fn without_a_group_a_leaf_waits_for_those_that_hold_its_old_ca_as_their_own() {
    let group = Group::new();
    let alone = json!({names::GROUP: null});
    let secret = group.secret("a", true, &alone);
    let other_ca = certs::ca_named("another");
    let member = |ca_crt: &[&Identity], entry: Value| {
        let mut other = group.secret("b", false, &alone);
        other["metadata"]["annotations"] = json!({names::CARRIED: entry.to_string()});
        other["metadata"]["managedFields"][0]["time"] = "2026-02-01T10:00:00Z".into();
        other["data"]["ca.crt"] = BASE64_STANDARD.encode(bundle(ca_crt)).into();
        other
    };
    let entry = |ca: &Identity, since: &str| json!([{"sha256": ca.sha256(), "since": since}]);
    let waits = |other: &Value, now: &str| !is_ready(&secret, other, now);

    let not_rotated = member(&[&group.old], json!([]));
    assert!(waits(&not_rotated, SETTLED) && waits(&not_rotated, "2026-03-01T12:00:00Z"));
    let later = "2026-03-01T10:01:00Z";
    let mut late = member(&[&group.new, &group.old], entry(&group.old, later));
    late["metadata"]["managedFields"][0]["time"] = later.into();
    assert!(waits(&late, SETTLED), "it was rotated a minute later");
    assert!(!waits(&late, "2026-03-01T10:03:00Z"));
    let of_both = member(&[&group.old, &group.new], json!([]));
    assert!(!waits(&of_both, SETTLED));

    let elsewhere = member(&[&other_ca], json!([]));
    assert!(!waits(&elsewhere, SETTLED), "its CA is another");
    let left_long_ago = member(&[&other_ca, &group.old], entry(&group.old, WRITTEN));
    assert!(!waits(&left_long_ago, SETTLED), "it will not get the new CA");
    let told = json!([{"sha256": group.old.sha256(), "since": WRITTEN, "announced": "keeper"}]);
    assert!(!waits(&member(&[&other_ca, &group.old], told), SETTLED), "it follows another CA");

    // What the webhook leaves alone would never be ready.
    let mut left_alone = not_rotated.clone();
    left_alone["immutable"] = true.into();
    assert!(!waits(&left_alone, SETTLED));
    let mut left_alone = not_rotated.clone();
    left_alone["metadata"]["labels"][names::MODE] = "off".into();
    assert!(!waits(&left_alone, SETTLED));
    let mut left_alone = not_rotated.clone();
    left_alone["data"]["tls.crt"] = left_alone["data"]["ca.crt"].clone();
    assert!(!waits(&left_alone, SETTLED), "a signer");

    // A group is a person's word: only its members are given to `awaited`, and all of them count.
    let secret = group.secret("a", true, &json!({}));
    assert!(!is_ready(&secret, &elsewhere, SETTLED));
}
