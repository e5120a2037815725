//! `[log.access]`: what access lines say, and of which calls.

use toml::Spanned;

use super::check::Checker;
use super::keys::{nearest, shown};
use super::raw;
use super::route::share;
use crate::route::split::Share;
use crate::telemetry::access::{Field, Fields};

/// The access log. Reloadable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessLog {
    pub fields: Fields,
    /// The share of calls that is logged. Those that failed always are.
    pub sample: Share,
}

impl AccessLog {
    pub(super) fn check(raw: &raw::AccessLog, checker: &mut Checker<'_>) -> Self {
        let default = Self::default();
        let fields = raw.fields.as_ref().map(|fields| {
            let named = fields.get_ref().iter();
            named
                .filter_map(|name| check_field(name, checker))
                .collect()
        });
        let sample = raw.sample.as_ref();
        Self {
            fields: fields.unwrap_or(default.fields),
            sample: sample.map_or(default.sample, |sample| {
                share::check("sample", sample, checker)
            }),
        }
    }
}

impl Default for AccessLog {
    fn default() -> Self {
        Self {
            fields: Fields::ALL,
            sample: Share::WHOLE,
        }
    }
}

fn check_field(name: &Spanned<String>, checker: &mut Checker<'_>) -> Option<Field> {
    let text = name.get_ref();
    let found = Field::ALL.into_iter().find(|field| field.as_str() == text);
    if found.is_none() {
        let names = Field::ALL.map(Field::as_str);
        let hint = match nearest(text, &names) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("there are {}", names.join(", ")),
        };
        let what = format!("access lines have no field `{}`", shown(text));
        checker.problem(name.span(), what, &hint);
    }
    found
}
