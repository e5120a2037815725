//! The guard of a peer's control stream.

use bytes::{Buf, Bytes, BytesMut};

use super::frame::{self, HeaderBytes};
use super::{Piece, Reason, Refusal, put_varint};
use crate::h3::codes;

/// Follows a peer's control stream, after its stream type.
#[derive(Debug)]
pub(in crate::h3) struct ControlGuard {
    from: From,
    settings_seen: bool,
    /// The lowest identifier a GOAWAY named; later ones may only be lower.
    goaway: u64,
    /// The highest MAX_PUSH_ID; later ones may only be higher.
    push_id_max: u64,
    header: HeaderBytes,
    frame: Frame,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Client,
    Server,
}

#[derive(Debug)]
enum Frame {
    Header,
    Whole {
        kind: u64,
        length: usize,
        payload: BytesMut,
    },
    Skip {
        left: u64,
    },
}

impl ControlGuard {
    /// For the stream of a client, as a server sees it.
    pub(in crate::h3) fn of_client() -> Self {
        Self::new(From::Client)
    }

    /// For the stream of a server, as a client sees it.
    pub(in crate::h3) fn of_server() -> Self {
        Self::new(From::Server)
    }

    fn new(from: From) -> Self {
        Self {
            from,
            settings_seen: false,
            goaway: u64::MAX,
            push_id_max: 0,
            header: HeaderBytes::default(),
            frame: Frame::Header,
        }
    }

    pub(in crate::h3) fn next(&mut self, chunk: &mut Bytes) -> Result<Option<Piece>, Refusal> {
        while !chunk.is_empty() {
            match &mut self.frame {
                Frame::Header => {
                    let (taken, header) = self.header.take::<2>(chunk);
                    chunk.advance(taken);
                    if let Some([kind, length]) = header {
                        self.header.clear();
                        self.frame = self.admit(kind, length)?;
                    }
                }
                Frame::Skip { left } => {
                    let skipped =
                        usize::try_from(*left).map_or(chunk.len(), |left| left.min(chunk.len()));
                    chunk.advance(skipped);
                    *left -= skipped as u64;
                }
                Frame::Whole {
                    length, payload, ..
                } => {
                    let missing = *length - payload.len();
                    payload.extend_from_slice(&chunk.split_to(missing.min(chunk.len())));
                }
            }
            if let Some(piece) = self.complete()? {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    /// RFC 9114 §6.2.1: a control stream never ends; a frame cut off is the nearer fault.
    pub(in crate::h3) fn finish(&self) -> Result<(), Refusal> {
        if matches!(self.frame, Frame::Header) && self.header.is_empty() {
            return Err(Refusal::connection(
                codes::CLOSED_CRITICAL_STREAM,
                Reason::CriticalStream,
            ));
        }
        Err(Refusal::truncated())
    }

    fn admit(&self, kind: u64, length: u64) -> Result<Frame, Refusal> {
        if !self.settings_seen && kind != frame::SETTINGS {
            return Err(Refusal::connection(
                codes::MISSING_SETTINGS,
                Reason::Settings,
            ));
        }
        let bytes_max = match kind {
            frame::SETTINGS if self.settings_seen => return Err(Refusal::unexpected()),
            frame::MAX_PUSH_ID if self.from == From::Server => return Err(Refusal::unexpected()),
            frame::DATA | frame::HEADERS | frame::PUSH_PROMISE => return Err(Refusal::unexpected()),
            kind if frame::is_http2_only(kind) => return Err(Refusal::unexpected()),
            frame::SETTINGS => SETTINGS_BYTES_MAX,
            frame::CANCEL_PUSH | frame::GOAWAY | frame::MAX_PUSH_ID => IDENTIFIER_BYTES_MAX,
            _unknown => return Ok(Frame::Skip { left: length }),
        };
        match usize::try_from(length) {
            Ok(length) if length <= bytes_max => Ok(Frame::Whole {
                kind,
                length,
                payload: BytesMut::new(),
            }),
            _ if kind == frame::SETTINGS => {
                Err(Refusal::connection(codes::EXCESSIVE_LOAD, Reason::Settings))
            }
            _ => Err(Refusal::truncated()),
        }
    }

    /// Acts on the current frame if all of it is here.
    fn complete(&mut self) -> Result<Option<Piece>, Refusal> {
        match &mut self.frame {
            Frame::Skip { left: 0 } => {
                self.frame = Frame::Header;
                Ok(None)
            }
            Frame::Whole {
                kind,
                length,
                payload,
            } if payload.len() == *length => {
                let (kind, payload) = (*kind, std::mem::take(payload));
                self.frame = Frame::Header;
                self.whole(kind, &payload)
            }
            _ => Ok(None),
        }
    }

    fn whole(&mut self, kind: u64, payload: &[u8]) -> Result<Option<Piece>, Refusal> {
        if kind == frame::SETTINGS {
            self.settings_seen = true;
            let (known, upgrades) = known_settings(payload)?;
            let bytes = framed(kind, &known);
            return Ok(Some(Piece::Settings { bytes, upgrades }));
        }
        let id = match frame::varint(payload) {
            Some((id, length)) if length == payload.len() => id,
            _ => return Err(Refusal::truncated()),
        };
        match kind {
            frame::GOAWAY => {
                let of_request = self.from == From::Client || id % 4 == 0;
                if id > self.goaway || !of_request {
                    return Err(bad_identifier());
                }
                self.goaway = id;
                Ok(Some(Piece::GoAway {
                    bytes: framed(kind, payload),
                    id,
                }))
            }
            frame::MAX_PUSH_ID if id >= self.push_id_max => {
                self.push_id_max = id;
                Ok(None)
            }
            // We promise nothing and ask for no pushes, so there is none to cancel.
            _ => Err(bad_identifier()),
        }
    }
}

/// The settings h3 knows, out of those the peer sent, and whether extended CONNECT is among them; the rest mean nothing to
/// us and h3 has room for few.
fn known_settings(mut payload: &[u8]) -> Result<(Vec<u8>, bool), Refusal> {
    let fault = Refusal::connection(codes::SETTINGS_ERROR, Reason::Settings);
    let mut seen = Vec::new();
    let mut known = Vec::new();
    let mut upgrades = false;
    while !payload.is_empty() {
        let (id, id_length) = frame::varint(payload).ok_or_else(Refusal::truncated)?;
        let (value, value_length) =
            frame::varint(&payload[id_length..]).ok_or_else(Refusal::truncated)?;
        let (setting, rest) = payload.split_at(id_length + value_length);
        payload = rest;
        if seen.contains(&id) || matches!(id, 0x0 | 0x2..=0x5) {
            return Err(fault);
        }
        seen.push(id);
        upgrades |= id == ENABLE_CONNECT_PROTOCOL && value == 1;
        match id {
            ENABLE_CONNECT_PROTOCOL | H3_DATAGRAM if value > 1 => return Err(fault),
            ENABLE_CONNECT_PROTOCOL | H3_DATAGRAM | MAX_FIELD_SECTION_SIZE => {
                known.extend_from_slice(setting)
            }
            _ => {}
        }
    }
    Ok((known, upgrades))
}

fn framed(kind: u64, payload: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(payload.len() + 3);
    put_varint(&mut out, kind);
    put_varint(&mut out, payload.len() as u64);
    out.extend_from_slice(payload);
    out.into()
}

fn bad_identifier() -> Refusal {
    Refusal::connection(codes::ID_ERROR, Reason::Identifier)
}

/// Payload of a SETTINGS frame: room for hundreds of settings where peers send fewer than ten.
const SETTINGS_BYTES_MAX: usize = 4096;
/// Payload of a frame that holds one integer.
const IDENTIFIER_BYTES_MAX: usize = 8;
const MAX_FIELD_SECTION_SIZE: u64 = 0x6;
const ENABLE_CONNECT_PROTOCOL: u64 = 0x8;
const H3_DATAGRAM: u64 = 0x33;
