//! `health`: how the agent finds out whether an app works.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

use super::check::Checker;
use super::keys::shown;
use super::raw;

/// How the agent finds out whether an app works. Each check costs one connection to the app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    pub kind: HealthKind,
    /// Time between checks. Default 2 seconds.
    pub interval: Duration,
    /// How long a check may take. Default 1 second.
    pub timeout: Duration,
    /// Successes in a row that make it healthy. Default 2.
    pub up: u32,
    /// Failures in a row that make it unhealthy. Default 2.
    pub down: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthKind {
    /// The port accepts a connection.
    Tcp,
    /// `GET path` is answered with 2xx or 3xx.
    Http { path: String },
    /// `grpc.health.v1.Health/Check` of `service` (the whole server if empty) is answered with SERVING.
    Grpc { service: String },
    /// The program ends with status 0.
    Exec { command: Vec<String> },
}

impl Health {
    pub(super) fn check(raw: &Spanned<raw::Health>, checker: &mut Checker<'_>) -> Self {
        let span = raw.span();
        let raw = raw.get_ref();
        let mut time = |key: &str, value: &Option<_>, range, default| {
            value
                .as_ref()
                .and_then(|value| checker.duration(key, value, range))
                .unwrap_or(default)
        };
        let interval = time(
            "interval",
            &raw.interval,
            Duration::from_millis(100)..=Duration::from_secs(3600),
            INTERVAL,
        );
        let timeout = time(
            "timeout",
            &raw.timeout,
            Duration::from_millis(10)..=Duration::from_secs(60),
            TIMEOUT,
        );
        let mut count = |key: &str, value: &Option<_>| {
            value
                .as_ref()
                .and_then(|value| checker.number(key, value, 1..=100))
                .unwrap_or(THRESHOLD)
        };
        let up = count("up", &raw.up);
        let down = count("down", &raw.down);
        Self {
            kind: check_kind(raw, &span, checker),
            interval,
            timeout,
            up,
            down,
        }
    }
}

fn check_kind(raw: &raw::Health, span: &Range<usize>, checker: &mut Checker<'_>) -> HealthKind {
    let kind = checker.required(raw.kind.as_ref(), span, "kind", KIND_HINT);
    let kind = kind.and_then(|kind| checker.choice("kind", kind, KINDS));
    let Some(kind) = kind else {
        return HealthKind::Tcp;
    };
    let mut only = |key: &str, at: Option<Range<usize>>, home: Kind| {
        if let Some(at) = at
            && kind != home
        {
            let what = format!("`{key}` says nothing about a check of kind {}", kind.name());
            let hint = format!("`kind = \"{}\"`, or leave `{key}` out", home.name());
            checker.problem(at, what, &hint);
        }
    };
    only("path", raw.path.as_ref().map(Spanned::span), Kind::Http);
    only(
        "service",
        raw.service.as_ref().map(Spanned::span),
        Kind::Grpc,
    );
    only(
        "command",
        raw.command.as_ref().map(Spanned::span),
        Kind::Exec,
    );
    match kind {
        Kind::Tcp => HealthKind::Tcp,
        Kind::Http => HealthKind::Http {
            path: raw
                .path
                .as_ref()
                .map_or_else(|| "/".to_owned(), |path| check_path(path, checker)),
        },
        Kind::Grpc => HealthKind::Grpc {
            service: raw
                .service
                .as_ref()
                .map_or_else(String::new, |name| check_service(name, checker)),
        },
        Kind::Exec => HealthKind::Exec {
            command: check_command(raw, span, checker),
        },
    }
}

/// It goes into a request line as it is.
fn check_path(path: &Spanned<String>, checker: &mut Checker<'_>) -> String {
    let text = path.get_ref();
    if !text.starts_with('/')
        || text.len() > TEXT_BYTES_MAX
        || !text.bytes().all(|b| b.is_ascii_graphic())
    {
        let what = format!("`path` is not a path: `{}`", shown(text));
        checker.problem(
            path.span(),
            what,
            "it begins with `/` and is plain ASCII, percent-encoded where needed",
        );
    }
    text.clone()
}

fn check_service(name: &Spanned<String>, checker: &mut Checker<'_>) -> String {
    let text = name.get_ref();
    if text.len() > TEXT_BYTES_MAX || !text.bytes().all(|b| b.is_ascii_graphic()) {
        let what = format!("`service` is not a name of gRPC: `{}`", shown(text));
        checker.problem(
            name.span(),
            what,
            "such as \"shop.v1.Orders\"; empty means the whole server",
        );
    }
    text.clone()
}

fn check_command(raw: &raw::Health, span: &Range<usize>, checker: &mut Checker<'_>) -> Vec<String> {
    let command = checker.required(raw.command.as_ref(), span, "command", COMMAND_HINT);
    let Some(command) = command else {
        return Vec::new();
    };
    let words = command.get_ref();
    let is_good = words
        .first()
        .is_some_and(|program| program.starts_with('/'))
        && words.len() <= WORDS_MAX
        && words
            .iter()
            .all(|word| word.len() <= TEXT_BYTES_MAX && !word.contains('\0'));
    if !is_good {
        checker.problem(
            command.span(),
            "`command` is not a program that can be run",
            COMMAND_HINT,
        );
    }
    words.clone()
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Tcp,
    Http,
    Grpc,
    Exec,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Exec => "exec",
        }
    }
}

const KINDS: &[(&str, Kind)] = &[
    ("tcp", Kind::Tcp),
    ("http", Kind::Http),
    ("grpc", Kind::Grpc),
    ("exec", Kind::Exec),
];
const KIND_HINT: &str = "\"tcp\" (it accepts), \"http\" (it answers 2xx or 3xx), \"grpc\" (it says SERVING) or \"exec\" (a program ends well)";
const COMMAND_HINT: &str = "an absolute path and up to 31 arguments, no shell: `command = [\"/usr/bin/pg_isready\", \"-q\"]`";

const INTERVAL: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(1);
const THRESHOLD: u32 = 2;
const TEXT_BYTES_MAX: usize = 1024;
const WORDS_MAX: usize = 32;
