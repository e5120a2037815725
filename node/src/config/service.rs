//! `[[service]]`: what runs on this host and who may call it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::HeaderName;
use starling_gossip::ServiceName;
use starling_gossip::names::labels_ok;
use toml::Spanned;

use super::calls::ServiceLimits;
use super::check::Checker;
use super::health::Health;
use super::hosts::Hosts;
use super::keys::shown;
use super::policy::{self, Caller, Rule};
use super::{Place, raw};
use crate::headers;

/// A service that runs on this host. All of it is reloadable; what is in flight ends under the old settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub name: ServiceName,
    /// Where the app listens: `address` (127.0.0.1 unless told otherwise) and `port`.
    pub address: SocketAddr,
    /// What the app speaks. Default `tcp`.
    pub protocol: Protocol,
    /// It speaks both, `auto`: each connection of a caller shows which.
    pub is_detected: bool,
    /// Whether a tcp app is told who calls, by PROXY protocol version 2. Default not.
    pub is_told: bool,
    /// The version of HTTP spoken to the app. Default 1.
    pub http: HttpVersion,
    /// Authorities that requests may name. Default any.
    pub hosts: Hosts,
    /// Fields that servers take for a proxy's word and that callers of this service may send. Default none.
    pub trust_headers: Vec<HeaderName>,
    /// Services that may call it. Nobody else may; default nobody.
    pub allow: Vec<Caller>,
    /// What else is allowed: `[[service.grant]]`.
    pub grants: Vec<Rule>,
    /// What is not, whatever allows it: `[[service.deny]]`.
    pub denies: Vec<Rule>,
    /// What happens to calls that nothing allows. Default: what the mesh's documents say, else `[policy]`.
    pub mode: Option<policy::Set>,
    /// Where callers without the mesh connect while the mode is permissive. Default: nowhere.
    pub plaintext: Option<SocketAddr>,
    /// What tells instances apart, such as `version = "v2"`. At most 16.
    pub labels: BTreeMap<String, String>,
    /// Its share among the instances of the service, 1 to 1000. Default 100.
    pub weight: u16,
    /// How the agent finds out whether the app works. Default: it is taken to work.
    pub health: Option<Health>,
    /// What the agent holds calls to, whoever makes them. Default: nothing but the node's own `[limits]`.
    pub limits: ServiceLimits,
    pub declared: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Bytes as they come.
    Tcp,
    /// HTTP/1.1 and HTTP/2, request by request.
    Http,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    H1,
    /// In the clear with prior knowledge.
    H2,
    /// The same, said by `protocol = "grpc"`.
    Grpc,
}

impl Service {
    /// `None` after a problem with what everything else hangs on: the name and the port.
    pub(super) fn check(raw: &Spanned<raw::Service>, checker: &mut Checker<'_>) -> Option<Self> {
        let span = raw.span();
        let raw = raw.get_ref();
        let name = checker.required(
            raw.name.as_ref(),
            &span,
            "name",
            "callers use it: `name = \"orders\"`",
        );
        let name = name.and_then(|name| checker.service_name(name));
        let port = checker.required(
            raw.port.as_ref(),
            &span,
            "port",
            "where the app listens: `port = 8080`",
        );
        let port = port.and_then(|port| checker.number("port", port, 1..=u16::MAX));
        let ip = raw
            .address
            .as_ref()
            .and_then(|address| checker.ip("address", address));
        let protocol = raw
            .protocol
            .as_ref()
            .and_then(|word| checker.choice("protocol", word, SPOKEN));
        let (protocol, http) = protocol.unwrap_or((Protocol::Tcp, None));
        let is_detected = raw
            .protocol
            .as_ref()
            .is_some_and(|word| word.get_ref() == AUTO);
        let is_told = check_proxy(raw, protocol, checker);
        let http = check_http(raw, protocol, http, checker);
        let hosts = Hosts::check(raw.hosts.as_ref(), checker);
        if let Some(raw) = raw
            .hosts
            .as_ref()
            .filter(|_| protocol == Protocol::Tcp || is_detected)
        {
            let what = "`hosts` is for services that speak http or grpc";
            let hint = "add `protocol = \"http\"`: what passes as bytes names no host";
            checker.problem(raw.span(), what, hint);
        }
        let trust_headers = raw.trust_headers.iter().flatten();
        let trust_headers = trust_headers
            .filter_map(|name| check_trusted(name, checker))
            .collect();
        let allow = raw
            .allow
            .iter()
            .flatten()
            .filter_map(|name| policy::check_caller(name, checker))
            .collect();
        let grants = check_rules(raw.grant.as_deref(), protocol, checker);
        let denies = check_rules(raw.deny.as_deref(), protocol, checker);
        let mode = raw.mode.as_ref();
        let mode = mode.and_then(|mode| policy::check_mode(mode, checker));
        let plaintext = raw.plaintext.as_ref();
        let plaintext = plaintext.and_then(|address| checker.address("plaintext", address));
        let labels = check_labels(raw, checker);
        let weight = raw
            .weight
            .as_ref()
            .and_then(|weight| checker.number("weight", weight, 1..=1000));
        let health = raw
            .health
            .as_ref()
            .map(|health| Health::check(health, checker));
        let limits = raw.limits.as_ref();
        let limits = limits.map(|limits| ServiceLimits::check(limits, checker));
        Some(Self {
            name: name?,
            address: SocketAddr::new(ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), port?),
            protocol,
            is_detected,
            is_told,
            http,
            hosts,
            trust_headers,
            allow,
            grants,
            denies,
            mode,
            plaintext,
            labels,
            weight: weight.unwrap_or(100),
            health,
            limits: limits.unwrap_or_default(),
            declared: checker.place(&span),
        })
    }

    /// The word for what it speaks, as operators say it and as other nodes are told.
    pub fn speaks(&self) -> &'static str {
        match self.http {
            HttpVersion::Grpc => "grpc",
            HttpVersion::H1 | HttpVersion::H2 if self.is_detected => AUTO,
            HttpVersion::H1 | HttpVersion::H2 => self.protocol.as_str(),
        }
    }

    /// Whether it can be called by `protocol`.
    pub fn takes(&self, protocol: Protocol) -> bool {
        self.is_detected || self.protocol == protocol
    }
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn check_trusted(name: &Spanned<String>, checker: &mut Checker<'_>) -> Option<HeaderName> {
    let text = name.get_ref();
    let parsed = HeaderName::from_bytes(text.as_bytes()).ok();
    let trusted = parsed.filter(headers::is_untrusted);
    if trusted.is_none() {
        let what = format!(
            "`{}` in `trust_headers` is no header that agents remove",
            shown(text)
        );
        checker.problem(
            name.span(),
            what,
            "as in `trust_headers = [\"x-remote-user\"]`; the others pass",
        );
    }
    trusted
}

/// `said` is the version that `protocol` says already.
fn check_http(
    raw: &raw::Service,
    protocol: Protocol,
    said: Option<HttpVersion>,
    checker: &mut Checker<'_>,
) -> HttpVersion {
    let Some(word) = &raw.http else {
        return said.unwrap_or(HttpVersion::H1);
    };
    if let Some(said) = said {
        let what = "`http` says nothing about a service that speaks grpc";
        checker.problem(word.span(), what, "gRPC is HTTP/2: leave `http` out");
        return said;
    }
    if protocol == Protocol::Tcp {
        let what = "`http` says nothing about a service that speaks tcp";
        checker.problem(
            word.span(),
            what,
            "add `protocol = \"http\"`, or leave `http` out",
        );
    }
    let versions = [("1", HttpVersion::H1), ("2", HttpVersion::H2)];
    checker
        .choice("http", word, &versions)
        .unwrap_or(HttpVersion::H1)
}

/// What looks at requests cannot be evaluated where there are none: refused here, and denied if it came to that.
fn check_rules(
    raw: Option<&[Spanned<raw::policy::Rule>]>,
    protocol: Protocol,
    checker: &mut Checker<'_>,
) -> Vec<Rule> {
    let mut rules = Vec::new();
    for raw in raw.unwrap_or_default() {
        let rule = Rule::check(raw, checker);
        if rule.is_for_requests() && protocol == Protocol::Tcp {
            let what = "`methods` and `paths` say nothing about a service that speaks tcp";
            let hint = "add `protocol = \"http\"` to the service, or leave them out";
            checker.problem(raw.span(), what, hint);
        }
        rules.push(rule);
    }
    rules
}

fn check_proxy(raw: &raw::Service, protocol: Protocol, checker: &mut Checker<'_>) -> bool {
    let Some(word) = &raw.proxy_protocol else {
        return false;
    };
    if protocol != Protocol::Tcp {
        let what = "`proxy_protocol` is for services that speak tcp";
        let hint = "over HTTP the app reads `starling-caller` in each request: leave it out";
        checker.problem(word.span(), what, hint);
    }
    checker
        .choice("proxy_protocol", word, &[("2", ())])
        .is_some()
}

fn check_labels(raw: &raw::Service, checker: &mut Checker<'_>) -> BTreeMap<String, String> {
    let Some(labels) = &raw.labels else {
        return BTreeMap::new();
    };
    if !labels_ok(labels.get_ref()) {
        let hint = "at most 16; keys and values have up to 63 characters of a-z A-Z 0-9 . _ / -";
        checker.problem(labels.span(), "these `labels` cannot be announced", hint);
    }
    labels.get_ref().clone()
}

/// What `protocol` of a service may say, and the version of HTTP that goes with it.
const SPOKEN: &[(&str, (Protocol, Option<HttpVersion>))] = &[
    ("tcp", (Protocol::Tcp, None)),
    ("http", (Protocol::Http, None)),
    ("grpc", (Protocol::Http, Some(HttpVersion::Grpc))),
    (AUTO, (Protocol::Http, None)),
];

/// Either, by what a connection begins with.
pub(crate) const AUTO: &str = "auto";
