//! Policy documents in force, each with one or more texts.

use std::num::NonZeroUsize;
use std::sync::Arc;

use starling_gossip::ServiceName;

use super::rule::{Rule, Where};
use crate::config::Place;
use crate::config::policy::{Document, DocumentRule};

/// A document of kind `policy` that is in force.
///
/// Most documents have one text: their newest revision. Where the newest revision was signed by a key that is revoked,
/// the texts below it count as well: a revoked operator's revision must not open what the text below it keeps closed,
/// and what it closed must stay closed.
///
/// The rule: take one text of each document, in every way there is. A call is granted if the host's TOML and those texts
/// grant it in all of these ways, and the mode is the strictest mode of any of them. [`super::Snapshot`] does not try all
/// ways, of which there are as many as the product of the numbers of texts. It asks each text once:
///
/// - *A denial of any text denies.* Each text is part of some way of choosing, and in that way its denial holds.
/// - *A document grants what each of its texts grants; documents and TOML add up.* If some document grants the call in
///   each of its texts, so does every way. If every document has a text that does not grant it, choosing those texts
///   leaves only the TOML.
/// - *A path is brought to its one form if a rule of any text looks at paths*: in the way with that text it has to be. The
///   others see the same path, as none of their rules looks at it.
/// - *The mode is the strictest that some way leads to*: see the module `mode`.
///
/// So a call that passes would pass in every way of choosing. The reverse holds where all ways lead to one mode. Where
/// modes differ, the rule is stricter than "each way lets it pass": with a text that enforces and grants, above one that
/// audits and does not grant, each alone lets the call pass, the first by its grant and the second by its mode. Together
/// they deny it, because the grant of the first must not count and its mode must.
///
/// Groups are looked up in the text that names them.
#[derive(Debug, Clone)]
pub struct InForce {
    /// The part of its key behind `policy/`.
    pub name: Arc<str>,
    /// Newest first; the last is the base. A base that is deleted or was never there is an empty document. Without any
    /// text the document grants nothing, denies nothing and sets no mode.
    pub texts: Vec<Text>,
}

/// One text of a document in force.
#[derive(Debug, Clone)]
pub struct Text {
    pub revision: u64,
    pub document: Arc<Document>,
}

impl InForce {
    /// A document of which one text counts.
    pub fn single(name: Arc<str>, revision: u64, document: Arc<Document>) -> Self {
        let texts = vec![Text { revision, document }];
        Self { name, texts }
    }
}

impl Text {
    /// The rules of `rules`, a list of this text, that are about `service`. `name` is the document's.
    pub(super) fn rules<'a>(
        &'a self,
        name: &'a Arc<str>,
        rules: &'a [DocumentRule],
        service: &'a ServiceName,
    ) -> impl Iterator<Item = Rule> + 'a {
        let about = rules
            .iter()
            .filter(|rule| self.document.is_about(&rule.services, service));
        about.map(|rule| {
            let declared = self.at(name, &rule.rule.declared);
            Rule::new(&rule.rule, &self.document.groups, declared)
        })
    }

    /// A place in this text.
    pub(super) fn at(&self, name: &Arc<str>, place: &Place) -> Where {
        Where::Document {
            name: name.clone(),
            revision: self.revision,
            line: NonZeroUsize::new(place.line),
        }
    }

    /// This text as a whole.
    pub(super) fn whole(&self, name: &Arc<str>) -> Where {
        Where::Document {
            name: name.clone(),
            revision: self.revision,
            line: None,
        }
    }
}
