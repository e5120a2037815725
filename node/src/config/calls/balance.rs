//! `balance` and `outlier`: which instance takes a call, and which are left out.

use std::fmt;
use std::time::Duration;

use http::HeaderName;
use toml::Spanned;

use crate::config::check::Checker;
use crate::config::keys::shown;
use crate::config::raw::calls as raw;

/// Which instance takes a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balance {
    pub algorithm: Algorithm,
    pub zone: Zone,
    /// How long an instance that has just become usable takes to get its full share. Zero: at once.
    pub slow_start: Duration,
    /// Below this percentage of usable instances, ejections for errors are ignored: few instances would only fall one
    /// after the other. Zero: never.
    pub panic: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// The better of two random ones by latency and load.
    #[default]
    PeakEwma,
    /// The one of two random ones with fewer calls under way.
    LeastRequest,
    /// One after the other, by weight.
    RoundRobin,
    /// The same one for the same key, on a ring; when it is busy, the next.
    RingHash(Key),
    /// The same one for the same key, by a table; when it is out, another.
    Maglev(Key),
}

/// What of a request tells those apart that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// A header field's value.
    Header(HeaderName),
    /// A cookie's value.
    Cookie(Box<str>),
    /// The address that the app's connection comes from.
    Source,
}

/// What zones mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// Whether the caller's own zone comes first.
    pub prefer: bool,
    /// The zones that come after it, in this order; the others come last, as one.
    pub failover: Vec<String>,
    /// A zone takes all calls while at least this percentage of its capacity is usable. Below, it takes a share in
    /// proportion and the rest goes on to the next.
    pub spill_below: u8,
}

/// When an instance is left out for its errors. A failed connection leaves it out at once, whatever this says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlier {
    /// Failures in a row that eject; zero: never.
    pub consecutive: u32,
    /// Whether 5xx answers of the app count as failures.
    pub answers: bool,
    /// Percentage points by which a success rate below that of the other instances ejects; zero: never.
    pub success_rate: u8,
    /// The first ejection. It doubles with each in a row.
    pub base: Duration,
    /// The percentage of instances that may be ejected for errors at a time.
    pub max_share: u8,
}

impl Balance {
    pub(super) fn check(raw: &Spanned<raw::Balance>, checker: &mut Checker<'_>) -> Self {
        let span = raw.span();
        let raw = raw.get_ref();
        let word = raw
            .algorithm
            .as_ref()
            .and_then(|word| checker.choice("algorithm", word, ALGORITHMS))
            .unwrap_or(Word::PeakEwma);
        let on = raw
            .on
            .as_ref()
            .and_then(|key| Key::check("on", key, checker));
        let algorithm = match (word, on) {
            (Word::PeakEwma, _) => Algorithm::PeakEwma,
            (Word::LeastRequest, _) => Algorithm::LeastRequest,
            (Word::RoundRobin, _) => Algorithm::RoundRobin,
            (Word::RingHash, key) => Algorithm::RingHash(key.unwrap_or(Key::Source)),
            (Word::Maglev, key) => Algorithm::Maglev(key.unwrap_or(Key::Source)),
        };
        match (&raw.on, algorithm.key()) {
            (Some(on), None) => {
                let what = format!("`on` says nothing about {}", algorithm.as_str());
                let hint = "`algorithm = \"ring-hash\"` or \"maglev\", or leave `on` out";
                checker.problem(on.span(), what, hint);
            }
            (None, Some(_)) => {
                let what = format!("`on` is missing: {} of what?", algorithm.as_str());
                checker.problem(span, what, KEY_HINT);
            }
            _ => {}
        }
        let zone = raw.zone.as_ref();
        Self {
            algorithm,
            zone: zone.map_or_else(Zone::default, |zone| Zone::check(zone, checker)),
            slow_start: raw
                .slow_start
                .as_ref()
                .and_then(|time| checker.duration("slow_start", time, Duration::ZERO..=HOUR))
                .unwrap_or_default(),
            panic: raw
                .panic
                .as_ref()
                .and_then(|share| checker.number("panic", share, 0..=100))
                .unwrap_or_default(),
        }
    }
}

impl Zone {
    fn check(raw: &raw::Zone, checker: &mut Checker<'_>) -> Self {
        let default = Self::default();
        let listed = raw.failover.iter().flatten();
        let failover: Vec<_> = listed.clone().map(|zone| zone.get_ref().clone()).collect();
        if let Some(beyond) = listed.clone().nth(FAILOVER_MAX) {
            let hint = format!("at most {FAILOVER_MAX}; all others come last in any case");
            checker.problem(beyond.span(), "`failover` names too many zones", &hint);
        }
        let prefer = raw.prefer.unwrap_or(default.prefer);
        if let (false, Some(first)) = (prefer, listed.clone().next()) {
            let what = "`failover` says nothing where no zone is preferred";
            checker.problem(first.span(), what, "leave `prefer = false` out");
        }
        Self {
            prefer,
            failover,
            spill_below: raw
                .spill_below
                .as_ref()
                .and_then(|share| checker.number("spill_below", share, 1..=100))
                .unwrap_or(default.spill_below),
        }
    }
}

impl Key {
    pub(super) fn check(
        name: &str,
        text: &Spanned<String>,
        checker: &mut Checker<'_>,
    ) -> Option<Self> {
        let key = match text.get_ref().split_once(':') {
            None if text.get_ref() == "source" => Some(Self::Source),
            Some(("header", header)) => header.parse().ok().map(Self::Header),
            Some(("cookie", cookie)) if is_token(cookie) => Some(Self::Cookie(cookie.into())),
            _ => None,
        };
        if key.is_none() {
            let what = format!("`{name}` cannot be `{}`", shown(text.get_ref()));
            checker.problem(text.span(), what, KEY_HINT);
        }
        key
    }
}

impl Outlier {
    pub(super) fn check(raw: &Spanned<raw::Outlier>, checker: &mut Checker<'_>) -> Self {
        let raw = raw.get_ref();
        let default = Self::declared();
        Self {
            consecutive: raw
                .consecutive
                .as_ref()
                .and_then(|count| checker.number("consecutive", count, 0..=1000))
                .unwrap_or(default.consecutive),
            answers: raw.answers.unwrap_or(default.answers),
            success_rate: raw
                .success_rate
                .as_ref()
                .and_then(|points| checker.number("success_rate", points, 0..=100))
                .unwrap_or(default.success_rate),
            base: raw
                .base
                .as_ref()
                .and_then(|time| checker.duration("base", time, EJECTION_MIN..=EJECTION_MAX))
                .unwrap_or(default.base),
            max_share: raw
                .max_share
                .as_ref()
                .and_then(|share| checker.number("max_share", share, 0..=100))
                .unwrap_or(default.max_share),
        }
    }
}

/// RFC 6265: the name of a cookie is a token.
fn is_token(name: &str) -> bool {
    let is_separator = |byte: u8| b"()<>@,;:\\\"/[]?={} \t".contains(&byte);
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !is_separator(byte))
}

/// An algorithm without its key.
#[derive(Clone, Copy)]
enum Word {
    PeakEwma,
    LeastRequest,
    RoundRobin,
    RingHash,
    Maglev,
}

const ALGORITHMS: &[(&str, Word)] = &[
    ("peak-ewma", Word::PeakEwma),
    ("least-request", Word::LeastRequest),
    ("round-robin", Word::RoundRobin),
    ("ring-hash", Word::RingHash),
    ("maglev", Word::Maglev),
];

impl Default for Balance {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::default(),
            zone: Zone::default(),
            slow_start: Duration::ZERO,
            panic: 0,
        }
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self {
            prefer: true,
            failover: Vec::new(),
            spill_below: 70,
        }
    }
}

impl Default for Outlier {
    /// What holds where nobody wrote an `outlier` table: only what the mesh itself saw fail counts.
    fn default() -> Self {
        Self {
            consecutive: 5,
            answers: false,
            success_rate: 0,
            base: Duration::from_secs(1),
            max_share: 50,
        }
    }
}

impl Outlier {
    /// What the missing keys of a table mean: whoever writes one wants errors to count.
    pub fn declared() -> Self {
        Self {
            answers: true,
            success_rate: 30,
            ..Self::default()
        }
    }
}

impl Algorithm {
    /// What the calls that belong together have in common, if that matters.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::RingHash(key) | Self::Maglev(key) => Some(key),
            Self::PeakEwma | Self::LeastRequest | Self::RoundRobin => None,
        }
    }

    pub fn as_str(&self) -> &'static str {
        match self {
            Self::PeakEwma => "peak-ewma",
            Self::LeastRequest => "least-request",
            Self::RoundRobin => "round-robin",
            Self::RingHash(_) => "ring-hash",
            Self::Maglev(_) => "maglev",
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Source => f.write_str("source"),
        }
    }
}

const KEY_HINT: &str = "\"header:NAME\", \"cookie:NAME\" or \"source\", the address of the app";
const NAME_BYTES_MAX: usize = 256;
/// More zones in an order are a plan that nobody has tried. It also bounds the work of each call.
const FAILOVER_MAX: usize = 6;
const HOUR: Duration = Duration::from_secs(60 * 60);
const EJECTION_MIN: Duration = Duration::from_millis(100);
/// Doubling ends there as well.
const EJECTION_MAX: Duration = Duration::from_secs(30);
