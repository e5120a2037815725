//! Regular expressions of operators: over a whole value, in linear time, of bounded size.

use std::fmt;

use regex::bytes::RegexBuilder;

/// An expression that must match a value from its first byte to its last. Two are equal if they are written the same.
#[derive(Clone)]
pub struct Regex {
    text: String,
    compiled: regex::bytes::Regex,
}

impl Regex {
    /// Compiles `text`; says in one line why it cannot be.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(format!("it is longer than {TEXT_BYTES_MAX} bytes"));
        }
        // Alone first: `a)(b` would be good only between our brackets.
        builder(text)
            .build()
            .and_then(|_alone| builder(&format!("^(?:{text})$")).build())
            .map(|compiled| Self {
                text: text.to_owned(),
                compiled,
            })
            .map_err(|error| why(&error))
    }

    pub fn is_match(&self, value: &[u8]) -> bool {
        self.compiled.is_match(value)
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Regex {}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.text)
    }
}

/// Bytes, not characters: fields may hold any, and paths are percent-encoded.
fn builder(text: &str) -> RegexBuilder {
    let mut builder = RegexBuilder::new(text);
    builder
        .unicode(false)
        .dot_matches_new_line(true)
        .size_limit(PROGRAM_BYTES_MAX)
        .dfa_size_limit(PROGRAM_BYTES_MAX)
        .nest_limit(NEST_MAX);
    builder
}

/// The last line of a syntax error says what is wrong; those above draw it.
fn why(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => "it is too big once compiled".to_owned(),
        error => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            last.trim_start_matches("error: ").trim().to_owned()
        }
    }
}

/// Longer ones are generated, and better written as several rules.
const TEXT_BYTES_MAX: usize = 1024;
/// A hundred of them take a few MiB at most; `\w{1000}` does not fit.
const PROGRAM_BYTES_MAX: usize = 64 * 1024;
const NEST_MAX: u32 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_value_counts() {
        for (text, value, expected) in [
            ("/a", "/a", true),
            ("/a", "/ab", false),
            ("/a", "x/a", false),
            ("/a|/b", "/b", true),
            ("/a|/b", "/bc", false),
            ("", "", true),
            ("/v[0-9]+/.*", "/v12/items", true),
            ("(?i)beta", "BETA", true),
            ("a.b", "a\nb", true),
            ("a$", "a\n", false),
        ] {
            let regex = Regex::parse(text).unwrap();
            assert_eq!(
                regex.is_match(value.as_bytes()),
                expected,
                "{text} {value:?}"
            );
        }
        assert!(Regex::parse(".*").unwrap().is_match(b"\xff\xfe"));
    }

    #[test]
    fn what_cannot_be_used_is_said_in_one_line() {
        for text in [
            "(",
            "a)(b",
            "[",
            "a{2,1}",
            r"\p{Greek}",
            r"(\w{99}){99}",
            &"a".repeat(1025),
            &"(".repeat(500),
        ] {
            let why = Regex::parse(text).unwrap_err();
            assert!(!why.is_empty() && !why.contains('\n'), "{text}: {why}");
        }
        assert_eq!(Regex::parse("a)(b").unwrap_err(), "unopened group");
    }

    /// Backtracking engines take 2^40 steps for this.
    #[test]
    fn a_hostile_value_takes_linear_time() {
        let regex = Regex::parse("(a+)+b").unwrap();
        assert!(!regex.is_match("a".repeat(8 * 1024).as_bytes()));
    }
}
