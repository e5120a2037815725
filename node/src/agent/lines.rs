//! Which line a key belongs to, and which hosts go with an issuer: from what this node has seen, and from all issuers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use starling_gossip::{Caps, NodeName};
use starling_transport::{HostHash, Leaf};
use tokio::time::{Instant, sleep, timeout_at};

use super::issuers;
use crate::admin::view::{FoundLine, LineAnswer, LineHolder, LineQuestion};
use crate::host::Host;
use crate::issuer::{BUSY, Booked, is_about};
use crate::mesh::unix_s;
use crate::said;

/// Answers from the certificates of this node and of those that it knows, and from the books of issuers.
pub(super) async fn find(host: Arc<Host>, question: LineQuestion) -> LineAnswer {
    let set = host.identities.current();
    let own = std::iter::once(&set.node).chain(set.services.values());
    let own: Vec<_> = own.map(|svid| svid.leaf().clone()).collect();
    let mut known = own.clone();
    known.extend(host.lines.good(SystemTime::now()));
    let issuer = question.issuer.as_deref().map(HostHash::of);
    let about = known.iter().filter(|leaf| is_about(&question, leaf));
    let mut about: Vec<_> = about.cloned().collect();
    let (mut booked, mut not_asked) = (Vec::new(), Vec::new());
    // What has a key is found or not; of a name there may be more.
    if question.key.is_none() || about.is_empty() {
        let deadline = Instant::now() + BUDGET;
        (booked, not_asked) = issuers::ask_all(&host, |issuer| {
            let (host, question) = (host.clone(), question.clone());
            Box::pin(async move { ask(&host, &issuer, &question, deadline).await })
        })
        .await;
        let proven = booked.iter();
        about.extend(proven.filter_map(|booked| booked.leaf(&question, &set.trust)));
    }
    let youngest = about.iter().map(|leaf| unix_s(leaf.begins)).max();
    let found = match question.key {
        Some(_) => about.iter().find_map(found_line),
        None => None,
    };
    let mut holders = BTreeMap::<_, BTreeSet<_>>::new();
    if let Some(issuer) = issuer {
        for leaf in known.iter().filter(|leaf| leaf.signers.has(issuer)) {
            let host = leaf.host.clone().unwrap_or_default();
            holders.entry(host).or_default().insert(leaf.id.to_string());
        }
        let seen = known.iter().filter_map(|leaf| {
            let whose = (leaf.host.as_deref()?, leaf.id.as_str());
            Some((whose, unix_s(leaf.issued())))
        });
        let seen: BTreeMap<_, _> = seen.collect();
        for (host, identities) in booked.iter().flat_map(|booked| &booked.holders) {
            // A host that was set up anew since is done.
            let is_left = |(id, booked): &(&String, &u64)| {
                let seen = seen.get(&(host.as_str(), id.as_str()));
                seen.is_none_or(|seen| seen < *booked)
            };
            let left: Vec<_> = identities.iter().filter(is_left).collect();
            if !left.is_empty() {
                let held = holders.entry(said::word(host)).or_default();
                held.extend(left.into_iter().map(|(id, _)| said::word(id)));
            }
        }
    }
    let is_issuer =
        !holders.is_empty() || question.issuer.is_some_and(|name| is_issuer(&host, &name));
    // A host without a name is of another CA.
    holders.remove("");
    let left_out = booked.iter().map(|booked| booked.left_out);
    let left_out = left_out.fold(0, usize::saturating_add);
    LineAnswer {
        found,
        youngest,
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

/// Asks again while the issuer reads its book for others.
async fn ask(
    host: &Arc<Host>,
    issuer: &NodeName,
    question: &LineQuestion,
    deadline: Instant,
) -> Result<Booked, String> {
    loop {
        let control = host.control();
        let asked = control.ask_exact::<Booked>(issuer, "/v1/lines", question);
        let Ok(answered) = timeout_at(deadline, asked).await else {
            return Err(format!("it did not answer within {BUDGET:?}"));
        };
        match answered {
            Ok(booked) => return Ok(booked),
            Err(error) => match error.refused() {
                Some(refused) if refused.reason == BUSY => {}
                _ => return Err(error.told()),
            },
        }
        sleep(PAUSE).await;
    }
}

/// An issuer that is asked about may be the thief's, and must not hold its own revocation up.
const BUDGET: Duration = Duration::from_secs(1);

const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
