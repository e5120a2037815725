//! Text of others as a terminal may show it: what is invisible, or changes the order of what is visible, is shown as an escape.
//!
//! A line that a reader sees in another order than the parser reads it (CVE-2021-42574) can hide a grant in what looks like a
//! comment.

use std::borrow::Cow;
use std::fmt::Write;

/// `text` with each invisible character as TOML writes it, `\u202E` or `\U000E0001`. Line ends and tabs stay.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    replace(text, |out, c| {
        let code = u32::from(c);
        // Writing to a `String` does not fail.
        let _ = match u16::try_from(code) {
            Ok(code) => write!(out, "\\u{code:04X}"),
            Err(_large) => write!(out, "\\U{code:08X}"),
        };
    })
}

/// The same for JSON, which stays JSON of the same meaning.
pub(crate) fn escape_json(text: &str) -> Cow<'_, str> {
    replace(text, |out, c| {
        let mut units = [0; 2];
        for unit in c.encode_utf16(&mut units) {
            let _ = write!(out, "\\u{unit:04x}");
        }
    })
}

fn replace(text: &str, with: impl Fn(&mut String, char)) -> Cow<'_, str> {
    if !text.chars().any(is_invisible) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_invisible(c) {
            true => with(&mut out, c),
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Whether a reader cannot see `c`, or sees it move what stands beside it.
fn is_invisible(c: char) -> bool {
    match c {
        '\n' | '\t' | ' '..='~' => false,
        // Variation selectors, a joiner, and fillers of Hangul: letters by Unicode's word, and nothing to be seen.
        '\u{FE00}'..='\u{FE0F}' | '\u{E0100}'..='\u{E01EF}' | '\u{34F}' => true,
        '\u{115F}' | '\u{1160}' | '\u{3164}' | '\u{FFA0}' | '\u{2800}' => true,
        // Controls, formats, spaces of other widths and code points that nothing is assigned to: what the standard library does
        // not print either. Behind a letter, so that an accent counts as part of it.
        c => {
            let shown: String = ['a', c].iter().collect();
            shown.escape_debug().nth(1) == Some('\\') && c != '\\'
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_a_reader_would_see_in_another_order_is_escaped() {
        let bidi = "from = [\"web\u{202E} \u{2066}# nobody\u{2069}\u{2066}\"]";
        let shown = escape(bidi);
        assert_eq!(
            shown,
            "from = [\"web\\u202E \\u2066# nobody\\u2069\\u2066\"]"
        );
        for invisible in [
            '\u{1b}',
            '\r',
            '\u{7f}',
            '\u{85}',
            '\u{a0}',
            '\u{ad}',
            '\u{61c}',
            '\u{115f}',
            '\u{180e}',
            '\u{200b}',
            '\u{200d}',
            '\u{200e}',
            '\u{200f}',
            '\u{2028}',
            '\u{202a}',
            '\u{2060}',
            '\u{2069}',
            '\u{2800}',
            '\u{3000}',
            '\u{3164}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{fff9}',
            '\u{e0001}',
            '\u{e0041}',
            '\u{e0100}',
            '\u{f0000}',
        ] {
            let text = format!("a{invisible}b");
            assert!(escape(&text).starts_with("a\\"), "{invisible:?} is shown");
        }
    }

    #[test]
    fn what_can_be_seen_stays_as_it_is() {
        let seen = "mode = 'audit' # \"é\", ü, e\u{301}, 日本, \\d+\n\t[[grant]]";
        assert!(matches!(escape(seen), Cow::Borrowed(same) if same == seen));
    }

    #[test]
    fn json_means_the_same_afterwards() {
        let value = serde_json::json!({ "body": "a\u{202e}\u{e0001}\nb" });
        let shown = escape_json(&value.to_string()).into_owned();
        assert!(shown.contains("\\u202e\\udb40\\udc01"), "{shown}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&shown).unwrap(),
            value
        );
    }
}
