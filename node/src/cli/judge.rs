//! `starling judge`, hidden: reads calls as lines of JSON and says what would become of each, by the code that decides
//! real calls. For tests that compare it with another implementation.

use std::io::{self, BufRead};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use http::{Method, Request, Uri};
use serde::{Deserialize, Serialize};
use starling_transport::{SpiffeId, TrustDomain};

use super::out;
use crate::config::Config;
use crate::inbound;
use crate::policy::{Document, InForce, Snapshot, Subject, Verdict};
use crate::reason::Reason;

/// Judge calls that stand as JSON on standard input, one a line
#[derive(Debug, Args)]
pub(super) struct Judge {
    /// The mesh
    #[arg(long, value_name = "NAME")]
    trust_domain: String,
    /// The callee's TOML
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// A document of kind policy, named by its file
    #[arg(long, value_name = "FILE")]
    document: Vec<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Case {
    /// A SPIFFE ID.
    caller: String,
    callee: String,
    /// None for a connection.
    method: Option<String>,
    #[serde(default)]
    path: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
}

#[derive(Debug, Default, Serialize)]
struct Outcome {
    allowed: bool,
    /// What the caller is told.
    reason: Option<&'static str>,
    why: &'static str,
    rule: Option<String>,
    /// What the app gets.
    path: Option<String>,
    headers: Vec<(String, String)>,
}

impl Judge {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let mesh = TrustDomain::parse(&self.trust_domain)?;
        let config = Config::load_files(&self.config)?;
        let mut documents = Vec::new();
        for file in &self.document {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            let name = file.file_stem().unwrap_or_default().to_string_lossy();
            let document = Arc::new(Document::parse_as(file, &text)?);
            documents.push(InForce::single(name.into(), 1, document));
        }
        let policy = Snapshot::compile(&mesh, &config, &documents);
        for line in io::stdin().lock().lines() {
            let case: Case = serde_json::from_str(&line?).context("not a case")?;
            out::say_json(&serde_json::to_string(&case.outcome(&policy))?)?;
        }
        Ok(())
    }
}

impl Case {
    fn outcome(&self, policy: &Snapshot) -> Outcome {
        let refused = |reason: Reason| Outcome {
            reason: Some(reason.as_str()),
            ..Outcome::default()
        };
        let Ok(caller) = SpiffeId::parse(&self.caller) else {
            return refused(Reason::BadRequest);
        };
        let Some(entry) = policy.entry(&self.callee) else {
            return refused(Reason::WrongService);
        };
        let Some(method) = &self.method else {
            let verdict = entry.judge(&caller, Subject::Connection);
            return Outcome::of(&verdict);
        };
        let Some(request) = self.request(method) else {
            return refused(Reason::BadRequest);
        };
        let (mut head, ()) = request.into_parts();
        let (method, uri) = (head.method.clone(), head.uri.clone());
        let subject = Subject::Request {
            method: &method,
            uri: &uri,
        };
        let verdict = entry.judge(&caller, subject);
        let mut outcome = Outcome::of(&verdict);
        if !verdict.allowed {
            return outcome;
        }
        if let Err(reason) = inbound::prepare(entry, &verdict, &caller, &mut head) {
            return refused(reason);
        }
        outcome.path = head.uri.path_and_query().map(ToString::to_string);
        let fields = head.headers.iter();
        let fields = fields.map(|(name, value)| {
            (
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        });
        outcome.headers = fields.collect();
        outcome
    }

    /// As it comes out of HTTP/3.
    fn request(&self, method: &str) -> Option<Request<()>> {
        let uri = Uri::builder().scheme("https").authority("callee");
        let uri = uri.path_and_query(self.path.as_str()).build().ok()?;
        let method = Method::from_bytes(method.as_bytes()).ok()?;
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.body(()).ok()
    }
}

impl Outcome {
    fn of(verdict: &Verdict<'_>) -> Self {
        Self {
            allowed: verdict.allowed,
            reason: verdict.refusal().map(Reason::as_str),
            why: verdict.why.as_str(),
            rule: verdict.rule.map(ToString::to_string),
            ..Self::default()
        }
    }
}
