//! What is known now, and what of it a reader has not seen. Pure: the caller brings the clock.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::time::Instant;

/// Kind and name of an item.
pub(super) type Key = (&'static str, String);

/// The items at the last look, each with the time since when it is as it is.
#[derive(Default)]
pub(super) struct Board {
    items: BTreeMap<Key, Item>,
    version: u64,
}

struct Item {
    version: u64,
    made: Instant,
    value: Value,
}

/// Which version of each item a reader has.
#[derive(Default)]
pub(super) struct Seen {
    versions: BTreeMap<Key, u64>,
    has_begun: bool,
}

impl Board {
    /// Takes what a new look showed. What only grew older stays as it is.
    pub(super) fn take(&mut self, fresh: BTreeMap<Key, Value>, now: Instant) {
        self.version += 1;
        let mut before = std::mem::take(&mut self.items);
        for (key, value) in fresh {
            let old = before.remove(&key);
            let same = old.filter(|old| {
                let elapsed_s = now.duration_since(old.made).as_secs_f64();
                is_same(&old.value, &value, elapsed_s)
            });
            let item = same.unwrap_or(Item {
                version: self.version,
                made: now,
                value,
            });
            self.items.insert(key, item);
        }
    }

    /// What a reader that has `seen` lacks, which it then has. Everything at first, even if that is nothing.
    pub(super) fn news(&self, seen: &mut Seen, now: Instant) -> Option<String> {
        let is_new = |(key, item): &(&Key, &Item)| seen.versions.get(*key) != Some(&item.version);
        let set: Vec<_> = self.items.iter().filter(is_new).collect();
        let gone = seen.versions.keys();
        let gone: Vec<_> = gone.filter(|key| !self.items.contains_key(*key)).collect();
        if seen.has_begun && set.is_empty() && gone.is_empty() {
            return None;
        }
        let shown = |(key, item): &(&Key, &Item)| {
            let ago_s = now.duration_since(item.made).as_secs();
            json!([key.0, key.1, ago_s, item.value])
        };
        let news = json!({
            "whole": !seen.has_begun,
            "set": set.iter().map(shown).collect::<Vec<_>>(),
            "gone": gone,
        });
        let versions = self.items.iter();
        seen.versions = versions
            .map(|(key, item)| (key.clone(), item.version))
            .collect();
        seen.has_begun = true;
        Some(news.to_string())
    }
}

/// Whether `new` is `old`, `elapsed_s` later: ages have grown and times left have shrunk by that.
fn is_same(old: &Value, new: &Value, elapsed_s: f64) -> bool {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            old.len() == new.len()
                && old.iter().all(|(name, old)| {
                    let new = new.get(name);
                    new.is_some_and(|new| match drift(name) {
                        Some(drift) => is_later(old, new, drift * elapsed_s),
                        None => is_same(old, new, elapsed_s),
                    })
                })
        }
        (Value::Array(old), Value::Array(new)) => {
            old.len() == new.len()
                && old
                    .iter()
                    .zip(new)
                    .all(|(old, new)| is_same(old, new, elapsed_s))
        }
        (old, new) => old == new,
    }
}

/// Which way a field changes by itself.
fn drift(name: &str) -> Option<f64> {
    match name {
        "seconds_left" | "ejected_s" => Some(-1.0),
        "window_s" => None,
        name if name.ends_with("_s") => Some(1.0),
        _ => None,
    }
}

fn is_later(old: &Value, new: &Value, drift_s: f64) -> bool {
    match (old.as_f64(), new.as_f64()) {
        (Some(old), Some(new)) => (new - old - drift_s).abs() <= SLACK_S,
        _ => old == new,
    }
}

/// Ages are whole seconds, cut off; both of two looks may be one off.
const SLACK_S: f64 = 2.0;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn board(items: &[(&'static str, Value)]) -> BTreeMap<Key, Value> {
        let items = items.iter();
        items
            .map(|(name, value)| (("node", (*name).to_owned()), value.clone()))
            .collect()
    }

    /// A look after so many seconds, and what a steady reader is then told.
    type Step<'a> = (u64, &'a [(&'static str, Value)], Option<Value>);

    fn check(steps: &[Step<'_>]) {
        let (began, mut held, mut seen) = (Instant::now(), Board::default(), Seen::default());
        for (at, items, expected) in steps {
            let now = began + Duration::from_secs(*at);
            held.take(board(items), now);
            let news = held.news(&mut seen, now);
            let news = news.map(|news| serde_json::from_str::<Value>(&news).unwrap());
            assert_eq!(news, *expected, "after {at} s");
        }
    }

    #[test]
    fn a_reader_is_told_all_at_first_then_what_changed() {
        let (up, down) = (json!({"up": true}), json!({"up": false}));
        check(&[
            (
                0,
                &[("a", up.clone()), ("b", up.clone())],
                Some(json!({
                    "whole": true,
                    "set": [["node", "a", 0, {"up": true}], ["node", "b", 0, {"up": true}]],
                    "gone": [],
                })),
            ),
            (1, &[("a", up.clone()), ("b", up.clone())], None),
            (
                2,
                &[("a", down.clone()), ("b", up.clone())],
                Some(json!({
                    "whole": false, "set": [["node", "a", 0, {"up": false}]], "gone": [],
                })),
            ),
            (
                3,
                &[("b", up.clone())],
                Some(json!({
                    "whole": false, "set": [], "gone": [["node", "a"]],
                })),
            ),
            (4, &[("b", up)], None),
        ]);
    }

    #[test]
    fn nothing_is_told_once() {
        let empty = json!({"whole": true, "set": [], "gone": []});
        check(&[(0, &[], Some(empty)), (1, &[], None)]);
    }

    #[test]
    fn growing_older_is_no_news_but_starting_anew_is() {
        let at = |age: u64, left: i64| json!({"list": [{"age_s": age, "seconds_left": left}]});
        let news = |age, left| {
            Some(json!({"whole": false, "set": [["node", "a", 0, at(age, left)]], "gone": []}))
        };
        let first = Some(json!({"whole": true, "set": [["node", "a", 0, at(5, 90)]], "gone": []}));
        check(&[
            (0, &[("a", at(5, 90))], first),
            (60, &[("a", at(65, 30))], None),
            (120, &[("a", at(126, -31))], None),
            // The age began anew, the time left did not.
            (180, &[("a", at(0, -90))], news(0, -90)),
            (181, &[("a", at(1, -91))], None),
            // Renewed.
            (182, &[("a", at(2, 500))], news(2, 500)),
        ]);
    }

    #[test]
    fn a_late_reader_learns_how_old_the_news_is() {
        let (began, mut held) = (Instant::now(), Board::default());
        held.take(board(&[("a", json!({"age_s": 1}))]), began);
        let now = began + Duration::from_secs(30);
        held.take(board(&[("a", json!({"age_s": 31}))]), now);
        let news = held.news(&mut Seen::default(), now).unwrap();
        assert!(news.contains(r#"["node","a",30,{"age_s":1}]"#), "{news}");
    }
}
