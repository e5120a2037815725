//! What would become of a call: the question that operators and other agents ask, answered by the judge itself.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde::{Deserialize, Serialize};
use starling_transport::{SpiffeId, TrustDomain};

use super::compile::{Entry, Snapshot};
use super::judge::{Subject, Verdict, Why};
use crate::config::{Mode, Protocol};
use crate::percent::{decoded, encoded};
use crate::said;

/// May `caller` call `callee`, with this request if there is one?
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The name of a service, or a SPIFFE ID.
    pub caller: String,
    /// The name of a service.
    pub callee: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Header fields of the request, `name: value`. Routes look at them; policy does not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
}

/// What a node that runs the callee says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The caller's SPIFFE ID.
    pub caller: String,
    pub allowed: bool,
    /// One word of a closed list; `granted` is the one that no mode has to help.
    pub why: String,
    /// The same in a sentence.
    pub text: String,
    /// `file:line`, `policy/NAME@REVISION#LINE`, or `policy/NAME@REVISION` for a whole text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    pub mode: String,
    /// Where the mode was set; nothing for the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode_declared: Option<String>,
    /// The path that the app gets, where that is not the one asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Whether the node's files changed since, so that what they say now is not in force.
    #[serde(default)]
    pub is_stale: bool,
}

impl Answer {
    /// What another node answered, marked as its words.
    pub(crate) fn of_another(self) -> Self {
        let word = |text: Option<String>| text.map(|text| said::word(&text));
        Self {
            caller: said::word(&self.caller),
            allowed: self.allowed,
            why: said::word(&self.why),
            text: said::quoted(&self.text),
            rule: word(self.rule),
            mode: said::word(&self.mode),
            mode_declared: word(self.mode_declared),
            path: word(self.path),
            is_stale: self.is_stale,
        }
    }
}

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unanswerable {
    #[error("`{0}` is neither the name of a service nor a SPIFFE ID")]
    Caller(String),
    #[error("`{0}` does not run on this node")]
    NotHere(String),
    #[error("`{0}` is not a method of HTTP")]
    Method(String),
    #[error("`{0}` cannot be the path of a request")]
    Path(String),
    #[error("`{0}` is no header field such as `x-beta: 1`")]
    Header(String),
    #[error("rules for `{0}` look at methods or paths: add METHOD and PATH to the question")]
    NeedsRequest(String),
}

impl Question {
    /// Asks the policy of the node that runs the callee.
    pub fn ask(&self, policy: &Snapshot, mesh: &TrustDomain) -> Result<Answer, Unanswerable> {
        let caller = self.caller_id(mesh)?;
        let entry = policy.entry(&self.callee);
        let entry = entry.ok_or_else(|| Unanswerable::NotHere(self.callee.clone()))?;
        if self.is_bare() && entry.service.protocol == Protocol::Http && entry.looks_at_requests() {
            return Err(Unanswerable::NeedsRequest(self.callee.clone()));
        }
        let (method, uri) = (self.method()?, self.uri()?);
        let subject = match entry.service.protocol {
            Protocol::Tcp => Subject::Connection,
            Protocol::Http => Subject::Request {
                method: &method,
                uri: &uri,
            },
        };
        Ok(Answer::new(entry, &caller, &entry.judge(&caller, subject)))
    }

    /// Whether no request is asked about, only who calls whom.
    pub(crate) fn is_bare(&self) -> bool {
        self.method.is_none() && self.path.is_none()
    }

    pub(crate) fn caller_id(&self, mesh: &TrustDomain) -> Result<SpiffeId, Unanswerable> {
        let parsed = match self.caller.contains(':') {
            true => SpiffeId::parse(&self.caller),
            false => SpiffeId::service(mesh, &self.caller),
        };
        parsed.map_err(|_invalid| Unanswerable::Caller(self.caller.clone()))
    }

    pub(crate) fn method(&self) -> Result<Method, Unanswerable> {
        let Some(method) = &self.method else {
            return Ok(Method::GET);
        };
        let parsed = Method::from_bytes(method.as_bytes());
        parsed.map_err(|_invalid| Unanswerable::Method(method.clone()))
    }

    pub(crate) fn uri(&self) -> Result<Uri, Unanswerable> {
        let path = self.path.as_deref().unwrap_or("/");
        let parts = Uri::builder().scheme("https").authority("callee");
        let uri = parts.path_and_query(path).build();
        uri.map_err(|_invalid| Unanswerable::Path(path.to_owned()))
    }

    pub(crate) fn headers(&self) -> Result<HeaderMap, Unanswerable> {
        let mut headers = HeaderMap::new();
        for field in &self.headers {
            let wrong = || Unanswerable::Header(field.clone());
            let (name, value) = field.split_once(':').ok_or_else(wrong)?;
            let name = HeaderName::from_bytes(name.trim().as_bytes());
            let value = HeaderValue::from_str(value.trim());
            let (name, value) = name.ok().zip(value.ok()).ok_or_else(wrong)?;
            headers.append(name, value);
        }
        Ok(headers)
    }

    /// As the query of a URI.
    pub fn to_query(&self, from: Option<&String>) -> String {
        let fields = [
            ("caller", Some(&self.caller)),
            ("callee", Some(&self.callee)),
            ("method", self.method.as_ref()),
            ("path", self.path.as_ref()),
            ("from", from),
        ];
        let headers = self.headers.iter().map(|field| ("header", Some(field)));
        let fields = fields
            .into_iter()
            .chain(headers)
            .filter_map(|(name, value)| Some(format!("{name}={}", encoded(value?))));
        fields.collect::<Vec<_>>().join("&")
    }

    /// From the query of a URI; what is not known is left alone.
    ///
    /// Also gives the node `from` which the call would be made.
    pub fn from_query(query: &str) -> Option<(Self, Option<String>)> {
        let (mut question, mut from) = (Self::default(), None);
        for field in query.split('&') {
            let (name, value) = field.split_once('=')?;
            let value = decoded(value)?;
            match name {
                "caller" => question.caller = value,
                "callee" => question.callee = value,
                "method" => question.method = Some(value),
                "path" => question.path = Some(value),
                "from" => from = Some(value),
                "header" if question.headers.len() < HEADERS_MAX => question.headers.push(value),
                _ => {}
            }
        }
        let is_whole = !question.caller.is_empty() && !question.callee.is_empty();
        is_whole.then_some((question, from))
    }
}

impl Answer {
    fn new(entry: &Entry, caller: &SpiffeId, verdict: &Verdict<'_>) -> Self {
        Self {
            caller: caller.to_string(),
            allowed: verdict.allowed,
            why: verdict.why.as_str().to_owned(),
            text: text(verdict),
            rule: verdict.rule.map(ToString::to_string),
            mode: verdict.mode.to_string(),
            mode_declared: entry.mode_declared.as_ref().map(ToString::to_string),
            path: verdict.forward.as_ref().map(ToString::to_string),
            is_stale: false,
        }
    }
}

impl Entry {
    fn looks_at_requests(&self) -> bool {
        self.has_paths || self.has_methods
    }
}

fn text(verdict: &Verdict<'_>) -> String {
    let why = match verdict.why {
        Why::Granted => "a grant allows it".to_owned(),
        Why::Denied => "a denial forbids it".to_owned(),
        Why::NotEvaluable => {
            "a denial that looks at requests may be about it, and in a tcp connection there are none to look at"
                .to_owned()
        }
        Why::NoGrant => "nothing allows it".to_owned(),
        Why::Narrowed => {
            "a revision of this document allows it, and this one, which also counts, does not".to_owned()
        }
        Why::AmbiguousPath(ambiguous) => {
            format!("rules look at paths, and this one has more than one meaning: {ambiguous}")
        }
        Why::NotACaller => "only services of this mesh may call".to_owned(),
    };
    match (verdict.allowed, verdict.is_granted(), verdict.mode) {
        (true, false, mode @ (Mode::Audit | Mode::Permissive)) => {
            format!("{why}; mode {mode} lets it through")
        }
        _ => why,
    }
}

/// Header fields that one question may have; a request may have a hundred.
const HEADERS_MAX: usize = 100;
