//! Who calls whom in the whole mesh: what every node says of its own edges, added up.

mod merge;

use std::sync::Arc;
use std::time::Duration;

use crate::admin::view;
use crate::host::Host;
use crate::telemetry::edges::{Seen, Window};
use merge::{Said, Source};

/// What is known now, without asking anybody.
pub fn known(host: &Arc<Host>, window: Window) -> view::Edges {
    let own = Said {
        node: host.node.to_string(),
        zone: host.config.load().zone.clone(),
        age: Duration::ZERO,
        source: Source::Live,
        note: None,
        seen: Arc::new(host.edges.seen(window)),
    };
    view::Edges {
        window_s: window.seconds(),
        edges: merge::merged(window, &[own]),
        gaps: Vec::new(),
    }
}
