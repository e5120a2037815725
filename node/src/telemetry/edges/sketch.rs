//! How long calls took, as counts in buckets that grow with the time: any two can be added up, and a percentile of the
//! sum is as good as one of each.

use histogram::{AtomicHistogram32, Config, Histogram};

/// A bucket is a 32nd as wide as the times in it are long, so its middle is at most a 64th off.
const GROUPING_POWER: u8 = 5;

/// Up to 2^30 µs, 18 minutes; what takes longer counts as that long.
const MAX_POWER: u8 = 30;

/// The longest time that is told apart from longer ones.
const MICROS_MAX: u64 = (1 << MAX_POWER) - 1;

/// Relative error of percentiles.
pub const ERROR: f64 = 1.0 / (2 << GROUPING_POWER) as f64;

/// Counts that many tasks add to: 3.3 KiB.
#[derive(Debug)]
pub(super) struct Gauge(AtomicHistogram32);

/// Counts to add up and to ask for percentiles: 6.5 KiB.
#[derive(Debug, Clone)]
pub struct Sketch(Histogram);

/// A sketch at rest: the distance to the next bucket that is not empty and its count, again and again, as numbers of
/// seven bits to the byte. A service that answers within a factor of ten takes a hundred buckets and 250 bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packed(Box<[u8]>);

/// Bytes that are no sketch.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a sketch of latencies")]
pub struct NotASketch;

fn config() -> Config {
    Config::new(GROUPING_POWER, MAX_POWER).expect("the powers fit each other")
}

impl Default for Gauge {
    fn default() -> Self {
        Self(AtomicHistogram32::with_config(&config()))
    }
}

impl Gauge {
    pub(super) fn record(&self, micros: u64) {
        let counted = self.0.increment(micros.min(MICROS_MAX));
        debug_assert!(counted.is_ok(), "{micros} µs are within bounds");
    }

    /// What was counted since the last time.
    pub(super) fn drain(&self) -> Packed {
        Packed::of(
            self.0
                .drain()
                .as_slice()
                .iter()
                .map(|count| (*count).into()),
        )
    }

    /// What was counted so far, left in place.
    pub(super) fn peek(&self) -> Packed {
        Packed::of(self.0.load().as_slice().iter().map(|count| (*count).into()))
    }
}

impl Default for Sketch {
    fn default() -> Self {
        Self(Histogram::with_config(&config()))
    }
}

impl Sketch {
    /// Adds all of it, or nothing if it is none of ours. Counts stop at their largest.
    pub fn add(&mut self, packed: &Packed) -> Result<(), NotASketch> {
        let places = packed.places().collect::<Option<Vec<_>>>();
        let buckets = self.0.as_mut_slice();
        let places = places.filter(|places| places.iter().all(|(at, _)| *at < buckets.len()));
        for (at, count) in places.ok_or(NotASketch)? {
            buckets[at] = buckets[at].saturating_add(count);
        }
        Ok(())
    }

    /// Adds `count` calls that took so long.
    pub fn add_calls(&mut self, micros: u64, count: u64) {
        let counted = self.0.add(micros.min(MICROS_MAX), count);
        debug_assert!(counted.is_ok(), "{micros} µs are within bounds");
    }

    /// The time within which this part of the calls ended, in microseconds; none if there were no calls.
    pub fn quantile(&self, part: f64) -> Option<u64> {
        let bucket = self.0.quantile_bucket(part).ok().flatten()?;
        Some(bucket.start().midpoint(bucket.end()))
    }

    pub fn pack(&self) -> Packed {
        Packed::of(self.0.as_slice().iter().copied())
    }
}

impl Packed {
    fn of(counts: impl Iterator<Item = u64>) -> Self {
        let (mut bytes, mut from) = (Vec::new(), 0);
        for (at, count) in counts.enumerate().filter(|(_, count)| *count > 0) {
            write(&mut bytes, (at - from) as u64);
            write(&mut bytes, count);
            from = at + 1;
        }
        Self(bytes.into())
    }

    /// Bytes from elsewhere, which may be anything: [`Sketch::add`] finds out.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bucket and count, in order; ends with none where the bytes make no sense.
    fn places(&self) -> impl Iterator<Item = Option<(usize, u64)>> {
        let (mut rest, mut from) = (&*self.0, 0usize);
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let place = (|| {
                let at = from.checked_add(usize::try_from(read(&mut rest)?).ok()?)?;
                let count = read(&mut rest)?;
                from = at.checked_add(1)?;
                Some((at, count))
            })();
            if place.is_none() {
                rest = &[];
            }
            Some(place)
        })
    }
}

fn write(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn read(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sketch(times: &[u64]) -> Sketch {
        let gauge = Gauge::default();
        times.iter().for_each(|micros| gauge.record(*micros));
        let mut sketch = Sketch::default();
        sketch.add(&gauge.drain()).unwrap();
        assert!(gauge.drain().is_empty());
        sketch
    }

    #[test]
    fn nothing_has_no_percentile() {
        assert_eq!(Sketch::default().quantile(0.5), None);
        assert!(Sketch::default().pack().is_empty());
    }

    #[test]
    fn a_time_past_the_end_counts_as_the_longest() {
        let longest = sketch(&[u64::MAX]).quantile(0.5).unwrap();
        assert!(longest as f64 >= MICROS_MAX as f64 * (1.0 - ERROR));
    }

    #[test]
    fn bytes_that_make_no_sense_add_nothing() {
        for bytes in [
            vec![0x80],
            vec![1],
            vec![0, 1, 0xff, 0xff, 3, 1],
            vec![0xff; 30],
        ] {
            let mut sketch = Sketch::default();
            assert_eq!(sketch.add(&Packed::from_bytes(bytes)), Err(NotASketch));
            assert_eq!(sketch.quantile(0.5), None);
        }
    }

    #[test]
    fn counts_stop_at_their_largest() {
        let mut bytes = vec![7];
        write(&mut bytes, u64::MAX);
        let packed = Packed::from_bytes(bytes);
        let mut sketch = Sketch::default();
        sketch.add(&packed).unwrap();
        sketch.add(&packed).unwrap();
        assert_eq!(sketch.pack(), packed);
    }

    proptest! {
        /// Whatever is added up in whichever parts, a percentile is off by the stated error at most.
        #[test]
        fn percentiles_are_within_the_error(
            mut times in proptest::collection::vec(1u64..100_000_000, 1..400),
            cut in 0usize..400,
            percent in 1u32..=100,
        ) {
            let (one, other) = times.split_at(cut.min(times.len()));
            let mut sum = sketch(one);
            sum.add(&sketch(other).pack()).unwrap();
            let part = f64::from(percent) / 100.0;
            let told = sum.quantile(part).unwrap() as f64;
            times.sort_unstable();
            let rank = (part * times.len() as f64).ceil().max(1.0) as usize;
            let exact = times[rank - 1] as f64;
            prop_assert!((told - exact).abs() <= exact * ERROR + 1.0, "{told} for {exact}");
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Sketch::default().add(&Packed::from_bytes(bytes));
        }
    }
}
