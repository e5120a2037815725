//! When checks make an app healthy or unhealthy. Pure.

/// Counts results in a row. The first result decides at once: there is nothing yet to be careful about.
#[derive(Debug)]
pub(super) struct Threshold {
    up: u32,
    down: u32,
    /// `None` before the first result.
    healthy: Option<bool>,
    /// Results in a row that speak against the present state.
    against: u32,
}

impl Threshold {
    pub(super) fn new(up: u32, down: u32) -> Self {
        Self {
            up,
            down,
            healthy: None,
            against: 0,
        }
    }

    /// Returns whether this result changes the state, to what it says itself.
    pub(super) fn record(&mut self, passed: bool) -> bool {
        if self.healthy == Some(passed) {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let needed = match self.healthy {
            None => 1,
            Some(true) => self.down,
            Some(false) => self.up,
        };
        let changes = self.against >= needed;
        if changes {
            self.healthy = Some(passed);
            self.against = 0;
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Results as `+` and `-`, and the state after each.
    fn check(up: u32, down: u32, results: &str, states: &str) {
        let mut threshold = Threshold::new(up, down);
        let mut state = ' ';
        let after: String = results
            .chars()
            .map(|result| {
                if threshold.record(result == '+') {
                    state = result;
                }
                state
            })
            .collect();
        assert_eq!(after, states, "up {up}, down {down}: {results}");
    }

    #[test]
    fn results_in_a_row_decide() {
        check(2, 2, "+-+-+-", "++++++");
        check(2, 2, "+--", "++-");
        check(2, 2, "-+-++", "----+");
        check(2, 3, "+--+---", "++++++-");
        check(3, 1, "-++-+++", "------+");
        check(1, 1, "+-+-", "+-+-");
    }

    #[test]
    fn zero_counts_as_one() {
        check(0, 0, "+-+-", "+-+-");
    }
}
