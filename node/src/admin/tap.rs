//! `/v1/tap`: live calls as server-sent events, for whoever brings a pass.
//!
//! The pass comes in a field of its own, which no link and no form of another page can set. A message is one
//! [`News`](crate::tap::News). While nothing is told, a `pulse` says so.

use std::convert::Infallible;
use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::time::timeout;

use super::answer::{Answer, json_with, with_body};
use super::view::{Refused, Source};
use crate::tap::{Ask, News, Tap, Wanted};

/// Opens a tap with what the request brings.
pub(super) fn tap<B>(request: &Request<B>, pass: Option<String>, source: &dyn Source) -> Answer {
    let opened = ask(request, pass).and_then(|ask| source.tap(ask));
    match opened {
        Ok(tap) => events(tap),
        Err(refused) => {
            let status = StatusCode::from_u16(refused.status);
            json_with(status.unwrap_or(StatusCode::FORBIDDEN), &refused)
        }
    }
}

fn ask<B>(request: &Request<B>, pass: Option<String>) -> Result<Ask, Refused> {
    let query = request.uri().query().unwrap_or_default();
    let (wanted, nodes) = Wanted::from_query(query).ok_or_else(|| Refused {
        status: 400,
        error: "ask with callee=NAME and what docs/tap.md tells besides".to_owned(),
        hint: None,
    })?;
    Ok(Ask {
        pass: pass.ok_or_else(no_pass)?,
        wanted,
        nodes,
    })
}

/// The pass that a request brings in its field, if it is one.
pub(super) fn pass(headers: &HeaderMap) -> Option<String> {
    let mut all = headers.get_all(PASS).iter();
    let (only, None) = (all.next()?, all.next()) else {
        return None;
    };
    only.to_str().ok().map(str::to_owned)
}

fn no_pass() -> Refused {
    Refused {
        status: 401,
        error: "live calls are shown to whoever has an operator's pass".to_owned(),
        hint: Some("`starling login --tap NAME` makes one".to_owned()),
    }
}

fn events(tap: Tap) -> Answer {
    let body = stream::unfold(tap, |mut tap| async move {
        let text = match timeout(PULSE, tap.next()).await {
            Ok(news) => messages(&news?),
            Err(_elapsed) => PULSE_EVENT.to_owned(),
        };
        let frame = Frame::data(Bytes::from(text));
        Some((Ok::<_, Infallible>(frame), tap))
    });
    let body = StreamBody::new(body).boxed_unsync();
    with_body(StatusCode::OK, "text/event-stream", body)
}

fn messages(news: &[News]) -> String {
    let mut text = String::new();
    for one in news {
        let json = serde_json::to_string(one).expect("texts and numbers are JSON");
        // Writing to a string does not fail.
        let _written = write!(text, "data: {json}\n\n");
    }
    text
}

/// The field that brings a pass.
pub(crate) const PASS: &str = "starling-pass";

/// A reader that hears nothing for a few of these knows that the connection is dead.
const PULSE: Duration = Duration::from_secs(5);

const PULSE_EVENT: &str = "event: pulse\ndata: {}\n\n";
