//! The fields of an event as text or JSON: values escaped, cut where they are too long, and quick where they are plain.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::{self, Write as _};

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing_subscriber::fmt::format::Writer;

/// Longest value a field shows, in bytes.
pub(super) const VALUE_BYTES_MAX: usize = 2048;

/// Writes the fields of an event as they come, the message first. Errors are those of a buffer in memory: there are none.
pub(super) struct Text<'a, 'w>(pub(super) &'a mut Writer<'w>);

/// A JSON object but for its closing brace.
pub(super) struct Json(pub(super) Vec<u8>);

impl Text<'_, '_> {
    fn put(&mut self, name: &str, value: impl fmt::Display) {
        let _ = write!(self.0, " {name}={value}");
    }

    /// The same for what needs no formatting, the machinery of which costs an access line more than all else.
    fn put_plain(&mut self, name: &str, parts: &[&str]) {
        for part in [" ", name, "="].iter().chain(parts) {
            let _ = self.0.write_str(part);
        }
    }
}

impl Json {
    pub(super) fn put(&mut self, name: &str, value: impl Serialize) {
        self.0.push(if self.0.is_empty() { b'{' } else { b',' });
        let _ = serde_json::to_writer(&mut self.0, name);
        self.0.push(b':');
        let _ = serde_json::to_writer(&mut self.0, &value);
    }
}

impl Visit for Text<'_, '_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        let value = bounded(value);
        match field.name() {
            "message" => {
                let _ = write!(self.0, "{}", Escaped(&value));
            }
            name if is_plain(&value) => self.put_plain(name, &[&value]),
            name => self.put(name, format_args!("{value:?}")),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &Bounded::of(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.record_str(field, &chain(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        match thousandths(value) {
            Some((whole, 0)) => self.put_plain(field.name(), &[Digits::of(whole).as_str()]),
            Some((whole, rest)) => {
                let rest = Digits::of(1000 + rest);
                let rest = rest.as_str()[1..].trim_end_matches('0');
                self.put_plain(field.name(), &[Digits::of(whole).as_str(), ".", rest]);
            }
            None => self.put(field.name(), value),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put_plain(field.name(), &[Digits::of(value).as_str()]);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), value);
    }
}

impl Visit for Json {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), bounded(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), Bounded::of(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.put(field.name(), bounded(&chain(value)));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), value);
    }
}

/// A number as it is written.
pub(super) struct Digits {
    bytes: [u8; 20],
    from: usize,
}

impl Digits {
    pub(super) fn of(mut number: u64) -> Self {
        let mut digits = Self {
            bytes: [b'0'; 20],
            from: 19,
        };
        loop {
            digits.bytes[digits.from] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return digits;
            }
            digits.from -= 1;
        }
    }

    pub(super) fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[self.from..]).expect("only digits")
    }
}

/// A number with up to three digits behind the point, as a whole one and those, if it is exactly that.
fn thousandths(value: f64) -> Option<(u64, u64)> {
    let scaled = (value * 1000.0).round();
    let is_exact =
        (0.0..1e15).contains(&scaled) && value.is_sign_positive() && scaled / 1000.0 == value;
    let scaled = scaled as u64;
    is_exact.then_some((scaled / 1000, scaled % 1000))
}

/// An error and what caused it, on one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| Error::source(*cause));
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn bounded(text: &str) -> Cow<'_, str> {
    if text.len() <= VALUE_BYTES_MAX {
        return text.into();
    }
    let mut cut = Bounded::default();
    cut.add(format_args!("{text}"));
    cut.0.into()
}

/// Text that ends with `…` where it would have become too long.
#[derive(Default)]
pub(super) struct Bounded(pub(super) String);

impl Bounded {
    fn of(value: &dyn fmt::Debug) -> String {
        let mut text = Self::default();
        text.add(format_args!("{value:?}"));
        text.0
    }

    /// Adds what fits. A value that fails to format shows what it gave until then.
    pub(super) fn add(&mut self, text: fmt::Arguments<'_>) {
        let _ = self.write_fmt(text);
    }
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            if self.0.len() >= VALUE_BYTES_MAX {
                if !self.0.ends_with('…') {
                    self.0.push('…');
                }
                return Err(fmt::Error);
            }
            self.0.push(char);
        }
        Ok(())
    }
}

/// Text with what does not print escaped.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self
            .0
            .bytes()
            .all(|byte| byte.is_ascii_graphic() || byte == b' ')
        {
            return f.write_str(self.0);
        }
        for char in self.0.chars() {
            match char {
                '"' | '\'' | '\\' => f.write_char(char)?,
                other => write!(f, "{}", other.escape_debug())?,
            }
        }
        Ok(())
    }
}

/// Whether a value reads unambiguously without quotes.
fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"\"'\\=".contains(&byte))
}
