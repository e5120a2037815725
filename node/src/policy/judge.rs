//! The decision. Pure, without allocation unless a path has to be rewritten.

use http::uri::{PathAndQuery, Uri};
use http::{Method, request};
use starling_transport::{IdentityKind, SpiffeId};

use super::compile::Entry;
use super::layered::Grant;
use super::rule::{Rule, Where};
use crate::config::policy::Mode;
use crate::headers;
use crate::path::{Ambiguous, Normal};
use crate::reason::Reason;

/// What the caller wants.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// A connection whose bytes nobody looks into.
    Connection,
    Request {
        method: &'a Method,
        uri: &'a Uri,
    },
}

/// What becomes of a call, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict<'e> {
    /// It goes through, because rules allow it or because of the mode.
    pub allowed: bool,
    /// The rule that decided, or the text that withholds a grant. None where no rule is about the call.
    pub rule: Option<&'e Where>,
    pub why: Why,
    /// Of the service.
    pub mode: Mode,
    /// What is passed on in place of the path that came, where that is another.
    pub forward: Option<PathAndQuery>,
}

/// Why a call is allowed or not: the closed list of labels and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// A grant is about it and no denial.
    Granted,
    /// A denial is about it.
    Denied,
    /// A denial may be about it: it looks at requests, and this is a connection.
    NotEvaluable,
    /// Nothing grants it.
    NoGrant,
    /// Of a document with several texts in force one grants it and another does not.
    Narrowed,
    /// Its path has more than one meaning, and rules look at paths.
    AmbiguousPath(Ambiguous),
    /// The caller is a node, or of another mesh. No mode lets that through.
    NotACaller,
}

impl Entry {
    /// May `caller` do this? The one function behind enforcement and `starling explain`.
    pub fn judge(&self, caller: &SpiffeId, subject: Subject<'_>) -> Verdict<'_> {
        let is_ours = *caller.trust_domain() == self.trust_domain;
        let IdentityKind::Service(name) = caller.kind() else {
            return self.verdict(Why::NotACaller, None);
        };
        if !is_ours {
            return self.verdict(Why::NotACaller, None);
        }
        match subject {
            Subject::Connection => self.judge_connection(name),
            Subject::Request { method, uri } => self.judge_request(name, method, uri),
        }
    }

    fn judge_connection(&self, caller: &str) -> Verdict<'_> {
        if let Some(rule) = self.denies.iter().find(|rule| rule.is_from(caller)) {
            let why = match rule.is_unconditional() {
                true => Why::Denied,
                false => Why::NotEvaluable,
            };
            return self.verdict(why, Some(&rule.declared));
        }
        // A grant that looks at requests grants nothing here.
        self.judge_grants(|rule| rule.is_unconditional() && rule.is_from(caller))
    }

    fn judge_request(&self, caller: &str, method: &Method, uri: &Uri) -> Verdict<'_> {
        let came = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let path = match Normal::of(if self.has_paths { came } else { "/" }) {
            Ok(path) => path,
            Err(ambiguous) => return self.judge_ambiguous(caller, ambiguous),
        };
        let forward = path
            .is_changed()
            .then(|| PathAndQuery::try_from(path.to_string()));
        let Ok(forward) = forward.transpose() else {
            // With its query it has grown past what a URI may hold, so it cannot go on in the form that was judged.
            return self.judge_ambiguous(caller, Ambiguous::TooLong);
        };
        let denied = |rule: &&Rule| rule.is_from(caller) && rule.denies(method, &path);
        let granted = |rule: &&Rule| rule.is_from(caller) && rule.grants(method, &path);
        let verdict = if let Some(rule) = self.denies.iter().find(denied) {
            self.verdict(Why::Denied, Some(&rule.declared))
        } else {
            self.judge_grants(granted)
        };
        Verdict { forward, ..verdict }
    }

    /// What grants make of a call that no denial is about. `about` says whether a grant is.
    fn judge_grants(&self, about: impl Fn(&&Rule) -> bool) -> Verdict<'_> {
        if let Some(rule) = self.grants.iter().find(&about) {
            return self.verdict(Why::Granted, Some(&rule.declared));
        }
        let mut narrowed = None;
        for document in &self.layered {
            match document.ask(&about) {
                Grant::Granted(rule) => return self.verdict(Why::Granted, Some(rule)),
                Grant::Narrowed(text) => narrowed = narrowed.or(Some(text)),
                Grant::None => {}
            }
        }
        match narrowed {
            Some(text) => self.verdict(Why::Narrowed, Some(text)),
            None => self.verdict(Why::NoGrant, None),
        }
    }

    /// Only those who may call at all are told more than that they may not.
    fn judge_ambiguous(&self, caller: &str, ambiguous: Ambiguous) -> Verdict<'_> {
        let barred = |rule: &&Rule| rule.is_unconditional() && rule.is_from(caller);
        if let Some(rule) = self.denies.iter().find(barred) {
            return self.verdict(Why::Denied, Some(&rule.declared));
        }
        let verdict = self.judge_grants(|rule| rule.is_from(caller));
        match verdict.is_granted() {
            true => self.verdict(Why::AmbiguousPath(ambiguous), None),
            false => verdict,
        }
    }

    fn verdict<'e>(&self, why: Why, rule: Option<&'e Where>) -> Verdict<'e> {
        let is_lax = self.mode != Mode::Enforce && why != Why::NotACaller;
        Verdict {
            allowed: why == Why::Granted || is_lax,
            rule,
            why,
            mode: self.mode,
            forward: None,
        }
    }

    /// Makes a request that was let through be what was judged: its path in the one form, and without the fields by
    /// which some apps take another path or method than the request's own.
    pub fn conform(&self, verdict: &Verdict<'_>, head: &mut request::Parts) -> Result<(), Reason> {
        if let Some(path) = &verdict.forward {
            let mut parts = std::mem::take(&mut head.uri).into_parts();
            parts.path_and_query = Some(path.clone());
            head.uri = Uri::from_parts(parts).map_err(|_invalid| Reason::BadRequest)?;
        }
        if self.has_paths {
            headers::remove_aliases(&mut head.headers, &PATH_OVERRIDES);
        }
        if self.has_methods {
            headers::remove_aliases(&mut head.headers, &METHOD_OVERRIDES);
        }
        Ok(())
    }
}

impl Verdict<'_> {
    /// Whether the rules allow it, whatever the mode.
    pub fn is_granted(&self) -> bool {
        self.why == Why::Granted
    }

    /// The reason the caller is given, if it is refused.
    pub fn refusal(&self) -> Option<Reason> {
        match self.why {
            _ if self.allowed => None,
            Why::AmbiguousPath(_) => Some(Reason::AmbiguousPath),
            _ => Some(Reason::Denied),
        }
    }
}

impl Why {
    /// The name in metric labels, logs and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Denied => "denied",
            Self::NotEvaluable => "not-evaluable",
            Self::NoGrant => "no-grant",
            Self::Narrowed => "narrowed",
            Self::AmbiguousPath(_) => "ambiguous-path",
            Self::NotACaller => "not-a-caller",
        }
    }
}

/// Some frameworks take the path from here.
const PATH_OVERRIDES: [&str; 2] = ["x-original-url", "x-rewrite-url"];
/// And the method from here.
const METHOD_OVERRIDES: [&str; 3] = [
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
];
