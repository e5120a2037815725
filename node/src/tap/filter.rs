//! Which calls a tap shows.

use std::fmt;

use http::{HeaderName, Method, StatusCode};
use serde::{Deserialize, Serialize};
use starling_gossip::ServiceName;
use starling_transport::SpiffeId;

use crate::pass::HEADERS_MAX;
use crate::path::{Normal, Pattern};
use crate::percent::{decoded, encoded};
use crate::telemetry::{Ended, Side};

use super::fields::is_secret;

/// Which calls somebody wants to see, as it travels. An agent that does not know a condition refuses all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    pub callee: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// A pattern as in policy and routes: `/orders/**`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `404` or `5xx`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// `caller` or `callee`: whose agents tell. Both unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub side: Option<String>,
    /// Only calls that the mesh failed or that were answered with 5xx.
    #[serde(default)]
    pub errors: bool,
    /// The names of header fields too.
    #[serde(default)]
    pub headers: bool,
    /// Header fields whose values are shown.
    #[serde(default)]
    pub show: Vec<String>,
    /// Calls of each node in a second, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
}

/// The same, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    pub callee: ServiceName,
    caller: Option<ServiceName>,
    method: Option<Method>,
    path: Option<Pattern>,
    status: Option<Statuses>,
    side: Option<Side>,
    errors: bool,
    /// Whether header fields are wanted.
    pub headers: bool,
    /// Those whose values are.
    pub show: Vec<HeaderName>,
    pub rate: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Statuses {
    One(StatusCode),
    /// The hundreds.
    Class(u16),
}

/// Why something cannot be looked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("`{0}` is not the name of a service")]
    Service(String),
    #[error("`{0}` is not a method of HTTP")]
    Method(String),
    #[error("`{0}` is no pattern of paths: {1}")]
    Path(String, crate::path::PatternError),
    #[error("`{0}` is neither a status such as 404 nor a class such as 5xx")]
    Status(String),
    #[error("`{0}` is neither `caller` nor `callee`")]
    Side(String),
    #[error("`{0}` is not the name of a header field")]
    Header(String),
    #[error("values of `{0}` are never shown, as they may let others in")]
    Secret(HeaderName),
    #[error("values of {HEADERS_MAX} header fields can be shown at a time")]
    TooMany,
    #[error("a rate is between 1 and {RATE_MAX} calls a second")]
    Rate,
}

impl Wanted {
    /// As the query of a URI.
    pub fn to_query(&self) -> String {
        let callee = ("callee", self.callee.clone());
        let fields = [callee].into_iter().chain(self.conditions());
        let fields = fields.map(|(name, value)| format!("{name}={}", encoded(&value)));
        fields.collect::<Vec<_>>().join("&")
    }

    /// What is wanted of the calls to the callee.
    fn conditions(&self) -> impl Iterator<Item = (&'static str, String)> {
        let text = |name, value: &Option<String>| value.clone().map(|value| (name, value));
        let flag = |name, is_set: bool| is_set.then(|| (name, "true".to_owned()));
        let fields = [
            text("caller", &self.caller),
            text("method", &self.method),
            text("path", &self.path),
            text("status", &self.status),
            text("side", &self.side),
            flag("errors", self.errors),
            flag("headers", self.headers),
            self.rate.map(|rate| ("rate", rate.to_string())),
        ];
        let show = self.show.iter().map(|name| ("show", name.clone()));
        fields.into_iter().flatten().chain(show)
    }

    /// From the query of a URI; what is not known is an error. `node` names nodes, which comes beside it.
    pub fn from_query(query: &str) -> Option<(Self, Vec<String>)> {
        let (mut wanted, mut nodes) = (Self::default(), Vec::new());
        for field in query.split('&') {
            let (name, value) = field.split_once('=')?;
            let value = decoded(value)?;
            let is_set = value == "true";
            match name {
                "callee" => wanted.callee = value,
                "caller" => wanted.caller = Some(value),
                "method" => wanted.method = Some(value),
                "path" => wanted.path = Some(value),
                "status" => wanted.status = Some(value),
                "side" => wanted.side = Some(value),
                "errors" => wanted.errors = is_set,
                "headers" => wanted.headers = is_set,
                "show" if wanted.show.len() <= HEADERS_MAX => wanted.show.push(value),
                "rate" => wanted.rate = Some(value.parse().ok()?),
                "node" if nodes.len() < NODES_MAX => nodes.push(value),
                _ => return None,
            }
        }
        Some((wanted, nodes))
    }
}

/// For logs: what is looked at, beside the callee.
impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let conditions = self.conditions();
        let conditions: Vec<_> = conditions
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        f.write_str(&conditions.join(" "))
    }
}

impl Filter {
    /// Checks what is wanted.
    pub fn parse(wanted: &Wanted) -> Result<Self, FilterError> {
        let service = |name: &String| {
            ServiceName::parse(name).map_err(|_invalid| FilterError::Service(name.clone()))
        };
        let rate = wanted.rate.unwrap_or(RATE);
        if !(1..=RATE_MAX).contains(&rate) {
            return Err(FilterError::Rate);
        }
        if wanted.show.len() > HEADERS_MAX {
            return Err(FilterError::TooMany);
        }
        Ok(Self {
            callee: service(&wanted.callee)?,
            caller: wanted.caller.as_ref().map(service).transpose()?,
            method: wanted.method.as_deref().map(method).transpose()?,
            path: wanted.path.as_deref().map(pattern).transpose()?,
            status: wanted.status.as_deref().map(statuses).transpose()?,
            side: wanted.side.as_deref().map(side).transpose()?,
            errors: wanted.errors,
            headers: wanted.headers || !wanted.show.is_empty(),
            show: wanted.show.iter().map(header).collect::<Result<_, _>>()?,
            rate,
        })
    }

    /// Whether it shows this call. What can be told most cheaply is asked first.
    pub(super) fn matches(&self, call: &Ended<'_>) -> bool {
        let is_error =
            || call.reason.is_some() || call.status.is_some_and(|one| one.is_server_error());
        call.series.callee() == self.callee.as_str()
            && self.side.is_none_or(|side| call.series.side() == side)
            && (!self.errors || is_error())
            && self
                .status
                .is_none_or(|all| call.status.is_some_and(|one| all.hold(one)))
            && self
                .method
                .as_ref()
                .is_none_or(|one| call.method == Some(one))
            && self.is_by_caller(call.caller)
            && self.path.as_ref().is_none_or(|pattern| {
                let path = call.path.and_then(|path| Normal::of(path).ok());
                path.is_some_and(|path| pattern.matches(&path))
            })
    }

    /// At the callee a caller whom no rule names is known by its SPIFFE ID.
    fn is_by_caller(&self, caller: &str) -> bool {
        let Some(wanted) = &self.caller else {
            return true;
        };
        let id = || SpiffeId::parse(caller).ok();
        caller == wanted.as_str()
            || id().is_some_and(|id| id.service_name() == Some(wanted.as_str()))
    }
}

impl Statuses {
    fn hold(self, status: StatusCode) -> bool {
        match self {
            Self::One(one) => one == status,
            Self::Class(hundreds) => status.as_u16() / 100 == hundreds,
        }
    }
}

fn method(text: &str) -> Result<Method, FilterError> {
    Method::from_bytes(text.as_bytes()).map_err(|_invalid| FilterError::Method(text.to_owned()))
}

fn pattern(text: &str) -> Result<Pattern, FilterError> {
    Pattern::parse(text).map_err(|error| FilterError::Path(text.to_owned(), error))
}

fn statuses(text: &str) -> Result<Statuses, FilterError> {
    let wrong = || FilterError::Status(text.to_owned());
    if let Some(hundreds) = text.strip_suffix("xx") {
        let hundreds = hundreds.parse().map_err(|_invalid| wrong())?;
        let class = (1..=5).contains(&hundreds);
        return class.then_some(Statuses::Class(hundreds)).ok_or_else(wrong);
    }
    let status = StatusCode::from_bytes(text.as_bytes());
    status.map(Statuses::One).map_err(|_invalid| wrong())
}

fn side(text: &str) -> Result<Side, FilterError> {
    let mut sides = [Side::Caller, Side::Callee].into_iter();
    let found = sides.find(|side| side.as_str() == text);
    found.ok_or_else(|| FilterError::Side(text.to_owned()))
}

fn header(name: &String) -> Result<HeaderName, FilterError> {
    let parsed = HeaderName::try_from(name);
    let parsed = parsed.map_err(|_invalid| FilterError::Header(name.clone()))?;
    match is_secret(&parsed) {
        true => Err(FilterError::Secret(parsed)),
        false => Ok(parsed),
    }
}

/// Calls of each node in a second, unless told otherwise: about what a person can read.
const RATE: u32 = 20;

/// More would be a load of its own.
const RATE_MAX: u32 = 1000;

/// Nodes that can be named. Whoever wants more wants all.
const NODES_MAX: usize = 64;
