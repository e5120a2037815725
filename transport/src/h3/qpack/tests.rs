use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

fn decoded(section: &[u8], bytes_max: usize) -> Result<Fields, QpackError> {
    let mut fields = Vec::new();
    decode(section, bytes_max, |name, value| {
        fields.push((name.to_vec(), value.to_vec()));
        Ok::<_, QpackError>(())
    })?;
    Ok(fields)
}

fn unhuffman(encoded: &[u8]) -> Result<Vec<u8>, QpackError> {
    let mut out = Vec::new();
    huffman::decode(encoded, 1000, &mut out)?;
    Ok(out)
}

fn check(encoded: &str, text: &str) {
    let bytes: Vec<u8> = (0..encoded.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&encoded[at..at + 2], 16).unwrap())
        .collect();
    assert_eq!(unhuffman(&bytes).unwrap(), text.as_bytes());
}

/// The examples of RFC 7541 Appendix C.
#[test]
fn huffman_examples() {
    check("f1e3c2e5f23a6ba0ab90f4ff", "www.example.com");
    check("a8eb10649cbf", "no-cache");
    check("25a849e95ba97d7f", "custom-key");
    check("25a849e95bb8e8b4bf", "custom-value");
    check("6402", "302");
    check(
        "d07abe941054d444a8200595040b8166e082a62d1bff",
        "Mon, 21 Oct 2013 20:13:21 GMT",
    );
    check(
        "9d29ad171863c78f0b97c8e9ae82ae43d3",
        "https://www.example.com",
    );
}

#[test]
fn huffman_padding() {
    assert_eq!(unhuffman(&[]), Ok(vec![]));
    assert_eq!(unhuffman(&[0b0001_1111]), Ok(b"a".to_vec()));
    assert_eq!(
        unhuffman(&[0b0001_1110]),
        Err(QpackError::Invalid),
        "padding of other than ones"
    );
    assert_eq!(
        unhuffman(&[0b0001_1111, 0xff]),
        Err(QpackError::Invalid),
        "a whole byte of padding"
    );
    assert_eq!(
        unhuffman(&[0xff; 4]),
        Err(QpackError::Invalid),
        "end of string"
    );
}

/// RFC 9204 Appendix B.1.
#[test]
fn a_literal_with_a_static_name() {
    let section = b"\x00\x00\x51\x0b/index.html";
    assert_eq!(
        decoded(section, 1000),
        Ok(vec![(b":path".to_vec(), b"/index.html".to_vec())])
    );
}

#[test]
fn references_to_the_static_table() {
    let field = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    let section = [0, 0, 0xc0 | 17, 0xff, 35, 0xc0 | 25];
    let expected = vec![
        field(":method", "GET"),
        field("x-frame-options", "sameorigin"),
        field(":status", "200"),
    ];
    assert_eq!(decoded(&section, 1000), Ok(expected));
}

#[test]
fn size_is_counted_as_decoded() {
    // ":method: GET" is 42 of these bytes.
    let section = [&[0, 0][..], &[0xd1; 10]].concat();
    assert!(decoded(&section, 420).is_ok());
    assert_eq!(decoded(&section, 419), Err(QpackError::TooLarge));
    // Huffman: 5 bits for each 'a'.
    let literal = [
        &[0, 0, 0x50, 0x80 | 10][..],
        &[
            0b0001_1000,
            0b1100_0110,
            0b0011_0001,
            0b1000_1100,
            0b0110_0011,
        ]
        .repeat(2),
    ]
    .concat();
    assert_eq!(decoded(&literal, 10 + 16 + 32).unwrap()[0].1, [b'a'; 16]);
    assert_eq!(decoded(&literal, 10 + 16 + 31), Err(QpackError::TooLarge));
    assert_eq!(decoded(&literal, 15), Err(QpackError::TooLarge));
}

#[test]
fn a_connect_reads_back() {
    let mut fields = HeaderMap::new();
    fields.append("x", "1".parse().unwrap());
    fields.append("x", "2".repeat(300).parse().unwrap());
    let all = decoded(&encode_connect("orders:80", &fields), 1000).unwrap();
    assert_eq!(all[0], (b":method".to_vec(), b"CONNECT".to_vec()));
    assert_eq!(all[1], (b":authority".to_vec(), b"orders:80".to_vec()));
    assert_eq!((all[2].1.len(), all[3].1.len()), (1, 300));
}

/// A field line of any kind, its strings with and without Huffman codes.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let string = (any::<bool>(), vec(b' '..b'~', 0..40));
    let put = |out: &mut Vec<u8>, flags: u8, prefix: u32, (is_coded, text): (bool, Vec<u8>)| {
        if is_coded {
            let coded = huffman::encode(&text);
            put_integer(out, flags | 1 << prefix, prefix, coded.len() as u64);
            out.extend(coded);
        } else {
            put_string(out, flags, prefix, &text);
        }
    };
    (0u8..3, 0u64..STATIC.len() as u64, string.clone(), string).prop_map(
        move |(kind, index, name, value)| {
            let mut line = Vec::new();
            match kind {
                0 => put_integer(&mut line, 0b1100_0000, 6, index),
                1 => {
                    put_integer(&mut line, 0b0101_0000, 4, index);
                    put(&mut line, 0, 7, value);
                }
                _ => {
                    put(&mut line, LITERAL_NAME, 3, name);
                    put(&mut line, 0, 7, value);
                }
            }
            line
        },
    )
}

proptest! {
    #[test]
    fn never_panics_and_never_exceeds(section in vec(any::<u8>(), 0..200), bytes_max in 0usize..500) {
        if let Ok(fields) = decoded(&section, bytes_max) {
            let size: usize = fields.iter().map(|(name, value)| name.len() + value.len() + FIELD_OVERHEAD).sum();
            prop_assert!(size <= bytes_max);
        }
    }

    #[test]
    fn literals_come_back(fields in vec((vec(any::<u8>(), 0..200), vec(any::<u8>(), 0..200)), 0..8)) {
        let mut section = vec![0, 0];
        for (name, value) in &fields {
            put_integer(&mut section, 0b0010_0000, 3, name.len() as u64);
            section.extend(name);
            put_integer(&mut section, 0, 7, value.len() as u64);
            section.extend(value);
        }
        prop_assert_eq!(decoded(&section, 10_000), Ok(fields));
    }

    #[test]
    fn a_plain_section_says_the_same(lines in vec(line(), 0..8), end in vec(any::<u8>(), 0..3)) {
        let section = [&[0, 0], lines.concat().as_slice(), &end].concat();
        let nothing = |_: &[u8], _: &[u8]| Ok::<_, QpackError>(());
        if let Ok(plain) = decode(&section, 10_000, nothing) {
            prop_assert_eq!(decoded(&plain, 10_000), decoded(&section, 10_000));
            prop_assert_eq!(decode(&plain, 10_000, nothing), Ok(plain));
        }
    }

    #[test]
    fn huffman_comes_back(text in vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(unhuffman(&huffman::encode(&text)), Ok(text));
    }

    #[test]
    fn integers_come_back(prefix in 3u32..8, value in 0u64..1 << 62) {
        let mut bytes = Vec::new();
        put_integer(&mut bytes, 0, prefix, value);
        prop_assert_eq!(Input(&bytes).integer(prefix), Ok((0, value)));
    }
}
