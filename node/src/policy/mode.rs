//! The mode of a service, from all that set one.

use super::rule::Where;
use super::text::{InForce, Text};
use crate::config::policy::{Mode, Set};
use crate::config::{Config, Service};

/// A mode that some way of choosing one text per document leads to, and where it was set; none for the default.
type Candidate = (Mode, Option<Where>);

/// The strictest mode that some way of choosing one text per document leads to.
///
/// Within one way the nearest setting counts: for the service in a document, in its TOML, for the mesh in a document, for
/// the node; of several documents the strictest. A way gets past a level only if none of its texts sets a mode there, so
/// a lower level is a candidate only if every document has such a text. With one text per document there is one way.
pub(super) fn strictest(config: &Config, service: &Service, documents: &[InForce]) -> Candidate {
    let in_file = |set: &Set| (set.mode, Some(Where::File(set.declared.clone())));
    let names_service = |text: &Text| text.document.mode_of(&service.name).is_some();
    let mut candidates: Vec<_> = set_in(documents, |text| text.document.mode_of(&service.name));
    if can_choose(documents, |text| !names_service(text)) {
        if let Some(set) = &service.mode {
            candidates.push(in_file(set));
        } else {
            let mesh = |text: &Text| text.document.mode.is_some() && !names_service(text);
            candidates.extend(set_in(documents, |text| {
                text.document.mode.as_ref().filter(|_| mesh(text))
            }));
            let is_silent = |text: &Text| text.document.mode.is_none() && !names_service(text);
            if can_choose(documents, is_silent) {
                let node = config.mode.as_ref().map(in_file);
                candidates.push(node.unwrap_or((Mode::Enforce, None)));
            }
        }
    }
    // The first of equals, so the nearest and, within a document, the newest text is named.
    let strictest = candidates.into_iter().min_by_key(|(mode, _)| *mode);
    strictest.unwrap_or((Mode::Enforce, None))
}

/// Whether some way of choosing takes only texts that are `such`. A document without texts says nothing in any way.
fn can_choose(documents: &[InForce], such: impl Fn(&Text) -> bool) -> bool {
    let mut documents = documents.iter();
    documents.all(|document| document.texts.is_empty() || document.texts.iter().any(&such))
}

/// What `set` finds in texts.
fn set_in<'d>(
    documents: &'d [InForce],
    set: impl Fn(&'d Text) -> Option<&'d Set>,
) -> Vec<Candidate> {
    let texts = documents
        .iter()
        .flat_map(|document| document.texts.iter().map(move |text| (document, text)));
    let found = texts.filter_map(|(document, text)| {
        let set = set(text)?;
        Some((set.mode, Some(text.at(&document.name, &set.declared))))
    });
    found.collect()
}
