//! Shares of calls between subsets of a service's instances.

use std::fmt;
use std::sync::Arc;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName};
use starling_gossip::Labels;

/// The instances whose labels hold all of these. No labels at all: every instance. Cheap to clone.
///
/// The label `zone` also means the zone of the instance's node, unless the instance has a label of that name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Subset(Arc<Labels>);

/// Subsets with their shares, in the order in which they were declared. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    pub parts: Vec<Part>,
    pub sticky: Option<Sticky>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub to: Subset,
    pub share: Share,
}

/// Ten-thousandths of all calls: a hundredth of a percent is as fine as it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Share(pub u16);

/// What makes one user of many requests. Without it in a request, chance decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sticky {
    Header(HeaderName),
    Cookie(String),
}

/// Where a call stands among all: a number below [`Share::WHOLE`], and what to draw the next one from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Point(u64);

impl Split {
    /// Everything to one subset.
    pub fn all_to(to: Subset) -> Self {
        Self {
            parts: vec![Part {
                to,
                share: Share::WHOLE,
            }],
            sticky: None,
        }
    }

    /// The subset for a call at `point`. The share of a part that is not `usable` goes to the others by their shares,
    /// and only its calls move; if no part is, the one that the call belongs to.
    ///
    /// Parts lie side by side in their order: moving weight from one part to its neighbour moves exactly that share of
    /// the callers, and nobody else.
    pub fn choose(&self, point: Point, usable: impl Fn(&Subset) -> bool) -> &Subset {
        let chosen = at(self.parts.iter(), point);
        if self.parts.len() == 1 || usable(&chosen.to) {
            return &chosen.to;
        }
        let others = self
            .parts
            .iter()
            .filter(|part| part.share > Share::NONE && usable(&part.to));
        if others.clone().next().is_none() {
            return &chosen.to;
        }
        &at(others, point.next()).to
    }

    /// Where a call stands: the same for every call of one user to `service`, on every node; else by chance.
    pub fn point(
        &self,
        service: &str,
        headers: Option<&HeaderMap>,
        rng: &mut fastrand::Rng,
    ) -> Point {
        headers
            .and_then(|headers| self.point_of_user(service, headers))
            .unwrap_or_else(|| Point::random(rng))
    }

    /// Where the calls of one user stand; nothing if the request does not tell users apart.
    pub fn point_of_user(&self, service: &str, headers: &HeaderMap) -> Option<Point> {
        let value = self.sticky.as_ref()?.value(headers)?;
        // Salted, so that it is not the same users who get every service's canary.
        Some(Point::of([service.as_bytes(), value]))
    }
}

impl Subset {
    /// Of the instances with these labels.
    pub fn new(labels: Labels) -> Self {
        Self(Arc::new(labels))
    }

    pub fn labels(&self) -> &Labels {
        &self.0
    }

    /// Whether an instance with these labels on a node in `zone` is in it.
    pub fn holds(&self, labels: &Labels, zone: &str) -> bool {
        self.0.iter().all(|(label, value)| match labels.get(label) {
            Some(has) => has == value,
            None => label == "zone" && zone == value,
        })
    }

    /// Every instance is in it.
    pub fn is_all(&self) -> bool {
        self.0.is_empty()
    }
}

impl Share {
    pub const NONE: Self = Self(0);
    pub const WHOLE: Self = Self(10_000);

    /// As operators write it.
    pub fn percent(self) -> f64 {
        f64::from(self.0) / 100.0
    }

    /// Whether a call at `point` is one of this share.
    pub fn takes(self, point: Point) -> bool {
        point.within(Self::WHOLE.0.into()) < self.0.into()
    }
}

impl Sticky {
    fn value<'h>(&self, headers: &'h HeaderMap) -> Option<&'h [u8]> {
        match self {
            Self::Header(name) => headers.get(name).map(http::HeaderValue::as_bytes),
            Self::Cookie(name) => headers
                .get_all(COOKIE)
                .iter()
                .flat_map(|value| value.as_bytes().split(|byte| *byte == b';'))
                .find_map(|pair| {
                    let pair = pair.trim_ascii();
                    pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
                }),
        }
        .filter(|value| !value.is_empty())
    }
}

impl Point {
    /// By chance.
    pub fn random(rng: &mut fastrand::Rng) -> Self {
        Self(rng.u64(..))
    }

    /// FNV-1a over the parts with a border between them, then mixed: the same on every node and in every version of
    /// starling, or an upgrade would move users.
    pub fn of(parts: [&[u8]; 2]) -> Self {
        let bytes = parts
            .iter()
            .flat_map(|part| part.iter().copied().chain([0]));
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(mixed(hash))
    }

    /// Another point that knows nothing of this one.
    fn next(self) -> Self {
        Self(mixed(self.0.wrapping_add(0x9e37_79b9_7f4a_7c15)))
    }

    /// Evenly below `bound`, in the order of the points.
    fn within(self, bound: u64) -> u64 {
        ((u128::from(self.0) * u128::from(bound)) >> 64) as u64
    }
}

/// The part that `point` falls on.
fn at<'p>(parts: impl Iterator<Item = &'p Part> + Clone, point: Point) -> &'p Part {
    let whole = parts.clone().map(|part| u64::from(part.share.0)).sum();
    let point = point.within(whole);
    let mut end = 0;
    let mut last = None;
    for part in parts {
        end += u64::from(part.share.0);
        last = Some(part);
        if point < end {
            break;
        }
    }
    last.expect("a split has parts")
}

/// The finaliser of SplitMix64: every bit of the input moves half of the output's.
fn mixed(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// `version=v2 track=x`, or `any instance`.
impl fmt::Display for Subset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_all() {
            return f.write_str("any instance");
        }
        for (at, (label, value)) in self.0.iter().enumerate() {
            let space = if at == 0 { "" } else { " " };
            write!(f, "{space}{label}={value}")?;
        }
        Ok(())
    }
}

/// `12.5%`.
impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.percent())
    }
}
