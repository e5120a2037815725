//! Which rule of the callee's route a call meets, on the node where it is made.

use http::{Request, Uri};
use starling_gossip::ServiceName;
use tokio::time::Instant;

use crate::admin::view::Routed;
use crate::config::CallOverrides;
use crate::host::Host;
use crate::path::Normal;
use crate::policy::explain::Question;
use crate::route::action::{Forward, Outcome};
use crate::route::split::{Share, Split, Subset};
use crate::route::{Facts, Http, Route, Rule};

/// Where the route lets a call go.
#[derive(Debug)]
pub(super) struct Way {
    /// What the route says of it; nothing if there is no route.
    pub(super) routed: Option<Routed>,
    /// None at all: nowhere, as the agent answers by itself.
    pub(super) parts: Vec<Subset>,
    /// What the rule says of how the call is made.
    pub(super) calls: CallOverrides,
}

impl Way {
    /// Decides as for a real call.
    pub(super) fn of(host: &Host, question: &Question) -> Self {
        let table = host.routes.load();
        match table.get(&question.callee) {
            None => Self::anywhere(None),
            Some(in_force) => Self::by(host, in_force.route, question).unwrap_or_else(|problem| {
                let declared = in_force.route.declared.to_string();
                Self::anywhere(Some(routed(None, declared, problem)))
            }),
        }
    }

    /// An error says why the question is too vague for this route.
    fn by(host: &Host, route: &Route, question: &Question) -> Result<Self, String> {
        let text = |error: crate::policy::explain::Unanswerable| error.to_string();
        let caller = question.caller_id(&host.trust_domain).map_err(text)?;
        let caller = ServiceName::parse(caller.service_name().unwrap_or_default());
        let caller = caller.map_err(|_other| "the caller is no service".to_owned())?;
        let is_tcp = question.is_bare() && is_tcp(host, &question.callee);
        if question.is_bare() && !is_tcp && route.is_about_http() {
            return Err(
                "its rules look at requests: add METHOD and PATH to the question".to_owned(),
            );
        }
        let (method, uri) = (
            question.method().map_err(text)?,
            question.uri().map_err(text)?,
        );
        let headers = question.headers().map_err(text)?;
        let raw = uri.path_and_query().map_or("/", |text| text.as_str());
        let path = match (!is_tcp && route.is_about_path()).then(|| Normal::of(raw)) {
            Some(Ok(path)) => Some(path),
            Some(Err(why)) => {
                let action = format!("refused with ambiguous-path: {why}");
                return Ok(Self::nowhere(routed(
                    None,
                    route.declared.to_string(),
                    action,
                )));
            }
            None => None,
        };
        let config = host.config.load();
        let facts = Facts {
            caller: &caller,
            zone: &config.zone,
            http: (!is_tcp).then(|| Http {
                method: &method,
                path: path.as_ref(),
                query: uri.query().unwrap_or_default(),
                headers: &headers,
            }),
        };
        let Some(rule) = route.decide(&facts) else {
            let path = path.as_ref().filter(|path| path.is_changed());
            let none = Routed {
                path: path.map(ToString::to_string),
                ..routed(None, route.declared.to_string(), NO_RULE.to_owned())
            };
            return Ok(Self::anywhere(Some(none)));
        };
        let mut told = routed(
            Some(route.title(rule)),
            rule.declared.to_string(),
            rule.action.to_string(),
        );
        let Outcome::Forward(forward) = &rule.action.outcome else {
            return Ok(Self::nowhere(told));
        };
        told.path = sent_path(rule, forward, &uri, path.as_ref());
        let balancer = host.balancer(&route.service);
        let usable = |subset: &Subset| balancer.is_usable(Instant::now(), subset);
        let parts = match forward
            .split
            .point_of_user(route.service.as_str(), &headers)
        {
            Some(point) => vec![forward.split.choose(point, usable).clone()],
            None => reachable(&forward.split),
        };
        told.to = parts.iter().map(ToString::to_string).collect();
        Ok(Self {
            routed: Some(told),
            parts,
            calls: rule.action.calls.clone(),
        })
    }

    fn anywhere(routed: Option<Routed>) -> Self {
        Self {
            routed,
            parts: vec![Subset::default()],
            calls: CallOverrides::default(),
        }
    }

    fn nowhere(told: Routed) -> Self {
        Self {
            routed: Some(Routed {
                is_answered_here: true,
                ..told
            }),
            parts: Vec::new(),
            calls: CallOverrides::default(),
        }
    }
}

fn routed(rule: Option<String>, declared: String, action: String) -> Routed {
    Routed {
        rule,
        declared,
        action,
        to: Vec::new(),
        path: None,
        is_answered_here: false,
    }
}

fn reachable(split: &Split) -> Vec<Subset> {
    let parts = split.parts.iter().filter(|part| part.share > Share::NONE);
    parts.map(|part| part.to.clone()).collect()
}

/// The path that the callee judges, where that is not the one asked for.
fn sent_path(
    rule: &Rule,
    forward: &Forward,
    uri: &Uri,
    path: Option<&Normal<'_>>,
) -> Option<String> {
    let (mut head, ()) = Request::new(()).into_parts();
    head.uri = uri.clone();
    let rewritten = forward.rewrite.path.is_some();
    let applied = forward
        .rewrite
        .apply(&mut head, path, rule.matches.path.as_ref());
    match path {
        Some(_) if rewritten => applied
            .ok()
            .and_then(|()| Some(head.uri.path_and_query()?.to_string())),
        Some(path) if path.is_changed() => Some(path.to_string()),
        _ => None,
    }
}

fn is_tcp(host: &Host, service: &str) -> bool {
    let catalogue = host.membership.catalogue();
    let mut instances = catalogue.instances(service).iter();
    instances.any(|instance| &*instance.protocol == "tcp")
}

const NO_RULE: &str = "no rule matches: any instance";
