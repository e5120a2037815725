//! Who is left out for errors, spared, or warming up.

use super::*;
use crate::config::Outlier;

impl World {
    /// Makes calls `gap` apart; `fails` says which of an instance's calls the app answers with an error.
    fn answers(
        &mut self,
        count: usize,
        gap: Duration,
        fails: impl Fn(usize, usize) -> bool,
    ) -> Vec<usize> {
        let mut got = vec![0; self.instances.len()];
        for _ in 0..count {
            let mut pick = self.pick().unwrap();
            let index = self.index(&pick);
            got[index] += 1;
            let end = self.now + ms(5);
            if fails(index, got[index]) {
                pick.answered_with_error(end, &mut self.rng);
            } else {
                pick.answered(end);
            }
            self.wait(gap);
        }
        got
    }

    fn ejected(&self) -> usize {
        let views = self.balancer.view(self.now);
        views
            .iter()
            .filter(|view| view.ejected_for.is_some())
            .count()
    }
}

#[test]
fn refusals_of_the_call_itself_are_not_the_instances_fault() {
    let mut world = World::new(2);
    for _ in 0..50 {
        world.fail(&[0], Reason::Denied);
    }
    assert_eq!(world.view(0).ejected_for, None);
    for _ in 0..5 {
        world.fail(&[0], Reason::Timeout);
    }
    assert!(world.view(0).ejected_for.is_some());
}

#[test]
fn errors_of_apps_count_only_where_somebody_wants_it() {
    let mut world = World::new(3);
    world.answers(300, ms(1), |index, _| index == 0);
    assert_eq!(world.ejected(), 0);
    world.set(|settings| settings.outlier = Outlier::declared());
    let got = world.answers(300, ms(1), |index, _| index == 0);
    assert!(got[0] < 10, "{got:?}");
    assert_eq!(world.ejected(), 1);
}

#[test]
fn a_success_rate_far_below_the_others_ejects() {
    let mut world = World::with_room(5, 100);
    world.set(|settings| {
        settings.outlier = Outlier {
            consecutive: 0,
            ..Outlier::declared()
        };
    });
    world.answers(1000, ms(2), |index, call| index == 0 && call % 2 == 0);
    assert!(world.view(0).ejected_for.is_some());
    assert_eq!(world.ejected(), 1);

    // All do equally badly: nobody is the odd one out.
    let mut world = World::with_room(5, 100);
    world.set(|settings| {
        settings.outlier = Outlier {
            consecutive: 0,
            ..Outlier::declared()
        };
    });
    world.answers(2000, ms(2), |_, call| call % 2 == 0);
    assert_eq!(world.ejected(), 0);
}

#[test]
fn only_so_many_are_left_out_for_errors() {
    for (max_share, expected) in [(0, 0), (25, 2), (50, 5), (100, 10)] {
        let mut world = World::with_room(10, 100);
        world.set(|settings| {
            settings.outlier = Outlier {
                max_share,
                ..Outlier::declared()
            };
        });
        for _ in 0..500 {
            let mut pick = world.pick().unwrap();
            pick.answered_with_error(world.now, &mut world.rng);
        }
        assert_eq!(world.ejected(), expected, "{max_share} %");
    }
}

#[test]
fn nobody_can_use_the_dead_whatever_the_share() {
    let mut world = World::new(4);
    world.set(|settings| settings.outlier.max_share = 0);
    world.fail(&[0, 1, 2], Reason::ConnectFailed);
    assert_eq!(world.ejected(), 3);
    assert_eq!(world.calls(100, Duration::ZERO, |_| ms(1))[3], 100);
}

#[test]
fn in_a_panic_errors_are_overlooked_but_not_death() {
    let mut world = World::with_room(4, 1000);
    world.set(|settings| {
        settings.balance.panic = 60;
        settings.outlier.max_share = 100;
    });
    world.fail(&[0], Reason::ConnectFailed);
    for _ in 0..5 {
        world.fail(&[1, 2], Reason::Timeout);
    }
    assert_eq!(world.ejected(), 3);
    // Only each first call of those ejected may count, so they are not told how it went.
    let mut got = [0; 4];
    for _ in 0..400 {
        let pick = world.pick().unwrap();
        got[world.index(&pick)] += 1;
    }
    assert_eq!(got[0], 0, "{got:?}");
    assert!(got[1..].iter().all(|calls| *calls > 80), "{got:?}");
}

#[test]
fn who_asks_to_be_spared_comes_last_for_a_while() {
    let mut world = World::new(3);
    world
        .pick_but(&[node(1), node(2)])
        .unwrap()
        .spare(Duration::from_secs(5), world.now);
    assert_eq!(world.view(0).spared_for, Some(Duration::from_secs(5)));
    assert_eq!(world.calls(400, ms(10), |_| ms(1))[0], 0);
    world.wait(Duration::from_secs(1));
    assert!(world.calls(400, ms(10), |_| ms(1))[0] > 80);
    // All of them: there is nobody else to ask.
    for others in [[1, 2], [0, 2], [0, 1]] {
        let now = world.now;
        let skip = others.map(node);
        world
            .pick_but(&skip)
            .unwrap()
            .spare(Duration::from_secs(3600), now);
    }
    assert!(!world.pick().unwrap().is_last_resort());
    world.wait(Duration::from_secs(30));
    assert_eq!(
        world.view(0).spared_for,
        None,
        "no longer than half a minute"
    );
}

#[test]
fn a_newcomer_warms_up() {
    let mut world = World::with_room(3, 1000);
    world.set(|settings| settings.balance.slow_start = Duration::from_secs(60));
    let got = world.calls(900, Duration::ZERO, |_| ms(1));
    assert!(
        got[0] > 200,
        "those that were there first are warm: {got:?}"
    );
    world.announce(|instances| instances.push(instance(3)));
    let mut shares = Vec::new();
    for _ in 0..4 {
        shares.push(world.calls(2000, ms(10), |_| ms(1))[3]);
    }
    assert!(shares[0] < 200, "{shares:?}");
    assert!(shares.is_sorted(), "{shares:?}");
    assert!((400..600).contains(&shares[3]), "{shares:?}");
}

#[test]
fn quick_errors_draw_no_calls() {
    let mut world = World::with_room(3, 1000);
    let mut got = [0; 3];
    for _ in 0..3000 {
        let mut pick = world.pick().unwrap();
        let index = world.index(&pick);
        got[index] += 1;
        if index == 0 {
            pick.answered_with_error(world.now, &mut world.rng);
        } else {
            pick.answered(world.now + ms(50));
        }
        world.wait(ms(5));
    }
    assert!(got[0] < 1300, "{got:?}");
}
