//! `[admin] remote`: the dashboard for those who are not on this host.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;

use starling_gossip::ServiceName;
use toml::Spanned;

use super::check::Checker;
use super::keys::shown;
use super::raw;

/// Where the dashboard is reached from elsewhere, over TLS, and by whom. Needs a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    pub listen: SocketAddr,
    /// Names by which browsers may ask for it, beside its address and the name in the node's certificate.
    pub names: Vec<String>,
    /// Services whose certificates open it; others need a pass.
    pub allow: Vec<ServiceName>,
    /// What is shown instead of the node's certificate.
    pub certificate: Option<Files>,
}

/// A certificate that something else keeps fresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// PEM, leaf first.
    pub chain: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

impl Remote {
    pub(super) fn check(raw: &raw::Admin, checker: &mut Checker<'_>) -> Option<Self> {
        let Some(remote) = &raw.remote else {
            alone(raw, checker);
            return None;
        };
        if raw.dashboard == Some(false) {
            let what = "`remote` of [admin] has nothing to show: `dashboard` is false";
            checker.problem(remote.span(), what, "remove one of the two");
        }
        let listen = checker.address("remote", remote)?;
        if raw.listen.as_ref().map(Spanned::get_ref) == Some(remote.get_ref()) {
            let what = "`remote` and `listen` of [admin] are the same address";
            let hint =
                "`listen` is for this host and without TLS; choose another port for `remote`";
            checker.problem(remote.span(), what, hint);
        }
        let names = raw.names.iter().flatten();
        let names = names.filter_map(|name| host_name(checker, name)).collect();
        let allow = raw.allow.iter().flatten();
        let allow = allow
            .filter_map(|name| checker.service_name(name))
            .collect();
        Some(Self {
            listen,
            names,
            allow,
            certificate: files(raw, checker),
        })
    }
}

/// Keys that mean nothing without `remote`.
fn alone(raw: &raw::Admin, checker: &mut Checker<'_>) {
    let first = |list: &Option<Vec<Spanned<String>>>| -> Option<Range<usize>> {
        list.as_ref()
            .map(|list| list.first().map_or(0..0, Spanned::span))
    };
    let keys = [
        ("names", first(&raw.names)),
        ("allow", first(&raw.allow)),
        ("certificate", raw.certificate.as_ref().map(Spanned::span)),
        ("key", raw.key.as_ref().map(Spanned::span)),
    ];
    for (key, span) in keys {
        if let Some(span) = span {
            let what = format!(
                "`{key}` of [admin] is about the dashboard for other hosts, and there is none"
            );
            let hint =
                "add `remote = \"10.0.0.1:7443\"` with an address of this host, or remove it";
            checker.problem(span, what, hint);
        }
    }
}

fn files(raw: &raw::Admin, checker: &mut Checker<'_>) -> Option<Files> {
    match (&raw.certificate, &raw.key) {
        (Some(chain), Some(key)) => Some(Files {
            chain: checker.absolute_path("certificate", chain)?,
            key: checker.absolute_path("key", key)?,
        }),
        (Some(lone), None) => {
            let what = "`certificate` of [admin] has no `key`";
            checker.problem(
                lone.span(),
                what,
                "add `key` with the file of its private key",
            );
            None
        }
        (None, Some(lone)) => {
            let what = "`key` of [admin] has no `certificate`";
            checker.problem(
                lone.span(),
                what,
                "add `certificate` with the file of its chain",
            );
            None
        }
        (None, None) => None,
    }
}

/// As browsers send it, but for the port.
fn host_name(checker: &mut Checker<'_>, name: &Spanned<String>) -> Option<String> {
    let text = name.get_ref();
    let label_ok = |label: &str| {
        let is_inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        (1..=63).contains(&label.len()) && label.bytes().all(is_inner)
    };
    let is_name = text.len() <= NAME_BYTES_MAX
        && text.split('.').all(label_ok)
        && text.bytes().any(|b| b.is_ascii_alphabetic());
    if is_name {
        return Some(text.to_ascii_lowercase());
    }
    let what = format!("`{}` is not the name of a host", shown(text));
    let hint = "without scheme and port, as in \"n1.example.org\"; addresses of this host need not be named";
    checker.problem(name.span(), what, hint);
    None
}

/// A name of DNS.
const NAME_BYTES_MAX: usize = 253;
