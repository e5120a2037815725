use proptest::collection::vec;
use proptest::prelude::*;

use super::frame::varint;
use super::*;
use crate::h3::testing::{get_with, headers};

/// Frames as a peer may put them together, with more of the good ones than chance would bring.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![
        Just(0u64),
        Just(1),
        Just(4),
        Just(7),
        Just(0xd),
        Just(0x21),
        0u64..0x50
    ];
    let any_frame = (kind, vec(any::<u8>(), 0..40))
        .prop_map(|(kind, payload)| crate::h3::testing::frame(kind, &payload));
    let frame = prop_oneof![
        any_frame,
        Just(get_with(&[])),
        Just(get_with(&[("content-length", "3")])),
        Just(headers(&[(":status", "200"), ("content-length", "3")])),
        Just(headers(&[(":status", "103")])),
        Just(headers(&[("x", "1")])),
        Just(crate::h3::testing::frame(0, b"abc")),
        vec(any::<u8>(), 0..4),
    ];
    vec(frame, 0..6).prop_map(|frames| frames.concat())
}

proptest! {
    #[test]
    fn any_bytes_any_cut_one_verdict(bytes in vec(any::<u8>(), 0..300)) {
        check_bytes(&bytes);
    }

    #[test]
    fn any_frames_any_cut_one_verdict(cut in 1u8..60, stream in stream()) {
        check_bytes(&[&[cut], stream.as_slice()].concat());
    }

    #[test]
    fn varints_come_back(value in 0u64..1 << 62) {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, value);
        prop_assert_eq!(varint(&bytes), Some((value, bytes.len())));
        prop_assert_eq!(varint(&bytes[..bytes.len() - 1]), None);
    }

    #[test]
    fn content_passes_unchanged(contents in vec(vec(any::<u8>(), 0..50), 0..8), cut in 1usize..70) {
        let mut stream = get_with(&[]);
        for content in &contents {
            stream.extend(crate::h3::testing::frame(0, content));
        }
        let mut guard = MessageGuard::request(1024);
        let mut passed = Vec::new();
        for chunk in stream.chunks(cut) {
            let mut chunk = Bytes::copy_from_slice(chunk);
            while !chunk.is_empty() {
                if let Some(Piece::Data { bytes, payload_at }) = guard.next(&mut chunk).unwrap() {
                    passed.extend_from_slice(&bytes[payload_at..]);
                }
            }
        }
        prop_assert_eq!(guard.finish(), Ok(()));
        prop_assert_eq!(passed, contents.concat());
    }

    #[test]
    fn qpack_streams_never_panic(bytes in vec(any::<u8>(), 0..50)) {
        let _verdict = QpackGuard::encoder().check(&bytes);
        let (mut whole, mut parts) = (QpackGuard::decoder(), QpackGuard::decoder());
        let by_one = bytes.iter().try_for_each(|byte| parts.check(&[*byte]));
        prop_assert_eq!(whole.check(&bytes), by_one);
    }
}

#[test]
fn announced_sizes_cost_nothing() {
    // 2^62 - 1 bytes of HEADERS, of an unknown frame, of DATA.
    let huge = [0xff; 8];
    let mut guard = MessageGuard::request(64 * 1024);
    let mut chunk = Bytes::from([&[1], huge.as_slice()].concat());
    assert_eq!(
        guard.next(&mut chunk).unwrap_err().reason,
        Reason::HeaderBytes
    );

    let mut guard = MessageGuard::request(64 * 1024);
    let mut chunk = Bytes::from([&[0x21], huge.as_slice(), &[0; 1000]].concat());
    assert_eq!(guard.next(&mut chunk), Ok(None));

    let mut guard = MessageGuard::request(64 * 1024);
    let mut chunk = Bytes::from([get_with(&[]).as_slice(), &[0], &huge, b"abc"].concat());
    assert!(matches!(
        guard.next(&mut chunk),
        Ok(Some(Piece::Headers(_)))
    ));
    let data = guard.next(&mut chunk).unwrap().unwrap();
    assert_eq!(
        data,
        Piece::Data {
            bytes: Bytes::from([&[0], huge.as_slice(), b"abc"].concat()),
            payload_at: 9
        }
    );
}

#[test]
fn labels_are_distinct() {
    use Reason::*;
    let all = [
        FrameUnexpected,
        FrameMalformed,
        HeaderBytes,
        Qpack,
        PseudoHeader,
        Field,
        ConnectionField,
        ContentLength,
        Incomplete,
        Interim,
        Settings,
        StreamKind,
        Identifier,
        CriticalStream,
        QpackStream,
        Churn,
    ];
    let labels: std::collections::BTreeSet<_> = all.iter().map(|reason| reason.label()).collect();
    assert_eq!(labels.len(), all.len());
}
