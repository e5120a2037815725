//! Loading what this node can prove, and whom it trusts.

use std::collections::BTreeMap;
use std::time::SystemTime;

use starling_gossip::ServiceName;
use starling_transport::{
    IdentityKind, IdentitySet, Leaf, Refusal, SpiffeId, Svid, TrustBundle, TrustDomain,
};

use super::{NODE_CHAIN, NODE_KEY, SERVICES, StateDir, StateError, TRUST};

impl StateDir {
    /// Reads roots, the node's SVID and those of its services: all of them or none.
    pub fn identities(&self) -> Result<IdentitySet, StateError> {
        let (set, mut faults) = self.identities_beside(None)?;
        match faults.is_empty() {
            true => Ok(set),
            false => Err(faults.swap_remove(0)),
        }
    }

    /// The same for an agent. Roots and node have to fit together, so that a running agent keeps the set it has and a starting one does
    /// not start. A service whose files cannot be used keeps its SVID of `before`, or goes without; why is returned beside the set.
    pub fn identities_beside(
        &self,
        before: Option<&IdentitySet>,
    ) -> Result<(IdentitySet, Vec<StateError>), StateError> {
        let node = self.svid(NODE_CHAIN, NODE_KEY)?;
        if !matches!(node.id().kind(), IdentityKind::Node(_)) {
            return Err(self.misplaced(NODE_CHAIN, &node));
        }
        let trust_domain = node.id().trust_domain().clone();
        let trust =
            TrustBundle::from_pem(trust_domain.clone(), &self.read(TRUST)?).map_err(|source| {
                StateError::Identity {
                    path: self.path().join(TRUST),
                    source,
                }
            })?;
        self.vouched(&trust, NODE_CHAIN, &node)?;
        let (mut services, mut faults) = (BTreeMap::new(), Vec::new());
        for name in self.services()? {
            match self.service(&name, &trust_domain, &trust) {
                Ok(svid) => {
                    services.insert(svid.id().clone(), svid);
                }
                Err(error) => {
                    let held = before.and_then(|before| before.service(&name));
                    services.extend(held.map(|held| (held.id().clone(), held.clone())));
                    faults.push(error);
                }
            }
        }
        let set = IdentitySet {
            trust,
            node,
            services,
        };
        Ok((set, faults))
    }

    fn service(
        &self,
        name: &str,
        trust_domain: &TrustDomain,
        trust: &TrustBundle,
    ) -> Result<Svid, StateError> {
        let (chain, key) = service_files(name);
        let svid = self.svid(&chain, &key)?;
        let named = ServiceName::parse(name)
            .ok()
            .and_then(|name| SpiffeId::service(trust_domain, name.as_str()).ok());
        if named.as_ref() != Some(svid.id()) {
            return Err(self.misplaced(&chain, &svid));
        }
        self.vouched(trust, &chain, &svid)?;
        Ok(svid)
    }

    /// Replaces a chain and its key, PEM, so that at every moment, also after a crash, a pair is there that fits: the old
    /// one until the chain is replaced, from then on the new one, whose key may still lie beside the old.
    pub fn write_svid(
        &self,
        chain_name: &str,
        key_name: &str,
        chain: &str,
        key: &str,
    ) -> Result<(), StateError> {
        let next = next(key_name);
        self.write(&next, key.as_bytes())?;
        self.write(chain_name, chain.as_bytes())?;
        self.rename(&next, key_name)
    }

    /// Which node the certificate in here names, if there is one that can be read. It may have ended.
    pub fn node(&self) -> Result<Option<SpiffeId>, StateError> {
        if !self.exists(NODE_CHAIN) {
            return Ok(None);
        }
        let pem = self.read(NODE_CHAIN)?;
        let leaf = x509_parser::pem::parse_x509_pem(&pem).ok();
        let leaf = leaf.and_then(|(_, pem)| Leaf::parse(&pem.contents).ok());
        Ok(leaf.map(|leaf| leaf.id))
    }

    fn svid(&self, chain_name: &str, key_name: &str) -> Result<Svid, StateError> {
        let chain = self.read(chain_name)?;
        let svid = |key: &str| {
            let svid = Svid::from_pem(&chain, &self.read_secret(key)?);
            svid.map_err(|source| StateError::Identity {
                path: self.path().join(chain_name),
                source,
            })
        };
        let next = next(key_name);
        match svid(key_name) {
            Err(_) if self.exists(&next) => svid(&next).or_else(|_| svid(key_name)),
            read => read,
        }
    }

    /// What our own roots do not vouch for, peers would refuse too. Of its time nothing is said: it comes and goes.
    fn vouched(&self, trust: &TrustBundle, chain: &str, svid: &Svid) -> Result<(), StateError> {
        match trust.verify_der(&svid.chain(), SystemTime::now()) {
            Ok(_) | Err(Refusal::Expired | Refusal::NotYetValid) => Ok(()),
            Err(refusal) => Err(StateError::NotVouched {
                path: self.path().join(chain),
                trust: self.path().join(TRUST),
                refusal,
            }),
        }
    }

    fn misplaced(&self, chain: &str, svid: &Svid) -> StateError {
        StateError::Misplaced {
            path: self.path().join(chain),
            found: svid.id().clone(),
        }
    }
}

/// Where a key waits for its chain.
fn next(key_name: &str) -> String {
    format!("{key_name}.next")
}

/// Names of a service's chain and key in a state directory.
pub fn service_files(service: &str) -> (String, String) {
    (
        format!("{SERVICES}/{service}.pem"),
        format!("{SERVICES}/{service}.key"),
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use starling_gossip::NodeName;

    use super::*;
    use crate::ca::{Authority, LIFETIME};

    fn issuer(parent: &Path, name: &str) -> (StateDir, Authority) {
        let state = StateDir::create(&parent.join(name)).unwrap();
        let authority = Authority::init(
            &state,
            &TrustDomain::parse("example.org").unwrap(),
            &NodeName::parse("n1").unwrap(),
        )
        .unwrap();
        (state, authority)
    }

    fn host(parent: &Path, name: &str, authority: &Authority) -> StateDir {
        let state = StateDir::create(&parent.join(name)).unwrap();
        let services = ["orders", "web"].map(|name| ServiceName::parse(name).unwrap());
        authority
            .write_bundle(&state, &NodeName::parse(name).unwrap(), &services, LIFETIME)
            .unwrap();
        state
    }

    #[test]
    fn a_bundle_loads_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (_, authority) = issuer(dir.path(), "ca");
        let set = host(dir.path(), "n2", &authority).identities().unwrap();
        assert_eq!(set.node.id().node_name(), Some("n2"));
        let services: Vec<_> = set
            .services
            .keys()
            .filter_map(|id| id.service_name())
            .collect();
        assert_eq!(services, ["orders", "web"]);
    }

    /// Whatever is wrong with whichever file, the set is refused: it is never loaded with fewer checks or fewer names.
    #[test]
    fn a_broken_file_is_never_overlooked() {
        let dir = tempfile::tempdir().unwrap();
        let (_, authority) = issuer(dir.path(), "ca");
        let state = host(dir.path(), "n2", &authority);
        for name in [
            "trust.pem",
            "node.pem",
            "node.key",
            "svc/web.pem",
            "svc/web.key",
        ] {
            let path = state.path().join(name);
            let good = fs::read(&path).unwrap();
            let refused = |what: &str| {
                let refusal = state.identities().expect_err(&format!("{name} {what}"));
                assert!(!refusal.to_string().is_empty());
            };
            // A service whose certificate is gone is not this node's any more.
            if name != "svc/web.pem" {
                fs::remove_file(&path).unwrap();
                refused("missing");
            }
            let other = if name.ends_with(".key") {
                "ca/root.pem"
            } else {
                "ca/root.key"
            };
            let other = fs::read(dir.path().join("ca").join(other)).unwrap();
            for (what, content) in [
                ("empty", &b""[..]),
                ("truncated", &good[..good.len() / 2]),
                ("zeros", &[0; 512]),
                ("other PEM", &other),
            ] {
                state.write(name, content).unwrap();
                refused(what);
            }
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
            refused("directory");
            fs::remove_dir(&path).unwrap();
            state.write(name, &good).unwrap();
            state.identities().unwrap();
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (_, authority) = issuer(dir.path(), "ca");
        let state = host(dir.path(), "n2", &authority);
        state
            .write("node.key", &state.read_secret("svc/web.key").unwrap())
            .unwrap();
        assert!(matches!(
            state.identities(),
            Err(StateError::Identity { .. })
        ));
    }

    #[test]
    fn a_certificate_under_another_name_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (_, authority) = issuer(dir.path(), "ca");
        for (from, to) in [
            ("svc/web", "svc/orders"),
            ("node", "svc/node"),
            ("svc/web", "node"),
            ("svc/web", "svc/WEB"),
        ] {
            let state = host(dir.path(), "n2", &authority);
            for end in ["pem", "key"] {
                let bytes = state.read_secret(&format!("{from}.{end}")).unwrap();
                state.write(&format!("{to}.{end}"), &bytes).unwrap();
            }
            let error = state.identities().unwrap_err();
            assert!(
                matches!(error, StateError::Misplaced { .. }),
                "{from} as {to}: {error}"
            );
            fs::remove_dir_all(state.path()).unwrap();
        }
    }

    #[test]
    fn a_pair_fits_whatever_moment_a_crash_chooses() {
        let parent = tempfile::tempdir().unwrap();
        let (_, authority) = issuer(parent.path(), "a");
        let state = host(parent.path(), "n2", &authority);
        let (old_chain, old_key) = (
            state.read(NODE_CHAIN).unwrap(),
            state.read(NODE_KEY).unwrap(),
        );
        let id = state.node().unwrap().unwrap();
        let new = authority.issue(&id, LIFETIME).unwrap();
        let serial = |state: &StateDir| state.identities().unwrap().node.leaf().serial.clone();
        let before = serial(&state);

        state
            .write("node.key.next", new.key_pem.as_bytes())
            .unwrap();
        assert_eq!(serial(&state), before);
        state.write(NODE_CHAIN, new.chain_pem.as_bytes()).unwrap();
        let after = serial(&state);
        assert_ne!(after, before);
        state
            .write_svid(NODE_CHAIN, NODE_KEY, &new.chain_pem, &new.key_pem)
            .unwrap();
        assert_eq!(serial(&state), after);
        assert!(!state.exists("node.key.next"));

        // A chain without either key is no pair.
        state.write(NODE_CHAIN, &old_chain).unwrap();
        assert!(state.identities().is_err());
        state.write(NODE_KEY, &old_key).unwrap();
        assert_eq!(serial(&state), before);
    }
}
