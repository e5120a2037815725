//! Where calls go and how: the rules of each service, in order; the first that matches decides.
//!
//! Everything here is a pure decision on an immutable snapshot, the [`Table`]. Applying it is [`crate::outbound`]'s
//! business, at the caller's agent. A route says nothing of who may call: that is policy, at the callee's.

pub mod action;
pub mod matcher;
mod query;
pub mod regex;
pub mod split;
mod table;
#[cfg(test)]
mod tests;
mod warnings;
mod words;

use std::sync::Arc;

use http::{HeaderMap, Method};
use starling_gossip::ServiceName;

use crate::config::Place;
use crate::path::Normal;
use action::{Action, Outcome};
use matcher::Match;

pub use crate::config::route::Document;
pub use table::{InForce, Origin, Table};

/// How calls to one service are directed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub service: ServiceName,
    pub rules: Vec<Arc<Rule>>,
    pub declared: Place,
}

/// Which calls, and what becomes of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// For people; may be empty.
    pub name: String,
    /// Its place in the route, counted from 1.
    pub number: String,
    pub matches: Match,
    pub action: Action,
    pub declared: Place,
}

/// What is known of a call before it goes anywhere.
#[derive(Debug)]
pub struct Facts<'c> {
    pub caller: &'c ServiceName,
    /// The zone of this host.
    pub zone: &'c str,
    /// Nothing of it for a TCP connection.
    pub http: Option<Http<'c>>,
}

/// A request's head, in the form in which it is sent on.
#[derive(Debug)]
pub struct Http<'c> {
    pub method: &'c Method,
    /// There if the route judges paths, see [`Route::is_about_path`].
    pub path: Option<&'c Normal<'c>>,
    /// Empty if there is none.
    pub query: &'c str,
    pub headers: &'c HeaderMap,
}

impl Route {
    /// The first rule that matches. Without one the call goes to any instance, as if there was no route.
    pub fn decide(&self, facts: &Facts<'_>) -> Option<&Arc<Rule>> {
        self.rules
            .iter()
            .find(|rule| rule.matches.holds(facts) && (facts.http.is_some() || rule.is_for_tcp()))
    }

    /// Whether a request's path must have one meaning before anything is decided by it.
    pub fn is_about_path(&self) -> bool {
        self.rules.iter().any(|rule| rule.is_about_path())
    }

    /// Whether any rule looks at requests, not only at who calls.
    pub fn is_about_http(&self) -> bool {
        self.rules.iter().any(|rule| rule.matches.is_about_http())
    }

    /// Rules that no call ever reaches, each with the earlier one that takes all of its calls.
    pub fn shadowed(&self) -> impl Iterator<Item = (&Rule, &Rule)> {
        self.rules.iter().enumerate().filter_map(|(at, rule)| {
            let earlier = self.rules[..at]
                .iter()
                .find(|earlier| earlier.matches.covers(&rule.matches))?;
            Some((&**rule, &**earlier))
        })
    }
}

impl Rule {
    /// What it is called in metrics: its name, or else its number.
    pub fn label(&self) -> &str {
        if self.name.is_empty() {
            &self.number
        } else {
            &self.name
        }
    }

    /// Whether it can be applied to a TCP connection.
    pub fn is_for_tcp(&self) -> bool {
        matches!(self.action.outcome, Outcome::Forward(_)) && !self.matches.is_about_http()
    }

    fn is_about_path(&self) -> bool {
        let is_changed = match &self.action.outcome {
            Outcome::Forward(forward) => forward.rewrite.path.is_some(),
            Outcome::Redirect(_) => true,
            Outcome::Respond(_) => false,
        };
        is_changed || self.matches.is_about_path()
    }
}
