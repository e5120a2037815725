//! The body of a document of kind `revocation`.

use std::ops::Range;
use std::path::Path;
use std::time::SystemTime;

use serde::Deserialize;
use starling_gossip::NodeName;
use starling_transport::{KeyHashError, LineNameError, Revoked, SpiffeId};
use time::{Date, Month, PrimitiveDateTime, Time, UtcOffset};
use toml::Spanned;
use toml::de::DeTable;
use toml::value::{Datetime, Offset};

use super::check::Checker;
use super::keys;
use super::problems::Problems;
use super::raw::revocation as raw;
use crate::revocation::{Entry, What};

/// Reads the body of a document; `file` only serves messages. A document that revokes nothing is refused: it would be a
/// mistake, and `starling delete` says it better.
pub fn parse(file: &Path, text: &str) -> Result<Vec<Entry>, Problems> {
    let mut checker = Checker::new(file, text);
    let parsed = DeTable::parse(text).and_then(|mut table| {
        keys::remove_unknown_in_revocation(table.get_mut(), &mut checker);
        raw::Document::deserialize(toml::de::Deserializer::from(table))
    });
    let mut entries = Vec::new();
    match &parsed {
        Ok(raw) => {
            let tables = raw.revoked.as_deref().unwrap_or_default();
            if tables.is_empty() {
                let hint = "say whom in a table [[revoked]]; to take a revocation back, delete its document";
                checker.problem(0..0, "nothing is revoked", hint);
            }
            entries.extend(tables.iter().filter_map(|table| entry(table, &mut checker)));
        }
        Err(error) => checker.refuse(error),
    }
    checker.finish().or(|| entries)
}

fn entry(table: &Spanned<raw::Revoked>, checker: &mut Checker<'_>) -> Option<Entry> {
    let (span, raw) = (table.span(), table.get_ref());
    Some(Entry {
        what: what(&span, raw, checker)?,
        reason: raw.reason.as_ref().map(|reason| reason.get_ref().clone()),
    })
}

fn what(span: &Range<usize>, raw: &raw::Revoked, checker: &mut Checker<'_>) -> Option<What> {
    if let Some(key) = &raw.public_key {
        return public_key(span, raw, key, checker);
    }
    if let Some(not_after) = &raw.not_after {
        let what = "only a `public_key` has an end";
        let hint = "remove `not_after`: a certificate can be renewed for ever, so its revocation does not end by date";
        checker.problem(not_after.span(), what, hint);
    }
    if let Some(line) = &raw.line {
        alone(
            span,
            raw,
            [&raw.host, &raw.issuer],
            ("line", "`line` and `identity`"),
            checker,
        );
        let hint = "whose line it is, as in spiffe://example.org/svc/orders";
        let id = checker.required(raw.identity.as_ref(), span, "identity", hint);
        let id = id.and_then(|id| identity(id, checker));
        let name = line.get_ref().parse().map_err(|error: LineNameError| {
            let what = format!("`line` cannot be read: {error}");
            checker.problem(line.span(), what, "as `starling status --json` shows it");
        });
        return Some(What::Line(name.ok()?, id?));
    }
    let revoked = certificates(span, raw, checker);
    let hint = "until when what was issued is not trusted, as in 2026-03-01T12:00:00Z; what is issued later is good";
    let before = checker.required(raw.issued_before.as_ref(), span, "issued_before", hint);
    let before = instant("issued_before", before?, checker);
    Some(What::Certificates(revoked?, before?))
}

fn public_key(
    span: &Range<usize>,
    raw: &raw::Revoked,
    key: &Spanned<String>,
    checker: &mut Checker<'_>,
) -> Option<What> {
    let others = [&raw.identity, &raw.host, &raw.issuer, &raw.line];
    alone(span, raw, others, ("public key", "`public_key`"), checker);
    let not_after = match &raw.not_after {
        Some(time) => Some(instant("not_after", time, checker)?),
        None => None,
    };
    let hash = key.get_ref().parse().map_err(|error: KeyHashError| {
        let what = format!("`public_key` cannot be read: {error}");
        checker.problem(key.span(), what, "as `starling status --json` shows it");
    });
    Some(What::Key(hash.ok()?, not_after))
}

/// A key or a line is revoked in full, so nothing that narrows it may stand beside it.
fn alone<const N: usize>(
    span: &Range<usize>,
    raw: &raw::Revoked,
    others: [&Option<Spanned<String>>; N],
    (name, keys): (&str, &str),
    checker: &mut Checker<'_>,
) {
    if others.iter().any(|other| other.is_some()) || raw.issued_before.is_some() {
        let what = format!("a {name} is revoked on every host, and for good");
        let hint = format!("leave {keys} alone in its table");
        checker.problem(span.clone(), what, &hint);
    }
}

fn certificates(
    span: &Range<usize>,
    raw: &raw::Revoked,
    checker: &mut Checker<'_>,
) -> Option<Revoked> {
    let mut host = |name: &Spanned<String>| node(name, checker);
    match (&raw.identity, &raw.host, &raw.issuer) {
        (None, Some(name), None) => Some(Revoked::Host(host(name)?)),
        (None, None, Some(name)) => Some(Revoked::Issuer(host(name)?)),
        (Some(id), None, None) => Some(Revoked::Identity(identity(id, checker)?)),
        (Some(id), Some(name), None) => {
            let name = host(name);
            Some(Revoked::IdentityOn(identity(id, checker)?, name?))
        }
        _ => {
            let what = "it does not say what is revoked";
            let hint = "one of `identity`, `host`, both of them, `issuer`, `line`, or `public_key`";
            checker.problem(span.clone(), what, hint);
            None
        }
    }
}

fn identity(id: &Spanned<String>, checker: &mut Checker<'_>) -> Option<SpiffeId> {
    let parsed = SpiffeId::parse(id.get_ref());
    let parsed = parsed.map_err(|error| {
        let what = format!("`identity` is not an identity: {error}");
        checker.problem(id.span(), what, "as in spiffe://example.org/svc/orders");
    });
    parsed.ok()
}

fn node(name: &Spanned<String>, checker: &mut Checker<'_>) -> Option<String> {
    let parsed = NodeName::parse(name.get_ref());
    let parsed = parsed.map_err(|error| {
        let what = format!(
            "`{}` is not the name of a node: {error}",
            keys::shown(name.get_ref())
        );
        checker.problem(name.span(), what, "as `starling nodes` shows it");
    });
    parsed.ok().map(|name| name.to_string())
}

/// A date, a time of day and an offset: without one it would mean another moment on each host.
fn instant(key: &str, time: &Spanned<Datetime>, checker: &mut Checker<'_>) -> Option<SystemTime> {
    let read = to_system_time(time.get_ref());
    if read.is_none() {
        let what = format!("`{key}` is not a moment: `{}`", time.get_ref());
        checker.problem(
            time.span(),
            what,
            "date, time and offset, as in 2026-03-01T12:00:00Z",
        );
    }
    read
}

fn to_system_time(at: &Datetime) -> Option<SystemTime> {
    let (date, time, offset) = (at.date?, at.time?, at.offset?);
    let month = Month::try_from(date.month).ok()?;
    let date = Date::from_calendar_date(i32::from(date.year), month, date.day).ok()?;
    let second = time.second.unwrap_or(0);
    let time = Time::from_hms(time.hour, time.minute, second.min(59)).ok()?;
    let offset_s = match offset {
        Offset::Z => 0,
        Offset::Custom { minutes } => i32::from(minutes) * 60,
    };
    let offset = UtcOffset::from_whole_seconds(offset_s).ok()?;
    let moment = PrimitiveDateTime::new(date, time).assume_offset(offset);
    (moment.unix_timestamp() >= 0).then(|| moment.into())
}

#[cfg(test)]
mod tests;
