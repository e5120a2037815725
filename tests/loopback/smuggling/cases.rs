//! The corpus. Where a request says both a length and chunks, chunks count and the connection ends with it (RFC 9112 §6.3):
//! what stands behind is never looked at.

/// What is sent, and what the app gets of it: `METHOD TARGET BODY`.
pub(super) struct Case {
    /// Ends with `…` where the caller ends the connection in the middle.
    pub(super) name: &'static str,
    pub(super) bytes: &'static str,
    pub(super) gets: &'static [&'static str],
}

const fn case(name: &'static str, bytes: &'static str, gets: &'static [&'static str]) -> Case {
    Case { name, bytes, gets }
}

pub(super) const REQUESTS: &[Case] = &[
    case(
        "a length",
        "POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 3\r\n\r\nabcGET /next HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &["POST / abc", "GET /next "],
    ),
    case(
        "chunks",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /next HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &["POST / abc", "GET /next "],
    ),
    case(
        "chunks, in capitals",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /next HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &["POST / abc", "GET /next "],
    ),
    case(
        "a chunk extension",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n0\r\n\r\nGET /next HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &["POST / abc", "GET /next "],
    ),
    case(
        "framing in trailers",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nContent-Length: 5\r\nHost: b\r\nTransfer-Encoding: x\r\n\r\nGET /next HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &["POST / abc", "GET /next "],
    ),
    case(
        "an empty body",
        "POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 0\r\n\r\nGET /next HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &["POST / ", "GET /next "],
    ),
    case(
        "two in one packet",
        "GET /a HTTP/1.1\r\nHost: site\r\n\r\nGET /next HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &["GET /a ", "GET /next "],
    ),
    case(
        "a body with GET",
        "GET /a HTTP/1.1\r\nHost: site\r\nContent-Length: 3\r\n\r\nabcGET /next HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &["GET /a abc", "GET /next "],
    ),
    case(
        "CL.TE",
        "POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &["POST / "],
    ),
    case(
        "TE.CL",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &["POST / "],
    ),
    case(
        "CL.TE with a chunk",
        "POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &["POST / a"],
    ),
    case(
        "TE.CL of zero",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n1\r\na\r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &["POST / a"],
    ),
    case(
        "two Transfer-Encodings",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "two Transfer-Encodings, the other way",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "chunked twice",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "chunked in two fields",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "gzip, chunked",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "chunked, gzip",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "identity",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "xchunked",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "chunked;",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked;\r\n\r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "quoted chunked",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "chunked behind a vertical tab",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: \u{b}chunked\r\n\r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "an empty Transfer-Encoding",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: \r\n\r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "space before the colon of Transfer-Encoding",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "tab before the colon of Transfer-Encoding",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "folded Transfer-Encoding",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "NUL in Transfer-Encoding",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chun\0ked\r\n\r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "Transfer-Encoding with a space in front",
        "POST / HTTP/1.1\r\nHost: site\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "CR in front of Transfer-Encoding",
        "POST / HTTP/1.1\r\nHost: site\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "two lengths",
        "POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "a list of lengths",
        "POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 3, 5\r\n\r\nabcGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "a signed length",
        "POST / HTTP/1.1\r\nHost: site\r\nContent-Length: +3\r\n\r\nabcGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "a negative length",
        "POST / HTTP/1.1\r\nHost: site\r\nContent-Length: -3\r\n\r\nabcGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "a length in hex",
        "POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 0x3\r\n\r\nabcGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "a length with a point",
        "POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 3.0\r\n\r\nabcGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "an empty length",
        "POST / HTTP/1.1\r\nHost: site\r\nContent-Length: \r\n\r\nabcGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "a length in words",
        "POST / HTTP/1.1\r\nHost: site\r\nContent-Length: three\r\n\r\nabcGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "a length of 2^64",
        "POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 18446744073709551616\r\n\r\nabcGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "a length with a space in it",
        "POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 1 3\r\n\r\nabcGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "space before the colon of Content-Length",
        "POST / HTTP/1.1\r\nHost: site\r\nContent-Length : 3\r\n\r\nabcGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "folded Content-Length",
        "POST / HTTP/1.1\r\nHost: site\r\nContent-Length:\r\n 3\r\n\r\nabcGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "NUL in Content-Length",
        "POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 3\0\r\n\r\nabcGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "space before the colon of Host",
        "GET /a HTTP/1.1\r\nHost : site\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "a field that goes on in the next line",
        "GET /a HTTP/1.1\r\nHost: site\r\nX: a\r\n b\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "a field without a name",
        "GET /a HTTP/1.1\r\nHost: site\r\n: x\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "a field without a colon",
        "GET /a HTTP/1.1\r\nHost: site\r\nnonsense\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "space in a name",
        "GET /a HTTP/1.1\r\nHost: site\r\nX y: z\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "NUL in a value",
        "GET /a HTTP/1.1\r\nHost: site\r\nX: a\0b\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "CR in a value",
        "GET /a HTTP/1.1\r\nHost: site\r\nX: a\rb\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "NUL in the path",
        "GET /a\0b HTTP/1.1\r\nHost: site\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "two spaces in the first line",
        "GET  /a HTTP/1.1\r\nHost: site\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "a tab in the first line",
        "GET\t/a HTTP/1.1\r\nHost: site\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "space in the path",
        "GET /a b HTTP/1.1\r\nHost: site\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "HTTP/1.1 with more behind",
        "GET /a HTTP/1.1 x\r\nHost: site\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "HTTP/0.9",
        "GET /a\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "HTTP/2.0 in words",
        "GET /a HTTP/2.0\r\nHost: site\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "HTTP/1.2",
        "GET /a HTTP/1.2\r\nHost: site\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "no host",
        "GET /a HTTP/1.1\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "two hosts",
        "GET /a HTTP/1.1\r\nHost: site\r\nHost: other\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "an empty host",
        "GET /a HTTP/1.1\r\nHost: \r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "a host with user info",
        "GET /a HTTP/1.1\r\nHost: a@site\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "a host with a path",
        "GET /a HTTP/1.1\r\nHost: site/b\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "CONNECT",
        "CONNECT site:80 HTTP/1.1\r\nHost: site\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "bare line feeds",
        "GET /a HTTP/1.1\nHost: site\nConnection: close\n\n",
        &["GET /a "],
    ),
    case(
        "an absolute target",
        "GET http://site/a HTTP/1.1\r\nHost: site\r\n\r\nGET /next HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &["GET /a ", "GET /next "],
    ),
    case(
        "Connection names the length",
        "POST / HTTP/1.1\r\nHost: site\r\nConnection: content-length, close\r\nContent-Length: 3\r\n\r\nabc",
        &["POST / abc"],
    ),
    case(
        "Connection names the host",
        "GET /a HTTP/1.1\r\nHost: site\r\nConnection: host, close\r\n\r\n",
        &["GET /a "],
    ),
    case(
        "HTTP/1.0 with chunks",
        "POST / HTTP/1.0\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "upgrade to h2c",
        "GET /a HTTP/1.1\r\nHost: site\r\nConnection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\nGET /next HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &["GET /a ", "GET /next "],
    ),
    case(
        "a chunk of 2^64",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\na\r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "a negative chunk",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\na\r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "a chunk with 0x",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "a chunk without a size",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\r\n\r\na\r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "a chunk size with a sign",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "a chunk longer than its size",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "a chunk that ends with a bare line feed",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "a chunk size that ends with a bare line feed",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "a line feed in a chunk extension",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\r\n1;a\nb\r\na\r\n0\r\n\r\nGET /s HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n",
        &[],
    ),
    case(
        "a body cut short …",
        "POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 10\r\n\r\nabc",
        &[],
    ),
    case(
        "chunks cut short …",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        &[],
    ),
    case(
        "a chunk cut short …",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        &[],
    ),
    case(
        "a head cut short …",
        "GET /a HTTP/1.1\r\nHost: site\r\nX: y",
        &[],
    ),
];

/// Name, what the app answers, and what the caller gets: a status (0 for an answer that breaks, before or after
/// its head is passed on) and a body.
pub(super) const ANSWERS: &[(&str, &str, u16, &str)] = &[
    (
        "a good one",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        200,
        "ok",
    ),
    (
        "more than its length",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad",
        200,
        "ok",
    ),
    (
        "two answers",
        "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad",
        204,
        "",
    ),
    (
        "a body with 204",
        "HTTP/1.1 204 No Content\r\ncontent-length: 3\r\n\r\nbad",
        204,
        "",
    ),
    (
        "two lengths",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 5\r\n\r\nokbad",
        502,
        ERROR,
    ),
    (
        "a signed length",
        "HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok",
        502,
        ERROR,
    ),
    (
        "chunks with a length",
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        0,
        "",
    ),
    (
        "a line folded",
        "HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 2\r\n\r\nok",
        502,
        ERROR,
    ),
    (
        "space before the colon",
        "HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\nok",
        502,
        ERROR,
    ),
    (
        "chunks without a size",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\nok\r\n0\r\n\r\n",
        0,
        "",
    ),
    (
        "an early end",
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nok",
        0,
        "",
    ),
    (
        "an answer that is none",
        "SSH-2.0-OpenSSH\r\n\r\n",
        502,
        ERROR,
    ),
    (
        "another protocol that nobody asked for",
        "HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nbad",
        502,
        ERROR,
    ),
];

/// What the mesh says of an app that answers wrongly.
const ERROR: &str = "starling: call to site failed: app-broken: the app broke off or sent what is not HTTP; look at the app's log\n";
