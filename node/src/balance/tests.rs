//! What all tests of balancing share, and those of what is learnt of instances.

mod algorithms;
mod oracle;
mod outliers;
mod zones;

use std::collections::BTreeMap;

use proptest::prelude::*;
use starling_gossip::{Liveness, NodeName, ServiceName};

use super::*;
use crate::reason::Reason;

const ZONE: &str = "here";

/// A balancer with a clock and dice of its own.
struct World {
    balancer: Arc<Balancer>,
    lane: Lane,
    instances: Vec<Instance>,
    now: Instant,
    rng: fastrand::Rng,
}

fn instance(index: usize) -> Instance {
    Instance {
        node: node(index),
        service: ServiceName::parse("orders").unwrap(),
        protocol: "http".into(),
        labels: BTreeMap::new(),
        weight: 100,
        healthy: true,
        addr: ([10, 0, 0, index as u8], 7400).into(),
        zone: ZONE.into(),
        liveness: Liveness::Alive,
        changed_at: Instant::now(),
    }
}

fn node(index: usize) -> NodeName {
    NodeName::parse(&format!("n{index}")).unwrap()
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl World {
    fn new(count: usize) -> Self {
        Self::with_room(count, 8)
    }

    /// Each instance takes `in_flight_max` calls.
    fn with_room(count: usize, in_flight_max: u32) -> Self {
        Self::with((0..count).map(instance).collect(), in_flight_max)
    }

    fn with(instances: Vec<Instance>, in_flight_max: u32) -> Self {
        let balancer = Balancer::new(ZONE, in_flight_max);
        let mut world = Self {
            lane: balancer.lane(&Arc::default()),
            balancer,
            instances,
            now: Instant::now(),
            rng: fastrand::Rng::with_seed(7),
        };
        world.announce(|_| ());
        world
    }

    /// A new snapshot of the catalogue.
    fn announce(&mut self, change: impl FnOnce(&mut Vec<Instance>)) {
        change(&mut self.instances);
        let shared: Vec<_> = self.instances.iter().cloned().map(Arc::new).collect();
        self.balancer.reconcile(&shared, self.now);
        self.balancer.replace_keys();
    }

    /// Calls are made like this from now on.
    fn set(&mut self, change: impl FnOnce(&mut CallSettings)) {
        let mut settings = CallSettings::clone(self.lane.settings());
        change(&mut settings);
        self.lane = self.balancer.lane(&Arc::new(settings));
    }

    fn pick(&mut self) -> Option<Pick> {
        self.pick_but(&[])
    }

    /// A pick of a call that tried `skip`.
    fn pick_but(&mut self, skip: &[NodeName]) -> Option<Pick> {
        self.ask(skip, None)
    }

    fn ask(&mut self, skip: &[NodeName], key: Option<u64>) -> Option<Pick> {
        let subset = &Subset::default();
        let ask = Ask { skip, subset, key };
        self.lane.pick(&ask, self.now, &mut self.rng)
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    /// Makes calls one after the other, `gap` apart, that take `latency` each; returns how many each instance got.
    fn calls(
        &mut self,
        count: usize,
        gap: Duration,
        latency: impl Fn(usize) -> Duration,
    ) -> Vec<usize> {
        let mut got = vec![0; self.instances.len()];
        for _ in 0..count {
            let mut pick = self.pick().unwrap();
            let index = self.index(&pick);
            got[index] += 1;
            pick.answered(self.now + latency(index));
            self.wait(gap);
        }
        got
    }

    fn index(&self, pick: &Pick) -> usize {
        self.instances
            .iter()
            .position(|instance| instance.node == pick.instance().node)
            .unwrap()
    }

    /// Fails every instance in `which` for `reason`.
    fn fail(&mut self, which: &[usize], reason: Reason) {
        for index in which {
            let mut others: Vec<_> = self
                .instances
                .iter()
                .map(|other| other.node.clone())
                .collect();
            others.remove(*index);
            let mut pick = self.pick_but(&others).unwrap();
            pick.failed(reason, self.now, &mut self.rng);
        }
    }

    fn view(&self, index: usize) -> View {
        self.balancer.view(self.now).remove(index)
    }
}

#[test]
fn nobody_to_pick() {
    let mut world = World::new(0);
    assert!(world.balancer.is_empty());
    assert!(world.pick().is_none());
    let mut world = World::new(2);
    assert!(world.pick_but(&[node(0), node(1)]).is_none());
    let pick = world.pick_but(&[node(0)]).unwrap();
    assert_eq!(pick.instance().node, node(1));
}

#[test]
fn a_slow_instance_gets_few_calls_and_is_tried_again() {
    let mut world = World::new(3);
    let slow = |index| if index == 0 { ms(200) } else { ms(10) };
    let got = world.calls(3000, ms(10), slow);
    assert!((1..150).contains(&got[0]), "{got:?}");
    // Once it is quick again it gets its share within a minute or two.
    world.calls(6000, ms(20), |_| ms(10));
    let got = world.calls(3000, ms(10), |_| ms(10));
    assert!(got[0] > 800, "{got:?}");
}

#[test]
fn weights_hold_however_seldom_calls_come() {
    for gap in [ms(1), ms(1000), ms(60_000)] {
        let mut world = World::new(2);
        world.announce(|instances| instances[1].weight = 900);
        let got = world.calls(4000, gap, |_| ms(10));
        assert!((300..500).contains(&got[0]), "{gap:?}: {got:?}");
    }
}

#[test]
fn calls_in_flight_make_an_instance_dearer() {
    let mut world = World::new(2);
    world.calls(100, ms(10), |_| ms(10));
    let held: Vec<_> = (0..10).map(|_| world.pick().unwrap()).collect();
    let mut of_first = held
        .iter()
        .filter(|pick| pick.instance().node == node(0))
        .count();
    assert!((3..=7).contains(&of_first), "{of_first}");
    drop(held);
    of_first = world.view(0).in_flight as usize + world.view(1).in_flight as usize;
    assert_eq!(of_first, 0, "dropping a pick counts it out");
}

/// `clients` that always have one call under way, each call taking `latency` of its instance.
fn closed_loop(
    world: &mut World,
    clients: usize,
    calls: usize,
    latency: impl Fn(usize, &mut fastrand::Rng) -> Duration,
) -> Vec<usize> {
    let mut dice = fastrand::Rng::with_seed(3);
    let mut under_way: Vec<(Instant, Pick)> = Vec::new();
    let mut got = vec![0; world.instances.len()];
    for _ in 0..calls {
        if under_way.len() == clients {
            let next = (0..clients).min_by_key(|at| under_way[*at].0).unwrap();
            let (end, mut pick) = under_way.swap_remove(next);
            world.now = end;
            pick.answered(end);
        }
        let pick = world.pick().unwrap();
        let index = world.index(&pick);
        got[index] += 1;
        under_way.push((world.now + latency(index, &mut dice), pick));
    }
    got
}

#[test]
fn many_clients_share_by_weight_though_latency_varies() {
    let mut world = World::with_room(3, 1000);
    world.announce(|instances| instances[2].weight = 200);
    let got = closed_loop(&mut world, 64, 20_000, |_, dice| ms(2 + dice.u64(0..20)));
    assert!(
        (4000..6000).contains(&got[0]) && (4000..6000).contains(&got[1]),
        "{got:?}"
    );
}

#[test]
fn many_clients_avoid_a_slow_instance_but_not_altogether() {
    let mut world = World::with_room(3, 1000);
    let slow =
        |index, dice: &mut fastrand::Rng| ms(if index == 0 { 100 } else { 2 + dice.u64(0..8) });
    let got = closed_loop(&mut world, 64, 20_000, slow);
    assert!((1..2000).contains(&got[0]), "{got:?}");
}

#[test]
fn a_failed_connection_ejects_until_the_backoff_ends_and_one_call_finds_out() {
    let mut world = World::new(3);
    world.fail(&[0], Reason::ConnectFailed);
    let ejected_for = world.view(0).ejected_for.unwrap();
    assert!(
        (ms(750)..=ms(1250)).contains(&ejected_for),
        "{ejected_for:?}"
    );
    assert_eq!(world.calls(200, Duration::ZERO, |_| ms(1))[0], 0);

    world.wait(ejected_for);
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(world.pick().unwrap());
    }
    let probes: Vec<_> = held
        .iter()
        .filter(|pick| pick.instance().node == node(0))
        .collect();
    assert_eq!(probes.len(), 1, "one call finds out");
    let at = held.iter().position(Pick::is_probe).unwrap();
    held[at].answered(world.now + ms(1));
    assert_eq!(world.view(0).ejected_for, None);
    drop(held);
    assert!(world.calls(200, Duration::ZERO, |_| ms(1))[0] > 30);
}

#[test]
fn a_probe_that_fails_or_is_given_up() {
    let mut world = World::new(2);
    world.fail(&[0], Reason::AppUnreachable);
    world.wait(ms(1250));
    // Given up: the next call may probe.
    let pick = world.pick_but(&[node(1)]).unwrap();
    assert!(pick.is_probe() && !pick.is_last_resort());
    drop(pick);
    // Failed: ejected for longer.
    world.fail(&[0], Reason::AppUnreachable);
    let ejected_for = world.view(0).ejected_for.unwrap();
    assert!(
        (ms(1500)..=ms(2500)).contains(&ejected_for),
        "{ejected_for:?}"
    );
}

#[test]
fn all_ejected_is_not_none() {
    let mut world = World::new(3);
    world.fail(&[0, 1, 2], Reason::ConnectFailed);
    world.announce(|instances| instances[1].healthy = false);
    for _ in 0..50 {
        let pick = world.pick().unwrap();
        assert!(pick.is_last_resort());
        assert_ne!(
            world.index(&pick),
            1,
            "what its own node calls unhealthy comes last"
        );
    }
    // One that works after all is good again.
    let mut pick = world.pick().unwrap();
    pick.answered(world.now);
    assert!(!world.pick().unwrap().is_last_resort());

    let mut world = World::new(1);
    world.announce(|instances| instances[0].healthy = false);
    assert!(world.pick().unwrap().is_last_resort());
}

#[test]
fn suspects_and_the_draining_come_after_the_rest() {
    let mut world = World::new(3);
    world.announce(|instances| {
        instances[0].liveness = Liveness::Suspect;
        instances[1].weight = 0;
    });
    assert_eq!(world.calls(50, ms(1), |_| ms(1))[2], 50);
    world.announce(|instances| instances.truncate(2));
    assert!(!world.pick().unwrap().is_last_resort());
}

#[test]
fn what_is_known_survives_a_new_snapshot() {
    let mut world = World::new(2);
    world.calls(100, ms(10), |_| ms(10));
    world.fail(&[0], Reason::ConnectFailed);
    let held = world.pick().unwrap();
    let of = world.index(&held);
    world.announce(|instances| {
        instances[0].weight = 7;
        instances.push(instance(5));
    });
    assert!(world.view(0).ejected_for.is_some());
    assert_eq!(world.view(0).instance.weight, 7);
    assert!(world.view(1).latency.is_some());
    assert_eq!(world.view(of).in_flight, 1);
    drop(held);
    assert_eq!(world.view(of).in_flight, 0);

    world.announce(|instances| instances[0].addr.set_port(7500));
    assert_eq!(world.view(0).ejected_for, None, "it moved");
    world.fail(&[0], Reason::ConnectFailed);
    world.announce(|instances| instances[0].healthy = false);
    assert!(world.view(0).ejected_for.is_some());
    world.announce(|instances| instances[0].healthy = true);
    assert_eq!(
        world.view(0).ejected_for,
        None,
        "its owner says it works again"
    );
}

#[test]
fn each_call_is_recorded_once() {
    let mut world = World::new(1);
    let mut pick = world.pick().unwrap();
    pick.answered(world.now + ms(10));
    pick.answered(world.now + ms(900));
    pick.failed(
        Reason::UpstreamReset,
        world.now + ms(900),
        &mut fastrand::Rng::with_seed(1),
    );
    drop(pick);
    let view = world.view(0);
    assert_eq!((view.latency, view.in_flight), (Some(ms(10)), 0));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_gives_up_does_not_make_an_instance_look_quick() {
    let mut world = World::new(1);
    world.calls(1, Duration::ZERO, |_| ms(10));
    let pick = world.pick().unwrap();
    tokio::time::advance(ms(500)).await;
    drop(pick);
    assert!(world.view(0).latency.unwrap() >= ms(500));
}

#[test]
fn many_threads_leave_no_call_in_flight() {
    let world = World::new(3);
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (lane, now) = (world.balancer.lane(&Arc::default()), world.now);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(seed);
                let subset = &Subset::default();
                for call in 0..2000 {
                    let ask = Ask {
                        skip: &[],
                        subset,
                        key: None,
                    };
                    let mut pick = lane.pick(&ask, now, &mut rng).unwrap();
                    match call % 5 {
                        0 => pick.failed(Reason::ConnectFailed, now, &mut rng),
                        1 => drop(pick),
                        _ => pick.answered(now),
                    }
                }
            });
        }
    });
    assert!((0..3).all(|index| world.view(index).in_flight == 0));
}

proptest! {
    /// Instances that do equally well share by weight.
    #[test]
    fn shares_follow_weights(weights in prop::collection::vec(1_u32..=1000, 1..6), seed: u64, gap in 0_u64..2000) {
        let mut world = World::new(weights.len());
        world.rng = fastrand::Rng::with_seed(seed);
        world.announce(|instances| {
            instances.iter_mut().zip(&weights).for_each(|(instance, weight)| instance.weight = *weight);
        });
        let count = 2000;
        let got = world.calls(count, ms(gap), |_| ms(5));
        let total: u32 = weights.iter().sum();
        for (got, weight) in got.iter().zip(&weights) {
            let share = f64::from(*weight) / f64::from(total);
            // Five standard deviations of a binomial.
            let margin = 5.0 * (count as f64 * share * (1.0 - share)).sqrt() + 1.0;
            prop_assert!((*got as f64 - count as f64 * share).abs() <= margin, "{weights:?}: {got} for {weight}");
        }
    }

    /// Whatever happens, an instance that is ejected gets nothing while another is good, and there is always an answer.
    #[test]
    fn never_an_ejected_one_while_another_is_good(events in prop::collection::vec((0_usize..4, 0_u8..4, 0_u64..3000), 1..80)) {
        let mut world = World::new(4);
        let mut held = Vec::new();
        for (index, event, gap) in events {
            world.wait(ms(gap));
            match event {
                0 => world.fail(&[index], Reason::ConnectFailed),
                1 => world.announce(|instances| instances[index].healthy ^= true),
                2 => held.truncate(index),
                _ => {}
            }
            let is_good = |view: &View| view.instance.healthy && view.ejected_for.is_none();
            let before = world.balancer.view(world.now);
            let pick = world.pick().unwrap();
            let chosen = &before[world.index(&pick)];
            if before.iter().any(is_good) {
                prop_assert!(!pick.is_last_resort());
                prop_assert!(chosen.instance.healthy);
                prop_assert!(chosen.ejected_for.is_none_or(|left| left.is_zero()));
            }
            held.push(pick);
        }
        drop(held);
        prop_assert!(world.balancer.view(world.now).iter().all(|view| view.in_flight == 0));
    }
}
