//! Which zone takes a call: the nearest, as far as its usable capacity goes.

use crate::config::Zone;

/// The caller's own zone, six of a failover order, and all others as one.
pub(super) const GROUPS: usize = 8;

/// What a zone has, by weight.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Capacity {
    pub(super) all: f64,
    pub(super) usable: f64,
}

/// The place of `zone` in the order that a caller in `own` follows; 0 comes first.
pub(super) fn group(settings: &Zone, own: &str, zone: &str) -> usize {
    if !settings.prefer || zone == own {
        return 0;
    }
    let order = settings.failover.iter().take(GROUPS - 2);
    order
        .zip(1..)
        .find(|(listed, _)| *listed == zone)
        .map_or(GROUPS - 1, |(_, place)| place)
}

/// The share of calls of each group. A group takes what earlier ones left, as far as its usable part reaches, measured
/// against `spill_below`; if all are short, they share in proportion. Sums to 1 unless nothing is usable.
pub(super) fn shares(groups: &[Capacity; GROUPS], spill_below: u8) -> [f64; GROUPS] {
    let enough = f64::from(spill_below.max(1)) / 100.0;
    let mut left = 1.0_f64;
    let mut shares = groups.map(|group| {
        if group.all <= 0.0 {
            return 0.0;
        }
        let share = left.min(group.usable / group.all / enough);
        left -= share;
        share
    });
    let total: f64 = shares.iter().sum();
    if total > 0.0 {
        shares.iter_mut().for_each(|share| *share /= total);
    }
    shares
}

/// The group that takes a call; `dice` is within 0 to 1.
pub(super) fn choose(shares: &[f64; GROUPS], mut dice: f64) -> usize {
    for (group, share) in shares.iter().enumerate() {
        if dice < *share {
            return group;
        }
        dice -= share;
    }
    // What rounding left over goes to the last one that has a share.
    shares.iter().rposition(|share| *share > 0.0).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(groups: &[(f64, f64)], expected: &[f64]) {
        let mut capacity = [Capacity::default(); GROUPS];
        for (slot, (all, usable)) in capacity.iter_mut().zip(groups) {
            *slot = Capacity {
                all: *all,
                usable: *usable,
            };
        }
        let got = shares(&capacity, 70);
        for (index, share) in got.iter().enumerate() {
            let wanted = expected.get(index).copied().unwrap_or_default();
            assert!((share - wanted).abs() < 0.01, "{groups:?}: {got:?}");
        }
    }

    #[test]
    fn a_zone_gives_away_what_it_cannot_carry() {
        check(&[(300.0, 300.0), (300.0, 300.0)], &[1.0]);
        check(&[(300.0, 210.0), (300.0, 300.0)], &[1.0]);
        check(&[(300.0, 105.0), (300.0, 300.0)], &[0.5, 0.5]);
        check(&[(300.0, 0.0), (300.0, 300.0)], &[0.0, 1.0]);
        check(&[(0.0, 0.0), (300.0, 300.0)], &[0.0, 1.0]);
        // The second is short as well: the third takes the rest.
        check(
            &[(300.0, 105.0), (300.0, 52.5), (300.0, 300.0)],
            &[0.5, 0.25, 0.25],
        );
        // All are short: in proportion.
        check(&[(300.0, 105.0), (300.0, 52.5)], &[0.667, 0.333]);
        check(&[(300.0, 0.0)], &[]);
    }

    #[test]
    fn the_order_is_own_failover_rest() {
        let zone = Zone {
            failover: vec!["b".into(), "c".into()],
            ..Zone::default()
        };
        let places = ["a", "b", "c", "d"].map(|name| group(&zone, "a", name));
        assert_eq!(places, [0, 1, 2, GROUPS - 1]);
        let same = Zone {
            prefer: false,
            ..Zone::default()
        };
        assert_eq!(["a", "b"].map(|name| group(&same, "a", name)), [0, 0]);
    }

    proptest! {
        #[test]
        fn shares_sum_to_one_and_choices_follow_them(
            groups in prop::collection::vec((0.0..1000.0_f64, 0.0..=1.0_f64), 0..=GROUPS),
            spill in 1_u8..=100,
            dice in 0.0..1.0_f64,
        ) {
            let mut capacity = [Capacity::default(); GROUPS];
            for (slot, (all, part)) in capacity.iter_mut().zip(&groups) {
                *slot = Capacity { all: *all, usable: all * part };
            }
            let shares = shares(&capacity, spill);
            let total: f64 = shares.iter().sum();
            let is_any = capacity.iter().any(|group| group.usable > 0.0);
            let expected = if is_any { 1.0 } else { 0.0 };
            prop_assert!((total - expected).abs() < 1e-6);
            if is_any {
                prop_assert!(shares[choose(&shares, dice)] > 0.0);
            }
        }
    }
}
