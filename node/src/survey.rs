//! Who calls whom in the whole mesh: what every node says of its own edges, added up.
//!
//! Each agent keeps only its own hour ([`Edges`](crate::telemetry::edges::Edges)). Whoever looks makes its agent ask the
//! others, so that nothing is collected that nobody reads, and any agent can answer.

mod merge;
mod rounds;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use starling_gossip::{Catalogue, Liveness, Member, State};

use crate::admin::view::{self, Gap};
use crate::host::Host;
use crate::telemetry::edges::Window;
use merge::{Said, Source};
use rounds::Answer;

pub use rounds::Survey;
pub(crate) use wire::handler;

/// What is known now. Looking makes the others be asked for the next look.
pub fn watched(host: &Arc<Host>, window: Window) -> view::Edges {
    host.survey.watch(window);
    known(host, window)
}

/// What all say after they were asked.
pub async fn asked(host: Arc<Host>, window: Window) -> view::Edges {
    host.survey.ask(&host, window, FRESH).await;
    known(&host, window)
}

fn known(host: &Host, window: Window) -> view::Edges {
    let catalogue = host.membership.catalogue();
    let answers = host.survey.answers(window);
    let mut said = vec![own(host, window)];
    let mut gaps = Vec::new();
    for member in others(&catalogue) {
        let answer = answers.get(&member.name).cloned().unwrap_or_default();
        gaps.extend(gap(member, &answer));
        said.extend(answer.said.map(|(at, seen)| Said {
            node: member.name.to_string(),
            zone: member.zone.to_string(),
            age: at.elapsed(),
            source: Source::Asked,
            note: None,
            seen,
        }));
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

fn others(catalogue: &Catalogue) -> impl Iterator<Item = &Member> {
    let members = catalogue.members.values().map(|member| &**member);
    members.filter(|member| member.name != catalogue.local)
}

/// Why what a node says is not all there is. One that left has nothing more to say.
fn gap(member: &Member, answer: &Answer) -> Option<Gap> {
    let why = match (member.state, member.liveness) {
        (State::Left, _) => return None,
        (_, Liveness::Dead) => "it is dead".to_owned(),
        (_, Liveness::Alive | Liveness::Suspect) => answer.failed.as_ref()?.1.clone(),
    };
    Some(Gap {
        node: member.name.to_string(),
        why,
        age_s: answer.said.as_ref().map(|(at, _)| at.elapsed().as_secs()),
    })
}

/// An answer that is no older is taken as it is.
const FRESH: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
