//! What one peer may cost us.

use tokio::time::Instant;

use crate::budget::Bucket;

/// What one peer may send us.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) frames: Bucket,
    pub(super) bytes: Bucket,
    pub(super) records: Bucket,
}

impl Share {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            frames: Bucket::new(now, FRAMES_PER_SECOND, 2 * FRAMES_PER_SECOND),
            bytes: Bucket::new(now, BYTES_PER_SECOND, 4 * BYTES_PER_SECOND),
            records: Bucket::new(now, RECORDS_PER_SECOND, 4 * RECORDS_PER_SECOND),
        }
    }
}

/// Frames of one peer. In a mesh of two at the shortest interval it sends 30 a second, and rumours come on top.
const FRAMES_PER_SECOND: usize = 200;

/// Bytes of one peer, about ten times what a busy node of a full cell sends to all of its peers.
const BYTES_PER_SECOND: usize = 1024 * 1024;

/// Records of one peer: checking 1,000 signatures takes 7 % of a core.
const RECORDS_PER_SECOND: usize = 1000;
