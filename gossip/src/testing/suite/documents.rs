//! What every network has to do with documents.

use super::super::{Attacker, Counters, Network, Node, Operator};
use super::{mesh, wait};
use crate::documents::system::KeyStatement;
use crate::documents::{DocumentKey, Documents, Draft, SubmitError};
use crate::metrics::Refusal;
use crate::wire::Row;
use crate::wire::credentials::hash;
use crate::wire::document::{Envelope, row_hash};

/// Runs all of it.
pub async fn run(network: &dyn Network) {
    documents_reach_all(network).await;
    older_documents_are_refused(network).await;
    a_fork_is_the_same_for_all(network).await;
    a_newcomer_gets_all_documents(network).await;
    documents_that_prove_nothing_are_refused(network, None).await;
}

/// What one node takes from its operator is at all of them within a moment, and so are its next revision and its end.
pub async fn documents_reach_all(network: &dyn Network) {
    let nodes = mesh(network, "doc", 3).await;
    let alice = Operator::new(network, "alice", &["policy"]);
    for revision in 1..=7 {
        let document = alice.write(network, KEY, revision, &format!("v{revision}"));
        let at = revision as usize % nodes.len();
        nodes[at].membership.submit(&document).await.unwrap();
        for node in &nodes {
            node.until_documents("the revision", 2 * network.interval(), |held| {
                newest(held) == (revision, format!("v{revision}"))
            })
            .await;
        }
    }
    let deleted = alice.delete(network, KEY, 8);
    nodes[0].membership.submit(&deleted).await.unwrap();
    for node in &nodes {
        node.until_documents("its end", 2 * network.interval(), |held| {
            held.live().count() == 0 && held.newest_revision(&KEY.parse().unwrap()) == 8
        })
        .await;
        let documents = node.documents();
        let history = documents.entries[&KEY.parse().unwrap()].revisions();
        let numbers: Vec<u64> = history.iter().map(|held| held.revision).collect();
        // Deletions are kept without text and history.
        assert_eq!(numbers, [8]);
    }
}

/// Nobody brings back what was replaced.
pub async fn older_documents_are_refused(network: &dyn Network) {
    let nodes = mesh(network, "old", 2).await;
    let alice = Operator::new(network, "alice", &["policy"]);
    let first = alice.write(network, KEY, 1, "first");
    let second = alice.write(network, KEY, 2, "second");
    nodes[0].membership.submit(&first).await.unwrap();
    nodes[0].membership.submit(&second).await.unwrap();
    for node in &nodes {
        node.until_documents("the second", wait(network), |held| newest(held).0 == 2)
            .await;
        let refused = node.membership.submit(&first).await;
        assert!(
            matches!(refused, Err(SubmitError::Stale { newest: 2, .. })),
            "{refused:?}"
        );
        // It came by gossip, and its operator need not know that.
        let twice = node.membership.submit(&second).await.unwrap();
        assert_eq!((twice.revision, twice.is_news), (2, false));
    }
}

/// Two operators who sign the same number at the same time: all see the same one win, and that there are two.
pub async fn a_fork_is_the_same_for_all(network: &dyn Network) {
    let nodes = mesh(network, "fork", 3).await;
    let alice = Operator::new(network, "alice", &["policy"]);
    let bob = Operator::new(network, "bob", &["policy", "route"]);
    let one = alice.write(network, KEY, 1, "alice's");
    let other = bob.write(network, KEY, 1, "bob's");
    let (one, other) = tokio::join!(
        nodes[0].membership.submit(&one),
        nodes[1].membership.submit(&other)
    );
    let lower = one.unwrap().hash.min(other.unwrap().hash);
    for node in &nodes {
        node.until_documents("both", wait(network), |held| {
            let document = held.get(&KEY.parse().unwrap());
            document.is_some_and(|document| {
                document.newest().hash == lower && document.rival().is_some()
            })
        })
        .await;
    }
    let resolved = alice.write(network, KEY, 2, "agreed");
    nodes[2].membership.submit(&resolved).await.unwrap();
    for node in &nodes {
        node.until_documents("the end of the fork", wait(network), |held| {
            let document = held.get(&KEY.parse().unwrap()).unwrap();
            newest(held).1 == "agreed" && document.rival().is_none()
        })
        .await;
    }
}

/// Who comes later has everything, the history too.
pub async fn a_newcomer_gets_all_documents(network: &dyn Network) {
    let nodes = mesh(network, "late", 2).await;
    let alice = Operator::new(network, "alice", &["policy"]);
    for number in 0..40 {
        let key = format!("policy/p{number}");
        for revision in 1..=2 {
            let body = "x".repeat(number * 500);
            let document = alice.write(network, &key, revision, &body);
            nodes[0].membership.submit(&document).await.unwrap();
        }
    }
    let newcomer = Node::start(network, "late-comer", &[nodes[1].port.addr]).await;
    newcomer
        .until_documents("all of them", wait(network), |held| {
            held.entries.len() == 40
                && held
                    .entries
                    .values()
                    .all(|document| document.revisions().len() == 2)
        })
        .await;
}

/// What an operator may not say has no effect but a counter, whoever brings it.
pub async fn documents_that_prove_nothing_are_refused(
    network: &dyn Network,
    counters: Option<&Counters>,
) {
    let nodes = mesh(network, "junk", 2).await;
    for (at, (what, refusal, document)) in junk(network).into_iter().enumerate() {
        let count = || counters.map_or(0, |counters| counters.refused(refusal));
        let before = count();
        let refused = nodes[0].membership.submit(&document).await;
        assert!(
            matches!(refused, Err(SubmitError::Refused(why)) if why == refusal),
            "{what}: {refused:?}"
        );
        assert!(counters.is_none() || count() > before, "{what}");
        let port = network
            .port(&format!("junk-{at}-{}", refusal.reason().replace('_', "-")))
            .await;
        let mallory = Attacker::new(port, network.trust_domain());
        let row = Row {
            hash: row_of(&document),
            ..row("policy/orders", 3)
        };
        let now_ms = network.clock().now_ms();
        let before = count();
        let offered = [(row, document)];
        let limit = 10 * network.interval();
        let offer = mallory.offer_documents(nodes[1].port.addr, now_ms, &offered, limit);
        let counted = async {
            while counters.is_some() && count() == before {
                tokio::time::sleep(network.interval() / 10).await;
            }
        };
        tokio::select! {
            () = offer => assert!(counters.is_none(), "{what} from a peer is not counted"),
            () = counted, if counters.is_some() => {}
        }
        for node in &nodes {
            assert!(node.documents().entries.is_empty(), "{what}");
        }
    }
}

fn junk(network: &dyn Network) -> Vec<(&'static str, Refusal, Vec<u8>)> {
    let alice = Operator::new(network, "alice", &["policy"]);
    let genuine = alice.write(network, KEY, 3, "genuine");
    let edited = |edit: fn(&mut Envelope)| {
        let (mut envelope, ..) = Envelope::decode(&genuine).unwrap();
        edit(&mut envelope);
        envelope.encode()
    };
    let now = network.clock().now_s();
    let granted = |change: fn(&mut crate::documents::Grant, u64)| {
        let operator = Operator::with(network, "alice", &["policy"], |grant| change(grant, now));
        operator.write(network, KEY, 3, "text")
    };
    let later = alice.sign(&Draft {
        issued: now + 900,
        ..alice.draft(network, KEY, 3, "from the future")
    });
    let last_number = alice.write(network, KEY, (1 << 62) - 1, "the last word");
    let own_revocation = Operator::new(network, "alice", &["revocation"]);
    let mut taken_back = own_revocation.draft(network, "operator-revocation/x", 1, "");
    taken_back.rows[0].name = self::own_revocation(&own_revocation).name;
    taken_back.rows[0].deleted = true;
    let taken_back = own_revocation.sign(&taken_back);
    let of_another = {
        let key = self::own_revocation(&own_revocation);
        let mallory = Operator::new(network, "mallory", &["revocation"]);
        mallory.write(network, &key.to_string(), 1, "key sha256:00\nreason x\n")
    };
    vec![
        ("an altered text", Refusal::Signature, {
            edited(|envelope| {
                let last = envelope.content.0.len() - 1;
                envelope.content.0[last] ^= 1;
            })
        }),
        (
            "another's signature",
            Refusal::Signature,
            edited(|envelope| envelope.signature.0[5] ^= 1),
        ),
        (
            "an operator who made himself one",
            Refusal::Grant,
            Operator::self_made(network, "eve", &["policy"]).write(network, KEY, 3, "text"),
        ),
        (
            "an operator of another mesh",
            Refusal::OtherMesh,
            granted(|grant, _| grant.trust_domain = "example.net".into()),
        ),
        (
            "a kind that was not granted",
            Refusal::Kind,
            Operator::new(network, "carol", &["route"]).write(network, KEY, 3, "text"),
        ),
        (
            "a grant that ended",
            Refusal::GrantDates,
            granted(|grant, now| grant.not_after = now - 600),
        ),
        ("tomorrow's document", Refusal::Future, later),
        ("the last number there is", Refusal::Number, last_number),
        (
            "its own revocation taken back",
            Refusal::OwnRevocation,
            taken_back,
        ),
        (
            "a revocation in another's name",
            Refusal::Malformed,
            of_another,
        ),
        (
            "a kind that is the root's",
            Refusal::Kind,
            Operator::new(network, "carol", &["root-revocation"]).write(
                network,
                "root-revocation/x",
                1,
                "text",
            ),
        ),
        (
            "a byte too many",
            Refusal::Malformed,
            [&genuine[..], &[0]].concat(),
        ),
        (
            "more than a document may have",
            Refusal::TooLarge,
            alice.write(network, KEY, 3, &"x".repeat(70_000)),
        ),
    ]
}

fn own_revocation(operator: &Operator) -> DocumentKey {
    let key = operator.key_hash();
    let statement = KeyStatement {
        key,
        reason: String::new(),
    };
    statement.document(Some(&key))
}

/// What names the first revision in a packet.
fn row_of(packet: &[u8]) -> [u8; 32] {
    let Ok((envelope, _, draft)) = Envelope::decode(packet) else {
        return hash(packet);
    };
    row_hash(&draft, &draft.rows[0], hash(&envelope.grant.0))
}

/// A row as a peer may list it, of a key that nobody knows.
pub(crate) fn row(key: &str, revision: u64) -> Row {
    let key: DocumentKey = key.parse().unwrap();
    Row {
        kind: key.kind.to_string(),
        name: key.name.to_string(),
        revision,
        issued: 1_790_000_000,
        deleted: false,
        hash: [9; 32],
        signer: [8; 32],
        rank: 1,
        packet: [7; 32],
        packet_bytes: 700,
    }
}

fn newest(held: &Documents) -> (u64, String) {
    let document = held.get(&KEY.parse().unwrap());
    document.map_or((0, String::new()), |document| {
        let newest = document.newest();
        (newest.revision, newest.body.to_string())
    })
}

const KEY: &str = "policy/orders";
