use std::net::Ipv4Addr;

use futures::FutureExt;
use proptest::prelude::*;
use tokio::time::{advance, timeout};

use super::*;

const RULES: Rules = Rules {
    capacity: 8,
    share: 6,
    kept: 2,
    waiting: 100,
    patience: Duration::from_secs(10),
    age: Duration::from_secs(2),
    own_age: Duration::from_secs(4),
};

fn shares(rules: Rules) -> Arc<Shares> {
    Shares::new(rules, Gauge::default())
}

/// A peer by its number.
fn at(number: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, number).into()
}

fn claims(shares: &Arc<Shares>, peer: u8, count: usize) -> Vec<Claim> {
    (0..count).map(|_| shares.claim(at(peer), 1)).collect()
}

/// Whether a claim is granted by now.
fn is_granted(claim: &Claim) -> bool {
    claim.granted().now_or_never() == Some(true)
}

fn displaced(claims: &[Claim]) -> Vec<usize> {
    (0..claims.len()).filter(|n| claims[*n].is_displaced()).collect()
}

#[test]
fn a_peer_is_an_ipv4_address_or_an_ipv6_network() {
    let same = |a: &str, b: &str| peer(a.parse().unwrap()) == peer(b.parse().unwrap());
    assert!(same("10.0.0.1", "::ffff:10.0.0.1"));
    assert!(!same("10.0.0.1", "10.0.0.2"));
    assert!(same("2001:db8::1", "2001:db8::ffff:0:0:1"));
    assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
}

#[tokio::test(start_paused = true)]
async fn the_oldest_claim_of_the_peer_with_the_most_gives_way_once_it_is_old_enough() {
    let shares = shares(RULES);
    let (few, many) = (claims(&shares, 1, 3), claims(&shares, 2, 5));
    let new = shares.claim(at(3), 1);
    assert!(!is_granted(&new));
    assert_eq!((displaced(&few), displaced(&many)), (vec![], vec![]));
    let begin = Instant::now();
    tokio::select! {
        _ = new.granted() => unreachable!("nothing is free"),
        () = many[0].displaced() => {}
    }
    assert_eq!(begin.elapsed(), RULES.age);
    assert_eq!((displaced(&few), displaced(&many)), (vec![], vec![0]), "one for one");
    drop(many);
    assert!(new.granted().await);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_was_never_of_use_gives_way_at_once_to_one_that_was() {
    let shares = shares(RULES);
    let (known, strange) = (claims(&shares, 1, 1), claims(&shares, 2, 4));
    known[0].stand(Standing::Used);
    let _strangers = claims(&shares, 3, 3);
    let new = shares.claim(at(1), 1);
    assert_eq!((displaced(&known), displaced(&strange)), (vec![], vec![0]));
    drop(strange);
    assert!(is_granted(&new));

    let shares = self::shares(RULES);
    let (known, others) = (claims(&shares, 1, 1), claims(&shares, 2, 4));
    known[0].stand(Standing::Used);
    others[3].stand(Standing::Used);
    let _strangers = claims(&shares, 3, 3);
    let _new = shares.claim(at(1), 1);
    assert_eq!(displaced(&others), [0; 0], "it was of use, too, and its claims are young");
}

#[tokio::test(start_paused = true)]
async fn nobody_gives_way_to_a_peer_that_holds_as_much() {
    let shares = shares(RULES);
    let (one, other) = (claims(&shares, 1, 4), claims(&shares, 2, 4));
    for claim in one.iter().chain(&other) {
        claim.stand(Standing::Busy);
    }
    one[3].stand(Standing::Unused);
    let new = shares.claim(at(2), 1);
    assert_eq!(timeout(RULES.patience * 2, new.granted()).await, Ok(false));
    assert!(displaced(&one).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_busy_claim_never_gives_way() {
    let shares = shares(RULES);
    let busy = claims(&shares, 1, 6);
    for claim in &busy {
        claim.stand(Standing::Busy);
    }
    let others = claims(&shares, 2, 2);
    for claim in &others {
        claim.stand(Standing::Busy);
    }
    let new = shares.claim(at(3), 1);
    let begin = Instant::now();
    assert!(!new.granted().await);
    assert_eq!(begin.elapsed(), RULES.patience);
    assert_eq!((displaced(&busy), displaced(&others)), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_needed_again_stays_and_another_one_gives_way() {
    let shares = shares(RULES);
    let (many, _few) = (claims(&shares, 1, 6), claims(&shares, 2, 2));
    advance(RULES.age).await;
    let new = shares.claim(at(3), 1);
    assert_eq!(displaced(&many), [0]);
    many[0].stand(Standing::Busy);
    assert!(displaced(&many).is_empty());
    tokio::select! {
        _ = new.granted() => unreachable!("nothing is free"),
        () = many[1].displaced() => {}
    }
}

#[tokio::test(start_paused = true)]
async fn unused_claims_give_way_before_used_ones_and_a_peer_keeps_some_of_these() {
    let shares = shares(Rules { capacity: 12, share: 10, kept: 4, ..RULES });
    let (used, mut unused) = (claims(&shares, 1, 8), claims(&shares, 1, 2));
    let _others = claims(&shares, 2, 2);
    for claim in &used {
        claim.stand(Standing::Used);
    }
    advance(RULES.age).await;
    let mut later = Vec::new();
    for _ in 0..2 {
        later.push(shares.claim(at(3), 1));
        assert_eq!((displaced(&used), displaced(&unused)), (vec![], vec![0]));
        unused.remove(0);
        assert!(is_granted(&later[later.len() - 1]));
    }
    let _waiting = claims(&shares, 3, 4);
    assert_eq!(displaced(&used), [0, 1, 2, 3]);
    let last = shares.claim(at(3), 1);
    assert!(!last.granted().await);
    assert_eq!(displaced(&used), [0, 1, 2, 3], "the peer keeps four");
}

#[tokio::test(start_paused = true)]
async fn many_peers_that_keep_what_they_may_leave_room_for_another() {
    let shares = shares(Rules { capacity: 1024, share: 512, kept: 32, ..RULES });
    let many: Vec<_> = (1..=32).flat_map(|peer| claims(&shares, peer, 32)).collect();
    for claim in &many {
        claim.stand(Standing::Used);
    }
    advance(RULES.age).await;
    let _new = shares.claim(at(100), 1);
    assert_eq!(displaced(&many), [0]);
}

#[tokio::test(start_paused = true)]
async fn one_peer_gets_its_share_and_then_replaces_its_own() {
    let shares = shares(RULES);
    let mut own = claims(&shares, 1, 6);
    let new = shares.claim(at(1), 1);
    assert!(!is_granted(&new), "two places are free, but for others");
    assert!(is_granted(&shares.claim(at(2), 1)));
    let begin = Instant::now();
    tokio::select! {
        _ = new.granted() => unreachable!("nothing is free"),
        () = own[0].displaced() => {}
    }
    assert_eq!(begin.elapsed(), RULES.own_age);
    own.remove(0);
    assert!(new.granted().await);
}

#[tokio::test(start_paused = true)]
async fn what_is_free_goes_to_the_peer_that_holds_the_least() {
    let shares = shares(RULES);
    let (mut many, few) = (claims(&shares, 1, 5), claims(&shares, 2, 3));
    let (first, second, third) =
        (shares.claim(at(1), 1), shares.claim(at(2), 1), shares.claim(at(2), 1));
    many.pop();
    assert!(!is_granted(&first) && is_granted(&second) && !is_granted(&third));
    many.pop();
    assert!(is_granted(&first), "it holds three and the other four");
    drop(few);
    assert!(is_granted(&third));
}

#[tokio::test(start_paused = true)]
async fn several_claims_give_way_to_a_large_one() {
    let rules = Rules { age: Duration::ZERO, ..RULES };
    let shares = shares(rules);
    let mut many = claims(&shares, 1, 6);
    let _others = claims(&shares, 2, 2);
    let large = shares.claim(at(3), 2);
    assert_eq!(displaced(&many), [0]);
    many.remove(0);
    assert!(!is_granted(&large));
    assert_eq!(displaced(&many), [0]);
    many.remove(0);
    assert!(is_granted(&large));
}

#[tokio::test(start_paused = true)]
async fn where_too_many_wait_the_last_of_the_peer_that_waits_the_most_is_refused() {
    let shares = shares(Rules { waiting: 3, ..RULES });
    let _held = claims(&shares, 1, 6);
    let waiting = claims(&shares, 1, 3);
    let _others = claims(&shares, 2, 2);
    let other = shares.claim(at(2), 1);
    assert_eq!(waiting[2].granted().now_or_never(), Some(false));
    for claim in [&waiting[0], &waiting[1], &other] {
        assert_eq!(claim.granted().now_or_never(), None);
    }
}

proptest! {
    #[test]
    fn no_history_holds_too_much_or_forgets_anything(
        steps in prop::collection::vec((0..6_u8, 1..5_u8, 1..4_usize, 0..100_usize), 1..200)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let shares = shares(RULES);
            let mut open: Vec<Claim> = Vec::new();
            for (step, peer, amount, which) in steps {
                let chosen = which % open.len().max(1);
                match (step, open.get(chosen)) {
                    (0 | 1, _) | (_, None) => open.push(shares.claim(at(peer), amount)),
                    (2, Some(_)) => drop(open.swap_remove(chosen)),
                    (3, Some(claim)) => claim.stand(Standing::Busy),
                    (4, Some(claim)) => claim.stand(Standing::Used),
                    _ => advance(Duration::from_secs(1)).await,
                }
                check(&shares);
            }
            drop(open);
            let state = shares.lock();
            assert!(state.claims.is_empty() && state.peers.is_empty() && state.held == 0);
            assert_eq!(shares.gauge.get(), 0);
        });
    }
}

/// Compares the sums with the claims.
fn check(shares: &Shares) {
    let state = shares.lock();
    let is_held = |entry: &Entry| matches!(entry.stage, Stage::Held(..) | Stage::Leaving);
    let sum = |of: &dyn Fn(&Entry) -> bool| -> usize {
        state.claims.values().filter(|e| of(e)).map(|entry| entry.amount).sum()
    };
    assert!(state.held <= RULES.capacity);
    assert_eq!(state.held, sum(&is_held));
    for (address, peer) in &state.peers {
        assert!(peer.held <= RULES.share);
        assert_eq!(peer.held, sum(&|e| e.peer == *address && is_held(e)));
        let leaves = |e: &Entry| e.peer == *address && matches!(e.stage, Stage::Leaving);
        assert_eq!(peer.leaving, sum(&leaves));
    }
    for id in &state.waiting {
        let entry = &state.claims[id];
        assert!(matches!(entry.stage, Stage::Waiting { .. }));
        let held = state.peers[&entry.peer].held;
        let fits = state.held + entry.amount <= RULES.capacity;
        assert!(!fits || held + entry.amount > RULES.share, "it waits although it fits");
    }
}
