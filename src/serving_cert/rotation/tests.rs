//! Tests the rotation with explicit times. `cluster_model` tests a whole cluster over years.

use super::*;

const DAY: i64 = 86_400;
/// Longer than every wait.
const LONG: u64 = 1000;
pub(super) const TIMING: RotationTiming = RotationTiming {
    leaf_lifetime: Duration::from_secs(7 * 86_400),
    trust_settle: Duration::from_secs(60),
    reconcile_interval: Duration::from_secs(60),
};

#[test]
fn an_empty_secret_gets_a_ca() {
    assert_eq!(next_step(&[], at(0), &TIMING), RotationStep::Add);
}

#[test]
fn the_first_ca_is_served_before_a_bundle_contains_it() {
    let first = unseen(ca(1, 0, Some(0)));
    assert_eq!(next_step(&[first], at(0), &TIMING), RotationStep::Serve(id(1)));
}

#[test]
fn a_new_ca_is_added_at_two_thirds_of_the_lifetime() {
    let one = ca(1, 0, Some(0));
    let due = 365 * DAY * 2 / 3;
    assert_eq!(
        next_step(std::slice::from_ref(&one), at(due - 1), &TIMING),
        RotationStep::Serve(id(1))
    );
    assert_eq!(next_step(&[one], at(due), &TIMING), RotationStep::Add);
}

#[test]
fn a_new_ca_is_activated_after_the_settle_time() {
    let one = ca(1, 0, Some(0));
    let added = 250 * DAY;
    for (trusted, expected) in [
        (None, RotationStep::Serve(id(1))),
        (Some(0), RotationStep::Serve(id(1))),
        (Some(59), RotationStep::Serve(id(1))),
        (Some(60), RotationStep::Activate(id(2))),
    ] {
        let next = trusted_for(trusted, ca(2, added, None));
        // Its age by the wall clock does not count.
        for now in [added, added + 60, added + 10_000] {
            let both = [one.clone(), next.clone()];
            assert_eq!(next_step(&both, at(now), &TIMING), expected, "{trusted:?}");
        }
    }
}

#[test]
fn a_replica_that_starts_late_serves_the_ca_that_others_have_activated() {
    let added = 250 * DAY;
    // Its `active` may be earlier than `added`: clocks differ.
    for (trusted, active, expected) in [
        (Some(30), added + 60, 2),
        (Some(30), added - 60, 2),
        // Active at once, so no replica has waited. A new process has no better choice.
        (Some(30), added, 1),
        (Some(0), added, 2),
    ] {
        let one = trusted_for(trusted, ca(1, 0, Some(0)));
        let two = trusted_for(Some(0), ca(2, added, Some(active)));
        let expected = RotationStep::Serve(id(expected));
        assert_eq!(next_step(&[one, two], at(added + 100), &TIMING), expected);
    }
}

#[test]
fn the_old_ca_is_dropped_when_its_leaves_have_expired() {
    let (added, active) = (250 * DAY, 250 * DAY + 60);
    let both = [ca(1, 0, Some(0)), ca(2, added, Some(active))];
    let dead = active + 7 * DAY + 120 + 600;
    assert_eq!(next_step(&both, at(dead - 1), &TIMING), RotationStep::Serve(id(2)));
    assert_eq!(next_step(&both, at(dead), &TIMING), RotationStep::Drop(id(1)));
    // It stays while the API server does not trust its successor.
    let unseen = [both[0].clone(), unseen(both[1].clone())];
    assert_eq!(next_step(&unseen, at(dead), &TIMING), RotationStep::Serve(id(1)));
    // It stays if our clock is a week ahead: the other replicas had no time to switch.
    let mut ahead = both;
    ahead[1].observed.active = Some(Duration::from_secs(179));
    assert_eq!(next_step(&ahead, at(dead), &TIMING), RotationStep::Serve(id(2)));
}

#[test]
fn a_bundle_without_our_cas_does_not_change_the_served_ca() {
    let one = unseen(ca(1, 0, Some(0)));
    let two = unseen(ca(2, 250 * DAY, None));
    assert_eq!(next_step(&[one, two.clone()], at(250 * DAY), &TIMING), RotationStep::Serve(id(1)));
    // If no CA was served yet, there is nothing to wait for.
    assert_eq!(next_step(&[two], at(250 * DAY), &TIMING), RotationStep::Activate(id(2)));
}

#[test]
fn an_expired_ca_is_dropped_and_replaced() {
    let one = ca(1, 0, Some(0));
    assert_eq!(next_step(&[one], at(365 * DAY), &TIMING), RotationStep::Drop(id(1)));
    assert_eq!(next_step(&[], at(365 * DAY), &TIMING), RotationStep::Add);
}

#[test]
fn a_ca_that_is_not_valid_yet_is_not_served() {
    let future = ca(1, 10 * DAY, Some(10 * DAY));
    assert_eq!(next_step(std::slice::from_ref(&future), at(0), &TIMING), RotationStep::Add);
    let now = ca(2, 0, Some(0));
    let both = [now.clone(), future.clone()];
    assert_eq!(next_step(&both, at(0), &TIMING), RotationStep::Serve(id(2)));
    // Our own clock may be the wrong one.
    let both = [trusted_for(Some(59), now), future];
    assert_eq!(next_step(&both, at(0), &TIMING), RotationStep::Serve(id(1)));
}

#[test]
fn a_clock_that_is_set_back_adds_a_bounded_number_of_cas() {
    let future: Vec<_> = (1..5).map(|n| ca(n, 10 * DAY, Some(10 * DAY))).collect();
    assert_eq!(next_step(&future[..3], at(0), &TIMING), RotationStep::Add);
    assert_eq!(next_step(&future, at(0), &TIMING), RotationStep::Serve(id(4)));
}

#[test]
fn there_are_never_more_cas_than_the_limit() {
    let many: Vec<_> = (0..=8).map(|n| ca(n, i64::from(n), None)).collect();
    assert_eq!(next_step(&many, at(10), &TIMING), RotationStep::Drop(id(0)));
}

#[test]
fn one_forced_rotation_answers_all_requests_of_its_time() {
    let asked = |cas: &[CaFacts], second| decide_forced(cas, at(second), at(second), &TIMING);
    let one = ca(1, 0, Some(0));
    assert_eq!(asked(&[], 0), ForcedRotation::InFlight, "the first is new anyway");
    assert_eq!(
        asked(std::slice::from_ref(&one), 60),
        ForcedRotation::InFlight,
        "as new as a forced one"
    );
    assert_eq!(asked(std::slice::from_ref(&one), 61), ForcedRotation::Begin);
    let inactive = [one.clone(), ca(2, 1000, None)];
    assert_eq!(asked(&inactive, 100_000), ForcedRotation::InFlight);
    let active = [one.clone(), ca(2, 1000, Some(1060))];
    assert_eq!(asked(&active, 1061), ForcedRotation::Begin);
    // A request that is handled late: the CA of the other replica answers it.
    assert_eq!(decide_forced(&active, at(999), at(2000), &TIMING), ForcedRotation::InFlight);
    // The clock was set back by a day.
    assert_eq!(asked(&[ca(1, DAY, Some(DAY))], 0), ForcedRotation::Begin);
    let many: Vec<_> = (1..5).map(|n| ca(n, i64::from(n), Some(i64::from(n)))).collect();
    assert_eq!(asked(&many, 1000), ForcedRotation::Full);
}

#[test]
fn only_cas_that_no_replica_dropped_are_restored() {
    let [one, two] = [ca(1, 0, Some(0)), ca(2, 10, Some(70))];
    let both = [one.clone(), two.clone()];
    let lost =
        |found: &[CaFacts], damaged, served| lost_cas(found, damaged, &both, served, at(100));
    assert_eq!(lost(&both, false, Some(id(2))), []);
    assert_eq!(lost(std::slice::from_ref(&two), false, Some(id(2))), [], "dropped by another");
    assert_eq!(lost(&[two], false, Some(id(1))), [id(1)], "the leaf that is served needs it");
    assert_eq!(lost(std::slice::from_ref(&one), true, Some(id(1))), [id(2)]);
    assert_eq!(lost(&[], false, Some(id(1))), [id(1), id(2)]);
    assert_eq!(lost(&[], false, None), [id(1), id(2)]);
    assert_eq!(lost(&[ca(9, 0, Some(0))], false, None), [], "nothing is served yet");
    let late = super::lost_cas(&[], false, &both, Some(id(1)), at(366 * DAY));
    assert_eq!(late, [], "expired");
}

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

pub(super) fn id(n: u8) -> Fingerprint {
    Fingerprint::of(&[n])
}

/// A CA of one year that has been in the caBundle for longer than every wait.
fn ca(n: u8, added: i64, active: Option<i64>) -> CaFacts {
    life(n, added, active, 365 * DAY)
}

fn unseen(ca: CaFacts) -> CaFacts {
    trusted_for(None, ca)
}

fn trusted_for(seconds: Option<u64>, mut ca: CaFacts) -> CaFacts {
    ca.observed.trusted = seconds.map(Duration::from_secs);
    ca
}

pub(super) fn life(n: u8, added: i64, active: Option<i64>, life: i64) -> CaFacts {
    CaFacts {
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
