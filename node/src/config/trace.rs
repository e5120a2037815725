//! `[trace]`: where spans go, and how many traces begin here.

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};
use toml::Spanned;

use super::check::Checker;
use super::keys::shown;
use super::raw;

/// Traces. Reloadable, for calls that begin after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// None: no spans are made, and what apps say of traces passes as it is.
    pub collector: Option<Collector>,
    /// Traces that this agent begins in a second. Those that apps began are not counted, as they decided themselves.
    pub sample: u32,
}

/// Who takes spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector {
    authority: Authority,
    /// Without the slash at its end.
    path: String,
    pub protocol: ExportProtocol,
}

/// How spans are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportProtocol {
    /// OTLP/HTTP with protobuf.
    Http,
    /// OTLP/gRPC.
    Grpc,
}

impl Trace {
    pub(super) fn check(raw: &raw::Trace, checker: &mut Checker<'_>) -> Self {
        let protocols = [
            ("http", ExportProtocol::Http),
            ("grpc", ExportProtocol::Grpc),
        ];
        let protocol = raw
            .protocol
            .as_ref()
            .and_then(|protocol| checker.choice("protocol", protocol, &protocols))
            .unwrap_or(ExportProtocol::Http);
        let collector = raw
            .endpoint
            .as_ref()
            .and_then(|endpoint| Collector::check(endpoint, protocol, checker));
        let sample = raw
            .sample
            .as_ref()
            .and_then(|sample| checker.number("sample", sample, 0..=SAMPLE_MAX));
        Self {
            collector,
            sample: sample.unwrap_or(SAMPLE),
        }
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self {
            collector: None,
            sample: SAMPLE,
        }
    }
}

impl Collector {
    /// Where messages are posted.
    pub fn uri(&self) -> Uri {
        let path = match self.protocol {
            ExportProtocol::Http => format!("{}{HTTP_PATH}", self.path),
            ExportProtocol::Grpc => GRPC_PATH.to_owned(),
        };
        let path = PathAndQuery::try_from(path).expect("checked when it was read");
        Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()
            .expect("of parts that are good")
    }

    fn check(
        endpoint: &Spanned<String>,
        protocol: ExportProtocol,
        checker: &mut Checker<'_>,
    ) -> Option<Self> {
        let text = endpoint.get_ref();
        let mut refuse = |what: &str, hint: &str| {
            let what = format!("`endpoint` {what}: `{}`", shown(text));
            checker.problem(endpoint.span(), what, hint);
            None
        };
        let Ok(uri) = text.parse::<Uri>() else {
            return refuse("is not a URL", EXAMPLE);
        };
        let Some(authority) = uri.authority().filter(|authority| {
            uri.scheme().is_some()
                && !authority.host().is_empty()
                && !authority.as_str().contains('@')
        }) else {
            return refuse("is not a URL with scheme, host and port", EXAMPLE);
        };
        if uri.scheme() != Some(&Scheme::HTTP) {
            return refuse(
                "has another scheme than http",
                "let a collector on this host carry it on by https, or call the collector through the mesh: \
                 [[upstream]] with `listen = \"127.0.0.1:4318\"`, and that address here",
            );
        }
        if authority.port_u16().is_none_or(|port| port == 0) {
            return refuse(
                "names no port",
                "4318 is usual for OTLP over HTTP, 4317 for gRPC",
            );
        }
        if !is_loopback(authority.host()) {
            return refuse(
                "is not on this host",
                "spans would travel in plain text: run a collector here, or call it through the mesh: \
                 [[upstream]] with `listen = \"127.0.0.1:4318\"`, and that address here",
            );
        }
        let path = uri.path().trim_end_matches('/');
        if uri.query().is_some() || path.ends_with(HTTP_PATH) {
            return refuse(
                "says too much",
                "leave out `/v1/traces` and any query: they are added",
            );
        }
        if protocol == ExportProtocol::Grpc && !path.is_empty() {
            return refuse(
                "has a path, which gRPC has no use for",
                "host and port are enough",
            );
        }
        Some(Self {
            authority: authority.clone(),
            path: path.to_owned(),
            protocol,
        })
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let ip = host.parse::<std::net::IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
}

const EXAMPLE: &str = "as in \"http://127.0.0.1:4318\"";

const HTTP_PATH: &str = "/v1/traces";
const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// A host that does nothing else than this tells enough to find what is slow, and little enough to keep.
const SAMPLE: u32 = 10;

/// With two spans each, more than the queue takes in a second even of an idle host.
const SAMPLE_MAX: u32 = 1000;
