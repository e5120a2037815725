//! The algorithms beside the default one.

use std::collections::BTreeSet;

use super::*;
use crate::config::{Algorithm, Key};
use crate::hash;

fn world(count: usize, algorithm: Algorithm) -> World {
    let mut world = World::with_room(count, 1000);
    world.set(|settings| settings.balance.algorithm = algorithm);
    world
}

fn sticky() -> [Algorithm; 2] {
    [
        Algorithm::RingHash(Key::Source),
        Algorithm::Maglev(Key::Source),
    ]
}

/// Where each of `count` keys goes, one call at a time.
fn places(world: &mut World, count: u32) -> Vec<usize> {
    (0..count)
        .map(|key| {
            let key = hash::of(&key.to_be_bytes());
            let pick = world.ask(&[], Some(key)).unwrap();
            world.index(&pick)
        })
        .collect()
}

fn counts(places: &[usize]) -> BTreeMap<usize, usize> {
    let mut counts = BTreeMap::new();
    for place in places {
        *counts.entry(*place).or_default() += 1;
    }
    counts
}

#[test]
fn one_after_the_other_by_weight() {
    let mut world = world(3, Algorithm::RoundRobin);
    world.announce(|instances| instances[2].weight = 200);
    let got = world.calls(4000, ms(1), |index| ms(1 + 50 * index as u64));
    for (got, expected) in got.iter().zip([1000, 1000, 2000]) {
        assert!(got.abs_diff(expected) <= 2, "{got} for {expected}");
    }
}

#[test]
fn who_was_away_does_not_catch_up() {
    let mut world = world(2, Algorithm::RoundRobin);
    world.announce(|instances| instances[0].healthy = false);
    world.calls(1000, ms(1), |_| ms(1));
    world.announce(|instances| instances[0].healthy = true);
    let got = world.calls(100, ms(1), |_| ms(1));
    assert!(got[0].abs_diff(50) <= 1, "{got:?}");
}

#[test]
fn the_one_with_fewer_calls_under_way() {
    let mut world = world(2, Algorithm::LeastRequest);
    let held: Vec<_> = (0..30)
        .map(|_| world.pick_but(&[node(1)]).unwrap())
        .collect();
    assert_eq!(world.calls(20, ms(1), |_| ms(1))[1], 20);
    drop(held);
    // Latency alone does not count.
    let got = world.calls(2000, ms(1), |index| ms(1 + 500 * index as u64));
    assert!((900..1100).contains(&got[0]), "{got:?}");
}

#[test]
fn a_key_stays_where_it_is() {
    for algorithm in sticky() {
        let mut world = world(10, algorithm);
        let before = places(&mut world, 2000);
        assert_eq!(before, places(&mut world, 2000));
        let counts = counts(&before);
        assert!(
            counts.values().all(|count| (120..300).contains(count)),
            "{counts:?}"
        );

        // One comes: it takes about its share, and nearly nobody else moves.
        world.announce(|instances| instances.push(instance(10)));
        let after = places(&mut world, 2000);
        let moved = before
            .iter()
            .zip(&after)
            .filter(|(before, after)| before != after);
        let (to_new, between): (Vec<_>, Vec<_>) = moved.partition(|(_, after)| **after == 10);
        assert!((100..300).contains(&to_new.len()), "{}", to_new.len());
        assert!(between.len() < 80, "{}", between.len());
    }
}

#[test]
fn keys_of_one_that_is_out_go_on_and_come_back() {
    for algorithm in sticky() {
        let mut world = world(5, algorithm);
        let before = places(&mut world, 1000);
        world.fail(&[2], Reason::ConnectFailed);
        let during = places(&mut world, 1000);
        for (before, during) in before.iter().zip(&during) {
            assert_ne!(*during, 2);
            assert!(*before == 2 || before == during);
        }
        let heirs: BTreeSet<_> = before
            .iter()
            .zip(&during)
            .filter(|(before, _)| **before == 2)
            .map(|(_, during)| *during)
            .collect();
        assert_eq!(heirs.len(), 4, "they spread");
        world.wait(Duration::from_secs(2));
        let mut probe = world.pick_but(&[0, 1, 3, 4].map(node)).unwrap();
        probe.answered(world.now);
        drop(probe);
        assert_eq!(places(&mut world, 1000), before);
    }
}

#[test]
fn keys_spread_by_weight() {
    for algorithm in sticky() {
        let mut world = world(3, algorithm);
        world.announce(|instances| instances[0].weight = 300);
        let counts = counts(&places(&mut world, 5000));
        assert!((2600..3400).contains(&counts[&0]), "{counts:?}");
    }
}

#[test]
fn agents_agree_where_a_key_belongs() {
    for algorithm in sticky() {
        let mut one = world(7, algorithm.clone());
        let mut other = world(7, algorithm);
        // Another order of arrival, other dice.
        other.announce(|instances| instances.reverse());
        other.rng = fastrand::Rng::with_seed(99);
        let nodes = |world: &mut World| -> Vec<_> {
            let places = places(world, 500);
            places
                .iter()
                .map(|at| world.instances[*at].node.clone())
                .collect()
        };
        assert_eq!(nodes(&mut one), nodes(&mut other));
    }
}

#[test]
fn a_busy_key_goes_round_the_ring_but_not_off_the_table() {
    let key = Some(hash::of(b"a celebrity"));
    let spread = |algorithm| {
        let mut world = world(5, algorithm);
        let mut held = Vec::new();
        for _ in 0..100 {
            held.push(world.ask(&[], key).unwrap());
        }
        let nodes: BTreeSet<_> = held.iter().map(|pick| world.index(pick)).collect();
        let most = (0..5).map(|at| world.view(at).in_flight).max();
        (nodes.len(), most.unwrap())
    };
    let [ring, maglev] = sticky().map(spread);
    assert!(
        ring.0 >= 4 && ring.1 <= 26,
        "a quarter more than its share: {ring:?}"
    );
    assert_eq!(maglev, (1, 100));
}

#[test]
fn a_key_that_was_tried_in_vain_goes_elsewhere() {
    for algorithm in sticky() {
        let mut world = world(3, algorithm);
        let key = Some(hash::of(b"alice"));
        let first = world.ask(&[], key).unwrap().instance().node.clone();
        let second = world.ask(std::slice::from_ref(&first), key).unwrap();
        assert_ne!(second.instance().node, first);
    }
}

#[test]
fn without_a_key_calls_go_anywhere() {
    for algorithm in sticky() {
        let mut world = world(3, algorithm);
        let got = world.calls(300, ms(1), |_| ms(1));
        assert!(got.iter().all(|calls| *calls > 50), "{got:?}");
    }
}
