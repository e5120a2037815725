//! chitchat's message bytes. Its digest and delta are private types, so what it wants to say is read from the bytes it would send,
//! and what it is to hear is written as the bytes it would receive. Neither ever leaves this process.

use std::net::{IpAddr, SocketAddr};

use chitchat::{ChitchatId, ChitchatMessage, Deserializable, Serializable};

/// A chitchat message, as far as we use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    Syn {
        digest: Vec<Known>,
    },
    SynAck {
        digest: Vec<Known>,
        delta: Vec<Stale>,
    },
    Ack {
        delta: Vec<Stale>,
    },
    BadCluster,
}

/// What one side knows of one life of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) id: ChitchatId,
    pub(crate) heartbeat: u64,
    pub(crate) version: u64,
}

/// A life of a node of which the other side lacks the newest version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stale {
    pub(crate) id: ChitchatId,
    pub(crate) version: u64,
}

impl Message {
    /// Reads what chitchat wants to say. `None` if its encoding is not the one we know.
    pub(crate) fn read(message: &ChitchatMessage) -> Option<Self> {
        let bytes = message.serialize_to_vec();
        let mut reader = Reader { rest: &bytes };
        if reader.array()? != MAGIC_AND_VERSION {
            return None;
        }
        let message = match reader.u8()? {
            SYN => Self::Syn {
                digest: reader.digest()?,
            },
            SYN_ACK => Self::SynAck {
                digest: reader.digest()?,
                delta: reader.delta()?,
            },
            ACK => Self::Ack {
                delta: reader.delta()?,
            },
            BAD_CLUSTER => Self::BadCluster,
            _ => return None,
        };
        Some(message)
    }

    /// Writes what chitchat is to hear. `None` if it does not take it, which its own decoder decides.
    pub(crate) fn write(&self) -> Option<ChitchatMessage> {
        let mut bytes = MAGIC_AND_VERSION.to_vec();
        match self {
            Self::Syn { digest } => {
                bytes.push(SYN);
                write_digest(digest, &mut bytes)?;
                CLUSTER.to_string().serialize(&mut bytes);
            }
            Self::SynAck { digest, delta } => {
                bytes.push(SYN_ACK);
                write_digest(digest, &mut bytes)?;
                write_delta(delta, &mut bytes);
            }
            Self::Ack { delta } => {
                bytes.push(ACK);
                write_delta(delta, &mut bytes);
            }
            Self::BadCluster => bytes.push(BAD_CLUSTER),
        }
        ChitchatMessage::deserialize(&mut &bytes[..]).ok()
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.u16()?;
        std::str::from_utf8(self.take(length.into())?).ok()
    }

    fn id(&mut self) -> Option<ChitchatId> {
        let node_id = self.text()?;
        let generation = self.u64()?;
        let ip: IpAddr = match self.u8()? {
            4 => self.array::<4>()?.into(),
            6 => self.array::<16>()?.into(),
            _ => return None,
        };
        Some(ChitchatId::new(
            node_id,
            generation,
            SocketAddr::new(ip, self.u16()?),
        ))
    }

    fn digest(&mut self) -> Option<Vec<Known>> {
        let count = self.u16()?;
        let mut digest = Vec::new();
        for _ in 0..count {
            let id = self.id()?;
            let (heartbeat, _last_gc, version) = (self.u64()?, self.u64()?, self.u64()?);
            digest.push(Known {
                id,
                heartbeat,
                version,
            });
        }
        Some(digest)
    }

    fn delta(&mut self) -> Option<Vec<Stale>> {
        let operations = self.blocks()?;
        let mut reader = Reader { rest: &operations };
        let mut delta: Vec<Stale> = Vec::new();
        while let Some(tag) = reader.u8() {
            match tag {
                OP_NODE => {
                    let id = reader.id()?;
                    let (_last_gc, _from) = (reader.u64()?, reader.u64()?);
                    delta.push(Stale { id, version: 0 });
                }
                OP_KEY_VALUE => {
                    let (_key, _value) = (reader.text()?, reader.text()?);
                    delta.last_mut()?.version = reader.u64()?;
                    let _status = reader.u8()?;
                }
                OP_MAX_VERSION => delta.last_mut()?.version = reader.u64()?,
                _ => return None,
            }
        }
        Some(delta)
    }

    /// Puts the blocks of a stream together. They are our own chitchat's, at most 64 KiB each and 64 KiB in all before
    /// compression; the bound is there all the same.
    fn blocks(&mut self) -> Option<Vec<u8>> {
        let mut whole = Vec::new();
        loop {
            match self.u8()? {
                BLOCK_END => return Some(whole),
                BLOCK_ZSTD => {
                    let length = self.u16()?;
                    let block = self.take(length.into())?;
                    whole.extend(zstd::bulk::decompress(block, BLOCK_BYTES_MAX).ok()?);
                }
                BLOCK_PLAIN => {
                    let length = self.u16()?;
                    whole.extend(self.take(length.into())?);
                }
                _ => return None,
            }
            if whole.len() > STREAM_BYTES_MAX {
                return None;
            }
        }
    }
}

fn write_digest(digest: &[Known], bytes: &mut Vec<u8>) -> Option<()> {
    u16::try_from(digest.len()).ok()?.serialize(bytes);
    for known in digest {
        known.id.serialize(bytes);
        for number in [known.heartbeat, 0, known.version] {
            number.serialize(bytes);
        }
    }
    Some(())
}

/// Writes a delta in plain blocks: nothing is ever inflated for it.
fn write_delta(delta: &[Stale], bytes: &mut Vec<u8>) {
    let mut operations = Vec::new();
    for stale in delta {
        operations.push(OP_NODE);
        stale.id.serialize(&mut operations);
        for number in [0u64, 0] {
            number.serialize(&mut operations);
        }
        operations.push(OP_KEY_VALUE);
        KEY.to_string().serialize(&mut operations);
        stale.version.to_string().serialize(&mut operations);
        stale.version.serialize(&mut operations);
        operations.push(STATUS_SET);
    }
    for block in operations.chunks(BLOCK_BYTES_MAX) {
        bytes.push(BLOCK_PLAIN);
        u16::try_from(block.len())
            .expect("a chunk of at most u16::MAX")
            .serialize(bytes);
        bytes.extend(block);
    }
    bytes.push(BLOCK_END);
}

/// The one key of each node. Its value is the version's number; what it stands for, the manifest, is ours to carry.
pub(crate) const KEY: &str = "m";

/// chitchat's name for the cluster. Which mesh a peer is in was decided by its certificate.
pub(crate) const CLUSTER: &str = "starling";

const MAGIC_AND_VERSION: [u8; 3] = [0x53, 0xB0, 0];
const SYN: u8 = 0;
const SYN_ACK: u8 = 1;
const ACK: u8 = 2;
const BAD_CLUSTER: u8 = 3;
const OP_NODE: u8 = 0;
const OP_KEY_VALUE: u8 = 1;
const OP_MAX_VERSION: u8 = 2;
const STATUS_SET: u8 = 0;
const BLOCK_END: u8 = 0;
const BLOCK_ZSTD: u8 = 1;
const BLOCK_PLAIN: u8 = 2;
const BLOCK_BYTES_MAX: usize = u16::MAX as usize;
const STREAM_BYTES_MAX: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> ChitchatId {
        let addr: SocketAddr = if n.is_multiple_of(2) {
            "10.0.0.1:7400"
        } else {
            "[fd00::1]:7400"
        }
        .parse()
        .unwrap();
        ChitchatId::new(format!("node-{n}"), n as u64 + 1, addr)
    }

    fn stale(n: usize) -> Stale {
        Stale {
            id: id(n),
            version: n as u64 + 1,
        }
    }

    #[test]
    fn chitchat_takes_what_we_write_and_we_read_what_it_says() {
        let mut digest: Vec<Known> = (0..300)
            .map(|n| Known {
                id: id(n),
                heartbeat: n as u64,
                version: 7,
            })
            .collect();
        digest.sort_by(|a, b| a.id.cmp(&b.id));
        let delta = vec![];
        for message in [
            Message::Syn {
                digest: digest.clone(),
            },
            Message::SynAck { digest, delta },
            Message::Ack { delta: vec![] },
            Message::BadCluster,
        ] {
            assert_eq!(Message::read(&message.write().unwrap()), Some(message));
        }
    }

    /// chitchat cannot write again a delta it has read in plain blocks, so this goes past it.
    #[test]
    fn a_delta_reads_back_plain_and_compressed() {
        let delta: Vec<Stale> = (0..1000).map(stale).collect();
        assert!(
            Message::Ack {
                delta: delta.clone()
            }
            .write()
            .is_some()
        );
        let mut plain = Vec::new();
        write_delta(&delta, &mut plain);
        assert_eq!(Reader { rest: &plain }.delta(), Some(delta));
        let operations = Reader { rest: &plain }.blocks().unwrap();
        let mut packed = Vec::new();
        for block in operations.chunks(16_384) {
            let block = zstd::bulk::compress(block, 0).unwrap();
            packed.push(BLOCK_ZSTD);
            u16::try_from(block.len()).unwrap().serialize(&mut packed);
            packed.extend(block);
        }
        packed.push(BLOCK_END);
        assert_eq!(Reader { rest: &packed }.blocks(), Some(operations));
    }

    #[test]
    fn one_node_twice_in_a_delta_is_not_taken() {
        assert!(
            Message::Ack {
                delta: vec![stale(1), stale(1)]
            }
            .write()
            .is_none()
        );
    }
}
