//! The plan by explicit times; as a whole cluster over years it is tested in `world`.

use super::*;

const DAY: i64 = 86_400;
/// Long enough for whatever is waited for.
const LONG: u64 = 1000;
pub(super) const SETTINGS: Settings = Settings {
    leaf_lifetime: Duration::from_secs(7 * 86_400),
    trust_settle: Duration::from_secs(60),
    reconcile_interval: Duration::from_secs(60),
};

#[test]
fn an_empty_secret_gets_a_ca() {
    assert_eq!(plan(&[], at(0), &SETTINGS), Step::Add);
}

#[test]
fn the_first_ca_is_served_at_once_though_no_bundle_holds_it_yet() {
    let first = unseen(ca(1, 0, Some(0)));
    assert_eq!(plan(&[first], at(0), &SETTINGS), Step::Serve(id(1)));
}

#[test]
fn the_next_ca_comes_at_two_thirds_of_life() {
    let one = ca(1, 0, Some(0));
    let due = 365 * DAY * 2 / 3;
    assert_eq!(plan(std::slice::from_ref(&one), at(due - 1), &SETTINGS), Step::Serve(id(1)));
    assert_eq!(plan(&[one], at(due), &SETTINGS), Step::Add);
}

#[test]
fn a_next_ca_waits_until_it_was_seen_for_long_enough() {
    let one = ca(1, 0, Some(0));
    let added = 250 * DAY;
    for (trusted, expected) in [
        (None, Step::Serve(id(1))),
        (Some(0), Step::Serve(id(1))),
        (Some(59), Step::Serve(id(1))),
        (Some(60), Step::Activate(id(2))),
    ] {
        let next = trusted_for(trusted, ca(2, added, None));
        // However old it is by the wall clock.
        for now in [added, added + 60, added + 10_000] {
            let both = [one.clone(), next.clone()];
            assert_eq!(plan(&both, at(now), &SETTINGS), expected, "{trusted:?}");
        }
    }
}

#[test]
fn a_replica_that_starts_late_follows_what_another_has_waited_for() {
    let added = 250 * DAY;
    // Its `active` may be earlier than `added`: clocks differ.
    for (trusted, active, expected) in [
        (Some(30), added + 60, 2),
        (Some(30), added - 60, 2),
        // At once, so nobody has waited; a new process has nothing better.
        (Some(30), added, 1),
        (Some(0), added, 2),
    ] {
        let one = trusted_for(trusted, ca(1, 0, Some(0)));
        let two = trusted_for(Some(0), ca(2, added, Some(active)));
        let expected = Step::Serve(id(expected));
        assert_eq!(plan(&[one, two], at(added + 100), &SETTINGS), expected);
    }
}

#[test]
fn the_old_ca_goes_when_no_leaf_of_it_can_be_alive() {
    let (added, active) = (250 * DAY, 250 * DAY + 60);
    let both = [ca(1, 0, Some(0)), ca(2, added, Some(active))];
    let dead = active + 7 * DAY + 120 + 600;
    assert_eq!(plan(&both, at(dead - 1), &SETTINGS), Step::Serve(id(2)));
    assert_eq!(plan(&both, at(dead), &SETTINGS), Step::Drop(id(1)));
    // But not while the API server does not trust its successor.
    let unseen = [both[0].clone(), unseen(both[1].clone())];
    assert_eq!(plan(&unseen, at(dead), &SETTINGS), Step::Serve(id(1)));
    // Nor because our clock is a week ahead: the others have had no time to follow.
    let mut ahead = both;
    ahead[1].observed.active = Some(Duration::from_secs(179));
    assert_eq!(plan(&ahead, at(dead), &SETTINGS), Step::Serve(id(2)));
}

#[test]
fn a_bundle_with_none_of_ours_changes_nothing_in_what_is_served() {
    let one = unseen(ca(1, 0, Some(0)));
    let two = unseen(ca(2, 250 * DAY, None));
    assert_eq!(plan(&[one, two.clone()], at(250 * DAY), &SETTINGS), Step::Serve(id(1)));
    // Where nothing was ever served there is nothing to wait for.
    assert_eq!(plan(&[two], at(250 * DAY), &SETTINGS), Step::Activate(id(2)));
}

#[test]
fn what_is_expired_goes_and_is_replaced() {
    let one = ca(1, 0, Some(0));
    assert_eq!(plan(&[one], at(365 * DAY), &SETTINGS), Step::Drop(id(1)));
    assert_eq!(plan(&[], at(365 * DAY), &SETTINGS), Step::Add);
}

#[test]
fn a_ca_of_the_future_is_not_served() {
    let future = ca(1, 10 * DAY, Some(10 * DAY));
    assert_eq!(plan(std::slice::from_ref(&future), at(0), &SETTINGS), Step::Add);
    let now = ca(2, 0, Some(0));
    let both = [now.clone(), future.clone()];
    assert_eq!(plan(&both, at(0), &SETTINGS), Step::Serve(id(2)));
    // Until then our clock may be the one that is wrong.
    let both = [trusted_for(Some(59), now), future];
    assert_eq!(plan(&both, at(0), &SETTINGS), Step::Serve(id(1)));
}

#[test]
fn a_clock_that_is_set_back_does_not_pile_up_cas() {
    let future: Vec<_> = (1..5).map(|n| ca(n, 10 * DAY, Some(10 * DAY))).collect();
    assert_eq!(plan(&future[..3], at(0), &SETTINGS), Step::Add);
    assert_eq!(plan(&future, at(0), &SETTINGS), Step::Serve(id(4)));
}

#[test]
fn there_are_never_more_than_the_limit() {
    let many: Vec<_> = (0..=8).map(|n| ca(n, i64::from(n), None)).collect();
    assert_eq!(plan(&many, at(10), &SETTINGS), Step::Drop(id(0)));
}

#[test]
fn one_forced_rotation_answers_all_that_ask_meanwhile() {
    let asked =
        |generations: &[Generation], second| forced(generations, at(second), at(second), &SETTINGS);
    let one = ca(1, 0, Some(0));
    assert_eq!(asked(&[], 0), Forced::InFlight, "the first is new anyway");
    assert_eq!(asked(std::slice::from_ref(&one), 60), Forced::InFlight, "as new as a forced one");
    assert_eq!(asked(std::slice::from_ref(&one), 61), Forced::Begin);
    let inactive = [one.clone(), ca(2, 1000, None)];
    assert_eq!(asked(&inactive, 100_000), Forced::InFlight);
    let active = [one.clone(), ca(2, 1000, Some(1060))];
    assert_eq!(asked(&active, 1061), Forced::Begin);
    // Asked before, looked at late: the other replica's CA is the answer.
    assert_eq!(forced(&active, at(999), at(2000), &SETTINGS), Forced::InFlight);
    // The clock was set back by a day.
    assert_eq!(asked(&[ca(1, DAY, Some(DAY))], 0), Forced::Begin);
    let many: Vec<_> = (1..5).map(|n| ca(n, i64::from(n), Some(i64::from(n)))).collect();
    assert_eq!(asked(&many, 1000), Forced::Full);
}

#[test]
fn only_what_nobody_dropped_is_taken_back() {
    let [one, two] = [ca(1, 0, Some(0)), ca(2, 10, Some(70))];
    let both = [one.clone(), two.clone()];
    let lost = |found: &[Generation], damaged, served| lost(found, damaged, &both, served, at(100));
    assert_eq!(lost(&both, false, Some(id(2))), []);
    assert_eq!(lost(std::slice::from_ref(&two), false, Some(id(2))), [], "dropped by another");
    assert_eq!(lost(&[two], false, Some(id(1))), [id(1)], "the leaf that is served needs it");
    assert_eq!(lost(std::slice::from_ref(&one), true, Some(id(1))), [id(2)]);
    assert_eq!(lost(&[], false, Some(id(1))), [id(1), id(2)]);
    assert_eq!(lost(&[], false, None), [id(1), id(2)]);
    assert_eq!(lost(&[ca(9, 0, Some(0))], false, None), [], "nothing is served yet");
    let late = super::lost(&[], false, &both, Some(id(1)), at(366 * DAY));
    assert_eq!(late, [], "expired");
}

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

pub(super) fn id(n: u8) -> Fingerprint {
    Fingerprint::of(&[n])
}

/// A CA of one year, seen in the caBundle for long.
fn ca(n: u8, added: i64, active: Option<i64>) -> Generation {
    life(n, added, active, 365 * DAY)
}

fn unseen(generation: Generation) -> Generation {
    trusted_for(None, generation)
}

fn trusted_for(seconds: Option<u64>, mut generation: Generation) -> Generation {
    generation.observed.trusted = seconds.map(Duration::from_secs);
    generation
}

pub(super) fn life(n: u8, added: i64, active: Option<i64>, life: i64) -> Generation {
    Generation {
        id: id(n),
        not_before: at(added - 300),
        not_after: at(added + life),
        added: at(added),
        active: active.map(at),
        observed: Observed {
            trusted: Some(Duration::from_secs(LONG)),
            active: active.map(|_| Duration::from_secs(LONG)),
        },
    }
}
