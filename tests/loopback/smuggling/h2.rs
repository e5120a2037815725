//! HTTP/2 as no library would send it: frames and fields byte by byte.

use std::io::{Read, Write};
use std::net::TcpStream;

type Fields = &'static [(&'static str, &'static str)];

const POST: [(&str, &str); 4] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "site"),
    (":path", "/"),
];

/// Name, fields besides those of a POST (a pseudo-field replaces its like), body, and what the app gets.
pub(super) const CASES: &[(&str, Fields, &str, &[&str])] = &[
    ("a plain one", &[], "abc", &["POST / abc"]),
    (
        "a right length",
        &[("content-length", "3")],
        "abc",
        &["POST / abc"],
    ),
    ("a length too short", &[("content-length", "2")], "abc", &[]),
    ("a length too long", &[("content-length", "4")], "abc", &[]),
    (
        "no length that is one",
        &[("content-length", "+3")],
        "abc",
        &[],
    ),
    (
        "transfer-encoding",
        &[("transfer-encoding", "chunked")],
        "0\r\n\r\nGET /s HTTP/1.1\r\n\r\n",
        &[],
    ),
    ("connection", &[("connection", "keep-alive")], "", &[]),
    (
        "line break in a value",
        &[("x-a", "b\r\ntransfer-encoding: chunked")],
        "",
        &[],
    ),
    (
        "line feed in a value",
        &[("x-a", "b\ncontent-length: 5")],
        "",
        &[],
    ),
    ("NUL in a value", &[("x-a", "b\0c")], "", &[]),
    ("line break in a name", &[("x-a: b\r\nx-c", "d")], "", &[]),
    ("colon in a name", &[("x-a:", "b")], "", &[]),
    ("space in a name", &[("x a", "b")], "", &[]),
    ("capitals in a name", &[("Content-Length", "3")], "abc", &[]),
    (
        "line break in the path",
        &[(":path", "/ HTTP/1.1\r\nx-a: b\r\n\r\nGET /s")],
        "",
        &[],
    ),
    ("space in the path", &[(":path", "/a b")], "", &[]),
    ("no path", &[(":path", "")], "", &[]),
    (
        "line break in the method",
        &[(":method", "GET / HTTP/1.1\r\nx: y\r\n\r\nPOST")],
        "",
        &[],
    ),
    (
        "space in the method",
        &[(":method", "GET /s HTTP/1.1")],
        "",
        &[],
    ),
    ("another host", &[("host", "elsewhere")], "", &[]),
    (
        "user info in the authority",
        &[(":authority", "a@site")],
        "",
        &[],
    ),
    (
        "line break in the authority",
        &[(":authority", "site\r\nx-a: b")],
        "",
        &[],
    ),
    ("CONNECT", &[(":method", "CONNECT")], "", &[]),
    ("unknown pseudo-field", &[(":x", "y")], "", &[]),
];

/// Asks on a new connection and waits until it is answered, refused or closed.
pub(super) fn ask(stream: &mut TcpStream, fields: Fields, body: &str) {
    let mut block = Vec::new();
    for (name, value) in POST {
        let replaced = fields.iter().find(|(other, _)| *other == name);
        put(&mut block, name, replaced.map_or(value, |(_, value)| value));
    }
    for (name, value) in fields {
        if !POST.iter().any(|(other, _)| other == name) {
            put(&mut block, name, value);
        }
    }
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes.extend(frame(HEADERS, END_HEADERS, 1, &block));
    bytes.extend(frame(DATA, END_STREAM, 1, body.as_bytes()));
    // It may close while we still write.
    let _sent = stream.write_all(&bytes);
    while let Some((kind, flags)) = next(stream) {
        let is_end = matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0;
        if is_end || matches!(kind, RST_STREAM | GOAWAY) {
            return;
        }
    }
}

/// A literal that is not indexed, without Huffman code.
fn put(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        assert!(text.len() < 127, "a length of one byte");
        block.push(text.len() as u8);
        block.extend_from_slice(text.as_bytes());
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .expect("frames are short")
        .to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Kind and flags of the next frame.
fn next(stream: &mut TcpStream) -> Option<(u8, u8)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).ok()?;
    Some((head[3], head[4]))
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
