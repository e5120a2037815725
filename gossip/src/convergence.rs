//! How long the mesh takes to hear what this node announces. Pure: the caller brings the clock.
//!
//! Peers say with each exchange which of our announcements they hold. So this measures when we know that they have it, which is
//! later than when they have it: in a cell of 256 nodes up to a minute and a half, by the time all of them spoke with us.

use std::time::Duration;

use tokio::time::Instant;

/// Which announcement of which life.
type Announcement = (u64, u64);

/// The newest announcement, and whether all have it.
#[derive(Debug, Default)]
pub(crate) struct Convergence {
    newest: Option<(Announcement, Instant)>,
    is_known: bool,
}

impl Convergence {
    /// Takes what peers that are here are known to hold; `None` of one that did not say. Returns how many are behind, and, once
    /// for each announcement, how long it took until nobody was.
    pub(crate) fn look(
        &mut self,
        newest: Announcement,
        held: impl Iterator<Item = Option<Announcement>>,
        now: Instant,
    ) -> (usize, Option<Duration>) {
        let (announcement, since) = *self.newest.get_or_insert((newest, now));
        let since = if announcement == newest {
            since
        } else {
            (self.newest, self.is_known) = (Some((newest, now)), false);
            now
        };
        let (mut peers, mut behind) = (0, 0);
        for held in held {
            peers += 1;
            behind += usize::from(held.is_none_or(|held| held < newest));
        }
        // Nobody to hear it is not the same as everybody having heard it.
        let is_news = peers > 0 && behind == 0 && !self.is_known;
        self.is_known |= is_news;
        (
            behind,
            is_news.then(|| now.saturating_duration_since(since)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_is_over_when_the_last_one_has_it() {
        let (mut convergence, began) = (Convergence::default(), Instant::now());
        let at = |millis| began + Duration::from_millis(millis);
        let mut look = |newest, held: &[Option<Announcement>], millis| {
            convergence.look(newest, held.iter().copied(), at(millis))
        };
        assert_eq!(look((1, 1), &[], 0), (0, None));
        assert_eq!(look((1, 1), &[None, None], 500), (2, None));
        assert_eq!(look((1, 1), &[Some((1, 1)), None], 1_000), (1, None));
        let took = Some(Duration::from_millis(1_500));
        assert_eq!(
            look((1, 1), &[Some((1, 1)), Some((1, 2))], 1_500),
            (0, took)
        );
        assert_eq!(
            look((1, 1), &[Some((1, 1)), Some((1, 2))], 2_000),
            (0, None)
        );
        // Another one begins anew; an older life does not count.
        assert_eq!(
            look((2, 1), &[Some((1, 9)), Some((2, 1))], 3_000),
            (1, None)
        );
        let took = Some(Duration::from_millis(250));
        assert_eq!(look((2, 1), &[Some((2, 1)); 2], 3_250), (0, took));
    }
}
