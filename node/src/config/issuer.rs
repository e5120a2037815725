//! `[issuer]`: what matters only where certificates are issued.

use std::net::SocketAddr;
use std::time::Duration;

use super::check::Checker;
use super::{Config, raw};
use crate::ca;

/// How an issuer issues. Of no meaning on other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// UDP address of the join port; see [`Config::join_listen`]. Needs a restart.
    pub listen: Option<SocketAddr>,
    /// How long certificates live that are issued at a join or a renewal. Default 24 hours. Shorter ends a stolen key
    /// sooner and gives less time to bring issuers back. Reloadable, for new certificates.
    pub lifetime: Duration,
}

impl Issuer {
    pub(super) fn check(raw: &raw::Issuer, checker: &mut Checker<'_>) -> Self {
        let default = Self::default();
        let listen = raw.listen.as_ref();
        let lifetime = raw.lifetime.as_ref();
        Self {
            listen: listen.and_then(|listen| checker.address("listen", listen)),
            lifetime: lifetime
                .and_then(|time| checker.duration("lifetime", time, ca::LIFETIMES))
                .unwrap_or(default.lifetime),
        }
    }
}

impl Default for Issuer {
    fn default() -> Self {
        Self {
            listen: None,
            lifetime: ca::LIFETIME,
        }
    }
}

impl Config {
    /// Where the join port listens: beside the mesh port unless said otherwise.
    pub fn join_listen(&self) -> SocketAddr {
        let beside = SocketAddr::new(self.listen.ip(), JOIN_PORT);
        self.issuer.listen.unwrap_or(beside)
    }
}

/// The join port unless told otherwise.
pub(crate) const JOIN_PORT: u16 = 7402;
