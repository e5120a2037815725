//! What an operator wrote of routes and probably did not mean: told before it is in force, and not refused.

use std::path::Path;

use starling_gossip::ServiceName;
use starling_gossip::documents::BODY_BYTES_MAX;

use super::{block_on, client};
use crate::admin::view;
use crate::agent::readers::TEXTS_MAX;
use crate::route::Route;
use crate::route::split::Subset;

/// One text for each doubt. Which subsets there are only a running agent knows; without one at `socket` nothing is said of
/// them.
pub(super) fn of_routes(routes: &[Route], socket: &Path) -> Vec<String> {
    let mut doubts: Vec<_> = routes.iter().flat_map(Route::shadows).collect();
    if !routes.is_empty() {
        let asked = block_on(client::ask_for::<Vec<view::Service>>(
            socket,
            "/v1/services",
        ));
        if let Ok(Ok(services)) = asked {
            let has = |service: &ServiceName, subset: &Subset| has(&services, service, subset);
            doubts.extend(routes.iter().flat_map(|route| route.unknown(has)));
        }
    }
    doubts.iter().map(ToString::to_string).collect()
}

/// One text for each node that cannot read a document, or does not say. Without an agent at `socket` nothing is said of them.
pub(super) fn of_readers(texts: &[view::Unsigned], socket: &Path) -> Vec<String> {
    let mut doubts = Vec::new();
    for texts in chunks(texts) {
        let Ok(body) = serde_json::to_vec(texts) else {
            continue;
        };
        let asked = block_on(client::post_for::<Vec<view::Reader>>(
            socket,
            "/v1/readers",
            &body,
        ));
        if let Ok(Ok(readers)) = asked {
            doubts.extend(readers.iter().flat_map(doubt));
        }
    }
    doubts.dedup();
    doubts
}

/// As many texts as go into one question.
fn chunks(texts: &[view::Unsigned]) -> impl Iterator<Item = &[view::Unsigned]> {
    let mut rest = texts;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = rest.iter().take(TEXTS_MAX).take_while(|text| {
            bytes += text.body.len();
            bytes <= BODY_BYTES_MAX
        });
        // The first fits by itself, or the agent says that it is too long.
        let count = fits.count().max(1).min(rest.len());
        let (these, others) = rest.split_at(count);
        rest = others;
        (!these.is_empty()).then_some(these)
    })
}

fn doubt(reader: &view::Reader) -> Vec<String> {
    let node = &reader.node;
    let problems = reader.problems.iter();
    let problems = problems.map(|(key, why)| {
        format!(
            "warning: {node} cannot read {key}, so there it acts as held back until {node} has a version that can: {}",
            why.trim()
        )
    });
    let silent = reader.silent.iter();
    let silent =
        silent.map(|why| format!("warning: {node} does not say whether it can read this: {why}"));
    problems.chain(silent).collect()
}

fn has(services: &[view::Service], service: &ServiceName, subset: &Subset) -> Option<bool> {
    let known = services
        .iter()
        .find(|known| known.service == service.as_str())?;
    let mut instances = known.instances.iter();
    Some(instances.any(|instance| subset.holds(&instance.labels, &instance.zone)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: usize) -> view::Unsigned {
        view::Unsigned {
            kind: "policy".into(),
            name: "a".into(),
            body: "x".repeat(bytes),
        }
    }

    #[test]
    fn texts_are_asked_about_in_questions_of_bounded_size() {
        let sizes = |texts: &[view::Unsigned]| chunks(texts).map(<[_]>::len).collect::<Vec<_>>();
        assert!(sizes(&[]).is_empty());
        assert_eq!(sizes(&[text(BODY_BYTES_MAX), text(1), text(2)]), [1, 2]);
        assert_eq!(sizes(&vec![text(1); 130]), [64, 64, 2]);
        assert_eq!(sizes(&[text(BODY_BYTES_MAX + 1)]), [1]);
    }

    #[test]
    fn a_node_that_cannot_read_it_is_named_before_it_is_signed() {
        let reader = view::Reader {
            node: "n3".into(),
            problems: vec![("policy/orders".into(), "error: unknown key `x`".into())],
            silent: None,
        };
        let expected = "warning: n3 cannot read policy/orders, so there it acts as held back until n3 has a version that can: \
                        error: unknown key `x`";
        assert_eq!(doubt(&reader), [expected]);
        let silent = view::Reader {
            problems: Vec::new(),
            silent: Some("no answer within 2s".into()),
            ..reader
        };
        let expected = "warning: n3 does not say whether it can read this: no answer within 2s";
        assert_eq!(doubt(&silent), [expected]);
    }
}
