//! Names of the metrics of this crate, with their help texts beside them.

use std::time::Duration;

use ::metrics::{Unit, counter, describe_counter, describe_histogram, histogram};

use crate::identity::SpiffeId;
use crate::refused;
use crate::session::Protocol;
use crate::svid::Refusal;

/// Handshakes that failed on who the peer is, by `reason`. Connections that never spoke TLS are not counted.
pub const HANDSHAKES_REFUSED: &str = "starling_handshakes_refused_total";
/// QUIC connections made, by `side` (`dialled` or `accepted`) and `protocol`.
pub const CONNECTIONS: &str = "starling_mesh_connections_total";
/// How long the handshakes of those took, by the same.
pub const HANDSHAKE_DURATION: &str = "starling_handshake_duration_seconds";
/// Connections closed because a certificate ended, was revoked or is no longer trusted, by `reason`; local ones too.
pub const CONNECTIONS_CUT: &str = "starling_mesh_connections_cut_total";
/// Connections that a peer closed because of our certificate, by `reason`.
pub const REFUSED_BY_PEERS: &str = "starling_refused_by_peers_total";
/// Dials that failed, by `reason`.
pub const DIALS_FAILED: &str = "starling_dials_failed_total";

/// Connections to the join port that never came to a request, by `reason`.
pub const JOINS_TURNED_AWAY: &str = "starling_joins_turned_away_total";

/// Tells the recorder what each metric means. Call once, after the recorder is installed.
pub fn describe() {
    crate::h3::metrics::describe();
    describe_counter!(
        HANDSHAKES_REFUSED,
        Unit::Count,
        "Handshakes refused for who the peer is, by reason, and calls within this host likewise; without those that never spoke TLS"
    );
    describe_counter!(
        CONNECTIONS,
        Unit::Count,
        "Connections between agents that finished their handshake"
    );
    describe_histogram!(
        HANDSHAKE_DURATION,
        Unit::Seconds,
        "From the first packet of a handshake between agents to its end; failed ones are not counted"
    );
    describe_counter!(
        CONNECTIONS_CUT,
        Unit::Count,
        "Connections closed because a certificate ended, was revoked or lost its trust; between apps of this host too"
    );
    describe_counter!(
        REFUSED_BY_PEERS,
        Unit::Count,
        "Connections that a peer closed because it does not accept this node's certificate, by reason"
    );
    describe_counter!(
        DIALS_FAILED,
        Unit::Count,
        "Dials to other agents that failed, by reason"
    );
    describe_counter!(
        JOINS_TURNED_AWAY,
        Unit::Count,
        "Connections to the join port that never came to a request, by reason"
    );
}

/// A handshake finished.
pub(crate) fn connected(side: &'static str, protocol: Protocol, took: Duration) {
    let protocol = protocol.as_str();
    counter!(CONNECTIONS, "side" => side, "protocol" => protocol).increment(1);
    histogram!(HANDSHAKE_DURATION, "side" => side, "protocol" => protocol)
        .record(took.as_secs_f64());
}

/// A connection was closed because one of its two ends is no longer good.
pub(crate) fn connection_cut(refusal: Refusal) {
    let reason = match refusal {
        Refusal::Expired | Refusal::Revoked | Refusal::RevokedIssuer => refusal.as_str(),
        _ => "untrusted",
    };
    counter!(CONNECTIONS_CUT, "reason" => reason).increment(1);
}

/// A handshake was refused. `claimed` is the identity in the peer's certificate, if it showed one.
pub(crate) fn handshake_refused(refusal: Refusal, claimed: Option<SpiffeId>) {
    refused::log(refusal, claimed);
    count_refused(refusal);
}

/// A call within this host was refused as a handshake would be. Not logged here: an app may repeat it without a pause.
pub(crate) fn count_refused(refusal: Refusal) {
    counter!(HANDSHAKES_REFUSED, "reason" => refusal.as_str()).increment(1);
}
