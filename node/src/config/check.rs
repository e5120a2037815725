//! Turning raw values into checked ones. Each method returns `None` after noting a problem; the caller goes on with a
//! default, as nothing of a file with problems is used.

use std::net::{IpAddr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use starling_gossip::ServiceName;
use toml::Spanned;

use super::keys::{nearest, shown};
use super::problems::{Problem, Problems};
use super::{Place, raw};

/// One file while it is checked.
pub(super) struct Checker<'t> {
    file: Arc<Path>,
    text: &'t str,
    problems: Problems,
}

impl<'t> Checker<'t> {
    pub(super) fn new(file: &Path, text: &'t str) -> Self {
        Self {
            file: file.into(),
            text,
            problems: Problems::default(),
        }
    }

    pub(super) fn finish(self) -> Problems {
        self.problems
    }

    /// Whether nothing was wrong so far.
    pub(super) fn is_good(&self) -> bool {
        self.problems.is_empty()
    }

    /// Notes a file that is not TOML, or has a value of another type than its key. Such a message may quote the file; it
    /// stays on one line and of bounded length.
    pub(super) fn refuse(&mut self, error: &toml::de::Error) {
        let message = error.message().lines().next().unwrap_or_default().trim();
        let shown: String = message
            .chars()
            .filter(|c| !c.is_control())
            .take(MESSAGE_CHARS_MAX)
            .collect();
        self.problem(error.span().unwrap_or(0..0), shown, "");
    }

    pub(super) fn place(&self, span: &Range<usize>) -> Place {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        Place {
            file: Arc::clone(&self.file),
            line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
        }
    }

    /// Notes a problem. An empty `hint` is none.
    pub(super) fn problem(&mut self, span: Range<usize>, what: impl Into<String>, hint: &str) {
        let Place { file, line } = self.place(&span);
        let hint = (!hint.is_empty()).then(|| hint.to_owned());
        self.problems.push(Problem {
            file,
            line: Some(line),
            what: what.into(),
            hint,
        });
    }

    /// A value that must be there. `table` is where it is missing.
    pub(super) fn required<T>(
        &mut self,
        value: Option<T>,
        table: &Range<usize>,
        key: &str,
        hint: &str,
    ) -> Option<T> {
        if value.is_none() {
            self.problem(table.clone(), format!("`{key}` is missing"), hint);
        }
        value
    }

    pub(super) fn service_name(&mut self, name: &Spanned<String>) -> Option<ServiceName> {
        let text = name.get_ref();
        ServiceName::parse(text)
            .map_err(|error| {
                let lower = text.to_lowercase().replace(['_', '.', ' '], "-");
                let hint = match text.as_str() {
                    "*" => "there is no wildcard: list the services that may call".to_owned(),
                    _ if ServiceName::parse(&lower).is_ok() => format!("`{lower}` would be a name"),
                    _ => String::new(),
                };
                self.problem(
                    name.span(),
                    format!("`{}` is not the name of a service: {error}", shown(text)),
                    &hint,
                );
            })
            .ok()
    }

    pub(super) fn address(&mut self, key: &str, address: &Spanned<String>) -> Option<SocketAddr> {
        let text = address.get_ref();
        let parsed = text
            .parse::<SocketAddr>()
            .ok()
            .filter(|address| address.port() != 0)
            .map(canonical);
        if parsed.is_none() {
            let hint = match (text.parse::<IpAddr>(), text.parse::<SocketAddr>()) {
                (Ok(ip), _) => format!(
                    "a port belongs behind it, as in \"{}\"",
                    SocketAddr::new(ip, 7400)
                ),
                (_, Ok(_)) => "port 0 means any port, and nobody could be told which".to_owned(),
                _ => "an address is numbers and a port, as in \"127.0.0.1:9001\" or \"[::1]:9001\""
                    .to_owned(),
            };
            self.problem(
                address.span(),
                format!("`{key}` is not an address: `{}`", shown(text)),
                &hint,
            );
        }
        parsed
    }

    pub(super) fn ip(&mut self, key: &str, address: &Spanned<String>) -> Option<IpAddr> {
        let text = address.get_ref();
        let parsed: Option<IpAddr> = text.parse().ok();
        let parsed = parsed.map(|ip| ip.to_canonical());
        if parsed.is_none() {
            let hint = match text.parse::<SocketAddr>() {
                Ok(with_port) => format!(
                    "`{key} = \"{}\"` and `port = {}`",
                    with_port.ip(),
                    with_port.port()
                ),
                Err(_) => "numbers only, as in \"127.0.0.1\" or \"::1\"".to_owned(),
            };
            self.problem(
                address.span(),
                format!("`{key}` is not an IP address: `{}`", shown(text)),
                &hint,
            );
        }
        parsed
    }

    pub(super) fn absolute_path(&mut self, key: &str, path: &Spanned<String>) -> Option<PathBuf> {
        let parsed = PathBuf::from(path.get_ref());
        if !parsed.is_absolute() || path.get_ref().contains('\0') {
            let what = format!(
                "`{key}` is not an absolute path: `{}`",
                shown(path.get_ref())
            );
            self.problem(
                path.span(),
                what,
                "begin it with `/`, so that it means the same wherever the agent is started",
            );
            return None;
        }
        Some(parsed)
    }

    /// A whole number within `range`.
    pub(super) fn number<T>(
        &mut self,
        key: &str,
        number: &Spanned<raw::Whole>,
        range: RangeInclusive<T>,
    ) -> Option<T>
    where
        T: TryFrom<i64> + PartialOrd + Copy + std::fmt::Display,
    {
        let parsed = T::try_from(number.get_ref().0)
            .ok()
            .filter(|number| range.contains(number));
        if parsed.is_none() {
            let what = format!("`{key}` is {}, which is out of range", number.get_ref().0);
            self.problem(
                number.span(),
                what,
                &format!("it goes from {} to {}", range.start(), range.end()),
            );
        }
        parsed
    }

    pub(super) fn duration(
        &mut self,
        key: &str,
        time: &Spanned<raw::Duration>,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let text = &time.get_ref().0;
        let Ok(parsed) = humantime::parse_duration(text) else {
            let hint = "a number and a unit, such as \"500ms\", \"30s\" or \"5m\"";
            self.problem(
                time.span(),
                format!("`{key}` is not a time: `{}`", shown(text)),
                hint,
            );
            return None;
        };
        if !range.contains(&parsed) {
            let [from, to] = [range.start(), range.end()]
                .map(|end| humantime::format_duration(*end).to_string());
            let what = format!("`{key}` is {}, which is out of range", shown(text));
            self.problem(time.span(), what, &format!("it goes from {from} to {to}"));
            return None;
        }
        Some(parsed)
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &str,
        word: &Spanned<String>,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let found = choices.iter().find(|(name, _)| name == word.get_ref());
        if found.is_none() {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            let hint = match nearest(word.get_ref(), &names) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!(
                    "one of {}",
                    names
                        .iter()
                        .map(|name| format!("\"{name}\""))
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            };
            self.problem(
                word.span(),
                format!("`{key}` cannot be `{}`", shown(word.get_ref())),
                &hint,
            );
        }
        found.map(|(_, value)| *value)
    }
}

/// The address as the kernel takes it: `[::ffff:0.0.0.0]` is `0.0.0.0`, and is judged as that (RFC 4291 §2.5.5.2).
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}

const MESSAGE_CHARS_MAX: usize = 300;

/// Whether `text` is `host:port` with a host that could be looked up and a port that could be dialled.
pub(crate) fn is_host_port(text: &str) -> bool {
    if let Ok(address) = SocketAddr::from_str(text) {
        return address.port() != 0 && !canonical(address).ip().is_unspecified();
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    // All digits and dots is a mistyped address rather than a name.
    let is_name = host.bytes().any(|b| b.is_ascii_alphabetic());
    is_name
        && host.len() <= 253
        && host.trim_end_matches('.').split('.').all(label_ok)
        && port.parse::<u16>().is_ok_and(|port| port != 0)
}
