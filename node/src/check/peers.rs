//! What is known of the other nodes: facts that the agent gathers, as they travel to the command line.

use serde::{Deserialize, Serialize};

use super::certificates::Certificate;

/// What came of looking at one other node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    pub node: String,
    /// Where it says that it is reached.
    pub address: String,
    /// What this node believes of it: `alive`, `suspect` or `dead`.
    pub liveness: String,
    /// A handshake with it, from the mesh port.
    pub there: Tried,
    /// Since its address began a handshake here, if that was just now.
    pub heard_ms: Option<u64>,
    /// Of the node itself, as it showed it.
    pub certificate: Option<Certificate>,
    /// What it said of itself; or why it did not.
    pub pong: Option<Result<Pong, Unsaid>>,
    /// Its clock against ours.
    pub clock: Option<Offset>,
    /// Whether it reached this node when asked to; none if it was not asked or would not.
    pub back: Option<Back>,
    /// What others say, if it was not reached.
    pub opinions: Vec<Opinion>,
    /// Services it announces without proof that it may.
    pub unproven: Vec<String>,
}

/// How a handshake went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tried {
    Reached(Way),
    Failed(Failure),
}

/// A path that carries packets both ways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    pub handshake_ms: u64,
    /// Bytes of UDP payload that arrived in one packet.
    pub mtu: u16,
}

/// Why there was no handshake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A word of a closed list, that of `starling_dials_failed_total`.
    pub reason: String,
    /// One line.
    pub why: String,
}

/// What a node says when it is asked how it is: the answer to `/v1/ping`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    pub version: String,
    /// Its clock, in milliseconds since 1970.
    pub now_ms: u64,
    /// What it sees of the node that it was asked about.
    pub sees: Option<Sees>,
    /// Since that node's address began a handshake there.
    pub heard_ms: Option<u64>,
    /// What tells the documents that it holds from other sets.
    pub documents: Option<String>,
    /// Since the newest of them was issued.
    pub newest_document_s: Option<u64>,
}

/// What a node knows of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sees {
    pub liveness: String,
    /// Which announcement of which life it has.
    pub generation: u64,
    pub sequence: u64,
}

/// A question without an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsaid {
    /// Set if the node refused: a word.
    pub reason: Option<String>,
    /// One line.
    pub why: String,
}

/// How far a clock is ahead of ours, give or take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offset {
    pub ahead_ms: i64,
    pub error_ms: u64,
}

/// What came of a node dialling this one at the address that this one announces: the answer to `/v1/dial-back`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Back {
    /// That address.
    pub address: String,
    /// From its mesh port.
    pub mesh_port: Tried,
    /// From a port that it never used, if that was asked for and the first went well.
    pub another_port: Option<Tried>,
}

/// What one node says of another one that was not reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opinion {
    pub node: String,
    /// What the node that was not reached said to this one; or why nothing.
    pub pong: Result<Pong, String>,
    /// Whether a handshake began there since this node began the one that failed.
    pub heard: bool,
}

impl Tried {
    pub fn way(&self) -> Option<&Way> {
        match self {
            Self::Reached(way) => Some(way),
            Self::Failed(_) => None,
        }
    }

    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Reached(_) => None,
            Self::Failed(failure) => Some(failure),
        }
    }
}

impl Peer {
    /// What it said of itself, if it did.
    pub fn said(&self) -> Option<&Pong> {
        self.pong.as_ref()?.as_ref().ok()
    }
}
