//! Percent-encoding of query values (RFC 3986 §2.1), as our own commands write and read them.

/// All but letters and digits encoded.
pub(crate) fn encoded(text: &str) -> String {
    text.bytes().map(byte).collect()
}

/// None if it is not properly encoded UTF-8.
pub(crate) fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let (pair, rest) = (part.get(..2)?, part.get(2..)?);
        bytes.push(u8::from_str_radix(pair, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

fn byte(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    }
}
