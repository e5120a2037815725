//! A hash ring: each instance has points on it by weight, and a key belongs to the next point.

use crate::hash;

/// Points of an instance of average weight: keys then spread within some 10 % of the weights.
const POINTS: f64 = 160.0;
/// Weights differ by up to 1000; a ring of a few hundred instances stays below a few MiB.
const POINTS_MAX: f64 = 1600.0;

/// The ring of some members, who are known by their place in the list it was made of.
#[derive(Debug)]
pub(super) struct Ring(Vec<(u64, u16)>);

impl Ring {
    /// Of members with a name and a weight each. An instance that comes or goes moves only its own share of keys.
    pub(super) fn new(members: &[(&str, f64)]) -> Self {
        let mean = members.iter().map(|(_, weight)| weight).sum::<f64>() / members.len() as f64;
        let mut points = Vec::new();
        for (index, (name, weight)) in members.iter().enumerate().take(usize::from(u16::MAX)) {
            let count = (POINTS * weight / mean).round().clamp(1.0, POINTS_MAX) as u64;
            let name = hash::of(name.as_bytes());
            points.extend((0..count).map(|point| (hash::again(name, point), index as u16)));
        }
        points.sort_unstable();
        Self(points)
    }

    /// Members in the order in which they would take the key; each may come more than once.
    pub(super) fn walk(&self, key: u64) -> impl Iterator<Item = usize> + '_ {
        let first = self.0.partition_point(|(point, _)| *point < key);
        let (before, after) = self.0.split_at(first);
        after
            .iter()
            .chain(before)
            .map(|(_, member)| usize::from(*member))
    }
}
