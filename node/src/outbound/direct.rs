//! What the route of a service says of a call, applied to it.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::uri::{PathAndQuery, Uri};
use http::{Response, request};

use super::Route;
use crate::body::{Body, Capped};
use crate::path::Normal;
use crate::reason::Reason;
use crate::route::action::{Forward, Outcome};
use crate::route::split::{Point, Subset};
use crate::route::{Facts, Http, Rule};
use crate::telemetry::metrics;

/// A call whose direction is known.
#[derive(Debug)]
pub(super) struct Directed {
    /// None: as if there was no route.
    pub(super) rule: Option<Arc<Rule>>,
    point: Point,
}

impl Directed {
    /// Decides where a TCP connection goes.
    pub(super) fn connection(route: &Route) -> Self {
        let table = route.host.routes.load();
        let config = route.host.config.load();
        let facts = Facts {
            caller: &route.caller_name,
            zone: &config.zone,
            http: None,
        };
        let in_force = table.get(route.service.as_str());
        let rule = in_force
            .and_then(|entry| entry.route.decide(&facts))
            .cloned();
        Self {
            rule,
            point: Point::random(&mut fastrand::Rng::new()),
        }
    }

    /// Decides where a request goes, and gives its head the form in which it goes there. An answer of the agent's own
    /// comes instead if the rule says so.
    pub(super) fn request(
        route: &Route,
        head: &mut request::Parts,
    ) -> Result<(Self, Option<Response<Bytes>>), Reason> {
        let table = route.host.routes.load();
        let Some(in_force) = table.get(route.service.as_str()) else {
            return Ok((Self::anywhere(), None));
        };
        let uri = head.uri.clone();
        let path = if in_force.route.is_about_path() {
            Some(normal(&uri, head)?)
        } else {
            None
        };
        let config = route.host.config.load();
        let facts = Facts {
            caller: &route.caller_name,
            zone: &config.zone,
            http: Some(Http {
                method: &head.method,
                path: path.as_ref(),
                query: uri.query().unwrap_or_default(),
                headers: &head.headers,
            }),
        };
        let Some(rule) = in_force.route.decide(&facts).cloned() else {
            return Ok((Self::anywhere(), None));
        };
        let pattern = rule.matches.path.as_ref();
        let (point, answer) = match &rule.action.outcome {
            Outcome::Respond(respond) => (Point::default(), Some(respond.response())),
            Outcome::Redirect(redirect) => {
                let path = path.as_ref().ok_or(Reason::Internal)?;
                let response = redirect.response(path, pattern, uri.authority())?;
                (Point::default(), Some(response))
            }
            Outcome::Forward(forward) => {
                let headers = Some(&head.headers);
                let mut rng = fastrand::Rng::new();
                let point = forward
                    .split
                    .point(route.service.as_str(), headers, &mut rng);
                forward.rewrite.apply(head, path.as_ref(), pattern)?;
                forward.request_headers.apply(&mut head.headers);
                (point, None)
            }
        };
        let rule = Some(rule);
        Ok((Self { rule, point }, answer))
    }

    /// The subset that an attempt made now is for. Changes only while the one it belongs to has nothing usable.
    pub(super) fn subset(&self, usable: impl Fn(&Subset) -> bool) -> Subset {
        self.forward()
            .map(|forward| forward.split.choose(self.point, usable).clone())
            .unwrap_or_default()
    }

    /// Waits or fails as the rule wants some calls to, on purpose. Whoever leaves meanwhile is not held up.
    pub(super) async fn harm(&self, route: &Route) -> Option<Response<Bytes>> {
        let fault = self.rule.as_ref()?.action.fault.as_ref()?;
        let takes = |share: crate::route::split::Share| {
            share.takes(Point::random(&mut fastrand::Rng::new()))
        };
        if let Some((delay, share)) = fault.delay
            && takes(share)
        {
            tokio::time::sleep(delay).await;
        }
        let (status, share) = fault.abort?;
        takes(share).then(|| {
            let mut response = Reason::Fault.response(route.service.as_str());
            *response.status_mut() = status;
            response
        })
    }

    /// The body within the rule's limit. One that says it is larger is refused at once.
    pub(super) fn capped(&self, head: &request::Parts, body: Body) -> Result<Capped, Reason> {
        let most = self
            .rule
            .as_ref()
            .and_then(|rule| rule.action.body_bytes_max);
        let most = most.unwrap_or(u64::MAX);
        let announced = head.headers.get(CONTENT_LENGTH);
        let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > most) {
            return Err(Reason::BodyTooLarge);
        }
        Ok(Capped::new(body, most))
    }

    /// Changes what the app gets back.
    pub(super) fn answer(&self, headers: &mut http::HeaderMap) {
        if let Some(rule) = &self.rule {
            rule.action.response_headers.apply(headers);
        }
    }

    pub(super) fn forward(&self) -> Option<&Forward> {
        match &self.rule.as_ref()?.action.outcome {
            Outcome::Forward(forward) => Some(forward),
            _ => None,
        }
    }

    /// Counts an attempt for the subset it went to, where there is a choice.
    pub(super) fn count(&self, route: &Route, subset: &Subset) {
        if !subset.is_all() {
            metrics::routed(&route.service, subset);
        }
    }

    fn anywhere() -> Self {
        Self {
            rule: None,
            point: Point::default(),
        }
    }
}

/// The one form of the path, which is also the one that is sent on.
fn normal<'u>(uri: &'u Uri, head: &mut request::Parts) -> Result<Normal<'u>, Reason> {
    let raw = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let normal = Normal::of(raw).map_err(|why| {
        tracing::debug!(%why, "a path that rules would have to guess at");
        Reason::AmbiguousPath
    })?;
    if normal.is_changed() {
        let mut parts = uri.clone().into_parts();
        let text = PathAndQuery::try_from(normal.to_string());
        parts.path_and_query = Some(text.map_err(|_invalid| Reason::BadRequest)?);
        head.uri = Uri::from_parts(parts).map_err(|_invalid| Reason::BadRequest)?;
    }
    Ok(normal)
}
