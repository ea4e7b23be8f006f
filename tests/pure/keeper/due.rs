//! What is due, and when, on real certificates.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ca_overlap::names;
use ca_overlap::overlap::action::{Action, next_action};
use ca_overlap::overlap::distrust::DistrustList;
use ca_overlap::overlap::exempt::OwnerGroups;
use ca_overlap::overlap::outlook::{
    BundleCertificate, Due, Outlook, Planned, Problem, PublicSecret, Rules, outlook,
};
use ca_overlap::overlap::settings::Defaults;
use ca_overlap::overlap::staged::Stage;
use ca_overlap::x509::certs::Fingerprint;
use jiff::Timestamp;
use serde_json::json;

use devtools::certs::{self, CA, Identity, Spec, bundle};

const START: &str = "2026-03-01T10:00:00Z";
const UNTIL: &str = "2026-03-02T10:00:00Z";

/// CA2 is the generator's own, CA1 is carried for a day; the leaf is CA2's.
struct Fixture {
    old: Identity,
    new: Identity,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    ca_crt: String,
    tls_crt: String,
    pending: Option<String>,
    keys: Vec<&'static str>,
    owners: OwnerGroups,
    is_immutable: bool,
    is_token: bool,
}

impl Fixture {
    fn new() -> Self {
        Self::of(certs::ca_named("CA1"), certs::ca_named("CA2"))
    }

    fn of(old: Identity, new: Identity) -> Self {
        let record = json!([{"sha256": fingerprint(&old), "since": START, "until": UNTIL}]);
        Self {
            labels: BTreeMap::from([(names::PHASE.into(), "overlap".into())]),
            annotations: BTreeMap::from([(names::CARRIED.into(), record.to_string())]),
            ca_crt: bundle(&[&new, &old]),
            tls_crt: new.leaf("envoy").pem,
            pending: None,
            keys: Vec::new(),
            owners: OwnerGroups::default(),
            is_immutable: false,
            is_token: false,
            old,
            new,
        }
    }

    fn annotate(mut self, key: &str, value: impl Into<String>) -> Self {
        self.annotations.insert(key.into(), value.into());
        self
    }

    fn leaf_of_the_old(mut self) -> Self {
        self.tls_crt = self.old.leaf("envoy").pem;
        self
    }

    fn at(&self, now: &str) -> Outlook {
        self.with(&Defaults::default(), now)
    }

    fn with(&self, defaults: &Defaults, now: &str) -> Outlook {
        let rules = Rules { defaults: defaults.clone(), settle: Duration::from_secs(120) };
        outlook(&self.view(), &rules, time(now))
    }

    fn view(&self) -> PublicSecret<'_> {
        PublicSecret {
            name: "envoy",
            uid: Some("1"),
            labels: &self.labels,
            annotations: &self.annotations,
            ca_crt: Some(self.ca_crt.as_bytes()),
            tls_crt: Some(self.tls_crt.as_bytes()),
            pending_tls_crt: self.pending.as_deref().map(str::as_bytes),
            keys: &self.keys,
            owners: &self.owners,
            is_immutable: self.is_immutable,
            is_token: self.is_token,
            written: None,
            seen: None,
        }
    }
}

fn fingerprint(ca: &Identity) -> Fingerprint {
    Fingerprint::of(&ca.der)
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn a_carried_ca_is_retired_at_its_deadline_and_not_before() {
    let fixture = Fixture::new();
    let before = fixture.at("2026-03-02T09:59:59Z");
    assert_eq!(before.due, None);
    let next = before.next.unwrap();
    assert_eq!((next.at, next.what), (time(UNTIL), Planned::Retire));
    let carried: Vec<bool> = before.certificates.iter().map(|k| k.carried.is_some()).collect();
    assert_eq!(carried, [false, true]);
    let issued: Vec<bool> =
        before.certificates.iter().map(|k: &BundleCertificate| k.issued_leaf).collect();
    assert_eq!(issued, [true, false]);

    let on = fixture.at(UNTIL);
    assert_eq!(on.due, Some(Due::Retire(vec![fingerprint(&fixture.old)])));
    assert!(on.problems.is_empty() && on.next.is_none());
}

#[test]
fn a_shorter_window_counts_from_the_beginning() {
    let fixture = Fixture::new().annotate(names::WINDOW, "1h");
    assert_eq!(fixture.at(START).next.unwrap().at, time("2026-03-01T11:00:00Z"));
    assert!(matches!(fixture.at("2026-03-01T11:00:00Z").due, Some(Due::Retire(_))));
}

#[test]
fn expiry_and_distrust_end_an_overlap_before_its_deadline() {
    let expired = Fixture::of(
        Spec { subject: "CA1", not_after: (2021, 1, 1), ..CA }.self_signed(),
        certs::ca_named("CA2"),
    );
    assert!(matches!(expired.at(START).due, Some(Due::Retire(_))));

    let fixture = Fixture::new();
    let which = fingerprint(&fixture.old).to_string();
    let distrusted = fixture.annotate(names::DISTRUST, which);
    assert!(matches!(distrusted.at(START).due, Some(Due::Retire(_))));
}

/// The defaults with these CAs on the list of the cluster.
fn listing(cas: &[&Identity]) -> Defaults {
    let list: BTreeMap<_, _> = cas.iter().map(|ca| (fingerprint(ca).to_string(), "")).collect();
    Defaults { distrusted: Arc::new(DistrustList::read(&list)), ..Defaults::default() }
}

#[test]
fn the_list_of_the_cluster_ends_an_overlap_like_the_setting_of_a_secret() {
    let fixture = Fixture::new();
    let old = fingerprint(&fixture.old);
    assert_eq!(fixture.with(&listing(&[]), START).due, None);
    let listed = fixture.with(&listing(&[&fixture.old]), START);
    assert_eq!(listed.due, Some(Due::Retire(vec![old])));
    // An own one is reported, because only the generator can replace it.
    let own = fixture.with(&listing(&[&fixture.new]), START);
    assert_eq!(own.problems, [Problem::OwnDistrusted(fingerprint(&fixture.new))]);
    // The list does not restart the pods of Secrets that hold nothing of it.
    let fixture = fixture.annotate(names::RESTART, "deployment/envoy");
    let trust = |defaults: &Defaults| {
        let outlook = fixture.with(defaults, START);
        match next_action(&fixture.view(), &outlook, time(START)) {
            Action::Restart(wanted) => wanted.trust,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(trust(&listing(&[&certs::ca()])), trust(&Defaults::default()));
}

#[test]
fn a_stage_whose_held_leaf_hangs_on_a_distrusted_ca_does_not_wait() {
    let mut fixture = staged();
    let pending = Fingerprint::of(fixture.pending.as_deref().unwrap().as_bytes());
    // The generator itself still writes the old CA, so nothing is to be retired.
    fixture.annotations.insert(names::CARRIED.into(), "[]".into());
    assert_eq!(fixture.with(&listing(&[&fixture.new]), START).due, None);
    let listed = fixture.with(&listing(&[&fixture.old]), START);
    assert_eq!(listed.due, Some(Due::Promote(pending)));
    // Not even for its group.
    let stage = listed.stage.unwrap();
    let rules = Rules { defaults: Defaults::default(), settle: Duration::from_secs(120) };
    assert_eq!(stage.ready_after(Timestamp::MAX, &rules), time(START));
    let old = fingerprint(&fixture.old).to_string();
    assert_eq!(fixture.annotate(names::DISTRUST, old).at(START).due, Some(Due::Promote(pending)));
}

#[test]
fn a_ca_that_the_leaf_needs_stays_and_is_reported_unless_distrusted() {
    let fixture = Fixture::new().leaf_of_the_old();
    let old = fingerprint(&fixture.old);
    let blocked = fixture.at(UNTIL);
    assert_eq!(blocked.due, None);
    assert_eq!(blocked.problems, [Problem::RetireBlocked(old)]);
    assert!(fixture.at(START).problems.is_empty());

    let distrusted = fixture.annotate(names::DISTRUST, old.to_string());
    assert_eq!(distrusted.at(START).due, Some(Due::Retire(vec![old])));
}

#[test]
fn the_keeper_asks_nothing_where_data_cannot_change() {
    let mut off = Fixture::new();
    off.labels.insert(names::MODE.into(), "off".into());
    let mut immutable = Fixture::new();
    immutable.is_immutable = true;
    let mut token = Fixture::new();
    token.is_token = true;
    let mut foreign = Fixture::new();
    foreign.keys = vec!["old-ca.crt"];
    let mut strimzi = Fixture::new();
    strimzi.labels.insert("strimzi.io/kind".into(), "Kafka".into());
    let mut vault = Fixture::new();
    let owner = json!([{"apiVersion": "secrets.hashicorp.com/v1beta1", "kind": "VaultPKISecret"}]);
    vault.owners = serde_json::from_value(owner).unwrap();
    let cockroach = Fixture::new().annotate("secret-data-hash", "17");
    let mut own_anchor = Fixture::new();
    own_anchor.tls_crt.clone_from(&own_anchor.ca_crt);
    for fixture in [off, immutable, token, foreign, strimzi, vault, cockroach, own_anchor] {
        let outlook = fixture.at("2026-04-01T00:00:00Z");
        assert!(outlook.due.is_none() && outlook.problems.is_empty() && outlook.next.is_none());
        assert!(fixture.at(START).next.is_none());
    }
    // A Secret with a CA key beside a leaf is not a signer.
    let mut beside = Fixture::new();
    beside.keys = vec!["ca.key"];
    assert!(matches!(beside.at("2026-04-01T00:00:00Z").due, Some(Due::Retire(_))));
}

#[test]
fn an_ask_that_is_still_stored_was_missed_or_is_withdrawn() {
    let fixture = Fixture::new().annotate(names::ASK, "retire #1");
    let due = fixture.at(UNTIL);
    assert!(matches!(due.due, Some(Due::Retire(_))));
    assert_eq!(due.problems, [Problem::AskNotSeen]);
    let early = fixture.at(START);
    assert_eq!(early.due, Some(Due::Withdraw));
    assert!(early.problems.is_empty());
}

#[test]
fn problems_are_named() {
    let fixture = Fixture::new();
    let own = fingerprint(&fixture.new);
    let fixture = fixture
        .annotate(names::CARRIED, "nonsense")
        .annotate(names::KEEP, "many")
        .annotate(names::STAGED, "{}")
        .annotate(names::DISTRUST, own.to_string());
    let problems = fixture.at(UNTIL).problems;
    let found: Vec<&str> = problems.iter().map(Problem::name).collect();
    let wanted = ["record_unreadable", "setting_unreadable", "own_distrusted", "stage_unreadable"];
    assert_eq!(found, wanted);

    // The certificates expire in 2090.
    let late = Fixture::new().at("2089-12-28T00:00:00Z");
    let found: Vec<&str> = late.problems.iter().map(Problem::name).collect();
    assert_eq!(found, ["own_expiring", "leaf_expiring"]);
}

#[test]
fn a_running_keeper_reports_what_expires() {
    // The certificates expire in 2090, and are reported a week before.
    let fixture = Fixture::new();
    let quiet = fixture.at("2026-04-01T00:00:00Z");
    let check = quiet.check.unwrap();
    assert!(check > time("2089-12-20T00:00:00Z"), "{check}");
    let names =
        |outlook: Outlook| -> Vec<&str> { outlook.problems.iter().map(Problem::name).collect() };
    let before = fixture.at(&(check - jiff::SignedDuration::from_secs(1)).to_string());
    assert_eq!(before.check, Some(check));
    assert_eq!(names(before), Vec::<&str>::new());
    let at = fixture.at(&check.to_string());
    assert_ne!(at.check, Some(check), "it comes to an end");
    assert_eq!(names(at), ["own_expiring", "leaf_expiring"]);

    // A stage that is never promoted.
    let fixture = staged();
    let check = fixture.at("2026-03-01T10:01:00Z").check.unwrap();
    assert_eq!(check, time("2026-03-01T11:00:00Z"));
}

#[test]
fn a_typo_in_restart_is_a_problem() {
    let fixture = Fixture::new().annotate(names::RESTART, "deployment/app,deploymnt/app, pod/x");
    assert_eq!(fixture.at(START).problems, [Problem::RestartUnreadable(2)]);
    let fixture = Fixture::new().annotate(names::RESTART, "deployment/app");
    assert!(fixture.at(START).problems.is_empty());
    let many: Vec<String> = (0..18).map(|number| format!("deployment/a{number}")).collect();
    let fixture = Fixture::new().annotate(names::RESTART, many.join(","));
    assert_eq!(fixture.at(START).problems, [Problem::RestartUnreadable(2)]);
}

#[test]
fn a_trust_store_and_garbage_are_left_alone() {
    let mut fixture = Fixture::new();
    fixture.ca_crt = "-----BEGIN CERTIFICATE-----\n".repeat(1000);
    let outlook = fixture.at(UNTIL);
    assert!(outlook.due.is_none() && outlook.certificates.is_empty());
    fixture.ca_crt = "nothing".into();
    assert!(fixture.at(UNTIL).due.is_none());
}

/// Both CAs are in `ca.crt`, the old pair is in service, the new one waits.
fn staged() -> Fixture {
    let mut fixture = Fixture::new().leaf_of_the_old();
    let pending = fixture.new.leaf("envoy").pem;
    let stage = Stage {
        since: time(START),
        held: Fingerprint::of(fixture.tls_crt.as_bytes()),
        pending: Fingerprint::of(pending.as_bytes()),
        moved: 0,
    };
    fixture.pending = Some(pending);
    fixture.labels.insert(names::PHASE.into(), "staged".into());
    fixture.annotate(names::STAGED, stage.to_annotation(None))
}

#[test]
fn a_stage_is_promoted_when_it_has_settled() {
    let fixture = staged();
    let early = fixture.at("2026-03-01T10:01:59Z");
    assert_eq!(early.due, None);
    let next = early.next.unwrap();
    assert_eq!((next.at, next.what), (time("2026-03-01T10:02:00Z"), Planned::Promote));
    assert_eq!(early.stage.unwrap().anchors, [fingerprint(&fixture.new)]);

    let pending = Fingerprint::of(fixture.pending.as_deref().unwrap().as_bytes());
    let settled = fixture.at("2026-03-01T10:02:00Z");
    assert_eq!(settled.due, Some(Due::Promote(pending)));
    assert!(settled.problems.is_empty());
    let overdue = fixture.at("2026-03-01T11:00:00Z");
    assert_eq!(overdue.problems, [Problem::StageOverdue]);
}

#[test]
fn a_group_wait_ends_before_the_held_leaf_expires() {
    let fixture = staged();
    let staged = fixture.at(START).stage.unwrap();
    let rules = Rules { defaults: Defaults::default(), settle: Duration::from_secs(120) };
    let written = time("2026-03-01T10:05:00Z");
    assert_eq!(staged.ready_after(written, &rules), time("2026-03-01T10:07:00Z"));
    assert_eq!(staged.ready_after(time("2020-01-01T00:00:00Z"), &rules), staged.ready);
    // The leaf is valid until 2090.
    assert_eq!(staged.latest, time("2089-12-31T12:00:00Z"));
    assert_eq!(staged.ready_after(Timestamp::MAX, &rules), staged.latest);
}

#[test]
fn a_pair_that_waits_without_a_stage_or_without_a_label_is_ended() {
    let waiting = |labels: &[(&str, &str)], stage: Option<String>| {
        let mut fixture = Fixture::new().leaf_of_the_old();
        fixture.pending = Some(fixture.new.leaf("envoy").pem);
        let label = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        fixture.labels = labels.iter().map(label).collect();
        match stage {
            Some(stage) => fixture.annotate(names::STAGED, stage),
            None => fixture,
        }
    };
    let stage = Stage {
        since: time(START),
        held: Fingerprint::of(b"held"),
        pending: Fingerprint::of(b"pending"),
        moved: 0,
    };
    let stage = Some(stage.to_annotation(None));
    let staged = [(names::PHASE, "staged")];
    assert_eq!(waiting(&staged, stage.clone()).at(START).due, None, "it waits as it should");
    for (labels, stage) in [(&[][..], None), (&[][..], stage), (&staged[..], None)] {
        let mut fixture = waiting(labels, stage);
        assert_eq!(fixture.at(START).due, Some(Due::Unstage), "{labels:?}");
        fixture.is_immutable = true;
        assert_eq!(fixture.at(START).due, None, "nobody can change its data");
    }
}
