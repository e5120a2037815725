//! What the agent says of itself and the mesh: the JSON of `/v1/…`, and what `starling status` and its like read.
//!
//! Times are ages or seconds left, not dates, so that they hold whatever the clocks of reader and agent say. Fields are
//! only ever added; a reader ignores those it does not know.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use starling_gossip::DocumentKey;

use crate::policy::explain::Question;
use crate::tap::{Ask, Tap};
use crate::telemetry::Format;
use crate::telemetry::edges::Window;

mod explained;
mod invitations;
mod lines;
mod operators;
mod policy;

pub use explained::{Explained, Judged, Routed};
pub use invitations::{EndedInvitation, EndedInvitations, GoodFrom, Invited, RevokedName};
pub use lines::{FoundLine, LineAnswer, LineHolder, LineQuestion};
pub use operators::{Fill, Held, ListEntry, Operator};
pub use policy::{LetThrough, NodePolicy, Policy, PolicyRule};

/// Where the admin server gets its answers. Each is made from snapshots and never waits, but for those that are futures.
pub trait Source: Send + Sync + 'static {
    fn status(&self) -> Status;
    fn nodes(&self) -> Vec<Node>;
    fn services(&self) -> Vec<Service>;
    /// What this agent and its peers are like. Waits for the peers.
    fn check(&self) -> BoxFuture<'static, crate::check::agent::Agent>;
    fn routes(&self) -> Vec<Route>;
    /// Who calls whom in the mesh, as far as it is known now.
    fn edges(&self, window: Window) -> Edges;
    /// The same after the other nodes were asked; waits for them a little.
    fn survey(&self, window: Window) -> BoxFuture<'static, Edges>;
    /// What would become of a call. Waits for the nodes that decide it.
    /// `from` names the node where the call would be made, if not this one.
    fn explain(
        &self,
        question: Question,
        from: Option<String>,
    ) -> BoxFuture<'static, Result<Explained, String>>;
    /// Who may call a service, in the words of the nodes that run it. Waits for them.
    fn policy(&self, service: String) -> BoxFuture<'static, Result<Vec<NodePolicy>, String>>;
    /// Opens a tap on live calls, if the pass that comes with it holds.
    fn tap(&self, ask: Ask) -> Result<Tap, Refused>;
    /// Whose word a pass is that opens this dashboard.
    fn sees(&self, pass: &str) -> Result<Seer, Refused>;
    fn documents(&self) -> Vec<Document>;
    /// One document with its history; with nothing in it if nobody ever made it.
    fn document(&self, key: &DocumentKey) -> History;
    /// Who signed what is held here, and whose word counts.
    fn operators(&self) -> Vec<Operator>;
    /// Takes a signed document. When it returns the document is on disk and on its way to others.
    fn submit(&self, document: Bytes) -> BoxFuture<'_, Result<Receipt, Refused>>;
    /// Ends the invitations of a revoked name at all issuers that can be reached. Waits for them.
    fn end_invitations(&self, name: RevokedName) -> BoxFuture<'static, EndedInvitations>;
    /// Which line a key belongs to, and which hosts go with an issuer. Waits for the issuers.
    fn lines(&self, question: LineQuestion) -> BoxFuture<'static, LineAnswer>;
    /// What is revoked of the names of a host that is to be invited.
    fn good_from(&self, invited: &Invited) -> GoodFrom;
    /// Which nodes cannot read these texts, or do not say. Waits for the nodes.
    fn readers(&self, texts: Vec<Unsigned>) -> BoxFuture<'static, Vec<Reader>>;
    /// Begins to leave the mesh and to end.
    fn leave(&self) -> Leaving;
    /// Whether this agent should get traffic; otherwise why not, in one line.
    fn ready(&self) -> Result<(), String>;
    /// All metrics, as text.
    fn metrics(&self, format: Format) -> String;
    /// Those of another node, or in one line why there are none. Waits for it.
    fn metrics_of(
        &self,
        node: String,
        format: Format,
    ) -> BoxFuture<'static, Result<String, String>>;
    /// What Prometheus is to scrape, if it reaches this agent at `address`.
    fn scraped(&self, address: &str) -> Vec<Scraped>;
}

/// `/v1/status`: this agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub node: String,
    /// SPIFFE ID of the node.
    pub identity: String,
    pub trust_domain: String,
    pub version: String,
    pub uptime_s: u64,
    /// `starting`, `serving` or `draining`.
    pub state: String,
    /// UDP address of the mesh port.
    pub listen: String,
    /// Where other nodes are told to reach it.
    pub advertise: String,
    pub zone: String,
    pub svids: Vec<Svid>,
    /// A certificate that is due and could not be renewed: of those, the first to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal: Option<Renewal>,
    /// Present on issuers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<Issuer>,
    /// The last time that a peer refused a certificate of this node, unless it was renewed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_by_peer: Option<RefusedByPeer>,
    pub gossip: Gossip,
    #[serde(default)]
    pub documents: DocumentCount,
    pub services: Vec<Declared>,
    pub upstreams: Vec<Upstream>,
    /// Who still calls without the mesh, the latest first.
    #[serde(default)]
    pub plaintext: Vec<PlaintextCaller>,
    /// Where a browser on this host finds the dashboard, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dashboard: Option<String>,
    pub config: Config,
}

/// A certificate this node holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Svid {
    pub identity: String,
    /// Negative once it has run out.
    pub seconds_left: i64,
    /// By which `starling revoke key/…` revokes it.
    pub key: String,
    /// The line that it belongs to, if it names one.
    pub line: Option<String>,
    /// The hosts whose issuers signed any certificate of the line: revoking one of these issuers revokes this certificate. A host that
    /// is not known here is named by the first digits of its hash.
    #[serde(default)]
    pub signers: Vec<String>,
    /// Why this node knows that it is revoked.
    pub revoked: Option<String>,
}

/// A renewal that fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    pub identity: String,
    /// How long it has failed.
    pub failing_s: u64,
    /// Why, at the last try.
    pub error: String,
}

/// What an issuer says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issuer {
    /// UDP address of the join port.
    pub join: String,
    /// Until its intermediate certificate ends, and with it all that it issues.
    pub seconds_left: i64,
}

/// A peer does not accept a certificate of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedByPeer {
    pub identity: String,
    /// Who refused it.
    pub by: String,
    /// `revoked`, `expired`, `unknown_issuer` or `unacceptable`.
    pub why: String,
    pub age_s: u64,
}

/// The answer to `POST /v1/leave`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// The grace for calls under way.
    pub within_s: u64,
}

/// Members by liveness, this node included.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gossip {
    pub alive: usize,
    pub suspect: usize,
    pub dead: usize,
}

/// The documents held here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentCount {
    /// Those that are not deleted.
    pub count: usize,
    /// Since the newest was issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_age_s: Option<u64>,
    pub forks: usize,
    /// Those whose newest revision has no effect here, whatever the reason.
    pub not_in_force: usize,
    /// Other nodes on which that is so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elsewhere: Vec<OutOfForceOn>,
    /// Texts in force here that could not be written to disk.
    #[serde(default)]
    pub unsaved: usize,
    /// Nodes believed alive that hold the same documents, this one included.
    pub same_nodes: usize,
}

/// The state of a document whose newest revision is not decided yet, for a second at most.
pub const CHECKING: &str = "being checked";

/// The state of a document of which nothing counts: revoked operators signed it, and lists drop it.
pub const DROPPED: &str = "dropped";

/// A node on which documents have no effect in their newest revision, by its own word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutOfForceOn {
    pub node: String,
    pub count: u16,
}

/// An element of `/v1/documents`: the newest revision of one document, and what became of it here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    pub kind: String,
    pub name: String,
    /// The newest that counts, or else the newest of revoked operators; 0 if there is none.
    pub revision: u64,
    /// Empty if its file is lost.
    pub operator: String,
    /// Since it was issued, by the operator's clock.
    pub age_s: u64,
    /// `in force`, `deleted`, `held back`, `not in force`, `lost`; or [`CHECKING`], and what follows is about the revision before; or [`DROPPED`].
    pub state: String,
    /// The revision in force here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<u64>,
    /// Why that is not the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The operator of another document under the same number, which lost to this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork: Option<String>,
}

/// `/v1/documents/KIND/NAME`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    pub document: Document,
    /// The highest number known to exist, of all signers; 0 if there is none. The next revision has one more.
    #[serde(default)]
    pub newest: u64,
    /// Newest first.
    pub revisions: Vec<Revision>,
}

/// One revision of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    pub revision: u64,
    pub operator: String,
    /// The operator's key as a revocation names it.
    pub public_key: String,
    pub age_s: u64,
    pub deleted: bool,
    /// Whether another one of the same number won against it.
    pub lost: bool,
    /// Whether it stands for the document here once it can be read: what counts in full, or what a revoked operator signed above that.
    #[serde(default)]
    pub has_effect: bool,
    /// What names the revision.
    pub hash: String,
    /// The hash of the revision that it replaced, by its operator's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// What becomes of it for the sake of who signed it: `counts`, `kept`, `unlisted` or `dropped`.
    #[serde(default)]
    pub standing: String,
    pub body: String,
    /// The packet that it came in, with its signature, in base64.
    #[serde(default)]
    pub signed: String,
}

/// A text that is to be signed: an element of what `POST /v1/readers` takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsigned {
    pub kind: String,
    pub name: String,
    pub body: String,
}

/// A node that cannot read a text, or does not say whether it can: an element of what `POST /v1/readers` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reader {
    pub node: String,
    /// `KIND/NAME`, and why it cannot be read.
    pub problems: Vec<(String, String)>,
    /// Why it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent: Option<String>,
}

/// A document was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub kind: String,
    pub name: String,
    pub revision: u64,
    /// False if the agent held it before.
    #[serde(default)]
    pub is_news: bool,
}

/// Whose pass opens a dashboard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seer {
    pub operator: String,
    /// Its serial, for logs.
    pub pass: String,
    pub seconds_left: u64,
}

/// Something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The HTTP status.
    pub status: u16,
    pub error: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// A service that runs on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    pub service: String,
    pub protocol: String,
    /// Where the app listens.
    pub address: String,
    pub allow: Vec<String>,
    /// What happens to calls that nothing allows.
    #[serde(default)]
    pub mode: String,
    pub healthy: bool,
    /// What the last failed health check said, while unhealthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// `file:line` of the declaration.
    pub declared: String,
}

/// A service that local apps call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    pub service: String,
    /// Where apps call it.
    pub listen: String,
    /// The service identity shown to the callee.
    pub caller: String,
    pub protocol: String,
    /// Instances worth trying, and all there are.
    pub usable: usize,
    pub instances: usize,
    /// `file:line` of the declaration.
    pub declared: String,
}

/// The configuration in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    pub directory: String,
    pub age_s: u64,
    /// Why files that changed since are not in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Entries of the configuration in force that go without what they need.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<Absent>,
}

/// An entry of the configuration that is in force without what it needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absent {
    /// What it is: ``service `orders` ``.
    pub entry: String,
    /// Where, as `file:line`.
    pub declared: String,
    /// What is missing, and what that means.
    pub why: String,
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.declared.is_empty() {
            write!(f, "{}: ", self.declared)?;
        }
        write!(f, "{}: {}", self.entry, self.why)
    }
}

/// An element of `/v1/nodes`: one member, as this agent knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub node: String,
    pub identity: String,
    /// `serving`, `draining` or `left`, in its own words.
    pub state: String,
    /// `alive`, `suspect` or `dead`, in ours.
    pub liveness: String,
    /// Best first.
    pub addresses: Vec<String>,
    pub zone: String,
    pub services: Vec<String>,
    /// Services that its apps call.
    #[serde(default)]
    pub calls: Vec<String>,
    /// Services that it announces and has no valid certificate for: nobody else counts them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unproven: Vec<String>,
    /// Since it last announced something else than how its calls go.
    pub age_s: u64,
    /// Since `liveness` is what it is.
    #[serde(default)]
    pub liveness_s: u64,
    /// Until its certificate ends, by this host's clock.
    #[serde(default)]
    pub seconds_left: i64,
    /// Whether it issues certificates.
    #[serde(default)]
    pub is_issuer: bool,
    /// Documents whose newest revision has no effect there, by its own word.
    #[serde(default)]
    pub documents_out_of_force: u16,
    /// Whether it holds the same documents as this node.
    #[serde(default)]
    pub has_same_documents: bool,
    /// Whether it is the agent that answers.
    pub is_self: bool,
}

/// An element of `/v1/services`: one service and where it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    pub service: String,
    pub instances: Vec<Instance>,
}

/// One service on one node, as this agent knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub node: String,
    pub protocol: String,
    pub labels: BTreeMap<String, String>,
    pub weight: u32,
    /// In the words of its own node.
    pub healthy: bool,
    pub liveness: String,
    /// How long this agent sends it nothing because calls failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejected_s: Option<u64>,
    /// How long others come first because it said that it has too much to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spared_s: Option<u64>,
    /// How long it takes to answer this agent, in microseconds, by which it is chosen; nothing before the first answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<u64>,
    /// This agent's calls to it that are under way, if it calls the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u32>,
    pub address: String,
    pub zone: String,
    /// Since it last changed.
    pub age_s: u64,
}

/// An address that came to the plaintext address of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaintextCaller {
    pub service: String,
    pub address: String,
    pub connections: u64,
    /// Since the last of them.
    pub age_s: u64,
}

/// `/v1/edges?window=…`, with `1m`, `10m` or `1h`: who calls whom in the mesh, and how it goes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Edges {
    pub window_s: u64,
    pub edges: Vec<Edge>,
    /// Nodes whose calls are not all in it.
    pub gaps: Vec<Gap>,
}

/// The calls of one service to another, over all nodes. A caller that the callee does not know is `other`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Edge {
    pub caller: String,
    pub callee: String,
    pub protocol: String,
    /// How far back it looks. Up to a sixth more is in it, as ends tell by their rates.
    pub window_s: u64,
    /// What the callers' agents saw, all of them together: with the way, waiting and retries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller_side: Option<Signals>,
    /// What the callees' agents saw. Calls that never came to one are not in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callee_side: Option<Signals>,
    /// What each node said.
    pub ends: Vec<End>,
}

/// Calls that ended in a window.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Signals {
    pub calls: u64,
    /// Answered with 5xx by the app, or failed by the mesh. Neither denied ones nor those whose caller left.
    pub failed: u64,
    /// By policy.
    pub denied: u64,
    /// Calls per second.
    pub rate: f64,
    /// How long requests took, in microseconds: half of them at most this long. Nothing for TCP, and where none ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50_us: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p90_us: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_us: Option<u64>,
    /// By which part of it a percentile may be off.
    pub error: f64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Calls under way.
    pub open: u64,
    /// Why the mesh failed calls, as in docs/errors.md; the most frequent ones.
    pub reasons: BTreeMap<String, u64>,
}

/// What one node says of an edge.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct End {
    pub node: String,
    /// `caller` or `callee`.
    pub side: String,
    pub zone: String,
    /// Since the node said so.
    pub age_s: u64,
    /// `live` (it is this node), `asked`, or `gossip`: only what it tells everybody.
    pub source: String,
    /// What is missing, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    pub signals: Signals,
}

/// A node that did not say what it should have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    pub node: String,
    pub why: String,
    /// How old what is shown of it is; nothing if nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_s: Option<u64>,
}

/// An element of `/v1/routes`: how calls of this host's apps to one service are directed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Route {
    pub service: String,
    /// `local` (this host's own files) or `document` (the mesh's).
    pub origin: String,
    /// `file:line` of the declaration.
    pub declared: String,
    /// The mesh's route that this host's own one stands before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<String>,
    /// In the order in which they are tried.
    pub rules: Vec<Rule>,
    /// What is probably not meant so.
    pub warnings: Vec<String>,
}

/// Which calls, and what becomes of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// `rule "beta"`, or `rule 2`.
    pub rule: String,
    pub matches: String,
    pub action: String,
    /// Empty if the agent answers by itself.
    pub targets: Vec<Target>,
    /// `file:line` of the declaration.
    pub declared: String,
}

/// An element of `/v1/sd`, in the words of Prometheus: where to scrape a node, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scraped {
    pub targets: Vec<String>,
    pub labels: BTreeMap<String, String>,
}

/// A subset of a service's instances, and its share of the calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// `version=v2`, or `any instance`.
    pub subset: String,
    pub percent: f64,
    /// How many there are, good or bad.
    pub instances: usize,
    /// Whether a call would find one that works, as far as this agent knows.
    pub is_usable: bool,
}
