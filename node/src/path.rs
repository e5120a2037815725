//! One form for the path of a request, for whatever judges or routes by it, and for the app.
//!
//! Servers disagree on what `%2f`, `..`, `//` or `;` mean. A rule that reads a path one way before an app that reads it
//! another way is no rule. So a path either has one meaning for everybody, and is passed on in the form in which it
//! was judged, or it is refused.

use std::borrow::Cow;
use std::fmt;

mod pattern;

pub use pattern::{Pattern, PatternError};

/// A path with one meaning: the form that is judged and the form that the app gets. Its query is carried along as it
/// came and never looked at.
///
/// Normal means: unreserved characters stand for themselves, whatever a URI may not hold raw is encoded, and encodings
/// have upper-case digits. A trailing `/` stays: whether it matters is the app's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Normal<'p> {
    path: Cow<'p, str>,
    query: Option<&'p str>,
}

/// Why a path has more than one meaning. The text is for logs; the caller is told the reason `ambiguous-path` alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Ambiguous {
    #[error("it does not begin with `/`")]
    NotAbsolute,
    #[error("it is longer than {PATH_BYTES_MAX} bytes")]
    TooLong,
    #[error("it holds an encoded `/` or a `\\`")]
    Separator,
    #[error("it holds a control character")]
    Control,
    #[error("it holds a segment `.` or `..`")]
    DotSegment,
    #[error("it holds an empty segment")]
    EmptySegment,
    #[error("it holds a `;`")]
    Parameter,
    #[error("it holds a `#`")]
    Fragment,
    #[error("it holds a `%` that is not followed by two hexadecimal digits")]
    Encoding,
    #[error("it is encoded twice")]
    EncodedTwice,
    #[error("it is not UTF-8 when decoded")]
    NotUtf8,
}

impl<'p> Normal<'p> {
    /// Reads `raw`, a path with or without a query. Copies only what is not normal yet.
    pub fn of(raw: &'p str) -> Result<Self, Ambiguous> {
        let (path, query) = match raw.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (raw, None),
        };
        if path.len() > PATH_BYTES_MAX {
            return Err(Ambiguous::TooLong);
        }
        let inside = path.strip_prefix('/').ok_or(Ambiguous::NotAbsolute)?;
        check_segments(inside)?;
        let path = rewrite(path)?;
        Ok(Self { path, query })
    }

    /// The path without its query.
    pub fn as_str(&self) -> &str {
        &self.path
    }

    /// What follows the first `?`, as it came.
    pub fn query(&self) -> Option<&'p str> {
        self.query
    }

    /// Whether the path came in another form.
    pub fn is_changed(&self) -> bool {
        matches!(self.path, Cow::Owned(_))
    }

    /// The segments in order. A trailing `/` makes an empty last one; the path `/` is one empty segment.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.path.split('/').skip(1)
    }
}

/// Path and query, as they go to the app.
impl fmt::Display for Normal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        match self.query {
            Some(query) => write!(f, "?{query}"),
            None => Ok(()),
        }
    }
}

/// Reads `data` as a path, for fuzzing: what is accepted must be stable and free of all that is refused.
#[doc(hidden)]
pub fn fuzz(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(normal) = Normal::of(&text) {
        let again = normal.to_string();
        let twice = Normal::of(&again).expect("what is normal is not ambiguous");
        assert!(!twice.is_changed(), "{again} changed again");
        assert_eq!(twice.as_str(), normal.as_str());
        assert_eq!(twice.query(), normal.query());
    }
    if let Ok(pattern) = Pattern::parse(&text) {
        assert_eq!(Pattern::parse(&pattern.to_string()).as_ref(), Ok(&pattern));
    }
}

/// `inside` is the path behind its first `/`.
fn check_segments(inside: &str) -> Result<(), Ambiguous> {
    let mut segments = inside.split('/').peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_some() {
            return Err(Ambiguous::EmptySegment);
        }
        if is_dots(segment) {
            return Err(Ambiguous::DotSegment);
        }
    }
    Ok(())
}

/// Whether a segment is `.` or `..`, each dot raw or encoded.
fn is_dots(segment: &str) -> bool {
    let mut dots = 0;
    let mut rest = segment.as_bytes();
    while !rest.is_empty() {
        rest = match rest {
            [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] => rest,
            _ => return false,
        };
        dots += 1;
    }
    dots == 1 || dots == 2
}

/// The path in its normal form, or what in it has no one meaning.
fn rewrite(path: &str) -> Result<Cow<'_, str>, Ambiguous> {
    let mut decoded = Vec::new();
    let mut out = Vec::new();
    // Up to here the path is in `out`, if that was begun.
    let mut copied = 0;
    let bytes = path.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let (plain, length) = match byte {
            b'%' => (escaped(&bytes[at..])?, 3),
            _ => (raw(byte)?, 1),
        };
        let is_hidden = length == 3;
        if is_hidden || !plain.is_ascii() {
            decoded.push(plain);
        } else if !decoded.is_empty() {
            // Encodings that follow each other make up characters; whatever stands between ends them.
            check_text(&mut decoded)?;
        }
        let keeps_form = if is_hidden {
            !is_unreserved(plain) && !bytes[at + 1..at + 3].iter().any(u8::is_ascii_lowercase)
        } else {
            is_plain(byte)
        };
        if !keeps_form {
            out.extend_from_slice(&bytes[copied..at]);
            push(&mut out, plain);
            copied = at + length;
        }
        at += length;
    }
    check_text(&mut decoded)?;
    let path = if copied == 0 {
        Cow::Borrowed(path)
    } else {
        out.extend_from_slice(&bytes[copied..]);
        Cow::Owned(String::from_utf8(out).map_err(|_invalid| Ambiguous::NotUtf8)?)
    };
    if is_encoded_twice(&path) {
        return Err(Ambiguous::EncodedTwice);
    }
    Ok(path)
}

/// Whether a server that decodes twice would see something else than one that decodes once.
fn is_encoded_twice(path: &str) -> bool {
    let after = path.split("%25").skip(1);
    after.into_iter().any(|rest| {
        let pair = rest.as_bytes().first_chunk::<2>();
        pair.is_some_and(|pair| pair.iter().all(u8::is_ascii_hexdigit))
    })
}

/// The byte that `%XX` at the start of `bytes` stands for.
fn escaped(bytes: &[u8]) -> Result<u8, Ambiguous> {
    let plain = decode(bytes).ok_or(Ambiguous::Encoding)?;
    match plain {
        b'/' | b'\\' => Err(Ambiguous::Separator),
        b';' => Err(Ambiguous::Parameter),
        _ if plain.is_ascii_control() => Err(Ambiguous::Control),
        _ => Ok(plain),
    }
}

fn raw(byte: u8) -> Result<u8, Ambiguous> {
    match byte {
        b'\\' => Err(Ambiguous::Separator),
        b';' => Err(Ambiguous::Parameter),
        b'#' => Err(Ambiguous::Fragment),
        _ if byte.is_ascii_control() => Err(Ambiguous::Control),
        _ => Ok(byte),
    }
}

/// Whether bytes that were encoded, or are not ASCII, are text; leaves `bytes` empty.
fn check_text(bytes: &mut Vec<u8>) -> Result<(), Ambiguous> {
    let text = str::from_utf8(bytes).map_err(|_invalid| Ambiguous::NotUtf8)?;
    if text.chars().any(char::is_control) {
        return Err(Ambiguous::Control);
    }
    bytes.clear();
    Ok(())
}

fn push(out: &mut Vec<u8>, plain: u8) {
    if is_unreserved(plain) {
        return out.push(plain);
    }
    let digits = [plain >> 4, plain & 0xf].map(|digit| HEX[usize::from(digit)]);
    out.extend_from_slice(&[b'%', digits[0], digits[1]]);
}

/// The byte that `%XX` at the start of `bytes` stands for, if there is such a thing.
fn decode(bytes: &[u8]) -> Option<u8> {
    let [_, high, low] = bytes.first_chunk::<3>()?;
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

/// RFC 3986 §2.3: the same whether encoded or not.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What may stand raw in a path (RFC 3986 §3.3), the separator included. `;` never gets here.
fn is_plain(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(
            byte,
            b'/' | b':'
                | b'@'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b'='
        )
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// What common servers take at most for a whole request line.
const PATH_BYTES_MAX: usize = 8 * 1024;

#[cfg(test)]
mod tests;
