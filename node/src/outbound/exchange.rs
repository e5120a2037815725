//! One attempt: the way to an instance, and what its failure means.

use std::net::SocketAddr;

use http::{Request, Response};
use starling_gossip::Instance;
use starling_transport::DialError;

use super::Route;
use crate::balance::Pick;
use crate::body::{Body, boxed};
use crate::inbound;
use crate::reason::Reason;

/// Why one attempt failed, and whether the app can have seen the request.
pub(super) struct Failure {
    pub(super) reason: Reason,
    /// The app cannot have seen it, so it may be sent again whatever its method.
    pub(super) may_repeat: bool,
}

/// Sends the request to the instance that was picked, over the mesh or within this node.
pub(super) async fn exchange(
    route: &Route,
    pick: &Pick,
    request: Request<Body>,
) -> Result<Response<Body>, Failure> {
    let instance = pick.instance();
    if instance.node == route.host.node {
        return Ok(
            inbound::http(&route.host, &route.caller, route.service.as_str(), request).await,
        );
    }
    let addrs = route.addresses(instance);
    let requester = route
        .host
        .pool
        .get(&route.caller, &route.callee, &addrs)
        .await;
    let requester = requester.map_err(|error| Failure {
        reason: dial_reason(&error),
        may_repeat: true,
    })?;
    let sent = requester.request(request).await;
    sent.map(|response| response.map(boxed)).map_err(|error| {
        tracing::debug!(callee = %route.service, node = %instance.node, %error, "request failed");
        let may_repeat = error.is_unsent();
        Failure {
            reason: if may_repeat {
                Reason::ConnectFailed
            } else {
                Reason::UpstreamReset
            },
            may_repeat,
        }
    })
}

impl Route {
    /// Where to reach the instance's node: the address it prefers, then its others.
    pub(super) fn addresses(&self, instance: &Instance) -> Vec<SocketAddr> {
        let mut addrs = vec![instance.addr];
        if let Some(member) = self
            .host
            .membership
            .catalogue()
            .member(instance.node.as_str())
        {
            addrs.extend(member.addrs.iter().filter(|addr| **addr != instance.addr));
        }
        addrs
    }
}

/// What a failed dial means to the caller.
pub(super) fn dial_reason(error: &DialError) -> Reason {
    tracing::debug!(%error, "dial failed");
    match error {
        DialError::NotOurs { .. } | DialError::Expired { .. } => Reason::NoIdentity,
        DialError::WrongIdentity { .. } => Reason::WrongIdentity,
        _ => Reason::ConnectFailed,
    }
}
