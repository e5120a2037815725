//! Which zone takes a call.

use super::*;
use crate::config::Zone;

/// Three instances in each of these zones.
fn world(zones: &[&str]) -> World {
    let mut world = World::with_room(zones.len() * 3, 1000);
    world.announce(|instances| {
        for (index, instance) in instances.iter_mut().enumerate() {
            instance.zone = zones[index / 3].into();
        }
    });
    world
}

/// Percentages of calls that each zone got.
fn shares(world: &mut World) -> Vec<usize> {
    let got = world.calls(6000, ms(1), |_| ms(5));
    let by_zone = got.chunks(3).map(|zone| zone.iter().sum::<usize>());
    by_zone.map(|calls| calls * 100 / 6000).collect()
}

#[test]
fn the_nearer_zone_comes_first_until_it_is_ejected_or_full() {
    let mut world = World::new(4);
    world.announce(|instances| {
        instances[2..]
            .iter_mut()
            .for_each(|far| far.zone = "there".into())
    });
    let got = world.calls(100, ms(10), |_| ms(10));
    assert_eq!(got[0] + got[1], 100, "{got:?}");

    // Full: 8 calls each, then the other zone, then anyone.
    let held: Vec<_> = (0..20).map(|_| world.pick().unwrap()).collect();
    let near = held
        .iter()
        .filter(|pick| pick.instance().zone.as_ref() == ZONE)
        .count();
    assert_eq!(near, 16);
    drop(held);
    let held: Vec<_> = (0..40).map(|_| world.pick().unwrap()).collect();
    assert!(
        held.iter().all(|pick| !pick.is_last_resort()),
        "full is no failure"
    );
    drop(held);

    world.fail(&[0, 1], Reason::ConnectFailed);
    let got = world.calls(100, Duration::ZERO, |_| ms(10));
    assert_eq!(got[2] + got[3], 100, "{got:?}");
}

#[test]
fn what_a_zone_cannot_carry_goes_on_in_proportion() {
    let mut world = world(&[ZONE, "there"]);
    assert_eq!(shares(&mut world), [100, 0]);
    // A third of 70 % is missing: the rest carries 33.3 / 70 of all calls.
    world.announce(|instances| instances[0].healthy = false);
    assert!(matches!(shares(&mut world)[..], [94..=96, 4..=6]));
    world.announce(|instances| instances[1].healthy = false);
    assert!(matches!(shares(&mut world)[..], [45..=50, 50..=55]));
    world.announce(|instances| instances[2].healthy = false);
    assert_eq!(shares(&mut world), [0, 100]);
}

#[test]
fn failover_goes_by_the_order_that_is_written() {
    let mut world = world(&[ZONE, "near", "far", "abroad"]);
    world.set(|settings| settings.balance.zone.failover = vec!["far".into(), "near".into()]);
    world.announce(|instances| {
        instances[..3]
            .iter_mut()
            .for_each(|instance| instance.healthy = false);
    });
    assert_eq!(shares(&mut world), [0, 0, 100, 0]);
    world.announce(|instances| {
        instances[6..9]
            .iter_mut()
            .for_each(|instance| instance.healthy = false);
    });
    assert_eq!(shares(&mut world), [0, 100, 0, 0]);
}

#[test]
fn zones_can_mean_nothing() {
    let mut world = world(&[ZONE, "there"]);
    world.set(|settings| {
        settings.balance.zone = Zone {
            prefer: false,
            ..Zone::default()
        };
    });
    assert!(matches!(shares(&mut world)[..], [45..=55, 44..=55]));
}

#[test]
fn a_rolling_restart_spills_nothing() {
    let mut world = world(&[ZONE, "there"]);
    world.announce(|instances| instances[0].weight = 0);
    assert_eq!(shares(&mut world), [100, 0], "who drains is not missing");
}
