//! What stands on the wire: frames, questions, answers, and in the submodules the signed manifest and the credentials.
//!
//! Everything begins with a version byte, so that the codec can change, and is bincode behind it: bounded before it is read,
//! refused if bytes are left over or if it could have been written in another way. The structs here are the protocol; nothing
//! outside this module derives serde, so a change in the domain cannot change the protocol by accident.

pub(crate) mod credentials;
pub(crate) mod document;
pub(crate) mod manifest;
mod summary;

use std::fmt;

use bincode::config;
use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::carrier::{ANSWER_BYTES_MAX, FRAME_BYTES_MAX, QUESTION_BYTES_MAX};
use crate::metrics::Refusal;
use crate::names::NodeId;

/// One message between two nodes. A handshake is `Syn`, `SynAck`, `Ack`, all under the nonce of the first.
///
/// chitchat's own frames never leave a node. What they say comes down to this: which version of whom I have (`Entry`), and the
/// signed manifests you lack. Addresses are not sent, they are in the manifests; nor are values or version limits, which a
/// manifest fixes; so those cannot be lied about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Frame {
    Syn {
        nonce: u64,
        digest: Vec<Entry>,
    },
    SynAck {
        nonce: u64,
        digest: Vec<Entry>,
        records: Vec<Blob>,
    },
    Ack {
        nonce: u64,
        records: Vec<Blob>,
    },
    Rumour {
        hops: u8,
        records: Vec<Blob>,
    },
}

/// What the sender knows of one node. A digest has them in ascending order of `node`, each node once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) node: [u8; 16],
    pub(crate) generation: u64,
    pub(crate) heartbeat: u64,
    pub(crate) version: u64,
}

impl Entry {
    pub(crate) fn node(&self) -> NodeId {
        NodeId::from_bytes(self.node)
    }
}

/// What one node may ask another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Question {
    /// Are you there? Answered by an empty page.
    Ping,
    /// Everyone you believe is here, in order of id, after this one.
    All { after: Option<[u8; 16]> },
    /// These nodes, whatever you believe of them.
    Nodes { nodes: Vec<[u8; 16]> },
    /// What you hold of documents, room by room. Answered by [`Rooms`](document::Rooms).
    Rooms,
    /// The deletions you hold, part by part. Answered by [`Parts`](document::Parts).
    Parts,
    /// Which revisions you hold in a room, in order of hash, after this one; of the deletions only those whose hash begins with
    /// `part`. Answered by a [`Listing`](document::Listing).
    Listing {
        room: String,
        part: Option<u8>,
        after: Option<[u8; 32]>,
    },
    /// The packets of these hashes. Answered by [`Bodies`](document::Bodies).
    Bodies { hashes: Vec<[u8; 32]> },
}

/// One revision of a document that a node holds: all that decides whether another has a place for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) revision: u64,
    pub(crate) issued: u64,
    pub(crate) deleted: bool,
    /// What names the revision.
    pub(crate) hash: [u8; 32],
    /// The hash of the public key of its operator; zeros for the root.
    pub(crate) signer: [u8; 32],
    pub(crate) rank: u32,
    /// SHA-256 of the packet that it came in, and the packet's length.
    pub(crate) packet: [u8; 32],
    pub(crate) packet_bytes: u32,
}

/// A page of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Page {
    pub(crate) records: Vec<Vouched>,
    /// Whether there is more behind the last of `records`.
    pub(crate) more: bool,
}

/// A signed manifest with what proves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Vouched {
    pub(crate) record: Blob,
    pub(crate) credentials: Blob,
}

impl Vouched {
    /// Its size on the wire, at most.
    pub(crate) fn wire_bytes(&self) -> usize {
        self.record.0.len() + self.credentials.0.len() + 2 * LENGTH_BYTES_MAX
    }
}

impl Frame {
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a frame within its bounds.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        let frame: Self = decode::<_, { READ_FACTOR * FRAME_BYTES_MAX }>(bytes)?;
        let (digest, records): (&[Entry], &[Blob]) = match &frame {
            Self::Syn { digest, .. } => (digest, &[]),
            Self::SynAck {
                digest, records, ..
            } => (digest, records),
            Self::Ack { records, .. } | Self::Rumour { records, .. } => (&[], records),
        };
        if digest.len() > ENTRIES_MAX || records.len() > RECORDS_MAX {
            return Err(Refusal::TooMany);
        }
        if !digest.is_sorted_by(|a, b| a.node < b.node) {
            return Err(Refusal::Malformed);
        }
        Ok(frame)
    }
}

impl Question {
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > QUESTION_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        let question: Self = decode::<_, { READ_FACTOR * QUESTION_BYTES_MAX }>(bytes)?;
        match &question {
            Self::Nodes { nodes } if nodes.len() > ENTRIES_MAX => Err(Refusal::TooMany),
            Self::Bodies { hashes } if hashes.len() > HASHES_MAX => Err(Refusal::TooMany),
            Self::Listing { room, .. } if room.len() > KIND_BYTES_MAX => Err(Refusal::TooLarge),
            _ => Ok(question),
        }
    }
}

impl Page {
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        decode::<_, { READ_FACTOR * ANSWER_BYTES_MAX }>(bytes)
    }
}

/// Bytes that are carried, not read. Their own type, because serde would take a `Vec<u8>` apart byte by byte.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Blob(pub(crate) Vec<u8>);

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Blob;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Blob, E> {
                Ok(Blob(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

/// Writes the version byte and `value`.
fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    encode_as(VERSION, value)
}

fn encode_as<T: Serialize>(version: u8, value: &T) -> Vec<u8> {
    let mut bytes = vec![version];
    let body = bincode::serde::encode_to_vec(value, config::standard());
    bytes.extend(body.expect("plain structs can always be written to memory"));
    bytes
}

/// Reads what [`encode`] wrote, and nothing that it would have written differently.
fn decode<T: Serialize + DeserializeOwned, const LIMIT: usize>(bytes: &[u8]) -> Result<T, Refusal> {
    decode_as::<_, LIMIT>(VERSION, bytes)
}

fn decode_as<T: Serialize + DeserializeOwned, const LIMIT: usize>(
    version: u8,
    bytes: &[u8],
) -> Result<T, Refusal> {
    let Some((first, body)) = bytes.split_first() else {
        return Err(Refusal::Malformed);
    };
    let limited = config::standard().with_limit::<LIMIT>();
    match bincode::serde::decode_from_slice(body, limited) {
        Ok((value, _)) if *first == version && encode_as(version, &value) == bytes => Ok(value),
        _ => Err(Refusal::Malformed),
    }
}

/// The protocol we speak.
const VERSION: u8 = 1;

/// bincode counts a number of 8 bytes against its limit though one byte may encode it. So a limit of 8 times the length never
/// cuts off what is honest, and a length that lies still cannot claim more than that.
const READ_FACTOR: usize = 8;

/// Entries in one digest: the 400 nodes we would know at most, and some air. At the limit the whole frame is refused.
pub(crate) const ENTRIES_MAX: usize = 600;

/// Records in one frame. At the limit the whole frame is refused.
pub(crate) const RECORDS_MAX: usize = 2_000;

/// Documents asked for at once: what an answer has room for if they are of usual size (2 KiB).
pub(crate) const HASHES_MAX: usize = 256;

/// The length of a kind's name.
const KIND_BYTES_MAX: usize = 63;

/// What the length of a [`Blob`] takes at most.
pub(crate) const LENGTH_BYTES_MAX: usize = 9;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(first: u8) -> Entry {
        Entry {
            node: [first; 16],
            generation: 1,
            heartbeat: 2,
            version: 3,
        }
    }

    #[test]
    fn frames_read_back() {
        let frame = Frame::SynAck {
            nonce: 7,
            digest: vec![entry(1), entry(2)],
            records: vec![Blob(vec![9; 300])],
        };
        assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
    }

    #[test]
    fn a_digest_names_each_node_once_and_in_order() {
        for digest in [vec![entry(1), entry(1)], vec![entry(2), entry(1)]] {
            let frame = Frame::Syn { nonce: 1, digest };
            assert_eq!(Frame::decode(&frame.encode()), Err(Refusal::Malformed));
        }
    }

    #[test]
    fn too_many_entries_refuse_the_frame() {
        let digest = (0..=ENTRIES_MAX as u32)
            .map(|n| {
                let mut node = [0; 16];
                node[..4].copy_from_slice(&n.to_be_bytes());
                Entry { node, ..entry(0) }
            })
            .collect();
        let frame = Frame::Syn { nonce: 1, digest };
        assert_eq!(Frame::decode(&frame.encode()), Err(Refusal::TooMany));
    }

    #[test]
    fn only_one_way_to_write_it() {
        let mut bytes = Frame::Ack {
            nonce: 7,
            records: vec![],
        }
        .encode();
        // 251 announces two bytes, which 7 does not need.
        let long = [bytes[0], bytes[1], 251, 7, 0, bytes[3]];
        assert_eq!(Frame::decode(&long), Err(Refusal::Malformed));
        bytes.push(0);
        assert_eq!(Frame::decode(&bytes), Err(Refusal::Malformed));
        bytes.truncate(2);
        assert_eq!(Frame::decode(&bytes), Err(Refusal::Malformed));
        assert_eq!(Frame::decode(&[]), Err(Refusal::Malformed));
        assert_eq!(Frame::decode(&[2, 0]), Err(Refusal::Malformed));
    }

    #[test]
    fn a_length_that_lies_claims_no_memory() {
        // An Ack whose one record says it has 2^62 bytes.
        let mut bytes = vec![VERSION, 2, 0, 1, 253];
        bytes.extend((1u64 << 62).to_le_bytes());
        assert_eq!(Frame::decode(&bytes), Err(Refusal::Malformed));
        assert_eq!(
            Frame::decode(&vec![1; FRAME_BYTES_MAX + 1]),
            Err(Refusal::TooLarge)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(frame) = Frame::decode(&bytes) {
                prop_assert_eq!(frame.encode(), bytes.clone());
            }
            if let Ok(question) = Question::decode(&bytes) {
                prop_assert_eq!(question.encode(), bytes.clone());
            }
            if let Ok(page) = Page::decode(&bytes) {
                prop_assert_eq!(page.encode(), bytes);
            }
        }
    }
}
