//! Which line a key belongs to, and which hosts go with an issuer: from what this node has seen, and from all issuers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use starling_gossip::{Caps, NodeName};
use starling_transport::{HostHash, KeyHash, Leaf};
use tokio::time::timeout;

use super::explain::causes;
use super::issuers;
use crate::admin::view::{FoundLine, LineAnswer, LineHolder, LineQuestion};
use crate::host::Host;
use crate::issuer::Booked;

/// Answers from the certificates of this node and of those that it knows, and from the books of issuers.
pub(super) async fn find(host: Arc<Host>, question: LineQuestion) -> LineAnswer {
    let set = host.identities.current();
    let own = std::iter::once(&set.node).chain(set.services.values());
    let own: Vec<_> = own.map(|svid| svid.leaf().clone()).collect();
    let mut known = own.clone();
    known.extend(host.lines.good(SystemTime::now()));
    let key = question.key.as_ref().and_then(|key| key.parse().ok());
    let issuer = question.issuer.as_deref().map(HostHash::of);
    let mut found = key.and_then(|key: KeyHash| {
        let mut with_key = known.iter().filter(|leaf| leaf.key_hash == key);
        with_key.find_map(found_line)
    });
    let (mut booked, mut not_asked) = (Vec::new(), Vec::new());
    if found.is_none() {
        (booked, not_asked) = issuers::ask_all(&host, |issuer| {
            let (host, question) = (host.clone(), question.clone());
            Box::pin(async move { ask(&host, &issuer, &question).await })
        })
        .await;
        let leaf = |key| {
            booked
                .iter()
                .find_map(|booked| booked.leaf(&key, &set.trust))
        };
        found = key.and_then(leaf).as_ref().and_then(found_line);
    }
    let mut holders = BTreeMap::<_, BTreeSet<_>>::new();
    if let Some(issuer) = issuer {
        for leaf in known.iter().filter(|leaf| leaf.signers.has(issuer)) {
            let host = leaf.host.clone().unwrap_or_default();
            holders.entry(host).or_default().insert(leaf.id.to_string());
        }
        for (host, identities) in booked.iter().flat_map(|booked| &booked.holders) {
            let known = holders.entry(host.clone()).or_default();
            known.extend(identities.iter().cloned());
        }
    }
    let is_issuer =
        !holders.is_empty() || question.issuer.is_some_and(|name| is_issuer(&host, &name));
    // A host without a name is of another CA.
    holders.remove("");
    let left_out = booked.iter().map(|booked| booked.left_out).sum();
    LineAnswer {
        found,
        holders: holders.into_iter().map(holder).collect(),
        left_out,
        is_issuer,
        own: issuer.is_some_and(|issuer| own[0].signers.has(issuer)),
        not_asked,
    }
}

fn found_line(leaf: &Leaf) -> Option<FoundLine> {
    Some(FoundLine {
        line: leaf.line.as_ref()?.name.to_string(),
        identity: leaf.id.to_string(),
        host: leaf.host.clone(),
    })
}

fn holder((host, identities): (String, BTreeSet<String>)) -> LineHolder {
    LineHolder {
        host,
        identities: identities.into_iter().collect(),
    }
}

fn is_issuer(host: &Host, name: &str) -> bool {
    let catalogue = host.membership.catalogue();
    let announced = catalogue.member(name);
    announced.is_some_and(|member| member.caps.has(Caps::ISSUER))
        || (host.node.as_str() == name && host.issuer.load().is_some())
}

async fn ask(
    host: &Arc<Host>,
    issuer: &NodeName,
    question: &LineQuestion,
) -> Result<Booked, String> {
    let control = host.control();
    let asked = control.ask::<Booked>(issuer, "/v1/lines", question);
    match timeout(BUDGET, asked).await {
        Ok(Ok(booked)) => Ok(booked),
        Ok(Err(error)) => Err(error
            .refused()
            .map_or_else(|| causes(&error), |refused| refused.why.clone())),
        Err(_elapsed) => Err(format!("it did not answer within {BUDGET:?}")),
    }
}

/// Less than the command waits for this agent.
const BUDGET: Duration = Duration::from_secs(4);
