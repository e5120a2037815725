//! How long a certificate lives, by the dates in it.

use std::time::{Duration, SystemTime};

use starling_transport::Leaf;

use super::BACKDATED;

/// The life of a leaf, without the minutes by which issuers date back. Who asks for a renewal and who grants it count by this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life {
    /// When the leaf was signed, by the clock of its issuer.
    pub(crate) begins: SystemTime,
    /// Until its end.
    pub(crate) length: Duration,
}

impl Life {
    pub(crate) fn of(leaf: &Leaf) -> Self {
        let begins = (leaf.not_before + BACKDATED).min(leaf.not_after);
        Self {
            begins,
            length: leaf.not_after.duration_since(begins).unwrap_or_default(),
        }
    }

    /// When a third of it is over: no leaf is renewed before.
    pub(crate) fn third(&self) -> SystemTime {
        self.begins + self.length / 3
    }

    /// When three quarters of it are over. A node that was refused once or twice has renewed it by then.
    pub(crate) fn three_quarters(&self) -> SystemTime {
        self.begins + self.length.mul_f64(0.75)
    }
}
