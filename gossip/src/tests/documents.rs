//! Documents on disk, across partitions, and in meshes larger than three.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use tokio::time::{Instant, sleep};

use super::simulation::{SECOND, all_see, lossy, simulate, start};
use crate::Settings;
use crate::documents::{Checker, DocumentKey, Documents, Library, SubmitError};
use crate::metrics::Refusal;
use crate::testing::suite::documents::row;
use crate::testing::{Attacker, Counters, Memory, Network, Node, Operator};
use crate::wire::Row;

fn key(text: &str) -> DocumentKey {
    text.parse().unwrap()
}

/// A node that keeps its documents in `dir`.
async fn keeper(network: &Memory, name: &str, dir: &Path, seeds: &[&Node]) -> Node {
    let seeds: Vec<_> = seeds.iter().map(|node| node.port.addr).collect();
    let settings = Settings {
        documents_dir: Some(dir.into()),
        ..Node::settings(network, &seeds)
    };
    Node::start_at(network.port(name).await, settings)
}

fn digests(nodes: &[Node]) -> Vec<Option<[u8; 32]>> {
    nodes.iter().map(|node| node.documents().digest()).collect()
}

#[test]
fn a_document_reaches_fifty_nodes_within_a_second() {
    simulate(|network| async move {
        let nodes = start(&network, 50).await;
        all_see(&nodes, 10 * SECOND).await;
        let alice = Operator::new(&network, "alice", &["policy"]);
        for (revision, loss, limit) in [(1, 0.0, SECOND), (2, 0.05, 10 * SECOND)] {
            lossy(&network, loss);
            let document = alice.write(&network, "policy/all", revision, &"x".repeat(60_000));
            nodes[17].membership.submit(&document).await.unwrap();
            let began = Instant::now();
            for node in &nodes {
                node.until_documents("the revision", 20 * SECOND, |held| {
                    held.newest_revision(&key("policy/all")) == revision
                })
                .await;
            }
            let took = began.elapsed();
            assert!(took < limit, "{took:?} with {loss} lost");
        }
        // Nobody asks any more once all have the same.
        lossy(&network, 0.0);
        sleep(30 * SECOND).await;
        let (_, before) = network.traffic();
        sleep(10 * SECOND).await;
        let (_, after) = network.traffic();
        assert!((after - before) / 10 / 50 < 12_000);
    });
}

#[test]
fn both_sides_of_a_partition_go_on_and_agree_after() {
    simulate(|network| async move {
        let nodes = start(&network, 6).await;
        all_see(&nodes, 10 * SECOND).await;
        let alice = Operator::new(&network, "alice", &["policy"]);
        let bob = Operator::new(&network, "bob", &["policy"]);
        let submit = async |at: usize, document: Vec<u8>| {
            nodes[at].membership.submit(&document).await.unwrap();
        };
        submit(0, alice.write(&network, "policy/both", 1, "before")).await;
        sleep(2 * SECOND).await;
        network.part(1, ["n0", "n1", "n2"]);
        submit(0, alice.write(&network, "policy/left", 1, "left")).await;
        submit(4, bob.write(&network, "policy/right", 1, "right")).await;
        submit(1, alice.write(&network, "policy/both", 2, "of the left")).await;
        submit(4, bob.write(&network, "policy/both", 2, "of the right")).await;
        sleep(2 * SECOND).await;
        submit(5, bob.write(&network, "policy/both", 3, "of the right")).await;
        sleep(120 * SECOND).await;
        let parted = digests(&nodes);
        assert_eq!((parted[0], parted[3]), (parted[2], parted[5]));
        assert_ne!(parted[0], parted[3]);
        network.heal();
        for node in &nodes {
            node.until_documents("both sides'", 60 * SECOND, |held| {
                held.entries.len() == 3 && held.newest_revision(&key("policy/both")) == 3
            })
            .await;
        }
        sleep(5 * SECOND).await;
        let healed = digests(&nodes);
        assert!(
            healed.iter().all(|digest| *digest == healed[0]),
            "{healed:?}"
        );
        // The fork under revision 2 stays to be seen in the history.
        let documents = nodes[3].documents();
        assert_eq!(documents.entries[&key("policy/both")].revisions().len(), 4);
    });
}

#[test]
fn one_who_offers_junk_for_ever_is_left_alone() {
    simulate(|network| async move {
        let counters = Counters::default();
        let _guard = counters.install();
        let nodes = start(&network, 2).await;
        all_see(&nodes, 10 * SECOND).await;
        let alice = Operator::new(&network, "alice", &["policy"]);
        let mallory = Attacker::new(network.port("mallory").await, network.trust_domain());
        let junk: Vec<(Row, Vec<u8>)> = (0..200u8)
            .map(|number| {
                let mut document = alice.write(&network, "policy/x", 1 + u64::from(number), "x");
                let last = document.len() - 1;
                document[last] ^= 1;
                let row = Row {
                    hash: [number; 32],
                    ..row("policy/x", 1 + u64::from(number))
                };
                (row, document)
            })
            .collect();
        let offer = mallory.offer_documents(
            nodes[0].port.addr,
            network.clock().now_ms(),
            &junk,
            120 * SECOND,
        );
        offer.await;
        // One check ends an attempt, and the attempts get rarer.
        let checked = counters.refused(Refusal::Signature);
        assert!((1..60).contains(&checked), "{checked}");
        assert!(nodes[0].documents().entries.is_empty());
        let document = alice.write(&network, "policy/y", 1, "y");
        nodes[1].membership.submit(&document).await.unwrap();
        nodes[0]
            .until_documents("an honest one", 2 * SECOND, |held| held.entries.len() == 1)
            .await;
    });
}

#[tokio::test(start_paused = true)]
async fn documents_survive_a_restart() {
    let network = Memory::new(1);
    let dir = tempfile::tempdir().unwrap();
    let node = keeper(&network, "n1", dir.path(), &[]).await;
    let alice = Operator::new(&network, "alice", &["policy"]);
    for revision in 1..=3 {
        let document = alice.write(&network, "policy/a", revision, "text");
        node.membership.submit(&document).await.unwrap();
    }
    let gone = alice.delete(&network, "policy/b", 1);
    node.membership.submit(&gone).await.unwrap();
    let before = node.documents();
    node.membership.close().await;
    let again = keeper(&network, "n1", dir.path(), &[]).await.documents();
    assert_eq!(again.entries, before.entries);
    assert_eq!(again.digest(), before.digest());
    assert!(again.lost.is_empty());
}

/// Does something to a file.
type Damage = fn(&Path);

/// The file whose name begins so.
fn file_of(dir: &Path, begin: &str) -> PathBuf {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let names = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(begin);
    let mut found = entries.filter(names);
    found.next().unwrap().path()
}

/// What can happen to a file.
fn damages() -> Vec<(&'static str, Damage)> {
    fn edit(path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(path).unwrap();
        edit(&mut bytes);
        fs::write(path, bytes).unwrap();
    }
    vec![
        ("missing", |path| fs::remove_file(path).unwrap()),
        ("empty", |path| fs::write(path, "").unwrap()),
        ("truncated", |path| {
            edit(path, |bytes| bytes.truncate(bytes.len() / 2))
        }),
        ("bit-flipped", |path| {
            edit(path, |bytes| {
                let at = bytes.len() - 9;
                bytes[at] ^= 4;
            });
        }),
        ("of another document", |path| {
            let other = file_of(path.parent().unwrap(), "policy@other@");
            fs::copy(other, path).map(drop).unwrap()
        }),
        ("a link", |path| {
            fs::rename(path, path.with_extension("real")).unwrap();
            symlink(path.with_extension("real"), path).unwrap();
        }),
        ("a directory", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_damaged_document_is_lost_until_a_peer_gives_it_back() {
    for (what, damage) in damages() {
        let network = Memory::new(1);
        let (dir, other_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let node = keeper(&network, "n1", dir.path(), &[]).await;
        let peer = keeper(&network, "n2", other_dir.path(), &[&node]).await;
        let alice = Operator::new(&network, "alice", &["policy"]);
        for name in ["policy/a", "policy/other"] {
            let document = alice.write(&network, name, 1, name);
            node.membership.submit(&document).await.unwrap();
        }
        peer.until_documents("both", 10 * SECOND, |held| held.entries.len() == 2)
            .await;
        let whole = node.documents();
        node.membership.close().await;
        damage(&file_of(dir.path(), "policy@a@"));
        let alone = keeper(&network, "n1", dir.path(), &[]).await;
        let held = alone.documents();
        assert_eq!(held.entries.len(), 1, "{what}");
        assert_eq!(held.lost, [(key("policy/a"), 1)].into(), "{what}");
        // It is not forgotten by another restart, and an older one does not take its place.
        alone.membership.close().await;
        let back = keeper(&network, "n1", dir.path(), &[&peer]).await;
        assert_eq!(back.documents().lost.len(), 1, "{what}");
        let older = alice.write(&network, "policy/a", 1, "another");
        let refused = back.membership.submit(&older).await;
        assert!(
            matches!(refused, Err(SubmitError::Stale { newest: 1, .. })),
            "{what}: {refused:?}"
        );
        back.until_documents(what, 10 * SECOND, |held| {
            held.lost.is_empty() && held.digest() == whole.digest()
        })
        .await;
        back.membership.close().await;
        let healed = keeper(&network, "n1", dir.path(), &[]).await.documents();
        assert_eq!(
            (healed.digest(), healed.lost.len()),
            (whole.digest(), 0),
            "{what}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_index_loses_no_document() {
    for (what, damage) in damages() {
        if what == "of another document" {
            continue;
        }
        let network = Memory::new(1);
        let dir = tempfile::tempdir().unwrap();
        let node = keeper(&network, "n1", dir.path(), &[]).await;
        let alice = Operator::new(&network, "alice", &["policy"]);
        let document = alice.write(&network, "policy/a", 1, "text");
        node.membership.submit(&document).await.unwrap();
        let before = node.documents();
        node.membership.close().await;
        damage(&dir.path().join("index"));
        let again = keeper(&network, "n1", dir.path(), &[]).await.documents();
        assert_eq!(again.digest(), before.digest(), "{what}");
    }
}

/// From now on nothing can be written to `dir` but in place.
fn fill_disk(dir: &Path) {
    fs::create_dir_all(dir.join("unfinished/full")).unwrap();
}

fn free_disk(dir: &Path) {
    fs::remove_dir_all(dir.join("unfinished")).unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_came_over_a_full_disk_is_known_to_exist_after_a_crash() {
    let network = Memory::new(1);
    let (dir, other_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let node = keeper(&network, "n1", dir.path(), &[]).await;
    let peer = keeper(&network, "n2", other_dir.path(), &[&node]).await;
    let alice = Operator::new(&network, "alice", &["policy"]);
    let first = alice.write(&network, "policy/a", 1, "one");
    peer.membership.submit(&first).await.unwrap();
    let has = |revision| move |held: &Documents| held.newest_revision(&key("policy/a")) == revision;
    node.until_documents("the first", 10 * SECOND, has(1)).await;
    fill_disk(dir.path());
    for (name, revision) in [("policy/a", 2), ("policy/b", 1)] {
        let document = alice.write(&network, name, revision, "two");
        peer.membership.submit(&document).await.unwrap();
    }
    node.until_documents("the second", 10 * SECOND, |held| {
        held.entries.len() == 2 && has(2)(held)
    })
    .await;
    let unsaved = node
        .documents()
        .unsaved
        .clone()
        .expect("it cannot be written");
    assert_eq!((unsaved.count, unsaved.unnoted), (2, 0), "{unsaved:?}");

    // It crashes, and nobody has the documents for a while.
    peer.membership.close().await;
    node.membership.close().await;
    let alone = keeper(&network, "n1", dir.path(), &[]).await;
    let lost = [(key("policy/a"), 2), (key("policy/b"), 1)];
    assert_eq!(alone.documents().lost, lost.clone().into());

    // With room on the disk the next crash knows it from the index.
    free_disk(dir.path());
    sleep(60 * SECOND).await;
    alone.membership.close().await;
    fs::remove_file(dir.path().join("journal")).unwrap();
    let back = keeper(&network, "n1", dir.path(), &[]).await;
    assert_eq!(back.documents().lost, lost.into());
    let peer = keeper(&network, "n2", other_dir.path(), &[&back]).await;
    back.until_documents("it back", 10 * SECOND, |held| {
        held.lost.is_empty() && held.digest() == peer.documents().digest()
    })
    .await;
    back.membership.close().await;
    let healed = keeper(&network, "n1", dir.path(), &[]).await.documents();
    assert!(healed.lost.is_empty());
    assert_eq!(healed.digest(), peer.documents().digest());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_kept_is_not_taken_from_an_operator() {
    let network = Memory::new(1);
    let dir = tempfile::tempdir().unwrap();
    let node = keeper(&network, "n1", dir.path(), &[]).await;
    let alice = Operator::new(&network, "alice", &["policy"]);
    let document = alice.write(&network, "policy/a", 1, "text");
    fill_disk(dir.path());
    let refused = node.membership.submit(&document).await;
    assert!(matches!(refused, Err(SubmitError::Keep(_))), "{refused:?}");
    assert!(node.documents().entries.is_empty());
    free_disk(dir.path());
    node.membership.submit(&document).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn there_are_limits() {
    let network = Memory::new(1);
    let node = Node::start(&network, "n1", &[]).await;
    let alice = Operator::new(&network, "alice", &["policy"]);
    let large = "x".repeat(63 * 1024);
    let mut refused = None;
    for number in 0..200 {
        let document = alice.write(&network, &format!("policy/p{number}"), 1, &large);
        match node.membership.submit(&document).await {
            Ok(_) => {}
            Err(error) => {
                refused = Some((number, error));
                break;
            }
        }
    }
    let Some((16, SubmitError::Refused(Refusal::Full))) = refused else {
        panic!("{refused:?}");
    };
    // Even then a text can be replaced by one that is no longer, and something can be deleted.
    let shorter = alice.write(&network, "policy/p2", 2, &large);
    node.membership.submit(&shorter).await.unwrap();
    let gone = alice.delete(&network, "policy/p1", 2);
    node.membership.submit(&gone).await.unwrap();
    // Nobody else's room is smaller for it, and no other kind's.
    let bob = Operator::new(&network, "bob", &["policy", "revocation"]);
    for name in ["policy/b", "revocation/b"] {
        let document = bob.write(&network, name, 1, &large);
        node.membership.submit(&document).await.unwrap();
    }
}

/// Revisions of two documents, several under one number.
fn revisions(network: &Memory) -> Vec<Vec<u8>> {
    let operators = ["alice", "bob", "carol"];
    let operators = operators.map(|name| Operator::new(network, name, &["policy"]));
    let mut all = Vec::new();
    for key in ["policy/a", "policy/b"] {
        for revision in 1..=8 {
            for operator in &operators {
                all.push(operator.write(network, key, revision, &format!("{revision}")));
            }
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_kept_does_not_depend_on_the_order(
        order in Just((0..48usize).collect::<Vec<_>>()).prop_shuffle(),
        other in Just((0..48usize).collect::<Vec<_>>()).prop_shuffle(),
        cut in 1..48usize,
    ) {
        let fill = |order: &[usize]| {
            let mut documents = Documents::default();
            for at in order {
                documents = documents.with(vec![CHECKED[*at].clone()]).0;
            }
            documents
        };
        // The same ones, some of them twice.
        let one = fill(&order[..cut]);
        let again: Vec<usize> = other.iter().copied().filter(|at| order[..cut].contains(at)).collect();
        let other = fill(&[&again[..], &again[..cut / 2]].concat());
        prop_assert_eq!(&one.entries, &other.entries);
        prop_assert_eq!(one.digest(), other.digest());
        for document in one.entries.values() {
            // Five numbers with two under each, and what else is the newest of its operator.
            prop_assert!(document.revisions().len() <= 12);
            let in_order = document
                .revisions()
                .is_sorted_by(|a, b| (b.revision, a.hash) < (a.revision, b.hash));
            prop_assert!(in_order);
        }
    }
}

static CHECKED: std::sync::LazyLock<Vec<Arc<crate::Revision>>> = std::sync::LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    let network = Memory::new(1);
    let checker = checker(&network);
    let all = revisions(&network);
    let checked = all.iter().map(|bytes| checker.check(bytes).unwrap());
    checked.flatten().collect()
});

/// Checks as a node of the network does.
pub(super) fn checker(network: &Memory) -> Checker {
    let settings = Settings {
        clock: network.clock(),
        ..Settings::new(network.trust_domain())
    };
    Checker::new(&settings, Arc::new(network.authority.clone()))
}

/// Each of its revisions had the whole packet read and its signature checked again, after every change of the revocations.
#[tokio::test(start_paused = true)]
async fn a_packet_of_a_thousand_revisions_was_checked_a_thousand_times() {
    let network = Memory::new(1);
    let alice = Operator::new(&network, "alice", &["policy"]);
    let mut draft = alice.draft(&network, "policy/x", 1, "");
    let one = draft.rows.remove(0);
    let row = |nth| {
        let mut row = one.clone();
        (row.name, row.deleted) = (format!("gone-{nth:04}").parse().unwrap(), true);
        row
    };
    draft.rows = (0..1000).map(row).collect();
    let packet = alice.sign(&draft);
    let settings = Node::settings(&network, &[]);
    let verifier = Arc::new(network.authority.clone());
    let library = Library::open(&settings, verifier).unwrap();
    library.submit(&packet).await.unwrap();
    let took = |began: SystemTime| began.elapsed().unwrap_or_default();
    let mut once = Duration::MAX;
    let mut all = Duration::MAX;
    for _ in 0..5 {
        let began = SystemTime::now();
        assert_eq!(library.checker.check(&packet).unwrap().len(), 1000);
        once = once.min(took(began));
        let began = SystemTime::now();
        library.recheck().await;
        all = all.min(took(began));
    }
    assert_eq!(library.documents().entries.len(), 1000);
    assert!(all < 50 * once, "{all:?}, where one check takes {once:?}");
}
