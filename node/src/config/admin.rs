//! `[admin]` and `[log]`: how the agent is watched.

use std::net::SocketAddr;
use std::path::PathBuf;

use toml::Spanned;

use super::AccessLog;
use super::check::Checker;
use super::keys::shown;
use super::raw;
use super::remote::Remote;

/// Where the agent answers questions about itself. Needs a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Unix socket for `starling status` and its like; mode 0600.
    pub socket: PathBuf,
    /// Loopback address of the dashboard, `/metrics`, `/healthz` and `/readyz`.
    pub listen: SocketAddr,
    /// Whether the dashboard is among them.
    pub dashboard: bool,
    /// The dashboard for those who are not on this host.
    pub remote: Option<Remote>,
}

/// How the agent logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Needs a restart.
    pub format: LogFormat,
    /// A level or a filter such as `info,starling_gossip=debug`. Reloadable.
    pub level: String,
    pub access: AccessLog,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Admin {
    pub(super) fn check(raw: &raw::Admin, checker: &mut Checker<'_>) -> Self {
        let default = Self::default();
        Self {
            socket: raw
                .socket
                .as_ref()
                .and_then(|path| checker.absolute_path("socket", path))
                .unwrap_or(default.socket),
            listen: raw
                .listen
                .as_ref()
                .and_then(|listen| loopback(checker, listen))
                .unwrap_or(default.listen),
            dashboard: raw.dashboard.unwrap_or(default.dashboard),
            remote: Remote::check(raw, checker),
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            socket: PathBuf::from(SOCKET),
            listen: SocketAddr::from(([127, 0, 0, 1], 7401)),
            dashboard: true,
            remote: None,
        }
    }
}

impl Log {
    pub(super) fn check(raw: &raw::Log, checker: &mut Checker<'_>) -> Self {
        let default = Self::default();
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        if let Some(level) = raw
            .level
            .as_ref()
            .filter(|level| !is_filter(level.get_ref()))
        {
            let what = format!("`level` is not a log level: `{}`", shown(level.get_ref()));
            let hint = "one of error, warn, info, debug, trace, off; for parts of the program add `,starling_gossip=debug`";
            checker.problem(level.span(), what, hint);
        }
        Self {
            format: raw
                .format
                .as_ref()
                .and_then(|format| checker.choice("format", format, &formats))
                .unwrap_or(default.format),
            level: raw
                .level
                .as_ref()
                .map_or(default.level, |level| level.get_ref().clone()),
            access: raw
                .access
                .as_ref()
                .map_or(default.access, |access| AccessLog::check(access, checker)),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: "info".to_owned(),
            access: AccessLog::default(),
        }
    }
}

/// What it tells is not for everyone, and nobody is asked for a proof: it stays on this host.
fn loopback(checker: &mut Checker<'_>, listen: &Spanned<String>) -> Option<SocketAddr> {
    let address = checker.address("listen", listen)?;
    if !address.ip().is_loopback() {
        let what = format!("`listen` of [admin] is not a loopback address: `{address}`");
        let hint = format!(
            "keep it on 127.0.0.1; to read it from elsewhere, offer it through the mesh: \
             [[service]] with `port = {}`, and `allow` who may; for browsers there is `remote`",
            address.port()
        );
        checker.problem(listen.span(), what, &hint);
        return None;
    }
    Some(address)
}

/// `level` or `target=level`, separated by commas. A word that is no level would otherwise be taken for a target.
fn is_filter(text: &str) -> bool {
    let is_level = |word: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&word);
    let is_target = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':'))
    };
    text.len() <= FILTER_BYTES_MAX
        && text.split(',').all(|part| match part.split_once('=') {
            Some((target, level)) => is_target(target) && is_level(level),
            None => is_level(part),
        })
}

/// The admin socket unless told otherwise.
pub const SOCKET: &str = "/run/starling/admin.sock";

/// A screen full of targets.
const FILTER_BYTES_MAX: usize = 1024;
