//! The guard of a request stream: one message with its body and trailers, in the direction we receive.

use bytes::{Buf, Bytes};
use http::{HeaderMap, Response, StatusCode, Version};

use super::fields::{self, Head};
use super::frame::{self, HeaderBytes};
use super::{Piece, Reason, Refusal};
use crate::h3::codes;
use crate::h3::guard::put_varint;

/// Follows one received message. Made for a request by a server, for a response by a client.
#[derive(Debug)]
pub(in crate::h3) struct MessageGuard {
    side: Side,
    expect: Expect,
    frame: Frame,
    header: HeaderBytes,
    header_bytes_max: usize,
    /// What content-length leaves to come; `None` if it was not given.
    content_left: Option<u64>,
    interim: u8,
    answer: Option<Box<Response<()>>>,
}

/// What was asked, where it changes what the response may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::h3) enum Asked {
    /// HEAD: no body follows, whatever content-length says.
    Head,
    /// A CONNECT: a 2xx answer turns the stream into a tunnel, and h3 does not see the answer.
    Connect,
    /// Anything else.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Request,
    Response(Asked),
}

/// The part of the message that comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Head,
    Body,
    Tunnel,
    End,
}

/// Where in a frame the stream stands.
#[derive(Debug)]
enum Frame {
    Header,
    Data { left: u64 },
    Fields { section: Vec<u8>, length: usize },
    Skip { left: u64 },
}

impl MessageGuard {
    /// For a request that we serve.
    pub(in crate::h3) fn request(header_bytes_max: usize) -> Self {
        Self::new(Side::Request, header_bytes_max)
    }

    /// For the response to what we asked.
    pub(in crate::h3) fn response(header_bytes_max: usize, asked: Asked) -> Self {
        Self::new(Side::Response(asked), header_bytes_max)
    }

    fn new(side: Side, header_bytes_max: usize) -> Self {
        Self {
            side,
            expect: Expect::Head,
            frame: Frame::Header,
            header: HeaderBytes::default(),
            header_bytes_max,
            content_left: None,
            interim: 0,
            answer: None,
        }
    }

    /// The head of the answer to a CONNECT, once it came.
    pub(in crate::h3) fn take_answer(&mut self) -> Option<Response<()>> {
        self.answer.take().map(|answer| *answer)
    }

    pub(in crate::h3) fn next(&mut self, chunk: &mut Bytes) -> Result<Option<Piece>, Refusal> {
        while !chunk.is_empty() {
            match &mut self.frame {
                Frame::Header => {
                    if let Some(piece) = self.frame_header(chunk)? {
                        return Ok(Some(piece));
                    }
                }
                Frame::Data { left } => {
                    let bytes = chunk.split_to(within(*left, chunk));
                    *left -= bytes.len() as u64;
                    if *left == 0 {
                        self.frame = Frame::Header;
                    }
                    return Ok(Some(Piece::Data {
                        bytes,
                        payload_at: 0,
                    }));
                }
                Frame::Skip { left } => {
                    let skipped = within(*left, chunk);
                    chunk.advance(skipped);
                    *left -= skipped as u64;
                    if *left == 0 {
                        self.frame = Frame::Header;
                    }
                }
                Frame::Fields { section, length } => {
                    let missing = *length - section.len();
                    section.extend_from_slice(&chunk.split_to(missing.min(chunk.len())));
                    if section.len() == *length {
                        let section = std::mem::take(section);
                        self.frame = Frame::Header;
                        if let Some(piece) = self.section(&section)? {
                            return Ok(Some(piece));
                        }
                    }
                }
            }
        }
        Ok(None)
    }

    pub(in crate::h3) fn finish(&self) -> Result<(), Refusal> {
        if !matches!(self.frame, Frame::Header) || !self.header.is_empty() {
            return Err(Refusal::truncated());
        }
        match (self.expect, self.side) {
            (Expect::Head, Side::Request) => Err(Refusal::stream(
                codes::REQUEST_INCOMPLETE,
                Reason::Incomplete,
            )),
            (Expect::Head, Side::Response(_)) => Err(Refusal::malformed(Reason::Incomplete)),
            _ => self.content_complete(),
        }
    }

    /// Reads one frame header. DATA is passed on together with what of its payload is here, to save a piece.
    fn frame_header(&mut self, chunk: &mut Bytes) -> Result<Option<Piece>, Refusal> {
        let straddles = !self.header.is_empty();
        let (taken, header) = self.header.take::<2>(chunk);
        let Some([kind, length]) = header else {
            chunk.advance(taken);
            return Ok(None);
        };
        self.frame = self.admit(kind, length)?;
        let passed = match &mut self.frame {
            Frame::Data { left } if straddles => {
                chunk.advance(taken);
                debug_assert!(*left > 0, "empty DATA frames are skipped");
                Some(Bytes::copy_from_slice(self.header.as_slice()))
            }
            Frame::Data { left } => {
                let payload = within(*left, &chunk[taken..]);
                *left -= payload as u64;
                Some(chunk.split_to(taken + payload))
            }
            _ => {
                chunk.advance(taken);
                None
            }
        };
        let payload_at = self.header.as_slice().len();
        self.header.clear();
        match self.frame {
            Frame::Data { left: 0 } | Frame::Skip { left: 0 } => self.frame = Frame::Header,
            Frame::Fields { length: 0, .. } => return Err(qpack_failed()),
            _ => {}
        }
        Ok(passed.map(|bytes| Piece::Data { bytes, payload_at }))
    }

    /// Decides on a frame by its header alone, before anything of it is kept.
    fn admit(&mut self, kind: u64, length: u64) -> Result<Frame, Refusal> {
        match (kind, self.expect) {
            (frame::DATA, Expect::Body | Expect::Tunnel) => {
                self.count_content(length)?;
                // h3 takes an empty DATA frame for the end of the body.
                Ok(if length == 0 {
                    Frame::Skip { left: 0 }
                } else {
                    Frame::Data { left: length }
                })
            }
            (frame::HEADERS, Expect::Head | Expect::Body) => match usize::try_from(length) {
                Ok(length) if length <= self.header_bytes_max => Ok(Frame::Fields {
                    section: Vec::new(),
                    length,
                }),
                _ => Err(Refusal::stream(codes::EXCESSIVE_LOAD, Reason::HeaderBytes)),
            },
            (frame::PUSH_PROMISE, _) if self.side != Side::Request => {
                // We never send MAX_PUSH_ID, so every push ID is out of range.
                Err(Refusal::connection(codes::ID_ERROR, Reason::Identifier))
            }
            (
                frame::DATA
                | frame::HEADERS
                | frame::CANCEL_PUSH
                | frame::SETTINGS
                | frame::PUSH_PROMISE
                | frame::GOAWAY
                | frame::MAX_PUSH_ID,
                _,
            ) => Err(Refusal::unexpected()),
            (kind, _) if frame::is_http2_only(kind) => Err(Refusal::unexpected()),
            _unknown => Ok(Frame::Skip { left: length }),
        }
    }

    fn count_content(&mut self, length: u64) -> Result<(), Refusal> {
        if let Some(left) = &mut self.content_left {
            *left = left
                .checked_sub(length)
                .ok_or_else(|| Refusal::malformed(Reason::ContentLength))?;
        }
        Ok(())
    }

    fn content_complete(&self) -> Result<(), Refusal> {
        match self.content_left {
            None | Some(0) => Ok(()),
            Some(_) => Err(Refusal::malformed(Reason::ContentLength)),
        }
    }

    /// Checks a whole field section: the message's head, an interim response, or trailers.
    fn section(&mut self, section: &[u8]) -> Result<Option<Piece>, Refusal> {
        let plain = match (self.expect, self.side) {
            (Expect::Head, Side::Request) => {
                let (head, plain) = fields::check_request(section, self.header_bytes_max)?;
                self.begin_body(&head);
                plain
            }
            (Expect::Head, Side::Response(asked)) => {
                let (head, map, plain) =
                    fields::check_response(section, self.header_bytes_max, asked)?;
                if head.status.is_informational() {
                    return self.skip_interim(head.status);
                }
                self.begin_answer(&head, asked);
                if asked == Asked::Connect {
                    self.answer = Some(Box::new(answer(head.status, map)));
                }
                plain
            }
            _ => {
                let plain = fields::check_trailers(section, self.header_bytes_max)?;
                self.content_complete()?;
                self.expect = Expect::End;
                plain
            }
        };
        let mut framed = Vec::with_capacity(plain.len() + 9);
        put_varint(&mut framed, frame::HEADERS);
        put_varint(&mut framed, plain.len() as u64);
        framed.extend_from_slice(&plain);
        Ok(Some(Piece::Headers(framed.into())))
    }

    fn begin_body(&mut self, head: &Head) {
        self.expect = if head.is_connect {
            Expect::Tunnel
        } else {
            Expect::Body
        };
        self.content_left = if head.is_connect {
            None
        } else {
            head.content_length
        };
    }

    fn begin_answer(&mut self, head: &Head, asked: Asked) {
        if asked == Asked::Connect && head.status.is_success() {
            self.expect = Expect::Tunnel;
            return;
        }
        self.expect = Expect::Body;
        let bodiless = asked == Asked::Head
            || head.status == StatusCode::NO_CONTENT
            || head.status == StatusCode::NOT_MODIFIED;
        self.content_left = if bodiless {
            Some(0)
        } else {
            head.content_length
        };
    }

    /// RFC 9114 §4.1: any number may precede the answer; §4.5: 101 may not.
    fn skip_interim(&mut self, status: StatusCode) -> Result<Option<Piece>, Refusal> {
        self.interim += 1;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Refusal::malformed(Reason::PseudoHeader));
        }
        if self.interim > INTERIM_MAX {
            return Err(Refusal::stream(codes::EXCESSIVE_LOAD, Reason::Interim));
        }
        Ok(None)
    }
}

fn answer(status: StatusCode, fields: HeaderMap) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = fields;
    *response.version_mut() = Version::HTTP_3;
    response
}

fn within(left: u64, chunk: &[u8]) -> usize {
    usize::try_from(left).map_or(chunk.len(), |left| left.min(chunk.len()))
}

pub(super) fn qpack_failed() -> Refusal {
    Refusal::connection(codes::QPACK_DECOMPRESSION_FAILED, Reason::Qpack)
}

/// Interim responses before the final one. Servers send one or two; more would keep a request open without an answer.
const INTERIM_MAX: u8 = 16;
