//! What a rule says of paths.

use std::fmt;

use super::{Ambiguous, Normal, decode};

/// Paths that a rule concerns:
///
/// | written | matches |
/// |---|---|
/// | `/orders` | this path alone |
/// | `/orders/**` | `/orders`, and all below it, at a segment's border: not `/ordersx` |
/// | `/orders/{id}/items` | any one segment, never an empty one, where `{id}` stands; the name says nothing |
///
/// Case matters. Segments are compared decoded, so that `/a%3Ab` cannot hide from a rule for `/a:b`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern {
    /// As it was written, for messages.
    text: Box<str>,
    segments: Box<[Segment]>,
    /// Ends in `/**`.
    is_prefix: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Segment {
    /// These bytes, decoded.
    Only(Box<[u8]>),
    /// `{name}`.
    Any,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("no request has such a path: {0}")]
    Ambiguous(Ambiguous),
    #[error("it holds a `?`, and queries are not matched")]
    Query,
    #[error("a `*` stands for nothing on its own")]
    Star,
    #[error("a brace stands outside of a `{{name}}` that is a whole segment")]
    Brace,
}

impl PatternError {
    /// What puts it right.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Ambiguous(Ambiguous::NotAbsolute) => "begin it with `/`, as in \"/orders/**\"",
            Self::Ambiguous(_) => {
                "such requests are refused before any rule is asked; see docs/policy.md"
            }
            Self::Query => "end the path before the `?`",
            Self::Star => {
                "`/orders/**` is all below `/orders`, `{id}` is one segment, `%2A` is a star itself"
            }
            Self::Brace => "`/orders/{id}` has one; a brace itself is `%7B` or `%7D`",
        }
    }
}

impl Pattern {
    /// Reads a pattern as it stands in TOML.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.contains('?') {
            return Err(PatternError::Query);
        }
        let (path, is_prefix) = match text.strip_suffix("/**") {
            Some(path) => (path, true),
            None => (text, false),
        };
        if is_prefix && path.ends_with('/') {
            return Err(PatternError::Ambiguous(Ambiguous::EmptySegment));
        }
        // `/**` leaves nothing, and nothing is what all paths begin with.
        let segments = if is_prefix && path.is_empty() {
            Vec::new()
        } else {
            parse_segments(path)?
        };
        Ok(Self {
            text: text.into(),
            segments: segments.into(),
            is_prefix,
        })
    }

    /// Whether the rule concerns `path`.
    pub fn matches(&self, path: &Normal<'_>) -> bool {
        let mut segments = path.segments();
        for ours in &self.segments {
            if !segments.next().is_some_and(|segment| ours.matches(segment)) {
                return false;
            }
        }
        self.is_prefix || segments.next().is_none()
    }

    /// The same, where a trailing `/` makes no difference. For rules that deny: most servers take `/admin/` for
    /// `/admin`, so a denial of the one has to hold for the other.
    pub fn matches_either_end(&self, path: &Normal<'_>) -> bool {
        let trimmed = |segment: &&str| !segment.is_empty();
        let mut segments = path.segments().filter(trimmed);
        let ours = self.segments.iter().filter(|ours| !ours.is_empty());
        for ours in ours {
            if !segments.next().is_some_and(|segment| ours.matches(segment)) {
                return false;
            }
        }
        self.is_prefix || segments.next().is_none()
    }
}

/// What routing asks beyond a match.
impl Pattern {
    /// Whether it ends in `/**`.
    pub fn is_prefix(&self) -> bool {
        self.is_prefix
    }

    /// What of a matching path comes after the part that stands before `/**`: empty, or from a `/` on.
    pub fn rest<'p>(&self, path: &'p Normal<'_>) -> &'p str {
        let text = path.as_str();
        let mut slashes = text.match_indices('/').map(|(at, _)| at);
        match slashes.nth(self.segments.len()) {
            Some(at) if self.is_prefix => &text[at..],
            _ => "",
        }
    }

    /// Whether every path that `other` matches is matched by this one too.
    pub fn covers(&self, other: &Self) -> bool {
        let (mine, theirs) = (self.segments.len(), other.segments.len());
        let fits = match self.is_prefix {
            true => theirs >= mine,
            false => theirs == mine && !other.is_prefix,
        };
        fits && self
            .segments
            .iter()
            .zip(&other.segments)
            .all(|(mine, theirs)| mine.covers(theirs))
    }
}

impl Segment {
    fn covers(&self, other: &Self) -> bool {
        match self {
            Self::Any => !other.is_empty(),
            Self::Only(_) => self == other,
        }
    }

    fn matches(&self, segment: &str) -> bool {
        match self {
            Self::Any => !segment.is_empty(),
            Self::Only(bytes) => decoded(segment).eq(bytes.iter().copied()),
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Only(bytes) if bytes.is_empty())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn parse_segments(path: &str) -> Result<Vec<Segment>, PatternError> {
    // A brace or star means something here and nothing in a path; what is left must be a path that a request may have.
    let mut literal = String::with_capacity(path.len());
    let mut anys = Vec::new();
    for (at, segment) in path.split('/').enumerate() {
        if at > 0 {
            literal.push('/');
        }
        let name = segment
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'));
        anys.push(name.is_some());
        match name {
            Some(name) if !name.is_empty() && !name.contains(['{', '}', '*', '%']) => {
                literal.push_str("any");
            }
            None if segment.contains('*') => return Err(PatternError::Star),
            None if !segment.contains(['{', '}']) => literal.push_str(segment),
            _ => return Err(PatternError::Brace),
        }
    }
    let normal = Normal::of(&literal).map_err(PatternError::Ambiguous)?;
    let segments = normal.segments().zip(anys.into_iter().skip(1));
    Ok(segments
        .map(|(segment, is_any)| match is_any {
            true => Segment::Any,
            false => Segment::Only(decoded(segment).collect()),
        })
        .collect())
}

/// The bytes that a normal segment stands for.
fn decoded(segment: &str) -> impl Iterator<Item = u8> {
    let mut rest = segment.as_bytes();
    std::iter::from_fn(move || {
        let (&first, after) = rest.split_first()?;
        match decode(rest).filter(|_| first == b'%') {
            Some(byte) => {
                rest = &rest[3..];
                Some(byte)
            }
            None => {
                rest = after;
                Some(first)
            }
        }
    })
}
