//! What an operator wrote of routes and probably did not mean: told before it is in force, and not refused.

use std::path::Path;

use starling_gossip::ServiceName;

use super::{block_on, client};
use crate::admin::view;
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

fn has(services: &[view::Service], service: &ServiceName, subset: &Subset) -> Option<bool> {
    let known = services
        .iter()
        .find(|known| known.service == service.as_str())?;
    let mut instances = known.instances.iter();
    Some(instances.any(|instance| subset.holds(&instance.labels, &instance.zone)))
}
