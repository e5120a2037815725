//! Bytes no client of ours would send, and what each brings.

use http::Response;
use http_body_util::{BodyExt, Empty};

use super::super::guard::put_varint;
use crate::h3::testing::*;
use crate::h3::{Exchange, RecvError, RequestErrorKind, codes};

/// A server that answers whatever reaches it once it has the whole body.
async fn start() -> Pair {
    let pair = pair().await;
    let acceptor = acceptor(&pair).await;
    serve(acceptor, |exchange| async {
        match exchange {
            Exchange::Request(request, responder) => {
                if request.into_body().collect().await.is_ok() {
                    let _gone = responder
                        .respond(Response::new(Empty::<bytes::Bytes>::new()))
                        .await;
                }
            }
            Exchange::Connect(request) => {
                let Ok(tunnel) = request.accept(http::HeaderMap::new()).await else {
                    return;
                };
                let (mut send, mut recv) = tunnel.split();
                while let Ok(true) = recv.read_chunks(&mut Vec::new()).await {}
                let _gone = send.finish().await;
            }
            Exchange::Upgrade(request, responder) => {
                assert!(request.headers().contains_key("upgrade"));
                let refused = Response::builder().status(501).body(Empty::new());
                let _gone = responder.refuse(refused.unwrap()).await;
            }
        }
    });
    pair
}

/// What becomes of a request stream with these bytes and an end.
async fn request(name: &str, bytes: &[u8], expected: Taken) {
    let pair = start().await;
    let (mut send, mut recv) = pair.client.open_bi().await.unwrap();
    // The server may refuse before all is sent.
    let _stopped = send.write_all(bytes).await;
    let _stopped = send.finish();
    assert_eq!(taken(&pair.client, &mut recv).await, expected, "{name}");
    if matches!(expected, Taken::Stream(_)) {
        assert!(
            pair.client.close_reason().is_none(),
            "{name}: the connection stays"
        );
    }
}

#[tokio::test]
async fn requests() {
    use Taken::{Answered, Connection, Stream};
    let message = Stream(codes::MESSAGE_ERROR);
    let unexpected = Connection(codes::FRAME_UNEXPECTED);
    let load = Stream(codes::EXCESSIVE_LOAD);
    let qpack = Connection(codes::QPACK_DECOMPRESSION_FAILED);
    let get = || get_with(&[]);
    let post = |length: &str, sent: &[u8]| {
        [get_with(&[("content-length", length)]), frame(0, sent)].concat()
    };
    let long = "x".repeat(60_000);
    let cases: Vec<(&str, Vec<u8>, Taken)> = vec![
        ("plain", get(), Answered),
        (
            "unknown frames around it",
            [frame(0x21, b"abc"), get(), frame(0x41, b"")].concat(),
            Answered,
        ),
        (
            "a large unknown frame",
            [frame(0x21, &vec![0; 1 << 20]), get()].concat(),
            Answered,
        ),
        (
            "empty data frames",
            [get(), frame(0, b""), frame(0, b"a"), frame(0, b"")].concat(),
            Answered,
        ),
        (
            "trailers",
            [get(), frame(0, b"a"), headers(&[("x", "1")])].concat(),
            Answered,
        ),
        (
            "trailers alone",
            [get(), headers(&[("x", "1")])].concat(),
            Answered,
        ),
        ("te: trailers", get_with(&[("te", "trailers")]), Answered),
        ("host that agrees", get_with(&[("host", "a")]), Answered),
        (
            "host alone",
            headers(&[GET[0], GET[1], GET[3], ("host", "a")]),
            Answered,
        ),
        (
            "OPTIONS *",
            headers(&[(":method", "OPTIONS"), GET[1], GET[2], (":path", "*")]),
            Answered,
        ),
        ("content-length that fits", post("3", b"abc"), Answered),
        (
            "content-length zero",
            get_with(&[("content-length", "0")]),
            Answered,
        ),
        (
            "plain CONNECT",
            headers(&[(":method", "CONNECT"), (":authority", "a:1")]),
            Answered,
        ),
        // Malformed messages end their stream.
        ("no method", headers(&GET[1..]), message),
        ("no scheme", headers(&[GET[0], GET[2], GET[3]]), message),
        ("no path", headers(&GET[..3]), message),
        ("no authority", headers(&[GET[0], GET[1], GET[3]]), message),
        (
            "empty path",
            headers(&[GET[0], GET[1], GET[2], (":path", "")]),
            message,
        ),
        (
            "relative path",
            headers(&[GET[0], GET[1], GET[2], (":path", "x")]),
            message,
        ),
        (
            "path with a fragment",
            headers(&[GET[0], GET[1], GET[2], (":path", "/#x")]),
            message,
        ),
        (
            "path with a space",
            headers(&[GET[0], GET[1], GET[2], (":path", "/ x")]),
            message,
        ),
        (
            "GET *",
            headers(&[GET[0], GET[1], GET[2], (":path", "*")]),
            message,
        ),
        (
            "empty authority",
            headers(&[GET[0], GET[1], (":authority", ""), GET[3]]),
            message,
        ),
        (
            "authority with a user",
            headers(&[GET[0], GET[1], (":authority", "u@a"), GET[3]]),
            message,
        ),
        (
            "method twice",
            headers(&[GET[0], GET[0], GET[1], GET[2], GET[3]]),
            message,
        ),
        (
            "path twice",
            headers(&[GET[0], GET[1], GET[2], GET[3], GET[3]]),
            message,
        ),
        (
            "authority twice",
            headers(&[GET[0], GET[1], GET[2], GET[2], GET[3]]),
            message,
        ),
        (
            "unknown pseudo-header",
            headers(&[GET[0], GET[1], GET[2], GET[3], (":x", "1")]),
            message,
        ),
        (
            "pseudo-header after a field",
            headers(&[GET[0], GET[1], GET[2], ("x", "1"), GET[3]]),
            message,
        ),
        (
            ":status in a request",
            headers(&[GET[0], GET[1], GET[2], GET[3], (":status", "200")]),
            message,
        ),
        (
            ":protocol without CONNECT",
            headers(&[GET[0], GET[1], GET[2], GET[3], (":protocol", "x")]),
            message,
        ),
        (
            "extended CONNECT",
            headers(&[CONNECT, GET[1], GET[2], GET[3], (":protocol", "a/1.0")]),
            Answered,
        ),
        (
            "extended CONNECT with upgrade beside it",
            headers(&[
                CONNECT,
                GET[1],
                GET[2],
                GET[3],
                (":protocol", "a"),
                ("upgrade", "b"),
            ]),
            message,
        ),
        (
            ":protocol twice",
            headers(&[
                CONNECT,
                GET[1],
                GET[2],
                GET[3],
                (":protocol", "a"),
                (":protocol", "a"),
            ]),
            message,
        ),
        (
            ":protocol of two words",
            headers(&[CONNECT, GET[1], GET[2], GET[3], (":protocol", "a b")]),
            message,
        ),
        (
            ":protocol of two versions",
            headers(&[CONNECT, GET[1], GET[2], GET[3], (":protocol", "a/1/2")]),
            message,
        ),
        (
            "extended CONNECT without a path",
            headers(&[CONNECT, GET[1], GET[2], (":protocol", "a")]),
            message,
        ),
        (
            "extended CONNECT without a scheme",
            headers(&[CONNECT, GET[2], GET[3], (":protocol", "a")]),
            message,
        ),
        (
            "extended CONNECT without authority",
            headers(&[CONNECT, GET[1], GET[3], (":protocol", "a"), ("host", "a")]),
            message,
        ),
        (
            "pseudo-header in trailers",
            [get(), headers(&[(":path", "/")])].concat(),
            message,
        ),
        (
            "CONNECT with a path",
            headers(&[(":method", "CONNECT"), GET[1], GET[2], GET[3]]),
            message,
        ),
        (
            "CONNECT without authority",
            headers(&[(":method", "CONNECT")]),
            message,
        ),
        ("host that differs", get_with(&[("host", "b")]), message),
        (
            "host twice",
            get_with(&[("host", "a"), ("host", "a")]),
            message,
        ),
        ("uppercase name", get_with(&[("X", "1")]), message),
        ("empty name", get_with(&[("", "1")]), message),
        ("space in a name", get_with(&[("a b", "1")]), message),
        ("NUL in a value", get_with(&[("x", "a\0b")]), message),
        ("CR in a value", get_with(&[("x", "a\rb")]), message),
        ("LF in a value", get_with(&[("x", "a\nb")]), message),
        ("leading space", get_with(&[("x", " a")]), message),
        ("trailing tab", get_with(&[("x", "a\t")]), message),
        ("connection", get_with(&[("connection", "close")]), message),
        ("keep-alive", get_with(&[("keep-alive", "5")]), message),
        (
            "proxy-connection",
            get_with(&[("proxy-connection", "close")]),
            message,
        ),
        (
            "transfer-encoding",
            get_with(&[("transfer-encoding", "chunked")]),
            message,
        ),
        ("upgrade", get_with(&[("upgrade", "h2c")]), message),
        ("te: gzip", get_with(&[("te", "gzip")]), message),
        ("content-length too large", post("4", b"abc"), message),
        ("content-length too small", post("2", b"abc"), message),
        (
            "content-length without a body",
            get_with(&[("content-length", "1")]),
            message,
        ),
        (
            "content-length short before trailers",
            [post("4", b"abc"), headers(&[("x", "1")])].concat(),
            message,
        ),
        (
            "two content-lengths",
            get_with(&[("content-length", "0"), ("content-length", "1")]),
            message,
        ),
        ("a list of content-lengths", post("3, 3", b"abc"), message),
        ("content-length with a sign", post("+3", b"abc"), message),
        (
            "content-length past 64 bits",
            get_with(&[("content-length", "18446744073709551616")]),
            message,
        ),
        (
            "empty content-length",
            get_with(&[("content-length", "")]),
            message,
        ),
        (
            "no headers at all",
            vec![],
            Stream(codes::REQUEST_INCOMPLETE),
        ),
        (
            "only an unknown frame",
            frame(0x21, b"abc"),
            Stream(codes::REQUEST_INCOMPLETE),
        ),
        // Too much of a good thing.
        ("64 MiB of headers announced", vec![1, 0x84, 0, 0, 0], load),
        (
            "decoded past the cap",
            get_with(&[("a", &long), ("b", &long[..6000])]),
            load,
        ),
        (
            "100,000 references",
            frame(1, &[&[0, 0][..], &[0xd1; 60_000]].concat()),
            message,
        ),
        (
            "references after a head",
            {
                let mut many = section(&GET);
                many.extend(std::iter::repeat_n(0xc0 | 29, 3000));
                frame(1, &many)
            },
            load,
        ),
        // Frames where they may not be.
        ("data first", [frame(0, b"a"), get()].concat(), unexpected),
        (
            "data after trailers",
            [get(), headers(&[("x", "1")]), frame(0, b"a")].concat(),
            unexpected,
        ),
        (
            "headers after trailers",
            [get(), headers(&[("x", "1")]), headers(&[("x", "1")])].concat(),
            unexpected,
        ),
        (
            "trailers in a tunnel",
            [
                headers(&[(":method", "CONNECT"), (":authority", "a:1")]),
                headers(&[("x", "1")]),
            ]
            .concat(),
            unexpected,
        ),
        ("CANCEL_PUSH", [get(), frame(3, &[0])].concat(), unexpected),
        ("SETTINGS", [get(), frame(4, &[])].concat(), unexpected),
        ("PUSH_PROMISE", [get(), frame(5, &[0])].concat(), unexpected),
        ("GOAWAY", [get(), frame(7, &[0])].concat(), unexpected),
        (
            "MAX_PUSH_ID",
            [get(), frame(0xd, &[0])].concat(),
            unexpected,
        ),
        ("HTTP/2 PRIORITY", frame(0x2, &[0; 5]), unexpected),
        ("HTTP/2 PING", frame(0x6, &[0; 8]), unexpected),
        ("HTTP/2 WINDOW_UPDATE", frame(0x8, &[0; 4]), unexpected),
        ("HTTP/2 CONTINUATION", frame(0x9, &[]), unexpected),
        (
            "cut in a frame header",
            [get(), vec![0]].concat(),
            Connection(codes::FRAME_ERROR),
        ),
        (
            "cut in data",
            [get(), frame(0, b"abc")[..4].to_vec()].concat(),
            Connection(codes::FRAME_ERROR),
        ),
        (
            "cut in headers",
            get()[..5].to_vec(),
            Connection(codes::FRAME_ERROR),
        ),
        // QPACK.
        ("empty section", frame(1, &[]), qpack),
        ("insert count", frame(1, &[1, 0, 0xd1]), qpack),
        (
            "sign without insert count",
            frame(1, &[0, 0x80, 0xd1]),
            qpack,
        ),
        ("sign and base", frame(1, &[0, 0x85, 0xd1]), qpack),
        ("dynamic index", frame(1, &[0, 0, 0x80]), qpack),
        ("dynamic name", frame(1, &[0, 0, 0x40, 0]), qpack),
        ("post-base index", frame(1, &[0, 0, 0x10]), qpack),
        ("post-base name", frame(1, &[0, 0, 0x00, 0]), qpack),
        ("static index 99", frame(1, &[0, 0, 0xff, 36]), qpack),
        (
            "string past the end",
            frame(1, &[0, 0, 0x50, 9, b'a']),
            qpack,
        ),
        (
            "endless integer",
            frame(1, &[[0, 0, 0xff, 0xff].as_slice(), &[0xff; 12]].concat()),
            qpack,
        ),
        (
            "Huffman end of string",
            frame(1, &[0, 0, 0x50, 0x84, 0xff, 0xff, 0xff, 0xff]),
            qpack,
        ),
    ];
    for (name, bytes, expected) in cases {
        request(name, &bytes, expected).await;
    }
}

/// What becomes of a connection with these streams in one direction.
async fn uni(name: &str, streams: &[&[u8]], ends: bool, expected: Taken) {
    let pair = start().await;
    let mut open = Vec::new();
    for bytes in streams {
        let mut send = pair.client.open_uni().await.unwrap();
        send.write_all(bytes).await.unwrap();
        if ends {
            send.finish().unwrap();
        }
        open.push(send);
    }
    if expected == Taken::Answered {
        let (mut send, mut recv) = pair.client.open_bi().await.unwrap();
        send.write_all(&get_with(&[])).await.unwrap();
        send.finish().unwrap();
        assert_eq!(taken(&pair.client, &mut recv).await, expected, "{name}");
        assert!(pair.client.close_reason().is_none(), "{name}");
        return;
    }
    assert_eq!(closed(&pair.client).await, expected, "{name}");
}

fn control(frames: &[Vec<u8>]) -> Vec<u8> {
    [vec![0], frames.concat()].concat()
}

fn settings(entries: &[(u64, u64)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (id, value) in entries {
        put_varint(&mut payload, *id);
        put_varint(&mut payload, *value);
    }
    frame(4, &payload)
}

#[tokio::test]
async fn control_streams() {
    use Taken::{Answered, Connection};
    let unexpected = Connection(codes::FRAME_UNEXPECTED);
    let bad_settings = Connection(codes::SETTINGS_ERROR);
    let bad_id = Connection(codes::ID_ERROR);
    let with = |more: Vec<u8>| control(&[settings(&[]), more]);
    let many: Vec<(u64, u64)> = (0..100).map(|n| (0x1f * n + 0x21, n)).collect();
    let cases: Vec<(&str, Vec<u8>, Taken)> = vec![
        (
            "many unknown settings",
            control(&[settings(&many)]),
            Answered,
        ),
        (
            "an unknown frame",
            with(frame(0x21, &vec![0; 100_000])),
            Answered,
        ),
        (
            "MAX_PUSH_ID that grows",
            with([frame(0xd, &[1]), frame(0xd, &[2])].concat()),
            Answered,
        ),
        ("an unknown stream", vec![0x21, 1, 2, 3], Answered),
        (
            "no settings first",
            control(&[frame(0xd, &[0])]),
            Connection(codes::MISSING_SETTINGS),
        ),
        (
            "an unknown frame first",
            control(&[frame(0x21, &[])]),
            Connection(codes::MISSING_SETTINGS),
        ),
        ("settings twice", with(settings(&[])), unexpected),
        (
            "the same setting twice",
            control(&[settings(&[(6, 1), (6, 1)])]),
            bad_settings,
        ),
        (
            "an HTTP/2 setting",
            control(&[settings(&[(2, 0)])]),
            bad_settings,
        ),
        (
            "a flag that is 2",
            control(&[settings(&[(0x33, 2)])]),
            bad_settings,
        ),
        (
            "settings cut off",
            control(&[frame(4, &[6])]),
            Connection(codes::FRAME_ERROR),
        ),
        (
            "64 MiB of settings announced",
            vec![0, 4, 0x84, 0, 0, 0],
            Connection(codes::EXCESSIVE_LOAD),
        ),
        ("DATA", with(frame(0, b"a")), unexpected),
        ("HEADERS", with(frame(1, b"a")), unexpected),
        ("PUSH_PROMISE", with(frame(5, b"a")), unexpected),
        ("HTTP/2 PING", with(frame(6, &[0; 8])), unexpected),
        ("CANCEL_PUSH of nothing", with(frame(3, &[0])), bad_id),
        (
            "MAX_PUSH_ID that shrinks",
            with([frame(0xd, &[2]), frame(0xd, &[1])].concat()),
            bad_id,
        ),
        (
            "GOAWAY that grows",
            with([frame(7, &[1]), frame(7, &[2])].concat()),
            bad_id,
        ),
        (
            "GOAWAY with more than an id",
            with(frame(7, &[1, 1])),
            Connection(codes::FRAME_ERROR),
        ),
        (
            "GOAWAY of nothing",
            with(frame(7, &[])),
            Connection(codes::FRAME_ERROR),
        ),
        (
            "a push stream",
            vec![1, 0],
            Connection(codes::STREAM_CREATION_ERROR),
        ),
        ("an empty encoder stream", vec![2], Answered),
        ("capacity zero", vec![2, 0x20], Answered),
        (
            "capacity",
            vec![2, 0x3f, 0x01],
            Connection(codes::QPACK_ENCODER_STREAM_ERROR),
        ),
        (
            "an insertion",
            vec![2, 0xc0, 0],
            Connection(codes::QPACK_ENCODER_STREAM_ERROR),
        ),
        (
            "a stream cancelled",
            vec![3, 0x44, 0x7f, 0x81, 0x01],
            Answered,
        ),
        (
            "an acknowledgement",
            vec![3, 0x84],
            Connection(codes::QPACK_DECODER_STREAM_ERROR),
        ),
        (
            "an increment",
            vec![3, 0x01],
            Connection(codes::QPACK_DECODER_STREAM_ERROR),
        ),
    ];
    for (name, bytes, expected) in cases {
        uni(name, &[&bytes], false, expected).await;
    }
    let creation = Connection(codes::STREAM_CREATION_ERROR);
    uni(
        "two control streams",
        &[&with(vec![]), &with(vec![])],
        false,
        creation,
    )
    .await;
    uni("two encoder streams", &[&[2], &[2]], false, creation).await;
    let critical = Connection(codes::CLOSED_CRITICAL_STREAM);
    uni(
        "a control stream that ends",
        &[&with(vec![])],
        true,
        critical,
    )
    .await;
    uni("an encoder stream that ends", &[&[2]], true, critical).await;
    uni(
        "a frame cut off",
        &[&with(vec![7])],
        true,
        Connection(codes::FRAME_ERROR),
    )
    .await;
    uni("streams that end unnamed", &[&[0x40]], true, Answered).await;
}

/// What the client makes of an answer sent by hand, and of its body.
async fn answer(
    name: &str,
    bytes: Vec<u8>,
    method: &str,
) -> Result<Result<(), RecvError>, RequestErrorKind> {
    let pair = pair().await;
    let requester = requester(&pair).await;
    let server = pair.server.clone();
    tokio::spawn(async move {
        let (mut send, mut recv) = server.accept_bi().await.unwrap();
        let _stopped = send.write_all(&bytes).await;
        let _stopped = send.finish();
        while let Ok(Some(_)) = recv.read_chunk(1000, true).await {}
        server.closed().await;
    });
    let request = http::Request::builder().method(method).uri("https://a/");
    let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
    let response = soon(requester.request(request)).await.map_err(|error| {
        assert!(!error.is_unsent(), "{name}");
        error.kind()
    })?;
    Ok(soon(response.into_body().collect()).await.map(|_whole| ()))
}

#[tokio::test]
async fn answers() {
    let ok = || headers(&[(":status", "200")]);
    let sized = |status: &str| headers(&[(":status", status), ("content-length", "3")]);
    let interim = || headers(&[(":status", "103"), ("link", "x")]);
    let good = [
        ("plain", "GET", ok()),
        (
            "interim answers",
            "GET",
            [interim(), interim(), ok()].concat(),
        ),
        (
            "an unknown frame first",
            "GET",
            [frame(0x21, b"x"), ok(), frame(0, b"abc")].concat(),
        ),
        ("sized", "GET", [sized("200"), frame(0, b"abc")].concat()),
        ("HEAD", "HEAD", sized("200")),
        ("304", "GET", sized("304")),
    ];
    for (name, method, bytes) in good {
        assert!(
            matches!(answer(name, bytes, method).await, Ok(Ok(()))),
            "{name}"
        );
    }
    let cut = [
        ("short", "GET", [sized("200"), frame(0, b"ab")].concat()),
        ("long", "GET", [sized("200"), frame(0, b"abcd")].concat()),
        (
            "body for HEAD",
            "HEAD",
            [sized("200"), frame(0, b"abc")].concat(),
        ),
        (
            "body for 204",
            "GET",
            [headers(&[(":status", "204")]), frame(0, b"abc")].concat(),
        ),
        (
            "pseudo-header in trailers",
            "GET",
            [ok(), headers(&[(":status", "200")])].concat(),
        ),
    ];
    for (name, method, bytes) in cut {
        let taken = answer(name, bytes, method).await;
        assert!(
            matches!(taken, Ok(Err(RecvError::Malformed(_)))),
            "{name}: {taken:?}"
        );
    }
    let refused = [
        ("nothing", vec![]),
        ("interim alone", interim()),
        ("101", headers(&[(":status", "101")])),
        ("no status", headers(&[("x", "1")])),
        (
            "status twice",
            headers(&[(":status", "200"), (":status", "200")]),
        ),
        ("odd status", headers(&[(":status", "20")])),
        ("a request", get_with(&[])),
        (
            "connection",
            headers(&[(":status", "200"), ("connection", "close")]),
        ),
        (
            "interim answers without end",
            [interim().repeat(20), ok()].concat(),
        ),
    ];
    for (name, bytes) in refused {
        assert_eq!(
            answer(name, bytes, "GET").await.unwrap_err(),
            RequestErrorKind::Malformed,
            "{name}"
        );
    }
    let large = answer("64 MiB of headers announced", vec![1, 0x84, 0, 0, 0], "GET").await;
    assert_eq!(large.unwrap_err(), RequestErrorKind::TooLarge);
    let lost = [
        ("PUSH_PROMISE", frame(5, &[0])),
        ("SETTINGS", frame(4, &[])),
        ("DATA first", frame(0, b"a")),
    ];
    for (name, bytes) in lost {
        assert_eq!(
            answer(name, bytes, "GET").await.unwrap_err(),
            RequestErrorKind::ConnectionLost,
            "{name}"
        );
    }
}

#[tokio::test]
async fn streams_opened_to_be_given_up_end_the_connection() {
    let pair = start().await;
    let head = &get_with(&[])[..];
    for _ in 0..100_000 {
        let Ok((mut send, mut recv)) = soon(pair.client.open_bi()).await else {
            break;
        };
        let _closed = send.write_all(head).await;
        let _closed = send.reset(quinn::VarInt::from_u32(0x10c));
        let _closed = recv.stop(quinn::VarInt::from_u32(0x10c));
        tokio::task::yield_now().await;
    }
    assert_eq!(
        closed(&pair.client).await,
        Taken::Connection(codes::EXCESSIVE_LOAD)
    );
}

const CONNECT: (&str, &str) = (":method", "CONNECT");
