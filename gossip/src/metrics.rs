//! Names of what this crate counts.

use metrics::{Unit, counter, describe_counter, describe_gauge};

/// Frames, records and claims that were refused, by reason.
pub const REFUSED: &str = "starling_gossip_refused_total";
/// Frames we did not send because too many were under way.
pub const DROPPED: &str = "starling_gossip_dropped_total";
/// Times the reconciliation loop ended by itself and was started again.
pub const RESTARTS: &str = "starling_gossip_restarts_total";
/// Manifests taken in, by the way they came.
pub const ACCEPTED: &str = "starling_gossip_accepted_total";
/// Bytes handed to the carrier.
pub const SENT: &str = "starling_gossip_sent_bytes_total";
/// Bytes the carrier handed over.
pub const RECEIVED: &str = "starling_gossip_received_bytes_total";
/// Members by liveness.
pub const MEMBERS: &str = "starling_gossip_members";

/// Members that are not known to have what this node announced last.
pub const BEHIND: &str = "starling_gossip_members_behind";
/// How long the last announcement took to be known everywhere.
pub const CONVERGENCE: &str = "starling_gossip_convergence_seconds";

/// Revisions of documents taken in, by the way they came.
pub const DOCUMENTS_ACCEPTED: &str = "starling_gossip_documents_accepted_total";
/// Documents held that are not deleted.
pub const DOCUMENTS: &str = "starling_gossip_documents";
/// Documents of which two differ under one revision.
pub const DOCUMENT_FORKS: &str = "starling_gossip_document_forks";
/// Documents known to exist whose files are broken or gone.
pub const DOCUMENTS_LOST: &str = "starling_gossip_documents_lost";
/// Texts in force that are not on disk.
pub const DOCUMENTS_UNSAVED: &str = "starling_gossip_documents_unsaved";

/// Describes all of the above to the installed recorder.
pub fn describe() {
    describe_counter!(
        REFUSED,
        "What peers sent and we refused, by reason; what the carrier itself refuses is not counted"
    );
    describe_counter!(
        DROPPED,
        "Frames and answers given up because too many were under way; loss in the network is not counted"
    );
    describe_counter!(
        RESTARTS,
        "Times reconciliation ended by itself and was started again; orderly ends are not counted"
    );
    describe_counter!(
        ACCEPTED,
        "Manifests taken in as news, by the way they came; repetitions are not counted"
    );
    describe_counter!(
        SENT,
        Unit::Bytes,
        "Gossip bytes handed to the carrier; its own overhead is not counted"
    );
    describe_counter!(
        RECEIVED,
        Unit::Bytes,
        "Gossip bytes received; the carrier's own overhead is not counted"
    );
    describe_gauge!(
        MEMBERS,
        "Members we hold a manifest of, by liveness; ourselves included"
    );
    describe_gauge!(
        BEHIND,
        "Members believed alive that are not known to have what this node announced last"
    );
    describe_gauge!(
        CONVERGENCE,
        Unit::Seconds,
        "From the last announcement that all members had, until this node knew that they had it"
    );
    describe_counter!(
        DOCUMENTS_ACCEPTED,
        "Revisions of documents taken in as news, by the way they came; those read from disk are not counted"
    );
    describe_gauge!(DOCUMENTS, "Documents held; deleted ones are not counted");
    describe_gauge!(
        DOCUMENT_FORKS,
        "Documents of which two differ under the newest revision"
    );
    describe_gauge!(
        DOCUMENTS_LOST,
        "Documents whose files here are broken or gone and that no peer gave back yet"
    );
    describe_gauge!(
        DOCUMENTS_UNSAVED,
        "Texts of documents that are in force here and could not be written to disk; 0 unless the disk fails or is full"
    );
}

/// Why something a peer sent was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Refusal {
    /// More bytes than a frame, question or answer may have.
    TooLarge,
    /// Bytes that are not what they should be, or not in the one way to write it.
    Malformed,
    /// More node ids or records than one frame may hold.
    TooMany,
    /// The peer sends more than its share.
    Rate,
    /// A reply to a handshake we did not open, or opened with somebody else.
    NoHandshake,
    /// The peer's identity is not a node of this mesh.
    Stranger,
    /// Somebody else speaks about us.
    AboutSelf,
    /// A digest names a node nobody proved to us yet.
    UnknownNode,
    /// A generation older than the one we know, or a record older than one we have seen.
    Stale,
    /// A generation or date that lies in the future.
    Future,
    /// A record past its time, of a node we do not know, from a third party.
    Expired,
    /// More heartbeats or a higher version than there can have been.
    Inflated,
    /// The manifest belongs to another trust domain.
    OtherMesh,
    /// The manifest belongs to another cell.
    OtherCell,
    /// The credentials do not prove the node, or are out of their validity.
    Credentials,
    /// A certificate older than one we have seen of this node.
    Superseded,
    /// The signature is not the owner's.
    Signature,
    /// A service was announced without proof that the node may.
    Unproven,
    /// Two different records of the same node under one number.
    Fork,
    /// We know as many nodes, lives of nodes or documents as we are willing to.
    Full,
    /// The operator's grant is not signed by a root of this mesh.
    Grant,
    /// The operator's grant does not name the document's kind.
    Kind,
    /// The document was issued before or after its operator's grant was valid.
    GrantDates,
    /// The operator's key is revoked.
    Revoked,
    /// A document that was not asked for.
    Unasked,
    /// A revision's number is zero or beyond what its date allows.
    Number,
    /// The operator's rank does not allow it: only a senior key, the key itself or the root revokes an operator's key.
    Rank,
    /// A key takes its own revocation back.
    OwnRevocation,
    /// A key takes back what another one said of an operator.
    NotItsSigner,
}

impl Refusal {
    /// The `reason` label.
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
            Self::TooMany => "too_many",
            Self::Rate => "rate",
            Self::NoHandshake => "no_handshake",
            Self::Stranger => "stranger",
            Self::AboutSelf => "about_self",
            Self::UnknownNode => "unknown_node",
            Self::Stale => "stale",
            Self::Future => "future",
            Self::Expired => "expired",
            Self::Inflated => "inflated",
            Self::OtherMesh => "other_mesh",
            Self::OtherCell => "other_cell",
            Self::Credentials => "credentials",
            Self::Superseded => "superseded",
            Self::Signature => "signature",
            Self::Unproven => "unproven",
            Self::Fork => "fork",
            Self::Full => "full",
            Self::Grant => "grant",
            Self::Kind => "kind",
            Self::GrantDates => "grant_dates",
            Self::Revoked => "revoked",
            Self::Unasked => "unasked",
            Self::Number => "number",
            Self::Rank => "rank",
            Self::OwnRevocation => "own_revocation",
            Self::NotItsSigner => "not_its_signer",
        }
    }

    /// Counts it.
    pub(crate) fn count(self, times: usize) {
        counter!(REFUSED, "reason" => self.reason()).increment(times as u64);
    }
}
