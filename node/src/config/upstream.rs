//! `[[upstream]]`: what local apps call, and where.

use std::net::SocketAddr;
use std::sync::Arc;

use starling_gossip::ServiceName;
use toml::Spanned;

use super::calls::{CallOverrides, CallSettings, Tables};
use super::check::Checker;
use super::hosts::Hosts;
use super::service::Protocol;
use super::{Place, raw};

/// A service that local apps call, and where they call it. All of it is reloadable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    pub service: ServiceName,
    /// Local address where apps connect. Whoever reaches it speaks as `caller`.
    pub listen: SocketAddr,
    /// Who calls: the service identity shown to the callee. `as` in TOML. That this node holds it is checked when the
    /// agent starts.
    pub caller: ServiceName,
    /// What apps speak here. Default: what the instances announce.
    pub protocol: Option<Protocol>,
    /// Authorities that requests of apps may name. With a list, requests that a browser marks as those of another site's page
    /// are refused too. Default any.
    pub hosts: Hosts,
    /// How the calls are made.
    pub calls: Arc<CallSettings>,
    pub declared: Place,
}

impl Upstream {
    /// `None` after a problem with one of the three that make an upstream.
    pub(super) fn check(raw: &Spanned<raw::Upstream>, checker: &mut Checker<'_>) -> Option<Self> {
        let span = raw.span();
        let raw = raw.get_ref();
        let service = checker.required(
            raw.service.as_ref(),
            &span,
            "service",
            "whom to call: `service = \"orders\"`",
        );
        let service = service.and_then(|name| checker.service_name(name));
        let listen = checker.required(
            raw.listen.as_ref(),
            &span,
            "listen",
            "where apps call: `listen = \"127.0.0.1:9001\"`",
        );
        let listen = listen.and_then(|address| check_listen(address, checker));
        let caller = checker.required(
            raw.caller.as_ref(),
            &span,
            "as",
            "the service that calls: `as = \"web\"`",
        );
        let caller = caller.and_then(|name| checker.service_name(name));
        let protocol = raw
            .protocol
            .as_ref()
            .and_then(|word| checker.choice("protocol", word, SPOKEN));
        let hosts = Hosts::check(raw.hosts.as_ref(), checker);
        if let Some(raw) = raw
            .hosts
            .as_ref()
            .filter(|_| protocol != Some(Protocol::Http))
        {
            let what = "`hosts` is for upstreams that say `protocol = \"http\"` or `\"grpc\"`";
            checker.problem(raw.span(), what, "what passes as bytes names no host");
        }
        let tables = Tables {
            balance: raw.balance.as_ref(),
            retry: raw.retry.as_ref(),
            timeout: raw.timeout.as_ref(),
            limits: raw.limits.as_ref(),
            outlier: raw.outlier.as_ref(),
        };
        let calls = CallOverrides::check(&tables, checker).over(&CallSettings::default());
        Some(Self {
            service: service?,
            listen: listen?,
            caller: caller?,
            protocol,
            hosts,
            calls: Arc::new(calls),
            declared: checker.place(&span),
        })
    }
}

fn check_listen(address: &Spanned<String>, checker: &mut Checker<'_>) -> Option<SocketAddr> {
    let listen = checker.address("listen", address)?;
    if listen.ip().is_unspecified() {
        let what = format!("`listen` is open to every network of this host: `{listen}`");
        let hint = "whoever connects there speaks as this caller; name one address, best 127.0.0.1";
        checker.problem(address.span(), what, hint);
        return None;
    }
    Some(listen)
}

/// What `protocol` of an upstream may say. gRPC is carried as the HTTP that it is.
const SPOKEN: &[(&str, Protocol)] = &[
    ("tcp", Protocol::Tcp),
    ("http", Protocol::Http),
    ("grpc", Protocol::Http),
];
