//! Header fields that a rule changes.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, HeaderValue};
use toml::Spanned;

use super::raw;
use crate::config::check::Checker;
use crate::config::keys::shown;
use crate::headers;
use crate::route::action::Edits;

pub(super) fn check(raw: &Option<Spanned<raw::Edits>>, checker: &mut Checker<'_>) -> Edits {
    let Some(raw) = raw else {
        return Edits::default();
    };
    let (span, raw) = (raw.span(), raw.get_ref());
    let remove: Vec<_> = raw.remove.iter().flatten().collect();
    let named = |fields: &Option<std::collections::BTreeMap<_, _>>| {
        fields.as_ref().map_or(0, |fields| fields.len())
    };
    let edits = remove.len() + named(&raw.set) + named(&raw.add);
    if edits == 0 || edits > EDITS_MAX {
        let what = format!("{edits} changes to header fields");
        let hint = format!("1 to {EDITS_MAX} of `set`, `add` and `remove`");
        checker.problem(span, what, &hint);
    }
    let mut fields =
        |fields: &Option<std::collections::BTreeMap<Spanned<String>, Spanned<String>>>| {
            fields
                .iter()
                .flatten()
                .filter_map(|(name, value)| {
                    let name = check_name(name, checker);
                    let value = check_value(value, checker);
                    Some((name?, value?))
                })
                .collect()
        };
    Edits {
        set: fields(&raw.set),
        add: fields(&raw.add),
        remove: remove
            .into_iter()
            .filter_map(|name| check_name(name, checker))
            .collect(),
    }
}

/// A field that rules may look at and change: not one that frames messages, nor one that only agents write.
pub(super) fn check_name(name: &Spanned<String>, checker: &mut Checker<'_>) -> Option<HeaderName> {
    let text = name.get_ref();
    let Ok(parsed) = HeaderName::from_bytes(text.as_bytes()) else {
        let what = format!("`{}` is not the name of a header field", shown(text));
        checker.problem(name.span(), what, "");
        return None;
    };
    let hint = match &parsed {
        name if *name == HOST => "what the app is asked for is `rewrite = { host = \"…\" }`",
        name if FRAMING.contains(name) || name == "keep-alive" || name == "proxy-connection" => {
            "it belongs to one connection, not to the request"
        }
        name if headers::is_claim(name) => "it says who calls, which only agents do",
        name if name == "traceparent" || name == "tracestate" => "traces go through unchanged",
        _ => return Some(parsed),
    };
    checker.problem(
        name.span(),
        format!("no rule can use the field `{parsed}`"),
        hint,
    );
    None
}

pub(super) fn check_value(
    value: &Spanned<String>,
    checker: &mut Checker<'_>,
) -> Option<HeaderValue> {
    let parsed = HeaderValue::from_str(value.get_ref()).ok();
    if parsed.is_none() {
        let what = format!(
            "`{}` cannot be the value of a header field",
            shown(value.get_ref())
        );
        checker.problem(value.span(), what, "visible ASCII and spaces");
    }
    parsed
}

const FRAMING: [HeaderName; 6] = [
    CONNECTION,
    CONTENT_LENGTH,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Each costs every call; a hundred are a mistake.
const EDITS_MAX: usize = 32;
