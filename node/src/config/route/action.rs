//! What a rule does: one of forwarding, redirecting and answering, and what goes with it.

mod edits;
mod paths;

use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, StatusCode};
use toml::Spanned;

use super::{raw, share};
use crate::config::calls::{CallOverrides, Tables};
use crate::config::check::Checker;
use crate::config::keys::shown;
use crate::route::action::{Action, Fault, Forward, Mirror, Outcome, Redirect, Respond, Rewrite};
use crate::route::matcher::Match;
use crate::route::split::{Share, Split, Sticky, Subset};

pub(super) fn check(raw: &raw::Rule, matches: &Match, checker: &mut Checker<'_>) -> Action {
    refuse_contradictions(raw, checker);
    let outcome = if let Some(redirect) = &raw.redirect {
        Outcome::Redirect(check_redirect(redirect, matches, checker))
    } else if let Some(respond) = &raw.respond {
        Outcome::Respond(check_respond(respond, checker))
    } else {
        Outcome::Forward(check_forward(raw, matches, checker))
    };
    Action {
        outcome,
        response_headers: edits::check(&raw.response_headers, checker),
        fault: raw.fault.as_ref().map(|fault| check_fault(fault, checker)),
        body_bytes_max: raw
            .body_bytes
            .as_ref()
            .and_then(|bytes| checker.number("body_bytes", bytes, 0..=BODY_BYTES_MAX)),
        calls: CallOverrides::check(&calls(raw), checker),
    }
}

fn calls(raw: &raw::Rule) -> Tables<'_> {
    Tables {
        balance: raw.balance.as_ref(),
        retry: raw.retry.as_ref(),
        timeout: raw.timeout.as_ref(),
        limits: raw.limits.as_ref(),
        outlier: raw.outlier.as_ref(),
    }
}

/// A rule that answers sends nothing on, so it cannot say how.
fn refuse_contradictions(raw: &raw::Rule, checker: &mut Checker<'_>) {
    let answers = [
        ("redirect", raw.redirect.as_ref().map(Spanned::span)),
        ("respond", raw.respond.as_ref().map(Spanned::span)),
    ];
    let forwards = [
        ("to", raw.to.as_ref().map(Spanned::span)),
        ("split", raw.split.as_ref().map(Spanned::span)),
        ("rewrite", raw.rewrite.as_ref().map(Spanned::span)),
        (
            "request_headers",
            raw.request_headers.as_ref().map(Spanned::span),
        ),
        ("mirror", raw.mirror.as_ref().map(Spanned::span)),
        ("body_bytes", raw.body_bytes.as_ref().map(Spanned::span)),
        ("balance", raw.balance.as_ref().map(Spanned::span)),
        ("retry", raw.retry.as_ref().map(Spanned::span)),
        ("timeout", raw.timeout.as_ref().map(Spanned::span)),
        ("limits", raw.limits.as_ref().map(Spanned::span)),
        ("outlier", raw.outlier.as_ref().map(Spanned::span)),
    ];
    let mut given = answers.iter().filter(|(_, span)| span.is_some());
    let Some((answer, _)) = given.next() else {
        return;
    };
    for (key, span) in given.chain(&forwards) {
        if let Some(span) = span {
            let what = format!("`{key}` says nothing where `{answer}` answers the call");
            checker.problem(
                span.clone(),
                what,
                "a rule either answers calls or sends them on",
            );
        }
    }
}

fn check_forward(raw: &raw::Rule, matches: &Match, checker: &mut Checker<'_>) -> Forward {
    let mut split = match (&raw.to, &raw.split) {
        (None, None) => Split::all_to(Subset::default()),
        (Some(to), None) => Split::all_to(share::check_subset(to, checker)),
        (None, Some(split)) => share::check_split(split, checker),
        (Some(to), Some(_)) => {
            let what = "`to` and `split` both say where calls go";
            checker.problem(to.span(), what, "keep one of them");
            Split::all_to(Subset::default())
        }
    };
    if let Some(sticky) = &raw.sticky {
        split.sticky = check_sticky(sticky, checker);
        if raw.split.is_none() {
            let what = "`sticky` says nothing without a `split`";
            checker.problem(sticky.span(), what, "one subset is always the same");
        }
    }
    Forward {
        split,
        rewrite: check_rewrite(raw, matches, checker),
        request_headers: edits::check(&raw.request_headers, checker),
        mirror: raw
            .mirror
            .as_ref()
            .map(|mirror| check_mirror(mirror, checker)),
    }
}

fn check_sticky(raw: &Spanned<raw::Sticky>, checker: &mut Checker<'_>) -> Option<Sticky> {
    match (&raw.get_ref().header, &raw.get_ref().cookie) {
        (Some(header), None) => edits::check_name(header, checker).map(Sticky::Header),
        (None, Some(cookie)) => {
            let text = cookie.get_ref();
            // RFC 6265 §4.1.1: a token.
            let is_token = !text.is_empty()
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
            if !is_token {
                let what = format!("`{}` is not the name of a cookie", shown(text));
                checker.problem(
                    cookie.span(),
                    what,
                    "as in `sticky = { cookie = \"session\" }`",
                );
            }
            Some(Sticky::Cookie(text.clone()))
        }
        _ => {
            let what = "`sticky` names not one thing that tells users apart";
            let hint = "`{ cookie = \"session\" }` or `{ header = \"x-user\" }`";
            checker.problem(raw.span(), what, hint);
            None
        }
    }
}

fn check_rewrite(raw: &raw::Rule, matches: &Match, checker: &mut Checker<'_>) -> Rewrite {
    let Some(rewrite) = &raw.rewrite else {
        return Rewrite::default();
    };
    let span = rewrite.span();
    let raw = rewrite.get_ref();
    if raw.path.is_none() && raw.prefix.is_none() && raw.host.is_none() {
        let hint = "`path` or `prefix`, `host`, or both";
        checker.problem(span.clone(), "`rewrite` changes nothing", hint);
    }
    Rewrite {
        path: paths::check(&raw.path, &raw.prefix, matches, &span, checker),
        host: raw.host.as_ref().and_then(|host| check_host(host, checker)),
    }
}

fn check_redirect(
    raw: &Spanned<raw::Redirect>,
    matches: &Match,
    checker: &mut Checker<'_>,
) -> Redirect {
    let span = raw.span();
    let raw = raw.get_ref();
    let path = paths::check(&raw.path, &raw.prefix, matches, &span, checker);
    let schemes = [("http", Scheme::HTTP), ("https", Scheme::HTTPS)];
    let scheme = raw.scheme.as_ref().and_then(|word| {
        let names = [("http", 0), ("https", 1)];
        let chosen = checker.choice("scheme", word, &names)?;
        Some(schemes[chosen].1.clone())
    });
    let host = raw.host.as_ref().and_then(|host| check_host(host, checker));
    if raw.path.is_none() && raw.prefix.is_none() && raw.host.is_none() && raw.scheme.is_none() {
        let what = "`redirect` leads back to where it came from";
        checker.problem(span, what, "name a `path`, `prefix`, `host` or `scheme`");
    }
    let status = raw.status.as_ref().and_then(|status| {
        let number = checker.number("status", status, 301..=308_u16)?;
        if matches!(number, 301..=303 | 307 | 308) {
            return StatusCode::from_u16(number).ok();
        }
        let what = format!("{number} does not redirect");
        checker.problem(
            status.span(),
            what,
            "307 or 308 keep the method, 301 to 303 may not",
        );
        None
    });
    Redirect {
        status: status.unwrap_or(StatusCode::TEMPORARY_REDIRECT),
        scheme,
        host,
        path,
    }
}

fn check_respond(raw: &Spanned<raw::Respond>, checker: &mut Checker<'_>) -> Respond {
    let span = raw.span();
    let raw = raw.get_ref();
    let status = checker.required(raw.status.as_ref(), &span, "status", "as in `status = 503`");
    let status = status.and_then(|status| checker.number("status", status, 200..=599_u16));
    let status = status
        .and_then(|status| StatusCode::from_u16(status).ok())
        .unwrap_or_default();
    let body = raw.body.as_ref().map(|body| {
        if body.get_ref().len() > RESPONSE_BYTES_MAX {
            let what = format!("`body` is longer than {RESPONSE_BYTES_MAX} bytes");
            checker.problem(body.span(), what, "serve it from an app");
        }
        if matches!(status.as_u16(), 204 | 205 | 304) {
            let what = format!("an answer with status {} has no body", status.as_u16());
            checker.problem(body.span(), what, "leave `body` out");
        }
        Bytes::from(body.get_ref().clone())
    });
    let content_type = raw
        .content_type
        .as_ref()
        .and_then(|value| edits::check_value(value, checker));
    Respond {
        status,
        body: body.unwrap_or_default(),
        content_type: content_type
            .unwrap_or_else(|| HeaderValue::from_static("text/plain; charset=utf-8")),
    }
}

fn check_mirror(raw: &Spanned<raw::Mirror>, checker: &mut Checker<'_>) -> Mirror {
    let span = raw.span();
    let raw = raw.get_ref();
    if raw.service.is_none() && raw.to.is_none() {
        let what = "`mirror` does not say where copies go";
        checker.problem(
            span,
            what,
            "`to = { version = \"v2\" }`, `service = \"orders-next\"`, or both",
        );
    }
    Mirror {
        service: raw
            .service
            .as_ref()
            .and_then(|name| checker.service_name(name)),
        to: raw
            .to
            .as_ref()
            .map(|to| share::check_subset(to, checker))
            .unwrap_or_default(),
        share: percent("percent", &raw.percent, checker),
        with_credentials: raw.credentials.unwrap_or(false),
    }
}

fn check_fault(raw: &Spanned<raw::Fault>, checker: &mut Checker<'_>) -> Fault {
    let span = raw.span();
    let raw = raw.get_ref();
    if raw.delay.is_none() && raw.abort.is_none() {
        let hint = "`{ delay = \"200ms\" }`, `{ abort = 503 }`, or both";
        checker.problem(span, "`fault` does no harm", hint);
    }
    for (of, is_there, share) in [
        ("delay", raw.delay.is_some(), &raw.delay_percent),
        ("abort", raw.abort.is_some(), &raw.abort_percent),
    ] {
        if let (Some(share), false) = (share, is_there) {
            let what = format!("`{of}_percent` says nothing without `{of}`");
            checker.problem(share.span(), what, "");
        }
    }
    let delay = raw
        .delay
        .as_ref()
        .and_then(|delay| checker.duration("delay", delay, Duration::from_millis(1)..=DELAY_MAX));
    let abort = raw.abort.as_ref().and_then(|status| {
        let status = checker.number("abort", status, 400..=599_u16)?;
        StatusCode::from_u16(status).ok()
    });
    Fault {
        delay: delay.map(|delay| (delay, percent("delay_percent", &raw.delay_percent, checker))),
        abort: abort.map(|abort| (abort, percent("abort_percent", &raw.abort_percent, checker))),
    }
}

/// All of it unless told otherwise.
fn percent(key: &str, raw: &Option<Spanned<raw::Percent>>, checker: &mut Checker<'_>) -> Share {
    raw.as_ref()
        .map_or(Share::WHOLE, |raw| share::check(key, raw, checker))
}

fn check_host(host: &Spanned<String>, checker: &mut Checker<'_>) -> Option<Authority> {
    let text = host.get_ref();
    let parsed = Authority::try_from(text.as_str()).ok();
    let parsed = parsed.filter(|authority| {
        !authority.host().is_empty() && !text.contains('@') && *text == text.to_ascii_lowercase()
    });
    if parsed.is_none() {
        let what = format!("`{}` is not a host", shown(text));
        checker.problem(
            host.span(),
            what,
            "lower case, with a port or none, as in \"orders.example.org\"",
        );
    }
    parsed
}

const BODY_BYTES_MAX: u64 = 1 << 40;
const RESPONSE_BYTES_MAX: usize = 16 * 1024;
/// Longer than any caller waits.
const DELAY_MAX: Duration = Duration::from_secs(300);
