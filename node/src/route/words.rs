//! Rules in words, for `starling routes`, `starling explain` and logs.

use std::fmt;
use std::fmt::{Display, Formatter};

use super::action::{Action, Edits, Forward, Mirror, NewPath, Outcome, Redirect};
use super::matcher::{Match, Want};
use super::split::{Share, Split, Sticky};

/// `GET|HEAD /orders/** x-beta=1 ?v^2 from web|batch`, or `any call`.
impl Display for Match {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        if !self.methods.is_empty() {
            words.push(joined(&self.methods));
        }
        words.extend(self.path.as_ref().map(ToString::to_string));
        words.extend(
            self.path_regex
                .as_ref()
                .map(|regex| format!("path~{}", regex.as_str())),
        );
        words.extend(
            self.headers
                .iter()
                .map(|(name, want)| want.said_of(name.as_str())),
        );
        words.extend(
            self.query
                .iter()
                .map(|(name, want)| want.said_of(&format!("?{name}"))),
        );
        if !self.callers.is_empty() {
            words.push(format!("from {}", joined(&self.callers)));
        }
        if !self.zones.is_empty() {
            words.push(format!("in {}", joined(&self.zones)));
        }
        if words.is_empty() {
            words.push("any call".to_owned());
        }
        f.write_str(&words.join(" "))
    }
}

impl Want {
    fn said_of(&self, name: &str) -> String {
        match self {
            Self::Present => name.to_owned(),
            Self::Absent => format!("!{name}"),
            Self::Exact(text) => format!("{name}={text}"),
            Self::Prefix(text) => format!("{name}^{text}"),
            Self::Regex(regex) => format!("{name}~{}", regex.as_str()),
        }
    }
}

/// `90% version=v1, 10% version=v2 by cookie id; path becomes /new; mirror 5% to version=v3`.
impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        match &self.outcome {
            Outcome::Forward(forward) => forward.tell(&mut words),
            Outcome::Redirect(redirect) => words.push(redirect.to_string()),
            Outcome::Respond(respond) => words.push(format!("respond {}", respond.status.as_u16())),
        }
        tell_edits("response", &self.response_headers, &mut words);
        if let Some(fault) = &self.fault {
            let delay = fault.delay.map(|(delay, share)| {
                format!("delay {share} by {}", humantime::format_duration(delay))
            });
            let abort = fault
                .abort
                .map(|(status, share)| format!("fail {share} with {}", status.as_u16()));
            words.extend(delay.into_iter().chain(abort));
        }
        words.extend(
            self.body_bytes_max
                .map(|bytes| format!("bodies up to {bytes} bytes")),
        );
        words.extend(self.calls.tables().map(|table| format!("own {table}")));
        f.write_str(&words.join("; "))
    }
}

impl Forward {
    fn tell(&self, words: &mut Vec<String>) {
        words.push(self.split.to_string());
        words.extend(
            self.rewrite
                .path
                .as_ref()
                .map(|path| format!("path {path}")),
        );
        words.extend(
            self.rewrite
                .host
                .as_ref()
                .map(|host| format!("host becomes {host}")),
        );
        tell_edits("request", &self.request_headers, words);
        words.extend(self.mirror.as_ref().map(ToString::to_string));
    }
}

impl Display for Split {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> = self
            .parts
            .iter()
            .map(|part| match part.share {
                Share::WHOLE if self.parts.len() == 1 => part.to.to_string(),
                share => format!("{share} {}", part.to),
            })
            .collect();
        f.write_str(&parts.join(", "))?;
        match &self.sticky {
            Some(Sticky::Header(name)) => write!(f, " by header {name}"),
            Some(Sticky::Cookie(name)) => write!(f, " by cookie {name}"),
            None => Ok(()),
        }
    }
}

impl Display for NewPath {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(path) => write!(f, "becomes {path}"),
            Self::Prefix(prefix) => write!(f, "begins with {}/", prefix.trim_end_matches('/')),
        }
    }
}

impl Display for Redirect {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "redirect {}", self.status.as_u16())?;
        if let Some(scheme) = &self.scheme {
            write!(f, ", scheme {scheme}")?;
        }
        if let Some(host) = &self.host {
            write!(f, ", host {host}")?;
        }
        match &self.path {
            Some(path) => write!(f, ", path {path}"),
            None => Ok(()),
        }
    }
}

impl Display for Mirror {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "mirror {} to ", self.share)?;
        match &self.service {
            Some(service) if self.to.is_all() => write!(f, "{service}"),
            Some(service) => write!(f, "{service} {}", self.to),
            None => write!(f, "{}", self.to),
        }?;
        match self.with_credentials {
            true => f.write_str(" with credentials"),
            false => Ok(()),
        }
    }
}

fn tell_edits(of: &str, edits: &Edits, words: &mut Vec<String>) {
    if edits.is_empty() {
        return;
    }
    let removed = edits.remove.iter().map(|name| format!("-{name}"));
    let set = edits.set.iter().map(|(name, _)| format!("={name}"));
    let added = edits.add.iter().map(|(name, _)| format!("+{name}"));
    let all: Vec<_> = removed.chain(set).chain(added).collect();
    words.push(format!("{of} headers {}", all.join(" ")));
}

fn joined<T: ToString>(list: &[T]) -> String {
    list.iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("|")
}
