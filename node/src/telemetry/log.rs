//! Logs to standard error, as text or as one JSON object per line.
//!
//! Whatever a field holds, an event is one line: control characters are escaped and long values cut, so that nothing a
//! peer sends can forge a line, reach a terminal or fill a disk faster than its requests come.

mod fields;
mod output;

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::config::{self, LogFormat};
use crate::visible;
use fields::{Bounded, Digits, Escaped, Json, Text};
use output::Output;

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

/// Changes the level while the process runs, and sees to it that lines are written.
#[derive(Debug, Clone)]
pub struct Level {
    filter: reload::Handle<EnvFilter, Registry>,
    output: Output<io::Stderr>,
}

/// Makes this process log to standard error. Once per process.
pub fn init(log: &config::Log) -> Result<Level, LogError> {
    let (filter, handle) = reload::Layer::new(filter(&log.level)?);
    let output = Output::new(io::stderr());
    let layer = layer(log.format, output.clone());
    tracing_subscriber::registry()
        .with(filter)
        .with(layer)
        .try_init()
        .map_err(LogError::AlreadySet)?;
    Ok(Level {
        filter: handle,
        output,
    })
}

impl Level {
    /// Takes a level or a filter such as `info,starling_gossip=debug`; on error the old one stays.
    pub fn set(&self, level: &str) -> Result<(), LogError> {
        self.filter.reload(filter(level)?).map_err(LogError::Gone)
    }

    /// Writes access lines that wait for others. Run it as long as the process lives.
    pub async fn write_often(self) {
        self.output.write_often().await;
    }

    /// Writes those that wait now.
    pub fn flush(&self) {
        self.output.flush();
    }
}

fn filter(level: &str) -> Result<EnvFilter, LogError> {
    // It warns of each orderly stop; what it fails at is counted in `starling_gossip_restarts_total`.
    let level = match level.contains("chitchat") {
        true => level.to_owned(),
        false => format!("chitchat=error,{level}"),
    };
    EnvFilter::builder()
        .parse(&level)
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
        let time = time();
        let (metadata, spans) = (event.metadata(), spans(context));
        match self.0 {
            LogFormat::Text => {
                let level = metadata.level().as_str();
                let pad = &"     "[level.len().min(5)..];
                for part in [&*time, " ", pad, level, " ", metadata.target(), ": "] {
                    writer.write_str(part)?;
                }
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
                object.0.push(b'}');
                let text = str::from_utf8(&object.0).map_err(|_impossible| fmt::Error)?;
                // JSON lets characters stand that move what a terminal shows. Most lines have none.
                match text.is_ascii() {
                    true => writer.write_str(text)?,
                    false => writer.write_str(&visible::escape_json(text))?,
                }
            }
        }
        writer.write_char('\n')
    }
}

/// Now, as `2026-11-26T02:00:00.123456Z`. What changes once a second is made once a second.
fn time() -> String {
    thread_local! {
        static SECOND: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = SystemTime::now();
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != since.as_secs() {
            *text = humantime::format_rfc3339_seconds(now).to_string();
            text.truncate(text.len() - 1);
            *second = since.as_secs();
        }
        let mut time = String::with_capacity(TIME_BYTES);
        time.push_str(text);
        time.push('.');
        let micros = Digits::of((1_000_000 + since.subsec_micros()).into());
        time.push_str(&micros.as_str()[1..]);
        time.push('Z');
        time
    })
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

/// Of `2026-11-26T02:00:00.123456Z`.
const TIME_BYTES: usize = 27;

#[cfg(test)]
pub(crate) mod tests {
    use std::error::Error;
    use std::sync::{Arc, Mutex};

    use serde_json::Value;

    use super::fields::VALUE_BYTES_MAX;
    use super::*;

    #[derive(Debug, Clone, Default)]
    pub(super) struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Sink {
        pub(super) fn lines(&self) -> Vec<String> {
            let bytes = self.0.lock().unwrap().clone();
            let text = String::from_utf8(bytes).unwrap();
            text.lines().map(str::to_owned).collect()
        }
    }

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
        sink.lines()
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
            assert!(!lines[0].contains(odd), "{:?}", lines[0]);
            if nasty.len() < VALUE_BYTES_MAX {
                assert_eq!(line["nasty"], nasty);
                assert_eq!(line["message"], format!("said {nasty}"));
            }
        }
    }

    #[test]
    fn numbers_read_as_they_would_anywhere() {
        let mut expected = String::new();
        let lines = logged(LogFormat::Text, || {
            for value in [
                0.0,
                -0.0,
                1.0,
                0.001,
                0.5,
                3.2,
                12.345,
                0.0005,
                1e-9,
                -1.5,
                123_456.789,
                1e15,
                1e300,
            ] {
                tracing::info!(value, "said");
                expected += &format!("{value}\n");
            }
            for value in [0, 7, 10, 1_000_000, u64::MAX] {
                tracing::info!(value, "said");
                expected += &format!("{value}\n");
            }
        });
        let values = lines
            .iter()
            .map(|line| line.split("value=").nth(1).unwrap());
        assert_eq!(
            values.collect::<Vec<_>>(),
            expected.lines().collect::<Vec<_>>()
        );
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
        let time = line["time"].as_str().unwrap();
        let age = SystemTime::now().duration_since(humantime::parse_rfc3339(time).unwrap());
        assert!(time.len() == 27 && age.unwrap().as_secs() < 60, "{time}");
    }

    #[test]
    fn levels_and_filters() {
        for good in ["info", "warn,starling_gossip=debug", "starling::access=off"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        assert!(filter("info,=").is_err());
    }
}
