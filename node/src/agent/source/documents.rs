//! What the agent tells of documents, and how it takes one.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use starling_gossip::documents;
use starling_gossip::documents::SubmitError;
use starling_gossip::documents::system::{hex, is_system};
use starling_gossip::{Document, DocumentKey, Liveness, Revision, State};

use super::View;
use super::operators::standing_word;
use crate::admin::view;
use crate::check::documents::{OutOfForce, Unsaved};
use crate::documents::Standing;

impl View {
    pub(super) fn count_documents(&self) -> view::DocumentCount {
        let documents = self.host.membership.documents();
        let catalogue = self.host.membership.catalogue();
        let live: Vec<_> = documents.live().collect();
        let newest = documents
            .entries
            .values()
            .map(|document| document.newest().issued);
        let count = self.keeper.standings().count();
        let digest = documents.digest();
        let alive = catalogue
            .members
            .values()
            .filter(|member| member.liveness == Liveness::Alive && member.state != State::Left);
        let others = alive.filter(|member| member.name != catalogue.local);
        view::DocumentCount {
            count: live.len(),
            newest_age_s: newest.max().map(age_s),
            forks: live
                .iter()
                .filter(|(_, document)| document.rival().is_some())
                .count(),
            not_in_force: count.out_of_force(),
            elsewhere: self.out_of_force_elsewhere(),
            unsaved: documents
                .unsaved
                .as_ref()
                .map_or(0, |unsaved| unsaved.count),
            same_nodes: 1 + others.filter(|member| member.documents == digest).count(),
        }
    }

    /// What `starling check` says of documents.
    pub(super) fn check_documents(&self) -> crate::check::documents::Documents {
        let standings = self.keeper.standings();
        let here = standings.iter();
        let here = here.filter(|(_, standing)| standing.is_out_of_force());
        crate::check::documents::Documents {
            here: here
                .take(SHOWN_MAX)
                .map(|(key, standing)| OutOfForce {
                    document: key.to_string(),
                    state: standing.word().to_owned(),
                    why: standing.why().unwrap_or_default(),
                })
                .collect(),
            count: standings.count().out_of_force(),
            elsewhere: self.out_of_force_elsewhere(),
            no_child: self.keeper.no_child(),
            unsaved: self
                .host
                .membership
                .documents()
                .unsaved
                .as_deref()
                .map(|unsaved| Unsaved {
                    count: unsaved.count,
                    unnoted: unsaved.unnoted,
                    error: unsaved.error.clone(),
                }),
            operators: self.list_operators(),
        }
    }

    /// The other nodes that say that documents have no effect on them.
    fn out_of_force_elsewhere(&self) -> Vec<view::OutOfForceOn> {
        let catalogue = self.host.membership.catalogue();
        let members = catalogue.members.values();
        let others = members.filter(|member| {
            member.name != catalogue.local
                && member.liveness == Liveness::Alive
                && member.state != State::Left
                && member.documents_out_of_force > 0
        });
        others
            .take(SHOWN_MAX)
            .map(|member| view::OutOfForceOn {
                node: member.name.to_string(),
                count: member.documents_out_of_force,
            })
            .collect()
    }

    pub(super) fn list_documents(&self) -> Vec<view::Document> {
        let standings = self.keeper.standings();
        standings
            .iter()
            .map(|(key, standing)| self.document_view(key, standing))
            .collect()
    }

    pub(super) fn history(&self, key: &DocumentKey) -> view::History {
        let standings = self.keeper.standings();
        let documents = self.host.membership.documents();
        let held = documents.get(key);
        let document = match standings.get(key) {
            Some(standing) => self.document_view(key, standing),
            None => view::Document {
                kind: key.kind.to_string(),
                name: key.name.to_string(),
                state: held.map_or_else(String::new, |document| unsettled(document)),
                revision: held.map_or(0, |document| document.newest().revision),
                ..view::Document::default()
            },
        };
        view::History {
            document,
            newest: documents.newest_revision(key),
            revisions: held.map_or_else(Vec::new, |document| revisions(document)),
        }
    }

    /// What could not be put in force here is refused: its operator is there to hear why, which is better than all nodes
    /// finding out.
    pub(super) async fn take_document(
        &self,
        document: &[u8],
    ) -> Result<view::Receipt, view::Refused> {
        let membership = &self.host.membership;
        let read = membership.check(document).map_err(refused)?;
        for read in read
            .iter()
            .filter(|read| !read.deleted && !is_system(&read.key.kind))
        {
            let checked = self.keeper.check(read).await;
            checked.map_err(|error| view::Refused {
                status: 422,
                error: format!("this agent cannot put it in force: {error}"),
                hint: Some("is this agent of another version than the command?".to_owned()),
            })?;
        }
        let receipt = membership.submit(document).await.map_err(refused)?;
        tracing::info!(
            document = %receipt.key,
            revision = receipt.revision,
            rows = receipt.rows,
            operator = read.first().map(|read| read.operator().as_str()),
            "document taken from its operator"
        );
        Ok(view::Receipt {
            kind: receipt.key.kind.to_string(),
            name: receipt.key.name.to_string(),
            revision: receipt.revision,
            is_news: receipt.is_news,
        })
    }

    fn document_view(&self, key: &DocumentKey, standing: &Standing) -> view::Document {
        let documents = self.host.membership.documents();
        let held = documents.get(key);
        let newest = held.map(|document| document.newest());
        let rival = held.and_then(|document| document.rival());
        let lost = documents.lost.get(key).copied();
        let newest_revision = newest.map(|newest| newest.revision);
        let shown = lost.or(newest_revision).unwrap_or(0);
        view::Document {
            kind: key.kind.to_string(),
            name: key.name.to_string(),
            revision: shown,
            operator: newest
                .map(|newest| newest.operator().to_string())
                .unwrap_or_default(),
            age_s: newest
                .map(|newest| age_s(newest.issued))
                .unwrap_or_default(),
            // What gossip has is ahead of what is in force, for moments.
            state: match standing.revision() < shown {
                true => view::CHECKING.to_owned(),
                false => standing.word().to_owned(),
            },
            in_force: standing.in_force().map(|revision| revision.revision),
            why: standing
                .why()
                .or_else(|| held.and_then(|document| narrowed(document))),
            fork: rival.map(|rival| rival.operator().to_string()),
        }
    }
}

/// The state of a document that is held and about which nothing is decided.
fn unsettled(document: &Document) -> String {
    match document.is_live() || document.base().is_some() {
        true => view::CHECKING.to_owned(),
        false => view::DROPPED.to_owned(),
    }
}

/// What stands above the revision that counts.
fn narrowed(document: &Document) -> Option<String> {
    let base = document.base().filter(|base| !base.deleted)?;
    let above = document.narrowings().iter();
    let above: Vec<_> = above
        .map(|held| format!("{} of {}", held.revision, held.operator()))
        .collect();
    (!above.is_empty()).then(|| {
        format!(
            "revision {} counts; of what revoked operators signed above it (revision {}), denials count too",
            base.revision,
            above.join(", ")
        )
    })
}

fn revisions(document: &Document) -> Vec<view::Revision> {
    let mut won = None;
    let mut is_above = true;
    let held = document.standings().map(|(held, standing)| {
        let counts = standing == documents::Standing::Counts;
        let lost = counts && won == Some(held.revision);
        if counts {
            won = Some(held.revision);
        }
        let has_effect = is_above && standing != documents::Standing::Dropped && !lost;
        is_above &= !counts;
        view::Revision {
            has_effect,
            ..revision(held, standing, lost)
        }
    });
    held.collect()
}

fn revision(held: &Arc<Revision>, standing: documents::Standing, lost: bool) -> view::Revision {
    view::Revision {
        revision: held.revision,
        operator: held.operator().to_string(),
        public_key: crate::operator::key_hash(&held.signer.public_key).to_string(),
        age_s: age_s(held.issued),
        deleted: held.deleted,
        lost,
        has_effect: false,
        hash: hex(&held.hash),
        replaces: held.replaces.as_ref().map(hex),
        standing: standing_word(standing).to_owned(),
        body: held.body.to_string(),
        signed: STANDARD.encode(held.packet()),
    }
}

fn refused(error: SubmitError) -> view::Refused {
    let (status, hint) = match &error {
        SubmitError::Stale { .. } => (
            409,
            Some("somebody changed it meanwhile; look at it again with `starling get`"),
        ),
        SubmitError::Keep(_) => (507, Some("is the disk full? nothing was changed")),
        SubmitError::Refused(refusal) => (422, hint(*refusal)),
        _ => (422, None),
    };
    view::Refused {
        status,
        error: format!("{:#}", anyhow::Error::from(error)),
        hint: hint.map(ToOwned::to_owned),
    }
}

fn hint(refusal: starling_gossip::metrics::Refusal) -> Option<&'static str> {
    use starling_gossip::metrics::Refusal as R;
    Some(match refusal {
        R::Grant | R::OtherMesh => {
            "use a key that `starling operator new` made with this mesh's root"
        }
        R::GrantDates | R::Kind => {
            "`starling operator new` makes a key that may, where the root's key is"
        }
        R::Full => "delete what is not needed; `starling check` shows who fills what",
        R::Revoked => "another operator has to say it",
        R::Rank => "`starling operator revoke` revokes it where the root's key is",
        R::Future => "set the clocks of this host and of the operator's",
        _ => return None,
    })
}

/// Documents and nodes of one answer; a count says how many there are.
const SHOWN_MAX: usize = 32;

/// Since a time in seconds since 1970; 0 if that is still to come.
pub(super) fn age_s(issued: u64) -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    now.as_secs().saturating_sub(issued)
}
