//! Grants of documents with several texts: a call needs a grant in each of them.

use super::rule::{Rule, Where};

/// What one document with several texts grants for one service.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LayeredGrants {
    /// Newest first.
    layers: Box<[Layer]>,
}

/// The grants of one text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layer {
    /// The text as a whole.
    pub(super) text: Where,
    pub(super) grants: Box<[Rule]>,
}

/// What a document with several texts says about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grant<'e> {
    /// Each text grants it. The rule is the base's.
    Granted(&'e Where),
    /// Some text grants it, and this one, the newest of those that do not, withholds it.
    Narrowed(&'e Where),
    /// No text grants it.
    None,
}

impl LayeredGrants {
    /// None if no text grants anything, so that such a document costs a call nothing.
    pub(super) fn new(layers: Vec<Layer>) -> Option<Self> {
        let is_about = layers.iter().any(|layer| !layer.grants.is_empty());
        is_about.then(|| Self {
            layers: layers.into(),
        })
    }

    /// Whether each text has a grant that is `about` the call. Allocates nothing.
    pub(super) fn ask(&self, about: impl Fn(&&Rule) -> bool) -> Grant<'_> {
        let (mut granted, mut withheld) = (None, None);
        for layer in &self.layers {
            match layer.grants.iter().find(&about) {
                Some(rule) => granted = Some(&rule.declared),
                None => withheld = withheld.or(Some(&layer.text)),
            }
        }
        match (granted, withheld) {
            (Some(rule), None) => Grant::Granted(rule),
            (Some(_), Some(text)) => Grant::Narrowed(text),
            (None, _) => Grant::None,
        }
    }

    /// The grants of all texts.
    pub(super) fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.layers.iter().flat_map(|layer| &layer.grants)
    }

    /// The texts, newest first.
    pub(super) fn layers(&self) -> &[Layer] {
        &self.layers
    }
}
