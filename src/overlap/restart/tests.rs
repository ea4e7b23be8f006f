use super::*;
use crate::overlap::exempt::NO_OWNERS;
use crate::overlap::settings::Defaults;

const TRUSTS: [&str; 2] = ["T1", "T2"];

fn now() -> Timestamp {
    "2026-03-01T10:00:00Z".parse().unwrap()
}

fn rules() -> Rules {
    Rules { defaults: Defaults::default(), settle: Duration::from_secs(120) }
}

/// A Secret of the group `g`.
struct GroupSecret {
    name: &'static str,
    annotations: BTreeMap<String, String>,
    written: Timestamp,
}

/// A Secret that was last written `age` seconds ago.
fn secret(name: &'static str, restart: &str, age: i64) -> GroupSecret {
    let annotations = [(names::GROUP, "g"), (names::RESTART, restart)];
    let annotations = annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    GroupSecret { name, annotations, written: now() - SignedDuration::from_secs(age) }
}

impl GroupSecret {
    fn view(&self) -> PublicSecret<'_> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        PublicSecret {
            name: self.name,
            uid: None,
            labels: &NONE,
            annotations: &self.annotations,
            ca_crt: Some(b"ca"),
            tls_crt: None,
            pending_tls_crt: None,
            keys: &[],
            owners: &NO_OWNERS,
            is_immutable: false,
            is_token: false,
            written: Some(self.written),
            seen: None,
        }
    }

    fn pending(&self, trust: &str) -> PendingRestart {
        let view = self.view();
        PendingRestart {
            trust: trust.to_owned(),
            workloads: parse_list(&self.annotations[names::RESTART]).0,
            progress: None,
            is_first_sight: false,
            is_for_leaf: false,
            secret: self.name.to_owned(),
            mark: mark(&view),
            old_mark: old_mark(&view),
        }
    }
}

/// Restarts `deployment/a` for one Secret. Returns `false` if it has restarted for this trust
/// before.
fn restart(state: &mut WorkloadState, group: &[GroupSecret], which: usize, trust: &str) -> bool {
    let pending = group[which].pending(trust);
    if pending.is_marked(state) {
        return false;
    }
    let workload = Workload::parse("deployment/a").unwrap();
    let views: Vec<PublicSecret<'_>> = group.iter().map(GroupSecret::view).collect();
    state.annotate(pending.marks(&workload, &views, &rules(), state, now()), now());
    true
}

#[test]
fn two_secrets_of_a_group_restart_a_shared_workload_once() {
    let group = ["a", "b"].map(|name| secret(name, "deployment/a", 60));
    let trust_of_b = trust(&outlook::outlook(&group[1].view(), &rules(), now()), false);
    let mut state = WorkloadState::default();
    assert!(restart(&mut state, &group, 0, "T1"));
    assert!(!restart(&mut state, &group, 1, &trust_of_b), "its pods have loaded that, too");
    // The second Secret has changed since: its pods hold an old trust.
    assert!(restart(&mut state, &group, 1, "another"));
    // A previous trust comes back, and goes again.
    for trust in TRUSTS {
        assert!(restart(&mut state, &group[..1], 0, "between"));
        assert!(restart(&mut state, &group[..1], 0, trust));
        assert!(!restart(&mut state, &group[..1], 0, trust));
    }
}

#[test]
fn only_secrets_of_the_group_that_name_a_workload_annotate_it() {
    let group = [secret("a", "deployment/a", 60), secret("b", "deployment/b", 60)];
    let mut state = WorkloadState::default();
    assert!(restart(&mut state, &group, 0, "T1"));
    let keys = |state: &WorkloadState| state.restarted_for.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&state), [names::RESTARTED_AT.to_owned(), mark(&group[0].view())]);
    // A Secret that left the group or is gone, an earlier group, and the first edition.
    let left = mark(&secret("left", "", 0).view());
    let of_another_group = format!("{}.g.s", names::RESTARTED_FOR);
    for key in [left, of_another_group, old_mark(&group[0].view())] {
        state.restarted_for.insert(key, "T0".to_owned());
    }
    assert!(restart(&mut state, &group, 0, "T2"));
    assert_eq!(keys(&state), [names::RESTARTED_AT.to_owned(), mark(&group[0].view())]);
}

#[test]
fn a_restart_that_the_first_edition_marked_is_not_repeated() {
    let group = [secret("a", "deployment/a", 60)];
    let mut state = WorkloadState::default();
    // What the first edition wrote for the Secret "a" of the group "g".
    let key = "ca-overlap.dev/restarted-for.4ef636b0.4bbc134d".to_owned();
    state.restarted_for.insert(key, "T1".to_owned());
    assert!(!restart(&mut state, &group, 0, "T1"));
    assert!(restart(&mut state, &group, 0, "T2"));
}

#[test]
fn marks_of_secrets_do_not_share_a_short_hash() {
    let marks = ["a", "b"].map(|name| mark(&secret(name, "", 0).view()));
    for mark in &marks {
        let (_, hash) = mark.rsplit_once('.').unwrap();
        assert_eq!(hash.len(), 32, "16 bytes: {mark}");
        let (_, name) = mark.split_once('/').unwrap();
        assert!(name.len() <= 63, "the API server's limit: {mark}");
    }
    assert_ne!(marks[0], marks[1]);
}

#[test]
fn a_restart_waits_for_a_group_that_changes_for_at_most_30_s() {
    let group = |ages: &[i64]| -> Vec<GroupSecret> {
        ages.iter().map(|age| secret("s", "deployment/a", *age)).collect()
    };
    let waited = |seconds| Some(now() - SignedDuration::from_secs(seconds));
    for (ages, waits, expected) in [
        (&[60, 4][..], None, true),
        (&[4, 60], waited(29), true),
        (&[4, 60], waited(30), false),
        (&[5, 60], None, false),
        // A group of one Secret, or of none, has no other writes to wait for.
        (&[0], None, false),
        (&[], None, false),
    ] {
        let group = group(ages);
        let views: Vec<PublicSecret<'_>> = group.iter().map(GroupSecret::view).collect();
        assert_eq!(is_changing(&views, &rules(), waits, now()), expected, "{ages:?}");
    }
}

#[test]
fn a_workload_restarts_at_most_once_per_interval() {
    let rules = rules();
    let found = |restarted: SignedDuration, is_paused| {
        let restarted_at = Some(now() + restarted);
        let state = WorkloadState { restarted_at, is_paused, ..mounts("s") };
        pass(&rules, true, 60).found(Ok(state))
    };
    let waits = NextCall::Wait(now() - SignedDuration::from_secs(60));
    let seconds = SignedDuration::from_secs;
    assert_eq!(found(seconds(-589), false), waits);
    assert_eq!(found(seconds(-590), false), NextCall::List);
    assert_eq!(found(seconds(86_400), false), NextCall::List, "a clock that was set back");
    assert_eq!(found(seconds(-590), true), waits);
}

#[test]
fn a_restart_for_another_secret_serves_one_that_waits() {
    let rules = rules();
    let restarted = |age| now() - SignedDuration::from_secs(age);
    let found = |pass: &mut RestartPass<'_>, age, is_complete| {
        let restarted_at = Some(restarted(age));
        pass.found(Ok(WorkloadState { restarted_at, is_complete, ..mounts("s") }))
    };
    // This Secret waits because another one has restarted the workload, and a third one restarts it
    // next. Ten minutes are over.
    let mut waits = pass(&rules, true, 620);
    let note = format!("T2 deployment/a {:.0} started", restarted(25));
    assert_eq!(found(&mut waits, 25, false), NextCall::Note(note));
    assert_eq!(waits.into_outcomes(), [("deployment/a".to_owned(), RestartOutcome::Started)]);
    // Then it follows that rollout, although the pod template has no mark of this Secret.
    let mut follows = pass(&rules, false, 25);
    let second = NextCall::Read(Workload::parse("deployment/b").unwrap());
    assert_eq!(found(&mut follows, 25, true), second);
    assert_eq!(follows.into_outcomes(), [("deployment/a".to_owned(), RestartOutcome::Complete)]);
    // Pods that may be older than the trust.
    for age in [60, 61] {
        let waits = NextCall::Wait(restarted(60));
        assert_eq!(found(&mut pass(&rules, true, 60), age, true), waits);
    }
}

#[test]
fn progress_that_is_dated_far_in_the_future_counts_as_too_long() {
    let rules = rules();
    for (age, expected) in [(-600, None), (-601, Some(RestartOutcome::Stuck))] {
        let mut pass = pass(&rules, false, age);
        pass.found(Ok(rolled_out("T2", false)));
        let outcomes = expected.map(|outcome| ("deployment/a".to_owned(), outcome));
        assert_eq!(pass.into_outcomes(), Vec::from_iter(outcomes), "{age}");
    }
}

#[test]
fn an_edited_list_continues_at_the_same_workload() {
    let mut it = secret("a", "deployment/a,deployment/b", 60).pending("T");
    let workload = "deployment/b".to_owned();
    it.progress =
        Some(RestartProgress { workload, since: now(), is_waiting: false, is_for_leaf: false });
    it.workloads = parse_list("statefulset/new,deployment/b,deployment/a").0;
    assert_eq!(it.position().map(|(index, _)| index), Some(1));
    it.workloads = parse_list("deployment/a").0;
    assert_eq!(it.position(), None);
}

/// Begins a pass over `deployment/a` and `deployment/b`. The first one began to wait, or its
/// rollout started, `age` seconds ago.
fn pass(rules: &Rules, is_waiting: bool, age: i64) -> RestartPass<'_> {
    let mut pending = secret("s", "deployment/a,deployment/b", 60).pending("T2");
    let (workload, since) = ("deployment/a".to_owned(), now() - SignedDuration::from_secs(age));
    pending.progress = Some(RestartProgress { workload, since, is_waiting, is_for_leaf: false });
    let (pass, next) = RestartPass::begin(pending, rules, now());
    assert_eq!(next, NextCall::Read(Workload::parse("deployment/a").unwrap()));
    pass
}

/// A workload whose rollout was started for this trust.
fn rolled_out(trust: &str, is_complete: bool) -> WorkloadState {
    let mark = mark(&secret("s", "", 60).view());
    let restarted_for = [(mark, trust.to_owned())].into();
    WorkloadState { restarted_for, is_complete, is_marked: true, ..WorkloadState::default() }
}

#[test]
fn a_pass_follows_a_rollout_until_it_completes_or_fails() {
    let second = || NextCall::Read(Workload::parse("deployment/b").unwrap());
    for (found, age, expected) in [
        (Ok(rolled_out("T2", false)), 600, None),
        (Ok(rolled_out("T2", false)), 601, Some(RestartOutcome::Stuck)),
        (Ok(rolled_out("T2", true)), 601, Some(RestartOutcome::Complete)),
        (Ok(rolled_out("T1", true)), 1, Some(RestartOutcome::Reverted)),
        (Err(RestartOutcome::Denied), 1, Some(RestartOutcome::Denied)),
    ] {
        let rules = rules();
        let mut pass = pass(&rules, false, age);
        let next = pass.found(found);
        let waits = NextCall::Wait(now() - SignedDuration::from_secs(age));
        assert_eq!(next, if expected.is_some() { second() } else { waits }, "{expected:?}");
        let outcomes = expected.map(|outcome| ("deployment/a".to_owned(), outcome));
        assert_eq!(pass.into_outcomes(), Vec::from_iter(outcomes));
    }
}

#[test]
fn a_pass_waits_for_a_paused_workload_for_ten_minutes() {
    let rules = rules();
    let paused = || WorkloadState { is_paused: true, is_marked: true, ..WorkloadState::default() };
    let since = now() - SignedDuration::from_secs(600);
    assert_eq!(pass(&rules, true, 600).found(Ok(paused())), NextCall::Wait(since));
    let mut pass = pass(&rules, true, 601);
    let b = Workload::parse("deployment/b").unwrap();
    assert_eq!(pass.found(Ok(paused())), NextCall::Read(b));
    // Waiting for the next workload begins now.
    let note = format!("T2 deployment/b {:.0} waits", now());
    assert_eq!(pass.found(Ok(paused())), NextCall::Note(note));
    assert_eq!(pass.into_outcomes(), [("deployment/a".to_owned(), RestartOutcome::Paused)]);
}

#[test]
fn a_pass_changes_one_workload_and_only_with_consent() {
    let rules = rules();
    let mut pass = pass(&rules, true, 1);
    assert_eq!(pass.found(Ok(WorkloadState::default())), NextCall::List);
    let b = Workload::parse("deployment/b").unwrap();
    assert_eq!(pass.listed(&[]), NextCall::Read(b.clone()), "its pods use no Secret of the group");
    let version = Some("7".to_owned());
    let state = WorkloadState { version: version.clone(), ..mounts("s") };
    assert_eq!(pass.found(Ok(state)), NextCall::List);
    let NextCall::Change(workload, read, annotations) = pass.listed(&[]) else {
        panic!("another call")
    };
    assert_eq!((workload, read, annotations.len()), (b, version, 2));
    let note = format!("T2 deployment/b {:.0} started", now());
    assert_eq!(pass.done(RestartOutcome::Started), NextCall::Note(note));
    let outcomes =
        [("deployment/a", RestartOutcome::NoConsent), ("deployment/b", RestartOutcome::Started)];
    assert_eq!(pass.into_outcomes(), outcomes.map(|(name, it)| (name.to_owned(), it)));
}

/// A workload whose pods use this Secret.
fn mounts(secret: &str) -> WorkloadState {
    WorkloadState { secrets: [secret.to_owned()].into(), ..WorkloadState::default() }
}

#[test]
fn consent_comes_from_the_workload_or_from_a_secret_that_it_uses() {
    let marked = WorkloadState { is_marked: true, ..WorkloadState::default() };
    let named = "deployment/b,deployment/a";
    for (state, members, may_restart) in [
        (mounts("s"), &[][..], true),
        (marked, &[], true),
        (WorkloadState::default(), &[], false),
        (mounts("other"), &[], false),
        // A Secret of the group that the pods use and that names the workload itself.
        (mounts("other"), &[("other", named)], true),
        // A stranger gives himself the name of the group, or names the workload without being used.
        (mounts("other"), &[("other", "")], false),
        (mounts("other"), &[("other", "deployment/b,statefulset/a")], false),
        (mounts("other"), &[("third", named), ("other", "")], false),
    ] {
        let rules = rules();
        let mut pass = pass(&rules, true, 1);
        assert_eq!(pass.found(Ok(state.clone())), NextCall::List);
        let own = [("s", "deployment/a")];
        let group: Vec<GroupSecret> =
            own.iter().chain(members).map(|(name, restart)| secret(name, restart, 60)).collect();
        let views: Vec<PublicSecret<'_>> = group.iter().map(GroupSecret::view).collect();
        let next = pass.listed(&views);
        assert_eq!(matches!(next, NextCall::Change(..)), may_restart, "{state:?} {members:?}");
        let outcomes = [("deployment/a".to_owned(), RestartOutcome::NoConsent)];
        assert_eq!(pass.into_outcomes(), if may_restart { &[][..] } else { &outcomes });
    }
}
