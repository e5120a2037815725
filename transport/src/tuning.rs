//! QUIC settings, each with its reason. Figures marked (m) are measured, see docs/performance.md.

use std::time::Duration;

use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

use crate::session::Protocol;

/// Settings of a connection that we dialled.
pub(crate) fn dialled(protocol: Protocol, streams: u32) -> TransportConfig {
    let mut config = common(streams);
    match protocol {
        Protocol::H3 => {
            // A caller's connection is in use as long as the pool keeps it: a dead peer shows within 5 s.
            config.max_idle_timeout(Some(idle(DEAD_AFTER)));
            config.keep_alive_interval(Some(KEEP_ALIVE));
        }
        // A gossip link talks at random moments; it just ends when both have had nothing to say.
        Protocol::Gossip => drop(config.max_idle_timeout(Some(idle(IDLE_LINK)))),
    }
    config
}

/// Settings of a connection that a peer dialled: the dialler's idle time, being shorter or equal, wins.
pub(crate) fn accepted(streams: u32) -> TransportConfig {
    let mut config = common(streams);
    config.max_idle_timeout(Some(idle(IDLE_LINK)));
    config
}

/// Settings of a connection that only looks at the path: from the smallest packets up, so that it also stands where larger
/// ones get lost.
pub(crate) fn measuring() -> TransportConfig {
    let mut config = TransportConfig::default();
    let mut search = MtuDiscoveryConfig::default();
    search.upper_bound(MTU_MAX);
    config
        .initial_mtu(MTU_MIN)
        .min_mtu(MTU_MIN)
        .mtu_discovery_config(Some(search))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(idle(DEAD_AFTER)));
    config
}

/// Settings of a connection on the join port: one request, one answer.
pub(crate) fn join() -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(JOIN_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(JOIN_WINDOW_BYTES))
        .initial_mtu(INITIAL_MTU)
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(idle(JOIN_IDLE)));
    config
}

fn common(streams: u32) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(streams))
        .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(
            VarInt::from_u64(u64::from(STREAM_WINDOW_BYTES) * u64::from(streams))
                .unwrap_or(VarInt::MAX),
        )
        .send_window(SEND_WINDOW_BYTES)
        .initial_mtu(INITIAL_MTU)
        .datagram_receive_buffer_size(None);
    config
}

fn idle(after: Duration) -> IdleTimeout {
    IdleTimeout::try_from(after).expect("a few seconds fit a QUIC varint of milliseconds")
}

/// Asked of the kernel for the one UDP socket: at the default of 208 KiB bursts are lost, +15 % CPU per byte (m).
pub(crate) const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// What a peer may have in flight or unread on one stream: fills 1 Gbit/s at 8 ms or 100 Mbit/s at 80 ms of round trip.
/// A connection's window is that times its streams, so stalled streams never freeze a live one; with 256 streams
/// that is the cap of 256 MiB that one connection can make us hold.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// Bytes sent and not yet acknowledged, per connection. Caps the burst after a loss on a path whose congestion window
/// grew without bound; larger gains 7 % CPU at 15 MB of memory (m).
const SEND_WINDOW_BYTES: u64 = 16 << 20;

/// HTTP/3 needs three (control, QPACK ×2); gossip opens one per message.
const UNI_STREAMS: u32 = 64;

/// First packets fit any path that carries Ethernet in one tunnel, and leave room for QUIC inside QUIC (needs 1240).
pub(crate) const INITIAL_MTU: u16 = 1280;

/// A path that does not carry this carries no QUIC (RFC 9000 §14).
const MTU_MIN: u16 = 1200;

/// The largest packets that are tried: Ethernet's 1,500 bytes without the headers of IPv6 and UDP. quinn's own default.
pub(crate) const MTU_MAX: u16 = 1452;

/// Three keep-alives lost in a row and a peer in use counts as dead.
const DEAD_AFTER: Duration = Duration::from_secs(5);
const KEEP_ALIVE: Duration = Duration::from_millis(1500);

/// A joiner's request in one flight; see `join::REQUEST_BYTES_MAX`.
const JOIN_WINDOW_BYTES: u32 = 64 * 1024;

/// An issuer may have to ask another one before it answers.
const JOIN_IDLE: Duration = Duration::from_secs(10);

/// A connection nobody dialled for traffic goes away after this much silence.
const IDLE_LINK: Duration = Duration::from_secs(30);
