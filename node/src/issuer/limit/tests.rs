use proptest::prelude::*;

use super::*;
use crate::renewal::due;
use crate::testing::leaf;

const DAY: Duration = Duration::from_secs(86_400);

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn shifted(at: SystemTime, seconds: f64) -> SystemTime {
    if seconds < 0.0 {
        at - secs(-seconds)
    } else {
        at + secs(seconds)
    }
}

fn refused(taken: Result<Turn, NotYet>) -> (Why, Duration) {
    let not_yet = taken.unwrap_err();
    (not_yet.why, not_yet.after)
}

/// Lives of certificates, with how far the clocks of a node and of an issuer may differ.
fn lives() -> Vec<(Duration, f64)> {
    let mut lives = vec![(secs(10.0), 1.0), (secs(120.0), 15.0)];
    let mut life = secs(600.0);
    while life < 365 * DAY {
        lives.push((life, 30.0));
        life = life.mul_f64(1.5);
        // Certificates count in whole seconds.
        life = Duration::from_secs(life.as_secs());
    }
    lives.push((365 * DAY, 30.0));
    lives
}

#[test]
fn no_honest_renewal_is_refused() {
    for (life, apart) in lives() {
        for die in 0..=u8::MAX {
            for skew in [-apart, -apart / 2.0, 0.0, apart] {
                let mut limit = Limit::default();
                let (leaf, _) = leaf(life, die);
                let wall = shifted(due(&leaf), skew);
                let taken = limit.take(&leaf, wall, Instant::now());
                assert!(taken.is_ok(), "{life:?} {die} {skew}: {taken:?}");
            }
        }
    }
}

/// One line over twenty renewals: the node asks at `due` by its clock; an issuer with a clock of its own signs and judges.
#[test]
fn a_line_is_renewed_again_and_again_and_never_refused() {
    for (life, apart) in lives() {
        for die in 0..=u8::MAX {
            for skew in [-apart, apart] {
                let mut limit = Limit::default();
                let (mut leaf, signed) = leaf(life, die);
                let start = Instant::now();
                for nth in 0..20 {
                    let asks = due(&leaf);
                    let (wall, now) = (
                        shifted(asks, skew),
                        start + asks.duration_since(signed).unwrap(),
                    );
                    let taken = limit.take(&leaf, wall, now);
                    assert!(taken.is_ok(), "{life:?} {die} {skew} {nth}: {taken:?}");
                    // Dates have whole seconds.
                    let wall = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap();
                    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(wall.as_secs());
                    leaf.not_before = wall - crate::ca::BACKDATED;
                    leaf.not_after = wall + life;
                }
            }
        }
    }
}

#[test]
fn a_leaf_is_renewed_when_a_third_of_its_life_is_over_and_no_sooner() {
    let mut limit = Limit::default();
    let (leaf, signed) = leaf(DAY, 0);
    let now = Instant::now();
    // Also by an issuer whose clock is behind that of the one that signed.
    for (age, left) in [
        (-60, DAY / 3 + secs(60.0)),
        (0, DAY / 3),
        (28_799, secs(1.0)),
    ] {
        let wall = shifted(signed, f64::from(age));
        assert_eq!(refused(limit.take(&leaf, wall, now)), (Why::TooEarly, left));
    }
    assert!(limit.turns.is_empty());
    limit.take(&leaf, signed + DAY / 3, now).unwrap();
}

#[test]
fn a_line_has_one_turn_in_a_tenth_of_a_life_or_a_minute() {
    for (life, interval) in [
        (secs(10.0), secs(1.0)),
        (secs(600.0), secs(60.0)),
        (DAY, secs(60.0)),
    ] {
        let mut limit = Limit::default();
        let (one, signed) = leaf(life, 0);
        // Renewed from the same line, with another key.
        let mut other = one.clone();
        other.key_hash = KeyHash::of(b"another");
        let (wall, now) = (signed + life / 2, Instant::now());
        limit.take(&one, wall, now).unwrap();
        for (leaf, later) in [
            (&one, secs(0.0)),
            (&other, secs(0.25)),
            (&other, interval / 2),
        ] {
            let taken = limit.take(leaf, wall, now + later);
            assert_eq!(refused(taken), (Why::TooOften, interval - later));
        }
        limit.take(&leaf(life, 1).0, wall, now).unwrap();
        limit.take(&other, wall, now + interval).unwrap();
    }
}

#[test]
fn a_leaf_without_a_line_has_turns_by_its_key() {
    let mut limit = Limit::default();
    let (mut one, signed) = leaf(DAY, 0);
    one.line = None;
    let mut other = one.clone();
    other.key_hash = KeyHash::of(b"another");
    let (wall, now) = (signed + DAY / 2, Instant::now());
    limit.take(&one, wall, now).unwrap();
    limit.take(&other, wall, now).unwrap();
    assert_eq!(refused(limit.take(&one, wall, now)).0, Why::TooOften);
}

#[test]
fn a_turn_that_is_given_back_is_there_again_half_a_second_later() {
    let mut limit = Limit::default();
    let (leaf, signed) = leaf(DAY, 0);
    let (wall, now) = (signed + DAY / 2, Instant::now() + DAY);
    let turn = limit.take(&leaf, wall, now).unwrap();
    limit.give_back(&turn);
    let again = limit.take(&leaf, wall, now);
    assert_eq!(refused(again), (Why::TooOften, AFTER_FAILURE));
    limit.take(&leaf, wall, now + AFTER_FAILURE).unwrap();
    // Late, it takes nothing from the next.
    limit.give_back(&turn);
    let again = limit.take(&leaf, wall, now + secs(1.0));
    assert_eq!(refused(again).0, Why::TooOften);
}

/// With less life, less time between turns: an operator who shortens `issuer.lifetime` does not lock the line out.
#[test]
fn the_leaf_that_is_shown_says_how_long_its_line_waits() {
    let mut limit = Limit::default();
    let (long, signed) = leaf(DAY, 0);
    let (short, _) = leaf(secs(10.0), 0);
    let now = Instant::now();
    limit.take(&long, signed + DAY / 2, now).unwrap();
    limit
        .take(&short, signed + secs(5.0), now + secs(5.0))
        .unwrap();
    let again = limit.take(&long, signed + DAY / 2, now + secs(5.5));
    assert_eq!(refused(again), (Why::TooOften, secs(59.5)));
}

#[test]
fn no_more_lines_are_remembered_than_there_is_room_for() {
    let mut limit = Limit::default();
    let (mut leaf, signed) = leaf(DAY, 0);
    leaf.line = None;
    let (wall, start) = (signed + DAY / 2, Instant::now());
    let mut ask = |nth: usize, now: Instant| {
        leaf.key_hash = KeyHash::of(&nth.to_be_bytes());
        let taken = limit.take(&leaf, wall, now).map(drop);
        (taken, limit.turns.len())
    };
    let half = LINES_MAX / 2;
    for nth in 0..half {
        ask(nth, start).0.unwrap();
    }
    for nth in half..LINES_MAX {
        ask(nth, start + secs(30.0)).0.unwrap();
    }
    let full = NotYet {
        why: Why::Full,
        after: secs(29.0),
    };
    assert_eq!(ask(LINES_MAX, start + secs(31.0)), (Err(full), LINES_MAX));
    // It says the truth, and whose turn is remembered is not hindered.
    let known = ask(0, start + secs(59.0)).0.unwrap_err();
    assert_eq!((known.why, known.after), (Why::TooOften, secs(1.0)));
    assert_eq!(ask(LINES_MAX, start + secs(60.0)), (Ok(()), half + 1));
    assert_eq!(ask(0, start + secs(60.0)), (Ok(()), half + 2));
    // What is older goes in passing.
    assert_eq!(ask(LINES_MAX + 1, start + secs(200.0)), (Ok(()), 1));
}

#[test]
fn the_log_has_one_line_a_minute_and_it_counts_all() {
    let mut untold = Untold::default();
    let start = Instant::now();
    let (mut lines, mut counted) = (0, 0);
    for second in 0..=600 {
        for _ in 0..1000 {
            untold.note(second);
            if let Some((times, _)) = untold.tell(start + secs(f64::from(second))) {
                lines += 1;
                counted += times;
            }
        }
    }
    assert_eq!(lines, 11);
    let rest = untold.tell(start + secs(660.0)).unwrap();
    assert_eq!((counted + rest.0, rest.1), (601_000, 600));
    assert_eq!(untold.tell(start + DAY), None);
}

proptest! {
    /// Whatever is shown and whenever: of one line at most one renewal in an interval, and who waits as long as it is told gets
    /// the next.
    #[test]
    fn what_is_told_is_true(
        life in 1..=365 * 86_400_u64,
        over in 0.0..1.0_f64,
        gaps in prop::collection::vec(0.0..100.0_f64, 1..50),
    ) {
        let life = Duration::from_secs(life);
        let (leaf, signed) = leaf(life, 0);
        let mut limit = Limit::default();
        let (wall, mut now) = (signed + life.mul_f64(over), Instant::now());
        let mut last: Option<Instant> = None;
        for gap in gaps {
            now += secs(gap);
            match limit.take(&leaf, wall, now) {
                Ok(_) => {
                    prop_assert!(over > 0.333);
                    let interval = (life / 10).min(INTERVAL_MAX);
                    prop_assert!(last.is_none_or(|last| now >= last + interval));
                    last = Some(now);
                }
                Err(NotYet { why: Why::TooEarly, after }) => {
                    prop_assert!(over < 0.334);
                    limit.take(&leaf, wall + after, now).unwrap();
                    break;
                }
                Err(NotYet { after, .. }) => {
                    now += after;
                    limit.take(&leaf, wall, now).unwrap();
                    last = Some(now);
                }
            }
        }
    }
}
