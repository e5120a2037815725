//! Whose word counts: operators who are revoked, what stays of them, and how much room there is for whom.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::documents::checker;
use crate::Revision;
use crate::documents::system::{KeyStatement, RetentionEntry, hex, retention_lists};
use crate::documents::{Checker, DocumentKey, Documents, Draft, DraftRow, Standing, SubmitError};
use crate::metrics::Refusal;
use crate::testing::{Memory, Network, Node, Operator};

struct Mesh {
    network: Memory,
    checker: Checker,
    alice: Operator,
    bob: Operator,
    documents: Documents,
}

impl Mesh {
    /// Alice is senior to Bob.
    fn new() -> Self {
        let network = Memory::new(1);
        let ranked = |name: &str, rank| {
            Operator::with(
                &network,
                name,
                &["policy", "revocation", "route"],
                |grant| {
                    grant.rank = rank;
                },
            )
        };
        Self {
            checker: checker(&network),
            alice: ranked("alice", 1),
            bob: ranked("bob", 2),
            documents: Documents::default(),
            network,
        }
    }

    fn read(&self, packet: &[u8]) -> Vec<Arc<Revision>> {
        self.checker.check(packet).unwrap()
    }

    fn take(&mut self, packet: &[u8]) {
        let revisions = self.read(packet);
        self.documents = self.documents.with(revisions).0;
    }

    /// As from a peer; says whether it was wanted.
    fn offer(&mut self, packet: &[u8]) -> bool {
        let revisions = self.read(packet);
        let rows: Vec<_> = revisions
            .iter()
            .map(|held| (held.key.clone(), held.row()))
            .collect();
        let is_wanted = !self.documents.wants(&rows).is_empty();
        if is_wanted {
            self.documents = self.documents.with(revisions).0;
        }
        is_wanted
    }

    fn revocation(&self, by: &Operator, about: &Operator) -> Vec<u8> {
        let statement = KeyStatement {
            key: about.key_hash(),
            reason: "lost".into(),
        };
        let document = statement.document(Some(&by.key_hash()));
        by.write(
            &self.network,
            &document.to_string(),
            1,
            &statement.to_text(),
        )
    }

    /// A list of one entry.
    fn list(&self, by: &Operator, about: &Operator, held: &Revision, keep: bool) -> Vec<u8> {
        let entry = RetentionEntry {
            document: held.key.clone(),
            revision: held.revision,
            hash: held.hash,
            keep,
        };
        let lists = retention_lists(&about.key_hash(), Some(&by.key_hash()), &[entry]);
        let (document, text) = &lists[0];
        by.write(&self.network, &document.to_string(), 1, text)
    }

    fn standing(&self, key: &str) -> Vec<(String, Standing)> {
        let document = self.documents.get(&key.parse().unwrap());
        let all = document
            .into_iter()
            .flat_map(|document| document.standings());
        all.map(|(held, standing)| (held.body.to_string(), standing))
            .collect()
    }

    fn narrowings(&self, key: &str) -> Vec<String> {
        let document = &self.documents.entries[&key.parse().unwrap()];
        document
            .narrowings()
            .iter()
            .map(|held| held.body.to_string())
            .collect()
    }
}

#[test]
fn revoking_an_operators_key_opened_what_that_operator_had_closed() {
    let mut mesh = Mesh::new();
    let denial = mesh.bob.write(&mesh.network, "policy/x", 1, "deny evil");
    mesh.take(&denial);
    let held = mesh.read(&denial)[0].clone();
    let list = mesh.list(&mesh.alice, &mesh.bob, &held, true);
    let revocation = mesh.revocation(&mesh.alice, &mesh.bob);
    mesh.take(&list);
    mesh.take(&revocation);
    assert_eq!(mesh.narrowings("policy/x"), ["deny evil"]);
    assert_eq!(
        mesh.standing("policy/x"),
        [("deny evil".into(), Standing::Kept)]
    );
    // A host that joins later hears the list, then the revocation, and gets the denial; before that it counts as lost.
    let mut late = Mesh {
        documents: Documents::default(),
        ..mesh
    };
    assert!(late.offer(&list) && late.offer(&revocation));
    assert_eq!(late.documents.lost.len(), 1);
    assert!(late.offer(&denial));
    assert_eq!(
        (late.narrowings("policy/x"), late.documents.lost.len()),
        (vec!["deny evil".into()], 0)
    );
    // It can be handed to any agent again, though its number is not the next one.
    let taken_back =
        late.alice
            .delete(&late.network, &late.read(&revocation)[0].key.to_string(), 2);
    late.take(&taken_back);
    assert_eq!(
        late.standing("policy/x"),
        [("deny evil".into(), Standing::Counts)]
    );
}

#[test]
fn a_thief_adds_nothing_after_the_key_is_revoked_whatever_date_he_writes() {
    let mut mesh = Mesh::new();
    let before = mesh.bob.write(&mesh.network, "policy/x", 1, "deny a");
    mesh.take(&before);
    let revocation = mesh.revocation(&mesh.alice, &mesh.bob);
    mesh.take(&revocation);
    // Held and not listed: it keeps its denials here, and is offered to nobody.
    assert_eq!(mesh.narrowings("policy/x"), ["deny a"]);
    assert_eq!(mesh.documents.unlisted().count(), 1);
    assert_eq!(mesh.documents.behind("policy", None, None).count(), 0);
    for (number, issued) in [(1, 0), (2, 0), (2, 3_000)] {
        let mut draft = mesh
            .bob
            .draft(&mesh.network, "policy/y", number, "deny all");
        draft.issued -= issued;
        let packet = mesh.bob.sign(&draft);
        assert!(!mesh.offer(&packet), "{number} {issued}");
    }
    // Once listed it is offered again.
    let held = mesh.read(&before)[0].clone();
    let list = mesh.list(&mesh.alice, &mesh.bob, &held, true);
    mesh.take(&list);
    assert_eq!(mesh.documents.unlisted().count(), 0);
    assert_eq!(mesh.documents.behind("policy", None, None).count(), 1);
}

#[test]
fn juniors_and_equals_do_not_revoke_and_a_key_does_not_take_its_own_revocation_back() {
    let mut mesh = Mesh::new();
    for packet in [
        mesh.alice.write(&mesh.network, "policy/a", 1, "a"),
        mesh.bob.write(&mesh.network, "policy/b", 1, "b"),
    ] {
        mesh.take(&packet);
    }
    let junior = mesh.revocation(&mesh.bob, &mesh.alice);
    mesh.take(&junior);
    let named = |mesh: &Mesh, operator: &Operator| {
        let digits = hex(&operator.key_hash())[..16].to_owned();
        mesh.documents.operators.is_revoked_named(&digits)
    };
    assert!(!named(&mesh, &mesh.alice) && !named(&mesh, &mesh.bob));
    assert!(
        !mesh
            .documents
            .operators
            .is_revoked(&mesh.alice.key_hash(), 1)
    );
    let own = mesh.revocation(&mesh.bob, &mesh.bob);
    mesh.take(&own);
    assert!(mesh.documents.operators.is_revoked(&mesh.bob.key_hash(), 2));
    assert!(named(&mesh, &mesh.bob) && !named(&mesh, &mesh.alice));
    assert!(!mesh.documents.operators.is_revoked_named(""));
    let key = mesh.read(&own)[0].key.to_string();
    let taken_back = mesh.bob.delete(&mesh.network, &key, 2);
    assert_eq!(
        mesh.checker.check(&taken_back).unwrap_err(),
        Refusal::OwnRevocation
    );
}

#[test]
fn two_who_revoke_each_other_end_alike_in_any_order() {
    let mesh = Mesh::new();
    let packets = [
        mesh.alice.write(&mesh.network, "policy/a", 1, "a"),
        mesh.bob.write(&mesh.network, "policy/b", 1, "b"),
        mesh.revocation(&mesh.alice, &mesh.bob),
        mesh.revocation(&mesh.bob, &mesh.alice),
    ];
    let mut one = Documents::default();
    let mut other = Documents::default();
    for packet in &packets {
        one = one.with(mesh.read(packet)).0;
    }
    for packet in packets.iter().rev() {
        other = other.with(mesh.read(packet)).0;
    }
    for documents in [one, other] {
        assert!(documents.operators.is_revoked(&mesh.bob.key_hash(), 2));
        assert!(!documents.operators.is_revoked(&mesh.alice.key_hash(), 1));
    }
}

#[test]
fn a_drop_wins_and_a_thief_s_list_of_himself_opens_nothing() {
    let mut mesh = Mesh::new();
    let denial = mesh.bob.write(&mesh.network, "policy/x", 1, "deny a");
    mesh.take(&denial);
    let held = mesh.read(&denial)[0].clone();
    // He drops his own denial, and revokes himself.
    let own_list = mesh.list(&mesh.bob, &mesh.bob, &held, false);
    let own = mesh.revocation(&mesh.bob, &mesh.bob);
    mesh.take(&own_list);
    mesh.take(&own);
    assert_eq!(mesh.narrowings("policy/x"), ["deny a"]);
    // What he says stays, stays: until another operator answers.
    let own_keep = mesh.bob.write(
        &mesh.network,
        &mesh.read(&own_list)[0].key.to_string(),
        2,
        &{
            let entry = RetentionEntry {
                document: held.key.clone(),
                revision: 1,
                hash: held.hash,
                keep: true,
            };
            retention_lists(&mesh.bob.key_hash(), Some(&mesh.bob.key_hash()), &[entry])[0]
                .1
                .clone()
        },
    );
    mesh.take(&own_keep);
    assert_eq!(
        mesh.standing("policy/x"),
        [("deny a".into(), Standing::Kept)]
    );
    let dropped = mesh.list(&mesh.alice, &mesh.bob, &held, false);
    mesh.take(&dropped);
    assert_eq!(
        mesh.standing("policy/x"),
        [("deny a".into(), Standing::Dropped)]
    );
    assert!(mesh.narrowings("policy/x").is_empty());
}

#[test]
fn the_text_below_a_revoked_operators_is_kept_and_counts_with_it() {
    let mut mesh = Mesh::new();
    let first = mesh.alice.write(&mesh.network, "policy/x", 1, "alice's");
    let second = mesh.bob.write(&mesh.network, "policy/x", 2, "bob's");
    let gone = mesh.bob.delete(&mesh.network, "policy/x", 3);
    for packet in [&first, &second] {
        mesh.take(packet);
    }
    let base = |documents: &Documents| {
        let document = &documents.entries[&"policy/x".parse::<DocumentKey>().unwrap()];
        document.base().map(|base| base.body.to_string())
    };
    assert_eq!(base(&mesh.documents).as_deref(), Some("bob's"));
    let held = mesh.read(&second)[0].clone();
    let list = mesh.list(&mesh.alice, &mesh.bob, &held, true);
    let revocation = mesh.revocation(&mesh.alice, &mesh.bob);
    mesh.take(&list);
    mesh.take(&revocation);
    assert_eq!(base(&mesh.documents).as_deref(), Some("alice's"));
    assert_eq!(mesh.narrowings("policy/x"), ["bob's"]);
    // A deletion by another key, too, leaves the text below it.
    mesh.documents = Documents::default();
    for packet in [&first, &gone] {
        mesh.take(packet);
    }
    assert_eq!(mesh.standing("policy/x").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn names_applied_and_deleted_left_no_room_for_new_ones() {
    let network = Memory::new(1);
    let node = Node::start(&network, "n1", &[]).await;
    let alice = Operator::new(&network, "alice", &["policy"]);
    for number in 0..1_200 {
        let key = format!("policy/p{number}");
        for packet in [
            alice.write(&network, &key, 1, "x"),
            alice.delete(&network, &key, 2),
        ] {
            node.membership.submit(&packet).await.unwrap();
        }
    }
    assert_eq!(node.documents().entries.len(), 1_200);
    let next = alice.write(&network, "policy/next", 1, "x");
    node.membership.submit(&next).await.unwrap();
    // The deletions are known for ever: an old text does not come back.
    let old = alice.write(&network, "policy/p7", 1, "x");
    assert!(matches!(
        node.membership.submit(&old).await,
        Err(SubmitError::Stale { newest: 2, .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn one_operator_filled_the_only_room_and_nobody_could_revoke() {
    let network = Memory::new(1);
    let node = Node::start(&network, "n1", &[]).await;
    let mallory = Operator::new(&network, "mallory", &["policy"]);
    let mut refused = None;
    for number in 0..600 {
        let packet = mallory.write(&network, &format!("policy/p{number}"), 1, "x");
        if let Err(error) = node.membership.submit(&packet).await {
            refused = Some((number, error));
            break;
        }
    }
    assert!(
        matches!(refused, Some((512, SubmitError::Refused(Refusal::Full)))),
        "{refused:?}"
    );
    let alice = Operator::with(&network, "alice", &["policy", "revocation"], |grant| {
        grant.rank = 0
    });
    let statement = KeyStatement {
        key: mallory.key_hash(),
        reason: "full".into(),
    };
    let document = statement.document(Some(&alice.key_hash())).to_string();
    for packet in [
        alice.write(&network, "revocation/node-n3", 1, "x"),
        alice.write(&network, &document, 1, &statement.to_text()),
        alice.write(&network, "policy/a", 1, "x"),
    ] {
        node.membership.submit(&packet).await.unwrap();
    }
    assert!(
        node.documents()
            .operators
            .is_revoked(&mallory.key_hash(), 1)
    );
}

#[test]
fn rows_signed_together_count_as_if_each_had_come_alone() {
    let mesh = Mesh::new();
    let names: Vec<String> = (0..300).map(|at| format!("n{at:03}")).collect();
    let mut alone = Documents::default();
    for name in &names {
        let packet = mesh
            .bob
            .write(&mesh.network, &format!("revocation/{name}"), 1, "x");
        alone = alone.with(mesh.read(&packet)).0;
    }
    let rows = names.iter().map(|name| DraftRow {
        name: name.parse().unwrap(),
        revision: 2,
        replaces: None,
        deleted: false,
        body: "x".into(),
    });
    let draft = Draft {
        kind: "revocation".parse().unwrap(),
        issued: mesh.network.clock().now_s(),
        rows: rows.collect(),
    };
    let together = mesh.read(&mesh.bob.sign(&draft));
    alone.check_room(&together).unwrap();
    let fill = |documents: &Documents| {
        let fills: Vec<_> = documents
            .fills()
            .map(|(_, _, fill)| (fill.names, fill.bytes))
            .collect();
        fills[0]
    };
    let before = fill(&alone);
    let (merged, news) = alone.with(together);
    assert_eq!((news.len(), merged.entries.len()), (300, 300));
    let after = fill(&merged);
    assert_eq!((before.0, after.0), (300, 300));
    assert!(after.1 * 5 < before.1, "{before:?} {after:?}");
    for document in merged.entries.values() {
        assert_eq!(document.base().unwrap().revision, 2);
    }
    // Each is wanted by itself where the others are there already.
    let one = merged
        .all()
        .find(|held| held.revision == 2)
        .unwrap()
        .clone();
    let others = merged.all().filter(|held| held.hash != one.hash).cloned();
    let mut lacking = Documents::build(others, BTreeMap::new(), BTreeSet::new());
    let wanted = lacking.wants(&[(one.key.clone(), one.row())]);
    assert_eq!(wanted.keys().collect::<Vec<_>>(), [&one.hash]);
}
