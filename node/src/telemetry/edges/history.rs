//! An hour of what was counted: fine for the last minute, coarser the longer ago. Pure: the caller brings the clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::sketch::{Packed, Sketch};
use super::tally::{Closed, Tally};

/// How far back to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Window {
    Minute,
    TenMinutes,
    Hour,
}

/// What all edges did in one span of time. Those that did nothing take nothing.
#[derive(Debug, Default)]
struct Frame {
    lasted: Duration,
    edges: BTreeMap<u16, Closed>,
}

/// The frames of the last hour.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Six of ten seconds, the newest last.
    tens: VecDeque<Frame>,
    /// How many of the newest `tens` are not in `minutes` yet.
    tens_apart: usize,
    minutes: VecDeque<Frame>,
    minutes_apart: usize,
    /// Twelve of five minutes.
    fives: VecDeque<Frame>,
    /// What everything takes.
    bytes: usize,
}

/// What one edge did in a window.
#[derive(Debug, Default)]
pub(super) struct Sum {
    pub(super) tally: Tally,
    pub(super) latency: Option<Sketch>,
    /// Some calls' times were dropped for want of memory.
    pub(super) is_thinned: bool,
}

impl Window {
    pub const ALL: [Self; 3] = [Self::Minute, Self::TenMinutes, Self::Hour];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "1m",
            Self::TenMinutes => "10m",
            Self::Hour => "1h",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == text)
    }

    pub fn seconds(self) -> u64 {
        match self {
            Self::Minute => 60,
            Self::TenMinutes => 600,
            Self::Hour => 3600,
        }
    }
}

impl History {
    /// Takes in ten seconds. Returns how many edges' times of some frame had to go to stay within `bytes_max`.
    pub(super) fn push(
        &mut self,
        lasted: Duration,
        edges: impl Iterator<Item = (u16, Closed)>,
        bytes_max: usize,
    ) -> usize {
        let edges = edges.filter(|(_, closed)| !closed.tally.is_empty());
        let edges = edges.collect();
        self.tens.push_back(Frame { lasted, edges });
        self.tens_apart += 1;
        if self.tens_apart == TENS {
            self.minutes.push_back(Frame::sum(newest(&self.tens, TENS)));
            (self.tens_apart, self.minutes_apart) = (0, self.minutes_apart + 1);
        }
        if self.minutes_apart == MINUTES_OF_FIVE {
            let five = Frame::sum(newest(&self.minutes, MINUTES_OF_FIVE));
            self.fives.push_back(five);
            self.minutes_apart = 0;
        }
        keep(&mut self.tens, TENS);
        keep(&mut self.minutes, MINUTES);
        keep(&mut self.fives, FIVES);
        self.thin(bytes_max)
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How much time a window holds, without what is being counted now.
    pub(super) fn lasted(&self, window: Window) -> Duration {
        self.frames(window).map(|frame| frame.lasted).sum()
    }

    /// Adds to `sum` what an edge did within a window.
    pub(super) fn add_to(&self, sum: &mut Sum, edge: u16, window: Window) {
        let frames = self.frames(window);
        frames
            .filter_map(|frame| frame.edges.get(&edge))
            .for_each(|closed| sum.add(closed));
    }

    fn frames(&self, window: Window) -> Box<dyn Iterator<Item = &Frame> + '_> {
        let tens = newest(&self.tens, self.tens_apart);
        match window {
            Window::Minute => Box::new(self.tens.iter()),
            Window::TenMinutes => Box::new(self.minutes.iter().chain(tens)),
            Window::Hour => {
                let minutes = newest(&self.minutes, self.minutes_apart);
                Box::new(self.fives.iter().chain(minutes).chain(tens))
            }
        }
    }

    /// Drops times, those of the longest ago first, until all fits.
    fn thin(&mut self, bytes_max: usize) -> usize {
        let frames = self.fives.iter_mut();
        let frames = frames.chain(&mut self.minutes).chain(&mut self.tens);
        let frames: Vec<&mut Frame> = frames.collect();
        let mut bytes: usize = frames.iter().map(|frame| frame.bytes()).sum();
        let mut dropped = 0;
        for frame in frames {
            for closed in frame.edges.values_mut() {
                if bytes <= bytes_max {
                    break;
                }
                bytes -= closed.latency.bytes().len();
                if !closed.latency.is_empty() {
                    dropped += 1;
                    closed.is_thinned = true;
                    closed.latency = Packed::default();
                }
            }
        }
        self.bytes = bytes;
        dropped
    }
}

impl Frame {
    /// One edge after the other, as each takes some KiB while it is added up.
    fn sum<'f>(frames: impl Iterator<Item = &'f Self>) -> Self {
        let frames: Vec<_> = frames.collect();
        let all: BTreeSet<u16> = frames
            .iter()
            .flat_map(|frame| frame.edges.keys().copied())
            .collect();
        let edges = all.into_iter().map(|edge| {
            let mut sum = Sum::default();
            let closed = frames.iter().filter_map(|frame| frame.edges.get(&edge));
            closed.for_each(|closed| sum.add(closed));
            (edge, sum.close())
        });
        Self {
            edges: edges.collect(),
            lasted: frames.iter().map(|frame| frame.lasted).sum(),
        }
    }

    fn bytes(&self) -> usize {
        let edges = self.edges.values();
        edges
            .map(|closed| EDGE_BYTES + closed.latency.bytes().len())
            .sum()
    }
}

impl Sum {
    pub(super) fn add(&mut self, closed: &Closed) {
        self.tally.add(&closed.tally);
        self.is_thinned |= closed.is_thinned;
        if closed.latency.is_empty() {
            return;
        }
        let sketch = self.latency.get_or_insert_default();
        let added = sketch.add(&closed.latency);
        debug_assert!(added.is_ok(), "it was packed here");
    }

    pub(super) fn close(self) -> Closed {
        let latency = self.latency.map(|sketch| sketch.pack());
        Closed {
            tally: self.tally,
            latency: latency.unwrap_or_default(),
            is_thinned: self.is_thinned,
        }
    }
}

fn newest<T>(all: &VecDeque<T>, count: usize) -> impl Iterator<Item = &T> {
    all.iter().skip(all.len().saturating_sub(count))
}

fn keep<T>(all: &mut VecDeque<T>, count: usize) {
    while all.len() > count {
        all.pop_front();
    }
}

/// Frames of ten seconds in a minute.
const TENS: usize = 6;

/// Frames of a minute in ten.
const MINUTES: usize = 10;

/// Frames of a minute in one of five minutes.
const MINUTES_OF_FIVE: usize = 5;

/// Frames of five minutes in an hour.
const FIVES: usize = 12;

/// What an edge takes in a frame, its place in the map and some reasons included, without the times.
const EDGE_BYTES: usize = 160;

#[cfg(test)]
mod tests {
    use super::super::sketch::Gauge;
    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    /// One call that took so many microseconds.
    fn call(micros: u64) -> Closed {
        let gauge = Gauge::default();
        gauge.record(micros);
        Closed {
            tally: Tally {
                calls: 1,
                ..Tally::default()
            },
            latency: gauge.drain(),
            is_thinned: false,
        }
    }

    fn sum(history: &History, edge: u16, window: Window) -> Sum {
        let mut sum = Sum::default();
        history.add_to(&mut sum, edge, window);
        sum
    }

    #[test]
    fn windows_hold_their_time_and_no_more_than_their_finest_part() {
        let mut history = History::default();
        for nth in 1..=500u64 {
            assert_eq!(
                history.push(TEN, [(7, call(nth))].into_iter(), usize::MAX),
                0
            );
            let seconds = nth * 10;
            for window in Window::ALL {
                let calls = sum(&history, 7, window).tally.calls;
                let lasted = history.lasted(window).as_secs();
                let wanted = window.seconds();
                assert_eq!(calls * 10, lasted, "{nth} {window:?}");
                assert!(
                    lasted >= wanted.min(seconds),
                    "{nth} {window:?}: {lasted} s"
                );
                assert!(lasted < wanted + 300, "{nth} {window:?}: {lasted} s");
            }
        }
        assert_eq!(sum(&history, 8, Window::Hour).tally, Tally::default());
    }

    #[test]
    fn what_is_coarser_adds_up_the_same() {
        let mut history = History::default();
        // 310 seconds: five minutes in one frame, and ten seconds.
        for nth in 0..31 {
            history.push(TEN, [(1, call(1_000 * (nth + 1)))].into_iter(), usize::MAX);
        }
        let hour = sum(&history, 1, Window::Hour);
        assert_eq!((history.fives.len(), hour.tally.calls), (1, 31));
        let p50 = hour.latency.unwrap().quantile(0.5).unwrap();
        assert!((15_700..16_300).contains(&p50), "{p50}");
    }

    #[test]
    fn idle_edges_take_nothing() {
        let mut history = History::default();
        history.push(TEN, (0..200).map(|edge| (edge, Closed::default())), 0);
        assert_eq!(history.bytes(), 0);
    }

    #[test]
    fn the_oldest_times_go_first_and_their_calls_stay() {
        let mut history = History::default();
        for nth in 0..400 {
            history.push(TEN, [(1, call(1 << (nth % 20)))].into_iter(), usize::MAX);
        }
        let most = history.bytes() - 20;
        assert!(history.push(TEN, [(1, call(1))].into_iter(), most) > 0);
        assert!(history.bytes() <= most);
        let (minute, hour) = (
            sum(&history, 1, Window::Minute),
            sum(&history, 1, Window::Hour),
        );
        assert!(!minute.is_thinned && hour.is_thinned);
        assert_eq!(
            hour.tally.calls * 10,
            history.lasted(Window::Hour).as_secs()
        );
        assert!(history.push(TEN, [].into_iter(), 0) > 0);
        assert!(sum(&history, 1, Window::Hour).latency.is_none());
    }
}
