//! Unknown keys: found all at once, before serde would stop at the first, and answered with the key that was meant.

use serde::Deserialize;
use serde::de::value::Error;
use serde::de::{Deserializer, Error as _, Visitor};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check::Checker;
use super::raw::{self, route};

/// Removes every key that [`raw`] does not know, with a problem for each.
pub(super) fn remove_unknown(file: &mut DeTable<'_>, checker: &mut Checker<'_>) {
    known_in(file, &FILE, checker);
}

/// The same for a document of kind `policy`.
pub(super) fn remove_unknown_in_policy(document: &mut DeTable<'_>, checker: &mut Checker<'_>) {
    known_in(document, &DOCUMENT, checker);
}

/// The same for a document of kind `route`, and for the table of one route.
pub(super) fn remove_unknown_in_route(route: &mut DeTable<'_>, checker: &mut Checker<'_>) {
    known_in(route, &ROUTE, checker);
}

/// The same for a document of kind `revocation`.
pub(super) fn remove_unknown_in_revocation(document: &mut DeTable<'_>, checker: &mut Checker<'_>) {
    known_in(document, &REVOCATION, checker);
}

/// The same for the tables within it, single ones and lists. How deep that goes is written down in the sections.
fn known_in(table: &mut DeTable<'_>, section: &Section, checker: &mut Checker<'_>) {
    known_only(table, section, checker);
    for inner in section.tables {
        match table.get_mut(inner.name).map(Spanned::get_mut) {
            Some(DeValue::Table(table)) => known_in(table, inner, checker),
            Some(DeValue::Array(list)) => {
                for table in list.iter_mut().filter_map(as_table_mut) {
                    known_in(table, inner, checker);
                }
            }
            _ => {}
        }
    }
}

/// Problems for the settings of a node that stand where only services and upstreams belong.
pub(super) fn refuse_node_settings(file: &DeTable<'_>, checker: &mut Checker<'_>) {
    for key in file
        .keys()
        .filter(|key| ![SERVICE.name, UPSTREAM.name, ROUTE.name].contains(&key.get_ref().as_ref()))
    {
        let what = format!("`{}` is a setting of the whole node", key.get_ref());
        checker.problem(
            key.span(),
            what,
            "files in services.d hold [[service]], [[upstream]] and [[route]]; move it to starling.toml",
        );
    }
}

/// A table of the files: its name and how to list its keys.
struct Section {
    name: &'static str,
    /// As an operator would write it.
    title: &'static str,
    keys: fn() -> &'static [&'static str],
    /// Tables within it.
    tables: &'static [&'static Self],
}

const FILE: Section = Section {
    name: "",
    title: "the top of the file",
    keys: keys_of::<raw::File>,
    tables: &[
        &ADMIN, &LOG, &TRACE, &LIMITS, &ISSUER, &POLICY, &SERVICE, &UPSTREAM, &ROUTE,
    ],
};
const ADMIN: Section = Section {
    name: "admin",
    title: "[admin]",
    keys: keys_of::<raw::Admin>,
    tables: &[],
};
const LOG: Section = Section {
    name: "log",
    title: "[log]",
    keys: keys_of::<raw::Log>,
    tables: &[&ACCESS],
};
const ACCESS: Section = Section {
    name: "access",
    title: "[log.access]",
    keys: keys_of::<raw::AccessLog>,
    tables: &[],
};
const TRACE: Section = Section {
    name: "trace",
    title: "[trace]",
    keys: keys_of::<raw::Trace>,
    tables: &[],
};
const LIMITS: Section = Section {
    name: "limits",
    title: "[limits]",
    keys: keys_of::<raw::Limits>,
    tables: &[],
};
const ISSUER: Section = Section {
    name: "issuer",
    title: "[issuer]",
    keys: keys_of::<raw::Issuer>,
    tables: &[],
};
const SERVICE: Section = Section {
    name: "service",
    title: "[[service]]",
    keys: keys_of::<raw::Service>,
    tables: &[&HEALTH, &GRANT, &DENY, &SERVICE_LIMITS],
};
const UPSTREAM: Section = Section {
    name: "upstream",
    title: "[[upstream]]",
    keys: keys_of::<raw::Upstream>,
    tables: &CALLS,
};
const HEALTH: Section = Section {
    name: "health",
    title: "health",
    keys: keys_of::<raw::Health>,
    tables: &[],
};
const POLICY: Section = Section {
    name: "policy",
    title: "[policy]",
    keys: keys_of::<raw::policy::Policy>,
    tables: &[],
};
const GRANT: Section = Section {
    name: "grant",
    title: "[[service.grant]]",
    keys: keys_of::<raw::policy::Rule>,
    tables: &[],
};
const DENY: Section = Section {
    name: "deny",
    title: "[[service.deny]]",
    keys: keys_of::<raw::policy::Rule>,
    tables: &[],
};
const DOCUMENT: Section = Section {
    name: "",
    title: "a policy",
    keys: keys_of::<raw::policy::Document>,
    tables: &[&DOCUMENT_MODE, &DOCUMENT_GRANT, &DOCUMENT_DENY],
};
const DOCUMENT_GRANT: Section = Section {
    name: "grant",
    title: "[[grant]]",
    keys: keys_of::<raw::policy::DocumentRule>,
    tables: &[],
};
const DOCUMENT_DENY: Section = Section {
    name: "deny",
    title: "[[deny]]",
    keys: keys_of::<raw::policy::DocumentRule>,
    tables: &[],
};
const DOCUMENT_MODE: Section = Section {
    name: "mode",
    title: "[[mode]]",
    keys: keys_of::<raw::policy::Mode>,
    tables: &[],
};
const REVOCATION: Section = Section {
    name: "",
    title: "a revocation",
    keys: keys_of::<raw::revocation::Document>,
    tables: &[&REVOKED],
};
const REVOKED: Section = Section {
    name: "revoked",
    title: "[[revoked]]",
    keys: keys_of::<raw::revocation::Revoked>,
    tables: &[],
};
const SERVICE_LIMITS: Section = Section {
    name: "limits",
    title: "limits of a service",
    keys: keys_of::<raw::calls::ServiceLimits>,
    tables: &[&RATE],
};
const BALANCE: Section = Section {
    name: "balance",
    title: "balance",
    keys: keys_of::<raw::calls::Balance>,
    tables: &[&ZONE],
};
const ZONE: Section = Section {
    name: "zone",
    title: "zone",
    keys: keys_of::<raw::calls::Zone>,
    tables: &[],
};
const RETRY: Section = Section {
    name: "retry",
    title: "retry",
    keys: keys_of::<raw::calls::Retry>,
    tables: &[&BUDGET],
};
const BUDGET: Section = Section {
    name: "budget",
    title: "budget",
    keys: keys_of::<raw::calls::Budget>,
    tables: &[],
};
const TIMEOUT: Section = Section {
    name: "timeout",
    title: "timeout",
    keys: keys_of::<raw::calls::Timeouts>,
    tables: &[],
};
const CALL_LIMITS: Section = Section {
    name: "limits",
    title: "limits of calls",
    keys: keys_of::<raw::calls::CallLimits>,
    tables: &[&RATE],
};
const RATE: Section = Section {
    name: "rate",
    title: "rate",
    keys: keys_of::<raw::calls::Rate>,
    tables: &[],
};
const OUTLIER: Section = Section {
    name: "outlier",
    title: "outlier",
    keys: keys_of::<raw::calls::Outlier>,
    tables: &[],
};
/// The tables that say how calls are made, wherever they stand.
const CALLS: [&Section; 5] = [&BALANCE, &RETRY, &TIMEOUT, &CALL_LIMITS, &OUTLIER];
const ROUTE: Section = Section {
    name: "route",
    title: "[[route]]",
    keys: keys_of::<route::Route>,
    tables: &[&RULE],
};
const RULE: Section = Section {
    name: "rule",
    title: "[[route.rule]]",
    keys: keys_of::<route::Rule>,
    tables: &RULE_PARTS,
};
const SPLIT: Section = Section {
    name: "split",
    title: "a part of `split`",
    keys: keys_of::<route::Part>,
    tables: &[],
};
const MATCH: Section = Section {
    name: "match",
    title: "`match`",
    keys: keys_of::<route::Match>,
    tables: &[],
};
/// The tables within a rule.
const RULE_PARTS: [&Section; 15] = [
    &MATCH,
    &SPLIT,
    &BALANCE,
    &RETRY,
    &TIMEOUT,
    &CALL_LIMITS,
    &OUTLIER,
    &Section {
        name: "sticky",
        title: "`sticky`",
        keys: keys_of::<route::Sticky>,
        tables: &[],
    },
    &Section {
        name: "rewrite",
        title: "`rewrite`",
        keys: keys_of::<route::Rewrite>,
        tables: &[],
    },
    &Section {
        name: "redirect",
        title: "`redirect`",
        keys: keys_of::<route::Redirect>,
        tables: &[],
    },
    &Section {
        name: "respond",
        title: "`respond`",
        keys: keys_of::<route::Respond>,
        tables: &[],
    },
    &Section {
        name: "request_headers",
        title: "`request_headers`",
        keys: keys_of::<route::Edits>,
        tables: &[],
    },
    &Section {
        name: "response_headers",
        title: "`response_headers`",
        keys: keys_of::<route::Edits>,
        tables: &[],
    },
    &Section {
        name: "mirror",
        title: "`mirror`",
        keys: keys_of::<route::Mirror>,
        tables: &[],
    },
    &Section {
        name: "fault",
        title: "`fault`",
        keys: keys_of::<route::Fault>,
        tables: &[],
    },
];
const SECTIONS: [&Section; 24] = [
    &FILE,
    &LOG,
    &ACCESS,
    &TRACE,
    &LIMITS,
    &ISSUER,
    &SERVICE,
    &UPSTREAM,
    &HEALTH,
    &POLICY,
    &GRANT,
    &SERVICE_LIMITS,
    &BALANCE,
    &ZONE,
    &RETRY,
    &BUDGET,
    &TIMEOUT,
    &CALL_LIMITS,
    &RATE,
    &OUTLIER,
    &ROUTE,
    &RULE,
    &MATCH,
    &ADMIN,
];

fn known_only(table: &mut DeTable<'_>, section: &Section, checker: &mut Checker<'_>) {
    let known = (section.keys)();
    let place = if section.name.is_empty() {
        String::new()
    } else {
        format!(" in {}", section.title)
    };
    let unknown: Vec<_> = table
        .keys()
        .filter(|key| !known.contains(&key.get_ref().as_ref()))
        .cloned()
        .collect();
    for key in unknown {
        let name = key.get_ref().as_ref();
        checker.problem(
            key.span(),
            format!("unknown key `{}`{place}", shown(name)),
            &hint(name, section),
        );
        table.remove(name);
    }
}

/// The key that was meant: a near spelling here, the same spelling elsewhere, or else the list of what there is.
fn hint(name: &str, section: &Section) -> String {
    let known = (section.keys)();
    if let Some(near) = nearest(name, known) {
        return format!("did you mean `{near}`?");
    }
    let mut sections = section.tables.iter().copied().chain(SECTIONS);
    let home = sections.find(|other| (other.keys)().contains(&name));
    match home {
        Some(home) if home.name.is_empty() => {
            format!("`{name}` belongs at the top of the file, above the first [section]")
        }
        Some(home) => format!("`{name}` belongs in {}", home.title),
        None => format!(
            "known here: {}",
            known
                .iter()
                .map(|key| format!("`{key}`"))
                .collect::<Vec<_>>()
                .join(", ")
        ),
    }
}

/// The one of `known` that `name` most likely is a slip of: at most one edit in three characters, at most two in all.
pub(super) fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let allowed = (name.chars().count().max(3) / 3).min(2);
    // A word of which nothing is left is another word.
    let near = |edits: usize, key: &str| edits <= allowed && edits < key.chars().count();
    let distances = known.iter().map(|key| (distance(name, key), *key));
    distances
        .filter(|(edits, key)| near(*edits, key))
        .min()
        .map(|(_, key)| key)
}

/// Insertions, deletions, replacements and swaps of neighbours that make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    // Far apart in length is far apart; this also bounds the work for a key of a megabyte.
    if a.len().abs_diff(b.len()) > 8 {
        return usize::MAX;
    }
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// Text from a file as a message can carry it: short, on one line.
pub(super) fn shown(text: &str) -> String {
    let mut short: String = text
        .chars()
        .take(SHOWN_CHARS_MAX)
        .collect::<String>()
        .escape_debug()
        .to_string();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        short.push('…');
    }
    short
}

fn as_table_mut<'v, 'i>(value: &'v mut Spanned<DeValue<'i>>) -> Option<&'v mut DeTable<'i>> {
    match value.get_mut() {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}

/// The keys of a raw table, asked of its own `Deserialize`, so that they are written down only once.
pub(super) fn keys_of<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    struct Asker<'k>(&'k mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Asker<'_> {
        type Error = Error;

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            keys: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Error> {
            *self.0 = keys;
            Err(Error::custom("only asking"))
        }

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            Err(Error::custom("not a table"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut keys: &[&str] = &[];
    // The answer comes by the side door; the result is the error above.
    let _ = T::deserialize(Asker(&mut keys));
    keys
}

const SHOWN_CHARS_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_raw_tables() {
        assert_eq!(
            keys_of::<raw::Upstream>(),
            [
                "service", "listen", "as", "protocol", "hosts", "balance", "retry", "timeout",
                "limits", "outlier"
            ]
        );
        assert!(SECTIONS.iter().all(|section| !(section.keys)().is_empty()));
    }

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let known = ["protocol", "port", "name", "as", "allow"];
        for (slip, meant) in [
            ("protcol", Some("protocol")),
            ("protocl", Some("protocol")),
            ("Port", Some("port")),
            ("nmae", Some("name")),
            ("sa", Some("as")),
            ("alow", Some("allow")),
            ("caller", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(slip, &known), meant, "{slip}");
        }
        assert_eq!(nearest(&"a".repeat(1 << 20), &known), None);
    }
}
