//! Who may call a service, as the dashboard shows it.

use serde::{Deserialize, Serialize};

use crate::said;

/// An element of `/v1/policy?service=NAME`: one node that runs the service, and what it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePolicy {
    pub node: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// Why it says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// All that one node was told of who may call one of its services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// What happens to calls that nothing allows.
    pub mode: String,
    /// Where the mode was set; nothing for the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode_declared: Option<String>,
    /// Denials before grants. Any denial that is about a call denies it, then any grant allows it unless `only_with` says more.
    pub rules: Vec<PolicyRule>,
    /// Rules that are not shown, as there are too many.
    #[serde(default)]
    pub more_rules: usize,
    /// Calls that the mode let through though nothing allows them, the most frequent first.
    pub let_through: Vec<LetThrough>,
}

impl Policy {
    /// What another node answered, marked as its words.
    pub(crate) fn of_another(self) -> Self {
        let words = |texts: &[String]| texts.iter().map(|text| said::word(text)).collect();
        let rule = |rule: PolicyRule| PolicyRule {
            effect: said::word(&rule.effect),
            from: words(&rule.from),
            methods: words(&rule.methods),
            paths: words(&rule.paths),
            declared: said::word(&rule.declared),
            only_with: words(&rule.only_with),
            ..rule
        };
        let through = |calls: LetThrough| LetThrough {
            caller: said::word(&calls.caller),
            why: said::word(&calls.why),
            rule: calls.rule.as_deref().map(said::word),
            ..calls
        };
        Self {
            mode: said::word(&self.mode),
            mode_declared: self.mode_declared.as_deref().map(said::word),
            rules: self.rules.into_iter().map(rule).collect(),
            more_rules: self.more_rules,
            let_through: self.let_through.into_iter().map(through).collect(),
        }
    }
}

/// A grant or a denial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRule {
    /// `allow` or `deny`.
    pub effect: String,
    /// Services; `*` for every service of the mesh.
    pub from: Vec<String>,
    /// Callers that are not shown, as there are too many.
    #[serde(default)]
    pub more_from: usize,
    /// Empty for all.
    pub methods: Vec<String>,
    /// Empty for all.
    pub paths: Vec<String>,
    /// `file:line` or `policy/NAME@REVISION#LINE`.
    pub declared: String,
    /// Other revisions of the same document, each of which has to allow the call too: `policy/NAME@REVISION`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only_with: Vec<String>,
    /// Such revisions that are not shown, as there are too many.
    #[serde(default)]
    pub more_only_with: usize,
}

/// Calls that enforcing the policy would have denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetThrough {
    pub caller: String,
    /// The word that `starling explain` has for it.
    pub why: String,
    /// The denial that is about them, or the revision that withholds a grant of another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Since that agent started.
    pub calls: u64,
    /// Since the latest.
    pub age_s: u64,
}
