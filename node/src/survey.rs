//! Who calls whom in the whole mesh: what every node says of its own edges, added up.
//!
//! Each agent keeps only its own hour ([`Edges`](crate::telemetry::edges::Edges)). Whoever looks makes its agent ask the
//! others, so that nothing is collected that nobody reads, and any agent can answer. A few numbers travel by gossip, so that
//! there is something to see at once, and of nodes that cannot be asked any more.

mod gossip;
mod merge;
mod rounds;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use starling_gossip::{Catalogue, Liveness, Member, State};

use crate::admin::view::{self, Gap};
use crate::host::Host;
use crate::telemetry::edges::Window;
use gossip::Told;
use merge::{Said, Source};
use rounds::Answer;

pub use gossip::tell;
pub use rounds::Survey;
pub(crate) use wire::handler;

/// What is known now, or was at the last round. Looking makes the others be asked for the next look.
pub fn watched(host: &Arc<Host>, window: Window) -> view::Edges {
    host.survey.watch(window);
    let drawn = host.survey.drawn(window);
    drawn.unwrap_or_else(|| known(host, window))
}

/// What all say after they were asked.
pub async fn asked(host: Arc<Host>, window: Window) -> view::Edges {
    host.survey.ask(&host, window, FRESH).await;
    added_up(host, window).await
}

/// In a large mesh adding up takes some milliseconds, for which no call should wait.
async fn added_up(host: Arc<Host>, window: Window) -> view::Edges {
    let added = tokio::task::spawn_blocking(move || known(&host, window)).await;
    added.unwrap_or_else(|error| {
        tracing::error!(%error, "what nodes say of their edges could not be added up");
        view::Edges::default()
    })
}

fn known(host: &Host, window: Window) -> view::Edges {
    let catalogue = host.membership.catalogue();
    let mut answers = host.survey.answers(window);
    let mut told = gossip::told(host);
    let mut said = vec![own(host, window)];
    let mut gaps = Vec::new();
    for member in others(&catalogue) {
        let answer = answers.remove(&member.name).unwrap_or_default();
        let told = told.remove(&member.name);
        let word = word(member, &answer, told, window);
        gaps.extend(gap(member, &answer, word.as_ref()));
        said.extend(word);
    }
    view::Edges {
        window_s: window.seconds(),
        edges: merge::merged(window, &said),
        gaps,
    }
}

fn own(host: &Host, window: Window) -> Said {
    Said {
        node: host.node.to_string(),
        zone: host.config.load().zone.clone(),
        age: Duration::ZERO,
        source: Source::Live,
        note: None,
        seen: Arc::new(host.edges.seen(window)),
    }
}

/// The best there is of what a node said: its answer, unless that is old and it told everybody something since.
fn word(member: &Member, answer: &Answer, told: Option<Told>, window: Window) -> Option<Said> {
    let answered = answer.said.as_ref().map(|(at, seen)| Said {
        node: member.name.to_string(),
        zone: member.zone.to_string(),
        age: at.elapsed(),
        source: Source::Asked,
        note: None,
        seen: seen.clone(),
    });
    let told = told.map(|told| Said {
        node: member.name.to_string(),
        zone: member.zone.to_string(),
        age: told.age,
        source: Source::Gossip,
        note: Some(TOLD.to_owned()),
        seen: Arc::new(told.seen),
    });
    match (answered, told) {
        (Some(answered), Some(told)) => {
            let is_old = answered.age.as_secs() > window.seconds() / 2;
            Some(if is_old && told.age < answered.age {
                told
            } else {
                answered
            })
        }
        (answered, told) => answered.or(told),
    }
}

fn others(catalogue: &Catalogue) -> impl Iterator<Item = &Member> {
    let members = catalogue.members.values().map(|member| &**member);
    members.filter(|member| member.name != catalogue.local)
}

/// Why what a node says is not all there is. One that left has nothing more to say.
fn gap(member: &Member, answer: &Answer, word: Option<&Said>) -> Option<Gap> {
    let why = match (member.state, member.liveness) {
        (State::Left, _) => return None,
        (_, Liveness::Dead) => "it is dead".to_owned(),
        (_, Liveness::Alive | Liveness::Suspect) => answer.failed.as_ref()?.1.clone(),
    };
    Some(Gap {
        node: member.name.to_string(),
        why,
        age_s: word.map(|word| word.age.as_secs()),
    })
}

/// What is missing where there is only gossip.
const TOLD: &str =
    "by gossip: the busiest edges, about one minute, latencies to the three percentiles";

/// An answer that is no older is taken as it is.
const FRESH: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
