//! What would become of a call.

use serde::{Deserialize, Serialize};

use crate::policy::explain::{Answer, Question};
use crate::said;

/// `/v1/explain`: what would become of a call made through this agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// The node whose agent answers: where the call would come from.
    pub node: String,
    pub question: Question,
    /// What the callee's route says of the call on that node; nothing if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Routed>,
    /// What the caller's agent holds such calls to, in words; nothing if nobody wrote anything.
    #[serde(default)]
    pub limits: Vec<String>,
    /// All instances of the callee that this agent knows.
    pub instances: Vec<Judged>,
}

/// What the route of a service says of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routed {
    /// `rule "beta"`, or `rule 2`; nothing if none decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// `file:line` of the rule; of the route if no rule decides.
    pub declared: String,
    /// What becomes of the call, in words.
    pub action: String,
    /// Subsets of the instances that may get it. Empty: as `action` says.
    pub to: Vec<String>,
    /// The path that the callee gets, where that is not the one asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// It goes to no instance.
    pub is_answered_here: bool,
}

impl Routed {
    /// What another node answered, marked as its words. The path stays as it is, for the callee to judge.
    pub(crate) fn of_another(self) -> Self {
        Self {
            rule: self.rule.as_deref().map(said::quoted),
            declared: said::word(&self.declared),
            action: said::quoted(&self.action),
            to: self.to.iter().map(|part| said::word(part)).collect(),
            ..self
        }
    }
}

/// One instance, whether it would get the call, and what its node says of the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    pub node: String,
    pub used: bool,
    /// Why it is used or not.
    pub because: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Answer>,
    /// Why there is no verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}
