//! Percentages and labels.

use std::collections::BTreeMap;
use std::ops::Range;

use starling_gossip::names::labels_ok;
use toml::Spanned;

use super::raw;
use crate::config::check::Checker;
use crate::route::split::{Part, Share, Split, Subset};

pub(in crate::config) fn check(
    key: &str,
    raw: &Spanned<raw::Percent>,
    checker: &mut Checker<'_>,
) -> Share {
    let parts = raw.get_ref().0 * 100.0;
    // Written with two digits at most: 0.29 * 100 is not quite 29.
    let is_fine = (parts - parts.round()).abs() < 1e-6;
    if !(0.0..=f64::from(Share::WHOLE.0)).contains(&parts) || !is_fine {
        let what = format!("`{key}` is {}, which is no share", raw.get_ref().0);
        checker.problem(raw.span(), what, "it goes from 0 to 100, in steps of 0.01");
        return Share::NONE;
    }
    Share(parts.round() as u16)
}

pub(super) fn check_subset(
    labels: &Spanned<BTreeMap<String, String>>,
    checker: &mut Checker<'_>,
) -> Subset {
    if labels.get_ref().is_empty() {
        let what = "`to` names no label, so it is every instance";
        checker.problem(labels.span(), what, "as in `to = { version = \"v2\" }`");
    } else if !labels_ok(labels.get_ref()) {
        let hint = "at most 16; keys and values have up to 63 characters of a-z A-Z 0-9 . _ / -";
        checker.problem(labels.span(), "no instance can have these labels", hint);
    }
    Subset::new(labels.get_ref().clone())
}

pub(super) fn check_split(
    raw: &Spanned<Vec<Spanned<raw::Part>>>,
    checker: &mut Checker<'_>,
) -> Split {
    let parts: Vec<_> = raw
        .get_ref()
        .iter()
        .map(|part| check_part(part, checker))
        .collect();
    if parts.len() < 2 || parts.len() > PARTS_MAX {
        let what = format!("a split into {} parts", parts.len());
        let hint = format!("it has 2 to {PARTS_MAX}; all calls to one subset are `to = {{ … }}`");
        checker.problem(raw.span(), what, &hint);
        return Split::all_to(Subset::default());
    }
    check_sum(raw.span(), &parts, checker);
    for (at, part) in parts.iter().enumerate() {
        if parts[..at].iter().any(|other| other.to == part.to) {
            let what = format!("two parts of the split go to `{}`", part.to);
            checker.problem(
                raw.get_ref()[at].span(),
                what,
                "add their weights up in one",
            );
        }
    }
    Split {
        parts,
        sticky: None,
    }
}

fn check_part(raw: &Spanned<raw::Part>, checker: &mut Checker<'_>) -> Part {
    let span = raw.span();
    let raw = raw.get_ref();
    let to = checker.required(
        raw.to.as_ref(),
        &span,
        "to",
        "the labels of its instances: `to = { version = \"v2\" }`",
    );
    let to = to.map(|to| check_subset(to, checker));
    let weight = checker.required(
        raw.weight.as_ref(),
        &span,
        "weight",
        "its percentage of the calls: `weight = 10`",
    );
    let weight = weight.map(|weight| check("weight", weight, checker));
    Part {
        to: to.unwrap_or_default(),
        share: weight.unwrap_or_default(),
    }
}

fn check_sum(span: Range<usize>, parts: &[Part], checker: &mut Checker<'_>) {
    let sum: u32 = parts.iter().map(|part| u32::from(part.share.0)).sum();
    if sum != u32::from(Share::WHOLE.0) {
        let what = format!(
            "the weights of this split add up to {}",
            f64::from(sum) / 100.0
        );
        let each: Vec<_> = parts
            .iter()
            .map(|part| format!("`{}` has {}", part.to, f64::from(part.share.0) / 100.0))
            .collect();
        let hint = format!("weights of one split sum to 100; {}", each.join(", "));
        checker.problem(span, what, &hint);
    }
}

/// Far more versions than anybody compares at a time.
const PARTS_MAX: usize = 16;
