//! Logs to standard error, as text or as one JSON object per line.
//!
//! Whatever a field holds, an event is one line: control characters are escaped and long values cut, so that nothing a
//! peer sends can forge a line, reach a terminal or fill a disk faster than its requests come.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::{self, Write as _};
use std::io;

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::config::{self, LogFormat};

/// Longest value a field shows, in bytes.
const VALUE_BYTES_MAX: usize = 2048;

/// Why logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("`{level}` is neither a log level nor a filter")]
    Level {
        level: String,
        source: tracing_subscriber::filter::ParseError,
    },
    #[error("logs are already set up")]
    AlreadySet(#[source] tracing_subscriber::util::TryInitError),
    #[error("the log level can no longer be changed")]
    Gone(#[source] reload::Error),
}

/// Changes the level while the process runs.
#[derive(Debug, Clone)]
pub struct Level(reload::Handle<EnvFilter, Registry>);

/// Makes this process log to standard error. Once per process.
pub fn init(log: &config::Log) -> Result<Level, LogError> {
    let (filter, handle) = reload::Layer::new(filter(&log.level)?);
    let layer = layer(log.format, io::stderr);
    tracing_subscriber::registry()
        .with(filter)
        .with(layer)
        .try_init()
        .map_err(LogError::AlreadySet)?;
    Ok(Level(handle))
}

impl Level {
    /// Takes a level or a filter such as `info,starling_gossip=debug`; on error the old one stays.
    pub fn set(&self, level: &str) -> Result<(), LogError> {
        self.0.reload(filter(level)?).map_err(LogError::Gone)
    }
}

fn filter(level: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::builder()
        .parse(level)
        .map_err(|source| LogError::Level {
            level: level.to_owned(),
            source,
        })
}

fn layer<S, W>(format: LogFormat, writer: W) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .event_format(Line(format))
        // It would report a closed standard error on standard error, and panic.
        .log_internal_errors(false)
        .with_writer(writer)
}

/// Formats an event as one line.
struct Line(LogFormat);

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let (metadata, spans) = (event.metadata(), spans(context));
        match self.0 {
            LogFormat::Text => {
                write!(
                    writer,
                    "{time} {:>5} {}: ",
                    metadata.level(),
                    metadata.target()
                )?;
                if !spans.is_empty() {
                    write!(writer, "{}: ", Escaped(&spans))?;
                }
                event.record(&mut Text(&mut writer));
            }
            LogFormat::Json => {
                let mut object = Json(Vec::with_capacity(512));
                object.put("time", time.as_str());
                object.put("level", metadata.level().as_str());
                object.put("target", metadata.target());
                if !spans.is_empty() {
                    object.put("span", spans.as_str());
                }
                event.record(&mut object);
                let text = String::from_utf8(object.0).map_err(|_impossible| fmt::Error)?;
                write!(writer, "{text}}}")?;
            }
        }
        writer.write_char('\n')
    }
}

/// The spans an event is in, outermost first: `task{name="gossip"}:dial{…}`.
fn spans<S, N>(context: &FmtContext<'_, S, N>) -> String
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    let mut all = Bounded::default();
    for span in context
        .event_scope()
        .into_iter()
        .flat_map(|scope| scope.from_root())
    {
        let separator = if all.0.is_empty() { "" } else { ":" };
        all.add(format_args!("{separator}{}", span.name()));
        if let Some(fields) = span
            .extensions()
            .get::<FormattedFields<N>>()
            .filter(|fields| !fields.is_empty())
        {
            all.add(format_args!("{{{}}}", fields.fields));
        }
    }
    all.0
}

/// Writes the fields of an event as they come, the message first. Errors are those of a buffer in memory: there are none.
struct Text<'a, 'w>(&'a mut Writer<'w>);

/// A JSON object but for its closing brace.
struct Json(Vec<u8>);

impl Text<'_, '_> {
    fn put(&mut self, name: &str, value: impl fmt::Display) {
        let _ = write!(self.0, " {name}={value}");
    }
}

impl Json {
    fn put(&mut self, name: &str, value: impl Serialize) {
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
            name if is_plain(&value) => self.put(name, value),
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
struct Bounded(String);

impl Bounded {
    fn of(value: &dyn fmt::Debug) -> String {
        let mut text = Self::default();
        text.add(format_args!("{value:?}"));
        text.0
    }

    /// Adds what fits. A value that fails to format shows what it gave until then.
    fn add(&mut self, text: fmt::Arguments<'_>) {
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
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::Value;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, work: impl FnOnce()) -> Vec<String> {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::registry()
            .with(filter("info").unwrap())
            .with(layer(format, move || writer.clone()));
        tracing::subscriber::with_default(subscriber, work);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// The JSON lines that `work` logs.
    pub(crate) fn captured(work: impl FnOnce()) -> Vec<String> {
        logged(LogFormat::Json, work)
    }

    #[test]
    fn an_event_reads_well_as_text() {
        let lines = logged(LogFormat::Text, || {
            let _span = tracing::info_span!("task", name = "gossip").entered();
            tracing::warn!(
                node = "n1",
                peers = 3,
                text = "two words",
                none = None::<u64>,
                "peer lost"
            );
            tracing::debug!("not shown");
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        let (_, rest) = lines[0].split_once("Z ").unwrap();
        let expected = r#" WARN starling::telemetry::log::tests: task{name="gossip"}: peer lost node=n1 peers=3 text="two words""#;
        assert_eq!(rest, expected);
    }

    #[test]
    fn nothing_in_a_field_makes_a_second_line() {
        for nasty in [
            "a\nb",
            "\u{1b}[31mred",
            "a\0b",
            "\r",
            "\u{85}\u{2028}",
            "\u{202e}",
            &"x\n".repeat(65_536),
        ] {
            let work = || {
                let _span = tracing::info_span!("dial", %nasty).entered();
                tracing::info!(nasty, display = %nasty, debug = ?nasty, "said {nasty}");
            };
            let lines = logged(LogFormat::Text, work);
            assert_eq!(lines.len(), 1, "{nasty:.20?}");
            let odd = |char: char| char.is_control() || matches!(char, '\u{2028}' | '\u{202e}');
            assert!(!lines[0].contains(odd), "{:?}", lines[0]);
            assert!(lines[0].len() < 12 * VALUE_BYTES_MAX, "{}", lines[0].len());

            let lines = logged(LogFormat::Json, work);
            assert_eq!(lines.len(), 1, "{nasty:.20?}");
            let line: Value = serde_json::from_str(&lines[0]).unwrap();
            if nasty.len() < VALUE_BYTES_MAX {
                assert_eq!(line["nasty"], nasty);
                assert_eq!(line["message"], format!("said {nasty}"));
            }
        }
    }

    #[test]
    fn numbers_stay_numbers_and_errors_bring_their_cause() {
        let error = io::Error::other(LogError::Level {
            level: "x".into(),
            source: "="
                .parse::<tracing_subscriber::filter::Directive>()
                .unwrap_err(),
        });
        let lines = captured(|| {
            let error: &(dyn Error + 'static) = &error;
            tracing::error!(
                error,
                bytes = 5_u64,
                share = 0.5,
                nan = f64::NAN,
                fine = true,
                "failed"
            );
        });
        let line: Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(
            (&line["bytes"], &line["share"], &line["fine"]),
            (&5.into(), &0.5.into(), &true.into())
        );
        assert!(
            line["error"]
                .as_str()
                .unwrap()
                .contains("neither a log level nor a filter: "),
            "{line}"
        );
        assert_eq!(line["level"], "ERROR");
        assert!(line["time"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn levels_and_filters() {
        for good in ["info", "warn,starling_gossip=debug", "starling::access=off"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        assert!(filter("info,=").is_err());
    }
}
