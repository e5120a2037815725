//! Maglev's table (Eisenbud et al., NSDI 2016): one look-up per key, shares as even as can be, few keys moved when
//! instances come or go.

use crate::hash;

/// A prime, so that every step visits all slots. The paper's size: with 100 instances shares differ by less than 1 %.
pub(super) const SLOTS: usize = 65_537;

/// The table of some members, who are known by their place in the list it was made of.
#[derive(Debug)]
pub(super) struct Maglev(Vec<u16>);

impl Maglev {
    /// Of members with a name and a weight each. Takes a millisecond or two: not for the request path.
    pub(super) fn new(members: &[(&str, f64)]) -> Self {
        let heaviest = members
            .iter()
            .map(|(_, weight)| *weight)
            .fold(f64::MIN_POSITIVE, f64::max);
        let mut takers: Vec<_> = members
            .iter()
            .take(usize::from(FREE))
            .map(|(name, weight)| Taker::new(name, weight / heaviest))
            .collect();
        let mut slots = vec![FREE; SLOTS];
        let mut left = if takers.is_empty() { 0 } else { SLOTS };
        while left > 0 {
            for (index, taker) in takers.iter_mut().enumerate() {
                // The heaviest takes a slot in every turn, the others in their part of the turns.
                taker.credit += taker.share;
                if taker.credit < 1.0 || left == 0 {
                    continue;
                }
                taker.credit -= 1.0;
                while slots[taker.at] != FREE {
                    taker.step();
                }
                slots[taker.at] = index as u16;
                left -= 1;
            }
        }
        Self(slots)
    }

    /// Members in the order in which they would take the key, some of them more than once; ends after a few.
    pub(super) fn walk(&self, key: u64) -> impl Iterator<Item = usize> + '_ {
        let slot = move |round| self.0[(hash::again(key, round) % SLOTS as u64) as usize];
        (0..ROUNDS)
            .map(slot)
            .filter(|member| *member != FREE)
            .map(usize::from)
    }
}

/// A member that takes slots in an order of its own.
struct Taker {
    at: usize,
    skip: usize,
    share: f64,
    credit: f64,
}

impl Taker {
    fn new(name: &str, share: f64) -> Self {
        let name = hash::of(name.as_bytes());
        Self {
            at: (hash::again(name, 1) % SLOTS as u64) as usize,
            skip: (hash::again(name, 2) % (SLOTS as u64 - 1)) as usize + 1,
            share,
            credit: 0.0,
        }
    }

    fn step(&mut self) {
        self.at = (self.at + self.skip) % SLOTS;
    }
}

/// No member.
const FREE: u16 = u16::MAX;

/// Looks for a usable instance by so many rounds: with half of them out, one key in 65,536 finds none and is placed as if
/// it had no key.
const ROUNDS: u64 = 16;
