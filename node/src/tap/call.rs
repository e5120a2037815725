//! One call, as it is shown.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use starling_gossip::NodeName;

use crate::reason::Reason;
use crate::said;
use crate::telemetry::Ended;

/// A call that ended, as one of its two agents saw it. Never with a body or a query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// When it ended, in milliseconds since 1970, by the clock of that agent.
    pub at_ms: u64,
    /// `caller` or `callee`: whose agent tells.
    pub side: String,
    pub caller: String,
    pub callee: String,
    /// The node that it was sent to, or that served it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    pub protocol: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why the mesh failed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The rule of a policy that denied it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub duration_us: u64,
    /// Of the request, if they are asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Field>,
}

/// A header field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    pub name: String,
    /// None where it is not shown.
    pub value: Option<String>,
}

impl Call {
    pub(super) fn of(ended: &Ended<'_>, headers: Vec<Field>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            at_ms: now.map_or(0, |now| now.as_millis() as u64),
            side: ended.series.side().as_str().to_owned(),
            caller: ended.caller.to_owned(),
            callee: ended.series.callee().to_owned(),
            instance: ended.instance.map(NodeName::to_string),
            protocol: ended.series.protocol().as_str().to_owned(),
            method: ended.method.map(ToString::to_string),
            path: ended.path.map(str::to_owned),
            status: ended.status.map(|status| status.as_u16()),
            reason: ended.reason.map(Reason::as_str).map(str::to_owned),
            rule: ended.denied_by.map(str::to_owned),
            trace_id: ended.trace.as_ref().map(ToString::to_string),
            bytes_in: ended.bytes_in,
            bytes_out: ended.bytes_out,
            duration_us: u64::try_from(ended.took.as_micros()).unwrap_or(u64::MAX),
            headers,
        }
    }

    /// What another node told, marked as its words.
    pub(super) fn of_another(self) -> Self {
        let word = |text: Option<String>| text.map(|text| said::word(&text));
        Self {
            side: said::word(&self.side),
            caller: said::word(&self.caller),
            callee: said::word(&self.callee),
            instance: word(self.instance),
            protocol: said::word(&self.protocol),
            method: word(self.method),
            path: word(self.path),
            reason: word(self.reason),
            rule: word(self.rule),
            trace_id: word(self.trace_id),
            ..self
        }
    }

    /// What it takes in memory, about.
    pub(super) fn bytes(&self) -> usize {
        let texts = [&self.path, &self.rule, &self.method, &self.trace_id];
        let texts = texts.into_iter().flatten().map(String::len);
        let fields = self.headers.iter().map(Field::bytes);
        size_of::<Self>() + self.caller.len() + texts.chain(fields).sum::<usize>()
    }
}

impl Field {
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.name.len() + self.value.as_ref().map_or(0, String::len)
    }
}
