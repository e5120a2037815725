//! The joiner's end.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use starling_transport::join::{self as port, JoinError, Pinned, Said};
use starling_transport::{IdentityError, Refusal, SpiffeId, Svid, SvidError, TrustBundle};
use tokio::net::lookup_host;
use tokio::time::sleep;

use super::{Asked, Joined, Reply, Turned, Wish};
use crate::ca::{Asking, CaError};
use crate::said;
use crate::state::{NODE_CHAIN, NODE_KEY, StateDir, StateError, TRUST, service_files};
use crate::token::Token;

/// Why this host did not join. Nothing was written, unless the error is about the state directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinFailed {
    #[error("node `{}` of {} is not let in: {}", token.node, token.trust_domain, turned.why)]
    Turned { token: Box<Token>, turned: Turned },
    #[error("no issuer could be asked")]
    NoIssuer(#[source] JoinError),
    #[error("`{0}` of the token has no address")]
    NoAddress(String),
    #[error("{} belongs to {found}", state.display())]
    OtherNode {
        state: std::path::PathBuf,
        found: SpiffeId,
    },
    #[error("{} belongs to a mesh with another root than the token's", state.display())]
    OtherMesh { state: std::path::PathBuf },
    /// It proved to be of the mesh, but what it answers is not understood.
    #[error("the answer of {issuer} is not what this version of starling expects")]
    NotUnderstood { issuer: SpiffeId },
    #[error("{issuer} answered with a certificate that cannot be used")]
    BadCertificate { issuer: SpiffeId, source: SvidError },
    #[error("{issuer} answered with a certificate that the mesh would refuse")]
    Refused { issuer: SpiffeId, source: Refusal },
    #[error("not a name")]
    Name(#[from] IdentityError),
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(transparent)]
    State(#[from] StateError),
}

impl JoinFailed {
    /// What puts it right.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Turned { turned, .. } => turned.outcome.hint(),
            Self::NoIssuer(JoinError::OtherMesh { .. }) => {
                "the token's root is not that of the host at this address: is the address right, was the mesh set up anew?"
            }
            Self::NoIssuer(JoinError::NotAnIssuer { .. }) => {
                "is that host still an issuer (`starling status` there)? `starling invite` on one that is makes a token with its address"
            }
            Self::NoIssuer(_) | Self::NoAddress(_) => {
                "does the agent run on the issuer, and does UDP to its join port pass? `starling invite --issuer HOST:PORT` \
                 puts another address into the token"
            }
            Self::OtherNode { .. } | Self::OtherMesh { .. } => {
                "use another --state, or move the old directory away first"
            }
            Self::NotUnderstood { .. } => "use the same version of starling on both hosts",
            Self::BadCertificate { .. } | Self::Refused { .. } => {
                "do the clocks of both hosts agree? the log of the issuer may tell more"
            }
            Self::Ca(error) => return error.hint(),
            Self::State(error) => return error.hint(),
            Self::Name(_) => return None,
        };
        Some(hint.to_owned())
    }
}

/// Redeems `token`, and writes keys and certificates to `state`. Returns mesh ports of the mesh.
pub async fn join(token: &Token, state: &StateDir) -> Result<Vec<String>, JoinFailed> {
    let mut identities = vec![SpiffeId::node(&token.trust_domain, token.node.as_str())?];
    for service in &token.services {
        identities.push(SpiffeId::service(&token.trust_domain, service.as_str())?);
    }
    check_state(state, token, &identities[0])?;
    let keys = identities.iter().map(Asking::new);
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    let (said, joined) = ask_all(token, &wish(token, &keys)).await?;
    let svids = read(&said, &joined, token, &identities, &keys)?;
    state.write(TRUST, pem(&said.root).as_bytes())?;
    // The node's own last: without it the host has not joined, and can try again.
    for (id, (chain, key)) in svids.iter().rev() {
        let (chain_name, key_name) = match id.service_name() {
            Some(service) => service_files(service),
            None => (NODE_CHAIN.to_owned(), NODE_KEY.to_owned()),
        };
        state.write_svid(&chain_name, &key_name, chain, key)?;
    }
    Ok(joined.seeds)
}

/// A host that is in already may join again as the same node of the same mesh, for other services or after its
/// certificates ended.
fn check_state(state: &StateDir, token: &Token, node: &SpiffeId) -> Result<(), JoinFailed> {
    let path = || state.path().to_owned();
    if state.exists(TRUST) {
        let trust = TrustBundle::from_pem(token.trust_domain.clone(), &state.read(TRUST)?);
        let has_root = trust.is_ok_and(|trust| trust.has_root(&token.root_sha256));
        if !has_root {
            return Err(JoinFailed::OtherMesh { state: path() });
        }
    }
    if let Some(found) = state.node()?.filter(|found| found != node) {
        return Err(JoinFailed::OtherNode {
            state: path(),
            found,
        });
    }
    Ok(())
}

fn wish(token: &Token, keys: &[Asking]) -> Wish {
    Wish {
        invite: token.id.to_string(),
        home: token.home.to_string(),
        node: token.node.to_string(),
        services: token.services.iter().map(ToString::to_string).collect(),
        requests: keys
            .iter()
            .map(|asking| STANDARD.encode(&asking.request))
            .collect(),
    }
}

/// Asks one issuer after the other until one decides. The keys stay the same, so that an answer that was lost can be
/// heard again.
async fn ask_all(token: &Token, wish: &Wish) -> Result<(Said, Joined), JoinFailed> {
    let mut failed = None;
    for round in 0..ROUNDS {
        sleep(PAUSE * round).await;
        let mut is_hopeless = true;
        for issuer in &token.issuers {
            match ask(issuer, token, wish).await {
                Ok((said, Reply::Joined(joined))) => return Ok((said, joined)),
                Ok((_, Reply::Refused(turned))) => {
                    let is_passing = turned.outcome.is_passing();
                    let token = Box::new(token.clone());
                    let turned = JoinFailed::Turned { token, turned };
                    if !is_passing {
                        return Err(turned);
                    }
                    failed = Some(turned);
                }
                // A refusal says more than an issuer that cannot be reached.
                Err(error) => {
                    is_hopeless &=
                        matches!(error, JoinFailed::NoIssuer(JoinError::OtherMesh { .. }));
                    failed = failed
                        .filter(|f| matches!(f, JoinFailed::Turned { .. }))
                        .or(Some(error));
                    continue;
                }
            }
            is_hopeless = false;
        }
        if is_hopeless {
            break;
        }
    }
    Err(failed.expect("a token names an issuer"))
}

async fn ask(issuer: &str, token: &Token, wish: &Wish) -> Result<(Said, Reply), JoinFailed> {
    let pinned = Pinned {
        trust_domain: token.trust_domain.clone(),
        root_sha256: token.root_sha256,
    };
    let request = |binding: &[u8; 32]| {
        serde_json::to_vec(&Asked::new(wish, token, binding)).expect("strings can be written")
    };
    let mut failed = JoinFailed::NoAddress(issuer.to_owned());
    for addr in resolve(issuer).await {
        match port::ask(addr, &pinned, request, BUDGET).await {
            Ok(said) => {
                let reply = serde_json::from_slice::<Reply>(&said.answer);
                let reply = reply.map_err(|_detail| JoinFailed::NotUnderstood {
                    issuer: said.issuer.clone(),
                })?;
                return Ok((said, reply.marked()));
            }
            Err(error) => failed = JoinFailed::NoIssuer(error),
        }
    }
    Err(failed)
}

async fn resolve(issuer: &str) -> Vec<SocketAddr> {
    let found = lookup_host(issuer).await;
    found.map_or_else(
        |_unknown| Vec::new(),
        |addrs| addrs.take(ADDRS_MAX).collect(),
    )
}

type Pair = (String, String);

/// Chains and keys, each of them good: for the identity that was asked for, with our key, and by the pinned root alone.
fn read(
    said: &Said,
    joined: &Joined,
    token: &Token,
    identities: &[SpiffeId],
    keys: &[Asking],
) -> Result<Vec<(SpiffeId, Pair)>, JoinFailed> {
    let issuer = || said.issuer.clone();
    let root = pem(&said.root);
    let bad = |source| JoinFailed::BadCertificate {
        issuer: issuer(),
        source,
    };
    let trust = TrustBundle::from_pem(token.trust_domain.clone(), root.as_bytes()).map_err(bad)?;
    if joined.leaves.len() != identities.len() {
        return Err(JoinFailed::NotUnderstood { issuer: issuer() });
    }
    let mut svids = Vec::new();
    for ((id, leaf), asking) in identities.iter().zip(&joined.leaves).zip(keys) {
        let chain = format!("{leaf}{}", joined.issuer);
        let svid = Svid::from_pem(chain.as_bytes(), asking.key_pem.as_bytes());
        let svid = svid.map_err(|source| JoinFailed::BadCertificate {
            issuer: issuer(),
            source,
        })?;
        let proven = trust.verify_der(&svid.chain(), SystemTime::now());
        match proven {
            Ok(leaf) if leaf.id == *id => svids.push((id.clone(), (chain, asking.key_pem.clone()))),
            Ok(_) => {
                return Err(JoinFailed::Refused {
                    issuer: issuer(),
                    source: Refusal::WrongIdentity,
                });
            }
            Err(source) => {
                return Err(JoinFailed::Refused {
                    issuer: issuer(),
                    source,
                });
            }
        }
    }
    Ok(svids)
}

impl Reply {
    /// What another host says goes to a terminal here.
    fn marked(mut self) -> Self {
        if let Self::Refused(turned) = &mut self {
            turned.why = said::quoted(&turned.why);
        }
        self
    }
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(64)
        .map(|line| String::from_utf8_lossy(line))
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

/// Every issuer of the token is asked this often before we give up.
const ROUNDS: u32 = 3;

/// Before the second round; the third waits twice as long.
const PAUSE: Duration = Duration::from_secs(1);

/// An issuer may have to ask another one, which takes up to 5 seconds.
const BUDGET: Duration = Duration::from_secs(10);

/// Addresses of one name that are tried.
const ADDRS_MAX: usize = 4;
