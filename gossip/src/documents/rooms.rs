//! How much there is room for. Pure.
//!
//! Each kind has a room of its own, and so have the deletions of all kinds, so that no kind can crowd out another: with every other
//! room full a revocation still fits. In a room each operator's key has a share. What counts in it is the newest revision of each
//! of its documents; older ones have the rest of the share and go first. So nothing in force ever has to make place.

use std::collections::{BTreeMap, BTreeSet};

use super::DocumentKey;
use crate::names::DocumentKind;
use crate::wire::Row;

/// Where a revision counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// The deletions of all kinds.
    Deletions,
    /// The texts of one kind.
    Kind(DocumentKind),
}

/// What one key has in one room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fill {
    /// Documents whose newest revision of that key this is.
    pub names: usize,
    /// Bytes of the packets that hold them.
    pub bytes: usize,
}

/// What all keys have in all rooms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fills {
    fills: BTreeMap<(Room, [u8; 32]), Fill>,
    /// Packets that are counted, by room.
    packets: BTreeSet<(Room, [u8; 32])>,
    /// Keys that are revoked: they have rooms of their own.
    revoked: BTreeSet<[u8; 32]>,
}

impl Room {
    pub(crate) fn of(deleted: bool, key: &DocumentKey) -> Self {
        match deleted {
            true => Self::Deletions,
            false => Self::Kind(key.kind.clone()),
        }
    }

    /// As questions between nodes name it.
    pub(crate) fn wire(&self) -> String {
        match self {
            Self::Deletions => String::new(),
            Self::Kind(kind) => kind.to_string(),
        }
    }

    /// As operators see it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Deletions => "deletions",
            Self::Kind(kind) => kind.as_str(),
        }
    }

    /// How many documents and bytes one key's share has.
    pub fn share(&self) -> Fill {
        match self {
            Self::Deletions => Fill {
                names: DELETIONS_MAX / SHARES,
                bytes: SHARE_BYTES,
            },
            Self::Kind(_) => Fill {
                names: SHARE_NAMES,
                bytes: SHARE_BYTES,
            },
        }
    }
}

impl Fills {
    /// Counts a revision that is the newest of its key.
    pub(crate) fn add(&mut self, room: &Room, row: &Row) {
        let fill = self.fills.entry((room.clone(), row.signer)).or_default();
        fill.names += 1;
        if self.packets.insert((room.clone(), row.packet)) {
            fill.bytes += row.packet_bytes as usize;
        }
    }

    /// Notes that a key is revoked.
    pub(crate) fn revoke(&mut self, key: [u8; 32]) {
        self.revoked.insert(key);
    }

    pub(crate) fn has_packet(&self, room: &Room, packet: &[u8; 32]) -> bool {
        self.packets.contains(&(room.clone(), *packet))
    }

    pub(crate) fn get(&self, room: &Room, key: &[u8; 32]) -> Fill {
        let fill = self.fills.get(&(room.clone(), *key));
        fill.copied().unwrap_or_default()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Room, &[u8; 32], Fill)> {
        self.fills
            .iter()
            .map(|((room, key), fill)| (room, key, *fill))
    }

    /// Keys that are not revoked and have something in a room.
    fn live_keys(&self, room: &Room) -> usize {
        let keys = self.fills.keys().filter(|(of, _)| of == room);
        keys.filter(|(_, key)| !self.revoked.contains(key)).count()
    }

    /// Whether a key has seven eighths of what is taken of it from peers.
    pub(crate) fn is_nearly_full(&self, room: &Room, key: &[u8; 32]) -> bool {
        let (fill, share) = (self.get(room, key), room.share());
        8 * fill.names >= 7 * PEERS_SHARES * share.names
            || 8 * fill.bytes >= 7 * PEERS_SHARES * share.bytes
            || (fill.names == 0 && self.live_keys(room) >= PEERS_SHARES * SHARES)
    }

    /// Whether one more revision fits into its key's share, `shares` times over.
    pub(crate) fn fits(&self, room: &Room, row: &Row, shares: usize) -> bool {
        let (fill, share) = (self.get(room, &row.signer), room.share());
        let is_new_key = fill.names == 0;
        if is_new_key && self.live_keys(room) >= shares * SHARES {
            return false;
        }
        let more = match self.has_packet(room, &row.packet) {
            true => 0,
            false => row.packet_bytes as usize,
        };
        fill.names < shares * share.names && fill.bytes + more <= shares * share.bytes
    }
}

/// Operators' keys that may fill a room; each has one share.
pub const SHARES: usize = 16;

/// Shares that an agent takes of one key from peers: what two sides of a partition took in has to fit together, and what
/// both took in of a key that its thief used on a third.
pub(crate) const PEERS_SHARES: usize = 4;

/// Documents of one kind in one share.
pub const SHARE_NAMES: usize = 512;

/// Bytes of one share, the older revisions included: 16 of the longest texts, or 512 of 1.4 KiB with their signatures. With 16
/// operators who fill four shares in each of six rooms, which takes thieves, an agent holds 384 MiB; with one who fills one, 6.
pub const SHARE_BYTES: usize = 1024 * 1024;

/// Names that are known to be deleted, of all keys and kinds. They are never forgotten, lest an old copy bring one back.
pub const DELETIONS_MAX: usize = 65_536;
