use super::*;
use crate::overlap::policy::Defaults;

const TRUSTS: [&str; 2] = ["T1", "T2"];

fn now() -> Timestamp {
    "2026-03-01T10:00:00Z".parse().unwrap()
}

fn rules() -> Rules {
    Rules { defaults: Defaults::default(), settle: Duration::from_secs(120) }
}

/// A Secret of the group `g`.
struct Secret {
    name: &'static str,
    annotations: BTreeMap<String, String>,
    written: Timestamp,
}

/// Last written so many seconds ago.
fn secret(name: &'static str, restart: &str, age: i64) -> Secret {
    let annotations = [(names::GROUP, "g"), (names::RESTART, restart)];
    let annotations = annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    Secret { name, annotations, written: now() - SignedDuration::from_secs(age) }
}

impl Secret {
    fn view(&self) -> View<'_> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        View {
            name: self.name,
            labels: &NONE,
            annotations: &self.annotations,
            ca_crt: Some(b"ca"),
            tls_crt: None,
            pending_tls_crt: None,
            keys: &[],
            is_immutable: false,
            is_token: false,
            written: Some(self.written),
        }
    }

    fn wanted(&self, trust: &str) -> Wanted {
        let view = self.view();
        Wanted {
            trust: trust.to_owned(),
            workloads: list(&self.annotations[names::RESTART]).0,
            progress: None,
            is_first_sight: false,
            is_for_leaf: false,
            secret: self.name.to_owned(),
            scope: scope(&view),
            mark: mark(&view),
        }
    }
}

/// Restarts `deployment/a` for one Secret, unless that was done.
fn restart(state: &mut State, group: &[Secret], which: usize, trust: &str) -> bool {
    let wanted = group[which].wanted(trust);
    if wanted.before(state, now()) == Some(Step::Started) {
        return false;
    }
    let workload = Workload::parse("deployment/a").unwrap();
    let views: Vec<View<'_>> = group.iter().map(Secret::view).collect();
    state.annotate(wanted.marks(&workload, &views, &rules(), state, now()), now());
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
    assert_eq!(keys(&state), [names::RESTARTED_AT.to_owned(), mark(&group[0].view())]);
    let left = format!("{}left", scope(&group[0].view()));
    let foreign = format!("{}.other.left", names::RESTARTED_FOR);
    for key in [&left, &foreign] {
        state.restarted_for.insert(key.clone(), "T0".to_owned());
    }
    assert!(restart(&mut state, &group, 0, "T2"));
    assert!(!state.restarted_for.contains_key(&left) && state.restarted_for.contains_key(&foreign));
}

#[test]
fn a_group_is_waited_for_while_it_is_written_but_not_for_long() {
    let group = |ages: &[i64]| -> Vec<Secret> {
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
        let group = group(ages);
        let views: Vec<View<'_>> = group.iter().map(Secret::view).collect();
        assert_eq!(is_on_its_way(&views, &rules(), waits, now()), expected, "{ages:?}");
    }
}

#[test]
fn a_workload_has_its_rest_whoever_flips_its_ca() {
    let mut state =
        State { restarted_at: Some(now() - SignedDuration::from_secs(589)), ..State::default() };
    let other = secret("a", "deployment/a", 60).wanted("T2");
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
    let mut it = secret("a", "deployment/a,deployment/b", 60).wanted("T");
    let workload = "deployment/b".to_owned();
    it.progress = Some(Progress { workload, since: now(), is_waiting: false, is_for_leaf: false });
    it.workloads = list("statefulset/new,deployment/b,deployment/a").0;
    assert_eq!(it.position().map(|(index, _)| index), Some(1));
    it.workloads = list("deployment/a").0;
    assert_eq!(it.position(), None);
}

/// Begins a pass over `deployment/a` and `deployment/b`. The first one has waited for so many
/// seconds, or its rollout was started so many ago.
fn pass(rules: &Rules, is_waiting: bool, age: i64) -> Pass<'_> {
    let mut wanted = secret("s", "deployment/a,deployment/b", 60).wanted("T2");
    let (workload, since) = ("deployment/a".to_owned(), now() - SignedDuration::from_secs(age));
    wanted.progress = Some(Progress { workload, since, is_waiting, is_for_leaf: false });
    let (pass, next) = Pass::begin(wanted, rules, now());
    assert_eq!(next, Next::Read(Workload::parse("deployment/a").unwrap()));
    pass
}

/// One a rollout was begun for this trust.
fn rolled_out(trust: &str, is_complete: bool) -> State {
    let mark = mark(&secret("s", "", 60).view());
    let restarted_for = [(mark, trust.to_owned())].into();
    State { restarted_for, is_complete, is_marked: true, ..State::default() }
}

#[test]
fn a_rollout_is_followed_until_it_is_complete_or_has_failed() {
    let second = || Next::Read(Workload::parse("deployment/b").unwrap());
    for (found, age, expected) in [
        (Ok(rolled_out("T2", false)), 600, None),
        (Ok(rolled_out("T2", false)), 601, Some(Step::Stuck)),
        (Ok(rolled_out("T2", true)), 601, Some(Step::Complete)),
        (Ok(rolled_out("T1", true)), 1, Some(Step::Reverted)),
        (Err(Step::Denied), 1, Some(Step::Denied)),
    ] {
        let rules = rules();
        let mut pass = pass(&rules, false, age);
        let next = pass.found(found);
        let waits = Next::Wait(now() - SignedDuration::from_secs(age));
        assert_eq!(next, if expected.is_some() { second() } else { waits }, "{expected:?}");
        let steps = expected.map(|step| ("deployment/a".to_owned(), step));
        assert_eq!(pass.into_steps(), Vec::from_iter(steps));
    }
}

#[test]
fn a_paused_workload_is_waited_for_but_not_for_ever() {
    let rules = rules();
    let paused = || State { is_paused: true, is_marked: true, ..State::default() };
    let since = now() - SignedDuration::from_secs(600);
    assert_eq!(pass(&rules, true, 600).found(Ok(paused())), Next::Wait(since));
    let mut pass = pass(&rules, true, 601);
    let b = Workload::parse("deployment/b").unwrap();
    assert_eq!(pass.found(Ok(paused())), Next::Read(b));
    // The next one is waited for from now on.
    let note = format!("T2 deployment/b {:.0} waits", now());
    assert_eq!(pass.found(Ok(paused())), Next::Note(note));
    assert_eq!(pass.into_steps(), [("deployment/a".to_owned(), Step::Paused)]);
}

#[test]
fn at_most_one_workload_is_changed_and_only_if_its_pods_refer_to_the_group() {
    let rules = rules();
    let mut pass = pass(&rules, true, 1);
    assert_eq!(pass.found(Ok(State::default())), Next::List);
    let b = Workload::parse("deployment/b").unwrap();
    assert_eq!(pass.listed(&[]), Next::Read(b.clone()), "a stranger");
    let version = Some("7".to_owned());
    let secrets = ["of the group".to_owned()].into();
    let state = State { version: version.clone(), secrets, ..State::default() };
    assert_eq!(pass.found(Ok(state)), Next::List);
    let other = secret("of the group", "", 60);
    let Next::Change(workload, read, annotations) = pass.listed(&[other.view()]) else {
        panic!("another call")
    };
    assert_eq!((workload, read, annotations.len()), (b, version, 2));
    let note = format!("T2 deployment/b {:.0} started", now());
    assert_eq!(pass.done(Step::Started), Next::Note(note));
    let steps = [("deployment/a", Step::Stranger), ("deployment/b", Step::Started)];
    assert_eq!(pass.into_steps(), steps.map(|(name, step)| (name.to_owned(), step)));
}
