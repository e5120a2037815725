//! How good the choices are: against an oracle that knows when each instance would be done, on the same trace of calls.
//! Simulated, so that the figures are the same on every machine.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;
use crate::config::Algorithm;

const INSTANCES: usize = 10;
/// Calls that an instance works on at a time; others wait in front of it.
const WORKERS: usize = 4;
/// Each sees only its own calls, as agents do.
const AGENTS: usize = 4;
const CALLS: usize = 40_000;
/// Mean time that one call takes.
const WORK_S: f64 = 0.010;
/// How busy the instances are as a whole.
const UTILIZATION: f64 = 0.6;

/// A call before anyone decided where it goes.
struct Arrival {
    at: Duration,
    agent: usize,
    work: Duration,
}

/// The same calls for everyone: arrivals and work as exponential variates.
fn trace() -> Vec<Arrival> {
    let mut rng = fastrand::Rng::with_seed(42);
    let gap = WORK_S / (UTILIZATION * (INSTANCES * WORKERS) as f64);
    let mut at = 0.0;
    (0..CALLS)
        .map(|_| {
            let mut exponential = |mean: f64| -(1.0 - rng.f64()).ln() * mean;
            at += exponential(gap);
            let work = Duration::from_secs_f64(exponential(WORK_S));
            Arrival {
                at: Duration::from_secs_f64(at),
                agent: rng.usize(..AGENTS),
                work,
            }
        })
        .collect()
}

/// Instances with a queue each. The first works so many times slower than the others.
struct Farm {
    free: Vec<[Instant; WORKERS]>,
    slowness: u32,
}

impl Farm {
    fn new(slowness: u32, now: Instant) -> Self {
        Self {
            free: vec![[now; WORKERS]; INSTANCES],
            slowness,
        }
    }

    /// When a call that comes now would be done, and by which worker.
    fn end(&self, index: usize, work: Duration, now: Instant) -> (Instant, usize) {
        let workers = self.free[index].iter().copied().enumerate();
        let (worker, free) = workers.min_by_key(|(_, free)| *free).unwrap();
        let factor = if index == 0 { self.slowness } else { 1 };
        (free.max(now) + work * factor, worker)
    }

    fn take(&mut self, index: usize, work: Duration, now: Instant) -> Instant {
        let (end, worker) = self.end(index, work, now);
        self.free[index][worker] = end;
        end
    }
}

/// The latency that 99 of 100 calls stay below, in milliseconds.
fn p99(mut latencies: Vec<Duration>) -> f64 {
    latencies.sort_unstable();
    latencies[latencies.len() * 99 / 100].as_secs_f64() * 1000.0
}

/// Each call goes to the instance that would be done with it first.
fn oracle(slowness: u32) -> f64 {
    let start = Instant::now();
    let mut farm = Farm::new(slowness, start);
    let latencies = trace().into_iter().map(|call| {
        let now = start + call.at;
        let ends = (0..INSTANCES).map(|index| (farm.end(index, call.work, now).0, index));
        let (_, index) = ends.min().unwrap();
        farm.take(index, call.work, now) - now
    });
    p99(latencies.collect())
}

/// Agents that balance by `algorithm`. Also the percentage of calls that the first instance got.
fn balanced(algorithm: &Algorithm, slowness: u32) -> (f64, f64) {
    let mut agents: Vec<_> = (0..AGENTS)
        .map(|agent| {
            let mut world = World::with_room(INSTANCES, 1000);
            world.set(|settings| settings.balance.algorithm = algorithm.clone());
            world.rng = fastrand::Rng::with_seed(agent as u64);
            world
        })
        .collect();
    let start = agents[0].now;
    let mut farm = Farm::new(slowness, start);
    let mut under_way = BinaryHeap::new();
    let mut picks = Vec::new();
    let mut latencies = Vec::new();
    let mut to_first = 0;
    for (id, call) in trace().into_iter().enumerate() {
        let now = start + call.at;
        while let Some(Reverse((end, id))) = under_way.peek().copied()
            && end <= now
        {
            under_way.pop();
            let pick: &mut Option<Pick> = &mut picks[id];
            pick.take().unwrap().answered(end);
        }
        let world = &mut agents[call.agent];
        world.now = now;
        let pick = world.pick().unwrap();
        let index = world.index(&pick);
        to_first += usize::from(index == 0);
        let end = farm.take(index, call.work, now);
        latencies.push(end - now);
        picks.push(Some(pick));
        under_way.push(Reverse((end, id)));
    }
    let share = 100.0 * to_first as f64 / latencies.len() as f64;
    (p99(latencies), share)
}

#[test]
fn a_slow_instance_costs_little_and_an_oracle_does_not_much_better() {
    let healthy = balanced(&Algorithm::PeakEwma, 1);
    let slow = balanced(&Algorithm::PeakEwma, 10);
    let (oracle_healthy, oracle_slow) = (oracle(1), oracle(10));
    let told = format!(
        "p99 in ms: healthy {:.1}, one slow {:.1} (it got {:.2} %); oracle {oracle_healthy:.1} and {oracle_slow:.1}",
        healthy.0, slow.0, slow.1
    );
    println!("{told}");
    assert!(slow.0 <= 1.5 * healthy.0, "{told}");
    assert!(slow.0 <= 2.0 * oracle_slow, "{told}");
    assert!(healthy.0 <= 2.0 * oracle_healthy, "{told}");
    assert!(slow.1 > 0.0, "it is tried again: {told}");
}

#[test]
fn in_turn_a_slow_instance_costs_more() {
    let slow = balanced(&Algorithm::RoundRobin, 10);
    let best = balanced(&Algorithm::PeakEwma, 10);
    println!(
        "p99 in ms: round robin {:.1}, peak ewma {:.1}",
        slow.0, best.0
    );
    assert!(slow.0 > 3.0 * best.0);
}
