//! New paths of rewrites and redirects.

use std::ops::Range;

use toml::Spanned;

use crate::config::check::Checker;
use crate::config::keys::shown;
use crate::path::Normal;
use crate::route::action::NewPath;
use crate::route::matcher::Match;

/// At most one of `path` and `prefix`.
pub(super) fn check(
    path: &Option<Spanned<String>>,
    prefix: &Option<Spanned<String>>,
    matches: &Match,
    span: &Range<usize>,
    checker: &mut Checker<'_>,
) -> Option<NewPath> {
    match (path, prefix) {
        (None, None) => None,
        (Some(path), None) => check_normal("path", path, checker).map(NewPath::Whole),
        (None, Some(prefix)) => {
            if !matches
                .path
                .as_ref()
                .is_some_and(|pattern| pattern.is_prefix())
            {
                let what = "`prefix` has nothing to replace";
                let hint = "it stands in for what `match = { path = \"/…/**\" }` names; a whole path is `path`";
                checker.problem(prefix.span(), what, hint);
            }
            let new = check_normal("prefix", prefix, checker)?;
            Some(NewPath::Prefix(new.trim_end_matches('/').to_owned()))
        }
        (Some(_), Some(_)) => {
            let what = "`path` and `prefix` both say what the path becomes";
            checker.problem(span.clone(), what, "keep one of them");
            None
        }
    }
}

/// What the app gets must have one meaning, as what is judged has.
fn check_normal(key: &str, path: &Spanned<String>, checker: &mut Checker<'_>) -> Option<String> {
    let text = path.get_ref();
    let why = match Normal::of(text) {
        Ok(normal) if normal.query().is_some() => {
            "it holds a query, which stays what it is".to_owned()
        }
        Ok(normal) if normal.is_changed() => format!("its plain form is `{normal}`"),
        Ok(_) => return Some(text.clone()),
        Err(error) => error.to_string(),
    };
    let what = format!("`{key}` cannot be `{}`: {why}", shown(text));
    checker.problem(path.span(), what, "a plain path, as in \"/orders\"");
    None
}
