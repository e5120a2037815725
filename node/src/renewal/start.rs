//! Certificates that ended while no agent ran.

use std::time::{Duration, SystemTime};

use starling_transport::{IdentitySet, Line, SpiffeId, Svid};

use super::{all, due, write};
use crate::ca::{self, Authority, CaError, INTERMEDIATE_KEY, Terms};
use crate::state::StateDir;

/// This node's certificate is over, and this node cannot make another. An agent would be refused by everybody.
#[derive(Debug, thiserror::Error)]
#[error("the certificate of {id} ended {} ago", humantime::format_duration(*ago))]
pub struct Ended {
    id: SpiffeId,
    ago: Duration,
    services: Vec<String>,
}

impl Ended {
    /// What puts it right.
    pub fn hint(&self) -> String {
        let services = self
            .services
            .iter()
            .map(|name| format!(" --service {name}"));
        format!(
            "if the clock of this host is right: on an issuer `starling invite --node {}{}`, and here `starling join`",
            self.id.node_name().unwrap_or_default(),
            services.collect::<String>()
        )
    }
}

/// Makes the set fit to start with: an issuer signs what is due itself, everybody else must have a certificate that is
/// good.
pub fn at_start(
    set: IdentitySet,
    state: &StateDir,
    lifetime: Duration,
) -> anyhow::Result<IdentitySet> {
    let now = SystemTime::now();
    let due: Vec<_> = all(&set).filter(|svid| due(svid.leaf()) <= now).collect();
    let set = if state.exists(INTERMEDIATE_KEY) && !due.is_empty() {
        match sign(&due, state, lifetime) {
            Ok(()) => state.identities_beside(Some(&set))?.0,
            // What is there may be good for a while, and other issuers may be well.
            Err(error) => {
                let error: &(dyn std::error::Error + 'static) = &error;
                tracing::error!(error, "this issuer cannot renew its own certificates");
                set
            }
        }
    } else {
        set
    };
    let node = set.node.leaf();
    match now.duration_since(node.not_after) {
        Ok(over) => Err(Ended {
            id: node.id.clone(),
            ago: Duration::from_secs(over.as_secs()),
            services: set
                .services
                .keys()
                .filter_map(SpiffeId::service_name)
                .map(str::to_owned)
                .collect(),
        }
        .into()),
        Err(_still_good) => Ok(set),
    }
}

fn sign(due: &[&Svid], state: &StateDir, lifetime: Duration) -> Result<(), CaError> {
    let authority = Authority::load(state)?;
    for svid in due {
        let terms = Terms {
            host: svid.leaf().host.as_deref(),
            lifetime,
            line: Line::renewed(svid.leaf(), ca::line_name()?),
        };
        let issued = authority.issue_on(svid.id(), &terms)?;
        write(state, svid.id(), &issued.chain_pem, &issued.key_pem)?;
        tracing::info!(identity = %svid.id(), "certificate renewed at the start");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use starling_gossip::{NodeName, ServiceName};
    use starling_transport::TrustDomain;

    use super::*;
    use crate::ca::LIFETIME;

    fn ended(parent: &std::path::Path) -> (StateDir, StateDir) {
        let issuer = StateDir::create(&parent.join("n1")).unwrap();
        let (domain, n1) = (
            TrustDomain::parse("example.org").unwrap(),
            NodeName::parse("n1").unwrap(),
        );
        let authority = Authority::init(&issuer, &domain, &n1).unwrap();
        let orders = [ServiceName::parse("orders").unwrap()];
        let other = StateDir::create(&parent.join("n2")).unwrap();
        let second = Duration::from_secs(1);
        authority
            .write_bundle(&issuer, &n1, &orders, second)
            .unwrap();
        authority
            .write_bundle(&other, &NodeName::parse("n2").unwrap(), &orders, second)
            .unwrap();
        let ends = other.identities().unwrap().node.leaf().not_after;
        while SystemTime::now() <= ends {
            std::thread::yield_now();
        }
        (issuer, other)
    }

    #[test]
    fn an_issuer_helps_itself_and_others_are_told_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let (issuer, other) = ended(dir.path());
        let set = at_start(issuer.identities().unwrap(), &issuer, LIFETIME).unwrap();
        assert!(all(&set).all(|svid| svid.leaf().not_after > SystemTime::now()));
        let error = at_start(other.identities().unwrap(), &other, LIFETIME).unwrap_err();
        let ended = error.downcast_ref::<Ended>().unwrap();
        assert!(
            ended
                .to_string()
                .starts_with("the certificate of spiffe://example.org/node/n2 ended")
        );
        assert_eq!(
            ended.hint(),
            "if the clock of this host is right: on an issuer `starling invite --node n2 --service orders`, \
             and here `starling join`"
        );
    }
}
