//! One attempt: the way to an instance, and what its failure means.

use std::net::SocketAddr;

use http::header::UPGRADE;
use http::{Request, Response};
use starling_gossip::Instance;
use starling_transport::h3::{RequestError, RequestErrorKind, Requester, Upgraded};
use starling_transport::{DialError, LocalSession};

use super::Route;
use crate::balance::Pick;
use crate::body::{Body, boxed};
use crate::reason::Reason;
use crate::{inbound, upgrade};

/// Why one attempt failed, and whether the app can have seen the request.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) reason: Reason,
    /// The app cannot have seen it, so it may be sent again whatever its method.
    pub(super) may_repeat: bool,
}

/// How a request reaches its callee.
pub(super) enum Way {
    Mesh(Requester),
    /// Within this node.
    Local(LocalSession),
}

/// Sends the request to the instance that was picked, over the mesh or within this node.
pub(super) async fn exchange(
    route: &Route,
    pick: &Pick,
    request: Request<Body>,
) -> Result<Response<Body>, Failure> {
    let way = reach(route, pick).await?;
    ask(route, pick, way, request).await
}

/// A way to the instance. Nothing of a request is sent yet.
pub(super) async fn reach(route: &Route, pick: &Pick) -> Result<Way, Failure> {
    let instance = pick.instance();
    if instance.node == route.host.node {
        let session = inbound::open_local(&route.host, &route.caller, &route.callee);
        return session.map(Way::Local).map_err(|reason| Failure {
            reason,
            may_repeat: true,
        });
    }
    let addrs = route.addresses(instance);
    let requester = route
        .host
        .pool
        .get(&route.caller, &route.callee, &addrs)
        .await;
    requester.map(Way::Mesh).map_err(|error| Failure {
        reason: dial_reason(&error),
        may_repeat: true,
    })
}

/// Sends the request that way.
pub(super) async fn ask(
    route: &Route,
    pick: &Pick,
    way: Way,
    request: Request<Body>,
) -> Result<Response<Body>, Failure> {
    let requester = match way {
        Way::Mesh(requester) => requester,
        Way::Local(session) => {
            let Route {
                host,
                caller,
                callee,
                ..
            } = route;
            return Ok(inbound::local(host, caller, callee, session, request).await);
        }
    };
    ask_peer(&requester, request).await.map_err(|error| {
        let node = &pick.instance().node;
        tracing::debug!(callee = %route.service, %node, %error, "request failed");
        let may_repeat = error.is_unsent();
        Failure {
            reason: match error.kind() {
                RequestErrorKind::Unsupported => Reason::NotSupported,
                _ if may_repeat => Reason::ConnectFailed,
                _ => Reason::UpstreamReset,
            },
            may_repeat,
        }
    })
}

/// Sends a request, or asks for the upgrade that it wants.
async fn ask_peer(
    requester: &Requester,
    request: Request<Body>,
) -> Result<Response<Body>, RequestError> {
    let Some(protocol) = request.headers().get(UPGRADE).cloned() else {
        return Ok(requester.request(request).await?.map(boxed));
    };
    let asked = Box::pin(requester.upgrade(request.map(drop)));
    Ok(match asked.await? {
        Upgraded::Switched(response, tunnel) => {
            upgrade::agreed(response.into_parts().0.headers, protocol, tunnel)
        }
        Upgraded::Refused(response) => upgrade::refused(response).map(boxed),
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
        DialError::NotOurs { .. } | DialError::OwnCertificate { .. } => Reason::NoIdentity,
        DialError::WrongIdentity { .. } => Reason::WrongIdentity,
        _ => Reason::ConnectFailed,
    }
}
