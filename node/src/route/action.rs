//! What a rule does with a call: send it somewhere, perhaps changed, or answer it.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, request};
use starling_gossip::ServiceName;

use super::split::{Share, Split, Subset};
use crate::config::CallOverrides;
use crate::path::{Normal, Pattern};
use crate::reason::Reason;

/// What becomes of a call that a rule matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    pub outcome: Outcome,
    /// Done to any answer, also to one that the mesh makes up.
    pub response_headers: Edits,
    pub fault: Option<Fault>,
    /// Larger request bodies are refused.
    pub body_bytes_max: Option<u64>,
    /// How the calls are made, where that is not as the caller's upstream says.
    pub calls: CallOverrides,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Forward(Forward),
    Redirect(Redirect),
    Respond(Respond),
}

/// To instances of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    pub split: Split,
    pub rewrite: Rewrite,
    pub request_headers: Edits,
    pub mirror: Option<Mirror>,
}

/// What else the app is told to have been asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rewrite {
    pub path: Option<NewPath>,
    pub host: Option<Authority>,
}

/// A path in its normal form, or the beginning of one. The query stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewPath {
    /// Instead of the whole path.
    Whole(String),
    /// Instead of what the rule's `path = "/…/**"` matched; without a trailing `/`.
    Prefix(String),
}

/// The caller is told to go elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    pub status: StatusCode,
    pub scheme: Option<Scheme>,
    pub host: Option<Authority>,
    pub path: Option<NewPath>,
}

/// The agent answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Respond {
    pub status: StatusCode,
    pub body: Bytes,
    pub content_type: HeaderValue,
}

/// Changes to header fields: first removed, then set, then added.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Edits {
    pub remove: Vec<HeaderName>,
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub add: Vec<(HeaderName, HeaderValue)>,
}

/// A copy of some calls, whose answers nobody sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Another service than the route's.
    pub service: Option<ServiceName>,
    pub to: Subset,
    pub share: Share,
    /// Whether copies carry `authorization` and `cookie`.
    pub with_credentials: bool,
}

/// Failures made on purpose. A call may be delayed and then failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub delay: Option<(Duration, Share)>,
    pub abort: Option<(StatusCode, Share)>,
}

impl Rewrite {
    /// Changes the head of a request whose path matched `pattern`.
    pub fn apply(
        &self,
        head: &mut request::Parts,
        path: Option<&Normal<'_>>,
        pattern: Option<&Pattern>,
    ) -> Result<(), Reason> {
        if self.path.is_none() && self.host.is_none() {
            return Ok(());
        }
        let mut parts = head.uri.clone().into_parts();
        if let Some((new, path)) = self.path.as_ref().zip(path) {
            let text = new.path_and_query(path, pattern);
            let text = PathAndQuery::try_from(text).map_err(|_invalid| Reason::BadRequest)?;
            parts.path_and_query = Some(text);
        }
        if let Some(host) = &self.host {
            parts.authority = Some(host.clone());
        }
        head.uri = Uri::from_parts(parts).map_err(|_invalid| Reason::BadRequest)?;
        Ok(())
    }
}

impl NewPath {
    fn path_and_query(&self, path: &Normal<'_>, pattern: Option<&Pattern>) -> String {
        let new = match self {
            Self::Whole(new) => new.clone(),
            Self::Prefix(new) => {
                let rest = pattern.map_or("", |pattern| pattern.rest(path));
                let whole = format!("{new}{rest}");
                if whole.is_empty() {
                    "/".to_owned()
                } else {
                    whole
                }
            }
        };
        match path.query() {
            Some(query) => format!("{new}?{query}"),
            None => new,
        }
    }
}

impl Redirect {
    /// The answer to a request for `path` of `host`.
    pub fn response(
        &self,
        path: &Normal<'_>,
        pattern: Option<&Pattern>,
        host: Option<&Authority>,
    ) -> Result<Response<Bytes>, Reason> {
        let to = match &self.path {
            Some(new) => new.path_and_query(path, pattern),
            None => path.to_string(),
        };
        let origin = match (&self.scheme, self.host.as_ref().or(host)) {
            (Some(scheme), Some(host)) => format!("{scheme}://{host}"),
            // The scheme stays what it is outside of the mesh, which nobody here knows.
            (None, Some(host)) if self.host.is_some() => format!("//{host}"),
            _ => String::new(),
        };
        let location = HeaderValue::try_from(format!("{origin}{to}"));
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(LOCATION, location.map_err(|_invalid| Reason::BadRequest)?);
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        Ok(response)
    }
}

impl Respond {
    pub fn response(&self) -> Response<Bytes> {
        let mut response = Response::new(self.body.clone());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if self.status != StatusCode::NO_CONTENT && self.status != StatusCode::NOT_MODIFIED {
            headers.insert(CONTENT_TYPE, self.content_type.clone());
            headers.insert(CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        }
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

impl Edits {
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
    }

    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}
