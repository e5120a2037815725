//! The metrics of every node by way of any agent, so that one Prometheus on one host reads the whole mesh, over the
//! connections that the mesh has and with nothing open besides.

mod pages;

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use starling_gossip::{Catalogue, Member, NodeName, State};
use starling_transport::Leaf;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::admin::view::Scraped;
use crate::control::{Handler, Refused, Who};
use crate::host::Host;
use crate::telemetry::quic::Quic;
use crate::telemetry::{Format, Recorder};
use pages::{Pages, Piece};

/// What this node counts, for itself and for others.
#[derive(Debug)]
pub struct Scrape {
    recorder: Recorder,
    quic: Quic,
    pages: Pages,
    turns: Semaphore,
}

/// Asks for a part of a node's metrics: a page is larger than an answer may be.
#[derive(Debug, Serialize, Deserialize)]
struct Question {
    format: Format,
    /// The page that an answer before was a piece of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    page: Option<u64>,
    #[serde(default)]
    from: usize,
}

/// What other nodes may ask.
pub(crate) fn handler() -> Handler {
    Handler::new(METRICS, Who::Node, answer)
}

async fn answer(host: Arc<Host>, _asker: Leaf, question: Question) -> Result<Piece, Refused> {
    let scrape = &host.scrape;
    let piece = match question.page {
        None => Some(
            scrape
                .pages
                .first(question.format, || own(&host, question.format)),
        ),
        Some(page) => scrape.pages.piece(page, question.from),
    };
    piece.ok_or_else(|| {
        let why = "this page of metrics is gone; ask for a new one";
        Refused::new(StatusCode::GONE, "page_gone", why)
    })
}

impl Scrape {
    pub fn new(recorder: Recorder) -> Self {
        Self {
            recorder,
            quic: Quic::default(),
            pages: Pages::default(),
            turns: Semaphore::new(TURNS_MAX),
        }
    }
}

/// The metrics of this node.
pub(crate) fn own(host: &Host, format: Format) -> String {
    let catalogue = host.membership.catalogue();
    let others = catalogue.members.values();
    let others = others.filter(|member| member.name != catalogue.local);
    let places = others.flat_map(|member| {
        let addrs = member.addrs.iter();
        addrs.map(|addr| (*addr, member.name.to_string()))
    });
    let links = host.pool.endpoint().links();
    let paths = host.scrape.quic.page(&links, &places.collect());
    host.scrape.recorder.render(&paths, format)
}

/// The metrics of `node`, or in one line why there are none.
pub(crate) async fn of(host: Arc<Host>, node: String, format: Format) -> Result<String, String> {
    let node = NodeName::parse(&node).map_err(|error| error.to_string())?;
    if node == host.node {
        return Ok(own(&host, format));
    }
    // It is never closed, and an error would only mean that nobody holds us back.
    let work = async {
        let _turn = host.scrape.turns.acquire().await;
        read(&host, &node, format).await
    };
    timeout(BUDGET, work)
        .await
        .unwrap_or_else(|_elapsed| Err(format!("no answer of `{node}` within {BUDGET:?}")))
}

async fn read(host: &Arc<Host>, node: &NodeName, format: Format) -> Result<String, String> {
    let mut text = String::new();
    let mut page = None;
    loop {
        let from = text.len();
        let question = Question { format, page, from };
        let asked = host.control().ask_exact(node, METRICS, &question).await;
        let piece: Piece = asked.map_err(|error| crate::said::causes(&error))?;
        text.push_str(&piece.text);
        if !piece.more {
            return Ok(text);
        }
        if piece.text.is_empty() || text.len() > PAGE_BYTES_MAX {
            return Err(format!("what `{node}` answers is no page of metrics"));
        }
        page = Some(piece.page);
    }
}

/// What Prometheus is to scrape, if it reached this agent at `address`: this agent for itself and for all others.
pub(crate) fn targets(host: &Host, address: &str) -> Vec<Scraped> {
    let catalogue = host.membership.catalogue();
    let members = catalogue.members.values();
    let here = members.filter(|member| member.state != State::Left);
    here.map(|member| target(&catalogue, member, address))
        .collect()
}

/// A node that is dead stays a target, so that its absence is noticed, until it is forgotten.
fn target(catalogue: &Catalogue, member: &Member, address: &str) -> Scraped {
    let path = if member.name == catalogue.local {
        "/metrics".to_owned()
    } else {
        format!("/v1/nodes/{}/metrics", member.name)
    };
    let offered = catalogue.services.iter().filter(|(_, instances)| {
        let mut nodes = instances.iter().map(|instance| &instance.node);
        nodes.any(|node| *node == member.name)
    });
    let services: Vec<_> = offered.map(|(name, _)| name.as_str()).collect();
    let labels = [
        ("__metrics_path__", path),
        ("instance", member.name.to_string()),
        ("__meta_starling_node", member.name.to_string()),
        ("__meta_starling_zone", member.zone.to_string()),
        // As Prometheus writes lists, so that `.*,orders,.*` finds one.
        (
            "__meta_starling_services",
            format!(",{},", services.join(",")),
        ),
    ];
    let labels = labels.map(|(name, value)| (name.to_owned(), value));
    Scraped {
        targets: vec![address.to_owned()],
        labels: labels.into(),
    }
}

/// Where other nodes are asked.
const METRICS: &str = "/v1/metrics";
/// Nodes asked at a time: Prometheus spreads its scrapes over the interval, and 400 nodes take 27 a second at most.
const TURNS_MAX: usize = 16;
/// Prometheus gives up after ten seconds unless told otherwise.
const BUDGET: Duration = Duration::from_secs(9);
/// A page of a node whose metrics have all the series that they may have.
const PAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

#[cfg(test)]
mod tests;
