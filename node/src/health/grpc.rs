//! gRPC's own health protocol: one call of `grpc.health.v1.Health/Check`, whose two messages have one field each.

use bytes::{Buf, Bytes};
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::probe::{AGENT, Problem};

/// Passes if the server says that `service` (or it all, if that is empty) is SERVING.
pub(super) async fn ask(stream: TokioIo<TcpStream>, service: &str) -> Result<(), Problem> {
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(HEAD_BYTES_MAX)
        .handshake(stream)
        .await
        .map_err(Problem::Http)?;
    let call = async {
        let answer = sender.send_request(request(service)).await;
        verdict(answer.map_err(Problem::Http)?).await
    };
    tokio::pin!(connection, call);
    tokio::select! {
        biased;
        found = &mut call => return found,
        ended = &mut connection => ended.map_err(Problem::Http)?,
    }
    call.await
}

fn request(service: &str) -> Request<Full<Bytes>> {
    let request = Request::post("http://localhost/grpc.health.v1.Health/Check")
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, AGENT);
    let body = Full::new(question(service));
    request.body(body).expect("all of it is constant")
}

/// `HealthCheckRequest { service }` in gRPC's frame.
fn question(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        varint(service.len(), &mut message);
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).expect("names are short");
    let mut frame = vec![0];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&message);
    frame.into()
}

fn varint(mut number: usize, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

async fn verdict(answer: http::Response<hyper::body::Incoming>) -> Result<(), Problem> {
    if answer.status() != StatusCode::OK {
        return Err(Problem::Status(answer.status()));
    }
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|_broken| Problem::NotGrpc)?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let status = status(&trailers).or_else(|| status(&head.headers));
    match status.as_deref() {
        Some("0") => {}
        Some(other) => return Err(Problem::GrpcStatus(other.to_owned())),
        None => return Err(Problem::NotGrpc),
    }
    match serving(body.to_bytes()).ok_or(Problem::NotGrpc)? {
        1 => Ok(()),
        2 => Err(Problem::NotServing("NOT_SERVING")),
        3 => Err(Problem::NotServing("SERVICE_UNKNOWN")),
        _ => Err(Problem::NotServing("UNKNOWN")),
    }
}

/// `grpc-status` with what else there is to say about it.
fn status(fields: &HeaderMap) -> Option<String> {
    let code: u16 = fields.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    let hint = match code {
        5 => " (it does not know the service)",
        12 => " (it does not implement grpc.health.v1.Health)",
        _ => "",
    };
    Some(format!("{code}{hint}"))
}

/// The field `status` of a `HealthCheckResponse`: 0, UNKNOWN, if it is left out. None if this is no such message.
fn serving(mut frame: Bytes) -> Option<u64> {
    let is_compressed = frame.try_get_u8().ok()?;
    let length = frame.try_get_u32().ok()?;
    if is_compressed != 0 || usize::try_from(length).ok()? != frame.len() {
        return None;
    }
    let mut status = 0;
    while frame.has_remaining() {
        // Field 1, a number. Nothing else was ever defined.
        if frame.try_get_u8().ok()? != 0x08 {
            return None;
        }
        status = number(&mut frame)?;
    }
    Some(status)
}

fn number(bytes: &mut Bytes) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = bytes.try_get_u8().ok()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

const HEAD_BYTES_MAX: u32 = 16 * 1024;
/// The answer has two bytes.
const ANSWER_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_what_protobuf_says() {
        assert_eq!(&question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(
            &question("a.B")[..],
            [0, 0, 0, 0, 5, 0x0a, 3, b'a', b'.', b'B']
        );
        let long = question(&"x".repeat(300));
        assert_eq!(&long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
    }

    #[test]
    fn answers_are_read_and_strange_ones_are_none() {
        let read = |bytes: &'static [u8]| serving(Bytes::from_static(bytes));
        assert_eq!(read(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(read(&[0, 0, 0, 0, 0]), Some(0), "the default of proto3");
        assert_eq!(read(&[0, 0, 0, 0, 3, 8, 0x80, 1]), Some(128));
        for strange in [
            &[][..],
            &[0, 0, 0, 0, 1],
            &[1, 0, 0, 0, 2, 8, 1],
            &[0, 0, 0, 0, 2, 8, 1, 0],
            &[0, 0, 0, 0, 2, 16, 1],
            &[0, 0, 0, 0, 1, 8],
            &[
                0, 0, 0, 0, 12, 8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1,
            ],
        ] {
            assert_eq!(read(strange), None, "{strange:?}");
        }
    }
}
