//! Query parameters, as HTML forms write them.

/// The values of all parameters called `name`, decoded. A parameter without `=` has the empty value.
pub(super) fn values(query: &str, name: &str) -> Vec<Vec<u8>> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .filter_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(key) == name.as_bytes()).then(|| decoded(value))
        })
        .take(VALUES_MAX)
        .collect()
}

/// `+` is a space and `%41` an `A`; what is no escape stands for itself.
fn decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%')
            .then(|| hex(bytes.get(at + 1..at + 3)?))
            .flatten();
        out.push(match (byte, escaped) {
            (_, Some(escaped)) => escaped,
            (b'+', None) => b' ',
            (byte, None) => byte,
        });
        at += if escaped.is_some() { 3 } else { 1 };
    }
    out
}

fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()
}

/// More of one name is an attack; a query is bounded by `limits.header_bytes` as a whole.
const VALUES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_kept_apart() {
        for (query, name, expected) in [
            ("v=2", "v", &["2"][..]),
            ("v=2&v=3", "v", &["2", "3"]),
            ("a=1&v=2&b=3", "v", &["2"]),
            ("v", "v", &[""]),
            ("v=", "v", &[""]),
            ("", "v", &[]),
            ("&&", "", &[]),
            ("V=2", "v", &[]),
            ("vv=2", "v", &[]),
            ("%76=2", "v", &["2"]),
            ("v=a+b%20c", "v", &["a b c"]),
            ("v=1=2", "v", &["1=2"]),
            ("v=%", "v", &["%"]),
            ("v=%4", "v", &["%4"]),
            ("v=%zz", "v", &["%zz"]),
            ("v=%26", "v", &["&"]),
            ("v=1;w=2", "w", &[]),
        ] {
            let found = values(query, name);
            let found: Vec<_> = found
                .iter()
                .map(|value| str::from_utf8(value).unwrap())
                .collect();
            assert_eq!(found, expected, "{query} {name}");
        }
    }
}
