//! What would become of a call: which instances it could go to from here, and what their nodes say.

mod way;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::stream::{self, StreamExt};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use starling_gossip::NodeName;
use starling_transport::{Leaf, SpiffeId};
use tokio::time::{Duration, Instant};

use super::source;
use crate::admin::view::{self, Explained, Judged, Routed};
use crate::control::{Handler, Refused, Who};
use crate::host::Host;
use crate::policy::explain::{Answer, Question};
use crate::route::split::Subset;
use crate::said::{self, causes};
use way::Way;

/// What other nodes may ask: what this node decides, and what it looks like from here.
pub(crate) fn handlers() -> [Handler; 2] {
    [
        Handler::new(JUDGE, Who::Node, decide),
        Handler::new(EXPLAIN, Who::Node, look),
    ]
}

async fn decide(host: Arc<Host>, _asker: Leaf, question: Question) -> Result<Answer, Refused> {
    let answer = question.ask(&host.policy.current(), &host.trust_domain);
    let is_stale = host.is_config_stale.load(Ordering::Relaxed);
    let answer = answer.map(|answer| Answer { is_stale, ..answer });
    answer.map_err(|error| Refused::new(StatusCode::BAD_REQUEST, "unanswerable", error.to_string()))
}

async fn look(host: Arc<Host>, _asker: Leaf, question: Question) -> Result<Seen, Refused> {
    Ok(seen(&host, &question))
}

/// The instances as one node sees them. Without verdicts: whoever asked gets those from the nodes that decide, so that
/// one question never makes an agent ask all others on behalf of a third.
#[derive(Debug, Serialize, Deserialize)]
struct Seen {
    node: String,
    /// What the callee's route says there.
    #[serde(default)]
    route: Option<Routed>,
    /// What the caller's agent holds such calls to.
    #[serde(default)]
    limits: Vec<String>,
    instances: Vec<Place>,
}

/// One instance, and whether calls go to it.
#[derive(Debug, Serialize, Deserialize)]
struct Place {
    node: String,
    used: bool,
    because: String,
}

impl Seen {
    /// What `node` answered, marked as its words.
    fn of_another(self, node: &NodeName) -> Self {
        let places = self.instances.into_iter().take(INSTANCES_MAX);
        Self {
            node: node.to_string(),
            route: self.route.map(Routed::of_another),
            limits: self
                .limits
                .iter()
                .take(LIMITS_MAX)
                .map(|limit| said::quoted(limit))
                .collect(),
            instances: places.map(Place::of_another).collect(),
        }
    }
}

impl Place {
    fn of_another(self) -> Self {
        Self {
            node: said::word(&self.node),
            used: self.used,
            because: said::quoted(&self.because),
        }
    }
}

/// Answers `question` for calls made on node `from`, or here. An error is for people.
pub(super) async fn explained(
    host: Arc<Host>,
    question: Question,
    from: Option<NodeName>,
) -> Result<Explained, String> {
    let seen = match from.filter(|node| *node != host.node) {
        None => seen(&host, &question),
        Some(node) => {
            let asked = host.control().ask::<Seen>(&node, EXPLAIN, &question).await;
            asked.map_err(|error| causes(&error))?.of_another(&node)
        }
    };
    // A route may send on another path, and that is what the callee judges.
    let sent = Question {
        path: seen
            .route
            .as_ref()
            .and_then(|route| route.path.clone())
            .or_else(|| question.path.clone()),
        ..question.clone()
    };
    let judged = stream::iter(seen.instances)
        .map(|place| judged(&host, &sent, place))
        .buffered(ASKED_AT_ONCE);
    let instances = judged.collect().await;
    let route = seen.route.map(|route| Routed {
        path: route.path.as_deref().map(said::word),
        ..route
    });
    Ok(Explained {
        node: seen.node,
        question,
        route,
        limits: seen.limits,
        instances,
    })
}

fn seen(host: &Host, question: &Question) -> Seen {
    let catalogue = host.membership.catalogue();
    let balancers = host.balancers();
    let mine = balancers
        .iter()
        .find(|(service, _)| service.as_str() == question.callee);
    let views = mine.map(|(_, balancer)| balancer.view(Instant::now()));
    let views = views.unwrap_or_default();
    let known = catalogue.instances(&question.callee).iter();
    let shown: Vec<_> = known
        .take(INSTANCES_MAX)
        .map(|one| source::instance(one, &views))
        .collect();
    let way = Way::of(host, question);
    let config = host.config.load();
    let mut upstreams = config.upstreams.iter();
    let upstream = upstreams.find(|upstream| {
        let is_caller = |id: SpiffeId| id.service_name() == Some(upstream.caller.as_str());
        let caller = question.caller_id(&host.trust_domain);
        upstream.service.as_str() == question.callee && caller.is_ok_and(is_caller)
    });
    let calls = upstream.map(|upstream| upstream.calls.clone());
    Seen {
        node: host.node.to_string(),
        limits: way.calls.over(&calls.unwrap_or_default()).limits_in_words(),
        instances: places(&shown, &config.zone, &way.parts),
        route: way.routed,
    }
}

/// Calls go to the best there are in each part that the route chose, if they are any good.
fn places(shown: &[view::Instance], zone: &str, parts: &[Subset]) -> Vec<Place> {
    let standings: Vec<_> = shown.iter().map(|one| standing(one, zone)).collect();
    let holds = |part: &Subset, one: &view::Instance| part.holds(&one.labels, &one.zone);
    let best = |part: &Subset| {
        let inside = shown.iter().zip(&standings);
        let inside = inside.filter(|(one, _)| holds(part, one));
        inside.map(|(_, (standing, _))| *standing).min()
    };
    let places = shown.iter().zip(&standings);
    let place = |(one, (standing, because)): (&view::Instance, &(Standing, String))| {
        let mut mine = parts.iter().filter(|part| holds(part, one)).peekable();
        let because = match mine.peek() {
            Some(_) => because.clone(),
            None => left_out(parts),
        };
        let is_best = mine.any(|part| best(part) == Some(*standing));
        Place {
            node: one.node.clone(),
            used: is_best && *standing <= Standing::Doubtful,
            because,
        }
    };
    places.map(place).collect()
}

fn left_out(parts: &[Subset]) -> String {
    if parts.is_empty() {
        return "the caller's agent answers".to_owned();
    }
    let parts: Vec<_> = parts.iter().map(ToString::to_string).collect();
    format!("the route sends to {}", parts.join(" or "))
}

/// How willingly calls are sent to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Good,
    /// Where there is no good one.
    Doubtful,
    Bad,
}

fn standing(one: &view::Instance, zone: &str) -> (Standing, String) {
    if !one.healthy {
        let why = "its app does not pass its health check";
        return (Standing::Bad, why.to_owned());
    }
    if let Some(seconds) = one.ejected_s {
        let why = format!("left out for {seconds} s, as calls to it failed");
        return (Standing::Bad, why);
    }
    if one.liveness != "alive" {
        return (Standing::Doubtful, format!("its node is {}", one.liveness));
    }
    if one.weight == 0 {
        return (Standing::Doubtful, "its node is draining".to_owned());
    }
    if let Some(seconds) = one.spared_s {
        let why = format!("spared for {seconds} s, as it said that it has too much to do");
        return (Standing::Doubtful, why);
    }
    let why = match one.zone == zone {
        true => "healthy".to_owned(),
        false => format!("healthy, but in zone {}", one.zone),
    };
    (Standing::Good, why + &score(one))
}

/// What it is chosen by, once this agent has called it.
fn score(one: &view::Instance) -> String {
    let Some(micros) = one.latency_us else {
        return String::new();
    };
    let millis = Duration::from_micros(micros).as_secs_f64() * 1e3;
    let open = one.in_flight.unwrap_or(0);
    format!("; answers in {millis:.1} ms, {open} under way")
}

async fn judged(host: &Arc<Host>, question: &Question, place: Place) -> Judged {
    let (verdict, problem) = match verdict(host, question, &place.node).await {
        Ok(verdict) => (Some(verdict), None),
        Err(problem) => (None, Some(problem)),
    };
    Judged {
        node: place.node,
        used: place.used,
        because: place.because,
        verdict,
        problem,
    }
}

/// The node that runs the instance decides, so it is asked.
async fn verdict(host: &Arc<Host>, question: &Question, node: &str) -> Result<Answer, String> {
    let node = NodeName::parse(node).map_err(|error| error.to_string())?;
    if node == host.node {
        let answer = question.ask(&host.policy.current(), &host.trust_domain);
        return answer.map_err(|error| error.to_string());
    }
    let asked = host.control().ask(&node, JUDGE, question).await;
    asked.map(Answer::of_another).map_err(|error| error.told())
}

const JUDGE: &str = "/v1/judge";
const EXPLAIN: &str = "/v1/explain";

/// Instances that are asked for one question; a service rarely has more, and the first few dozen tell enough.
const INSTANCES_MAX: usize = 64;

/// More than a route and an upstream can say of one call.
const LIMITS_MAX: usize = 32;

/// Nodes asked at a time: those that do not answer cost seconds each.
const ASKED_AT_ONCE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(node: &str) -> view::Instance {
        view::Instance {
            node: node.to_owned(),
            protocol: "http".to_owned(),
            labels: [].into(),
            weight: 100,
            healthy: true,
            liveness: "alive".to_owned(),
            ejected_s: None,
            spared_s: None,
            latency_us: None,
            in_flight: None,
            address: "10.0.0.1:7400".to_owned(),
            zone: "a".to_owned(),
            age_s: 1,
        }
    }

    fn check(shown: &[view::Instance], expected: &[(&str, bool, &str)]) {
        let places = places(shown, "a", &[Subset::default()]);
        let told: Vec<_> = places
            .iter()
            .map(|place| (place.node.as_str(), place.used, place.because.as_str()))
            .collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn calls_go_to_the_best_that_are_any_good() {
        let suspect = view::Instance {
            liveness: "suspect".to_owned(),
            ..instance("n2")
        };
        let ill = view::Instance {
            healthy: false,
            ..instance("n3")
        };
        let ejected = view::Instance {
            ejected_s: Some(3),
            ..instance("n4")
        };
        let far = view::Instance {
            zone: "b".to_owned(),
            ..instance("n5")
        };
        check(
            &[instance("n1"), suspect.clone(), far],
            &[
                ("n1", true, "healthy"),
                ("n2", false, "its node is suspect"),
                ("n5", true, "healthy, but in zone b"),
            ],
        );
        check(
            &[suspect, ill.clone(), ejected],
            &[
                ("n2", true, "its node is suspect"),
                ("n3", false, "its app does not pass its health check"),
                ("n4", false, "left out for 3 s, as calls to it failed"),
            ],
        );
        check(
            &[ill],
            &[("n3", false, "its app does not pass its health check")],
        );
    }
    #[test]
    fn a_route_leaves_out_the_others() {
        let version = |node: &str, version: &str| view::Instance {
            labels: [("version".to_owned(), version.to_owned())].into(),
            ..instance(node)
        };
        let only = |version: &str| Subset::new([("version".to_owned(), version.to_owned())].into());
        let suspect = view::Instance {
            liveness: "suspect".to_owned(),
            ..version("n3", "v2")
        };
        let shown = [version("n1", "v1"), version("n2", "v2"), suspect.clone()];
        let told = |shown: &[view::Instance], parts: &[Subset]| -> Vec<_> {
            let places = places(shown, "a", parts);
            places
                .into_iter()
                .map(|place| (place.used, place.because))
                .collect()
        };
        assert_eq!(
            told(&shown, &[only("v2")]),
            [
                (false, "the route sends to version=v2".to_owned()),
                (true, "healthy".to_owned()),
                (false, "its node is suspect".to_owned()),
            ]
        );
        // Each part takes the best that it has.
        let used = |shown: &[view::Instance], parts: &[Subset]| -> Vec<_> {
            told(shown, parts)
                .into_iter()
                .map(|(used, _)| used)
                .collect()
        };
        let split = [only("v1"), only("v2")];
        assert_eq!(used(&[version("n1", "v1"), suspect], &split), [true, true]);
        assert_eq!(used(&shown, &[]), [false; 3]);
        assert_eq!(told(&shown, &[])[0].1, "the caller's agent answers");
    }
}
