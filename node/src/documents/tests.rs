//! Which revision is in force, in what order things are written, and what a crash changes.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use starling_gossip::DocumentName;
use starling_gossip::testing::{Memory, Node, Operator};

use super::*;
use crate::config::{Problem, Problems};

/// Reads bodies that say `good`; panics on `panic`.
fn parse(_name: &DocumentName, file: &Path, body: &str) -> Result<String, Problems> {
    assert!(!body.contains("panic"), "as told");
    if body.starts_with("good") {
        return Ok(body.to_owned());
    }
    Err(Problems::from(Problem {
        file: file.into(),
        line: Some(1),
        what: format!("`{body}` is not good"),
        hint: None,
    }))
}

type Taken = Arc<Mutex<Vec<String>>>;

/// What is in force, as `name@revision=body` and `name@revision missing`.
fn consumer(taken: &Taken) -> Vec<Box<dyn Consumer>> {
    let taken = taken.clone();
    vec![Kind::new("policy", parse, move |set| {
        let documents = set.documents.iter();
        let documents =
            documents.map(|held| format!("{}@{}={}", held.name, held.revision, held.document));
        let missing = set.missing.iter();
        let missing =
            missing.map(|missing| format!("{}@{} missing", missing.name, missing.revision));
        *taken.lock().unwrap() = documents.chain(missing).collect();
    })]
}

struct Rig {
    network: Memory,
    node: Node,
    alice: Operator,
    state: StateDir,
    taken: Taken,
    _dir: tempfile::TempDir,
}

impl Rig {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let network = Memory::new(1);
        Self {
            node: Node::start(&network, "n1", &[]).await,
            alice: Operator::new(&network, "alice", &["policy", "odd"]),
            state: StateDir::create(&dir.path().join("state")).unwrap(),
            taken: Taken::default(),
            network,
            _dir: dir,
        }
    }

    async fn say(&self, key: &str, revision: u64, body: &str) {
        let document = match body {
            "" => self.alice.delete(&self.network, key, revision),
            _ => self.alice.write(&self.network, key, revision, body),
        };
        self.node.membership.submit(&document).await.unwrap();
    }

    async fn start(&self) -> Arc<Keeper> {
        Keeper::start(&self.state, &self.node.membership, consumer(&self.taken)).await
    }

    async fn follow(&self, keeper: &Keeper) {
        keeper.update(self.node.membership.documents()).await;
    }

    fn taken(&self) -> Vec<String> {
        self.taken.lock().unwrap().clone()
    }

    fn trial(&self) -> String {
        String::from_utf8(self.state.read(trial::FILE).unwrap()).unwrap()
    }
}

fn standing(keeper: &Keeper, key: &str) -> (&'static str, Option<u64>) {
    let standings = keeper.standings();
    let standing = standings.get(&key.parse().unwrap()).unwrap();
    let in_force = standing.in_force().map(|revision| revision.revision);
    (standing.word(), in_force)
}

#[tokio::test(start_paused = true)]
async fn the_newest_that_can_be_read_is_in_force() {
    let rig = Rig::new().await;
    let keeper = rig.start().await;
    rig.say("policy/a", 1, "good 1").await;
    rig.say("policy/a", 2, "good 2").await;
    rig.follow(&keeper).await;
    assert_eq!(rig.taken(), ["a@2=good 2"]);
    for bad in ["bad", "panic"] {
        let revision = rig
            .node
            .documents()
            .newest_revision(&"policy/a".parse().unwrap())
            + 1;
        rig.say("policy/a", revision, bad).await;
        rig.follow(&keeper).await;
        assert_eq!(rig.taken(), ["a@2=good 2"], "{bad}");
        assert_eq!(standing(&keeper, "policy/a"), ("not in force", Some(2)));
    }
    rig.say("policy/a", 5, "").await;
    rig.follow(&keeper).await;
    assert_eq!(
        (rig.taken().len(), standing(&keeper, "policy/a").0),
        (0, "deleted")
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_in_force_at_all_is_missing() {
    let rig = Rig::new().await;
    rig.say("policy/a", 3, "bad").await;
    rig.say("odd/b", 1, "good").await;
    let keeper = rig.start().await;
    assert_eq!(rig.taken(), ["a@3 missing"]);
    assert_eq!(standing(&keeper, "policy/a"), ("not in force", None));
    assert_eq!(standing(&keeper, "odd/b"), ("not in force", None));
    let why = keeper
        .standings()
        .get(&"odd/b".parse().unwrap())
        .unwrap()
        .why();
    assert!(why.unwrap().contains("knows no documents of kind `odd`"));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_crashed_young_goes_back_by_one() {
    let rig = Rig::new().await;
    rig.say("policy/a", 1, "good 1").await;
    let keeper = rig.start().await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    keeper.trials().pass(Instant::now());
    keeper.save_trials().await;
    assert!(rig.trial().starts_with("passed "), "{}", rig.trial());
    rig.say("policy/a", 2, "good 2").await;
    rig.follow(&keeper).await;
    assert!(rig.trial().contains("trial "), "{}", rig.trial());
    drop(keeper);
    // It crashed; and once more for good measure.
    for _ in 0..2 {
        let keeper = rig.start().await;
        assert_eq!(rig.taken(), ["a@1=good 1"]);
        assert_eq!(standing(&keeper, "policy/a"), ("held back", Some(1)));
    }
    let keeper = rig.start().await;
    rig.say("policy/a", 3, "good 3").await;
    rig.follow(&keeper).await;
    assert_eq!(rig.taken(), ["a@3=good 3"]);
}

#[tokio::test(start_paused = true)]
async fn an_orderly_end_is_no_crash() {
    let rig = Rig::new().await;
    rig.say("policy/a", 1, "good 1").await;
    let keeper = rig.start().await;
    keeper.stop().await;
    let keeper = rig.start().await;
    assert_eq!(standing(&keeper, "policy/a"), ("in force", Some(1)));
    // A deletion that makes it crash is held back like anything else.
    rig.say("policy/a", 2, "").await;
    rig.follow(&keeper).await;
    drop(keeper);
    // Both were new, so both are suspected.
    let keeper = rig.start().await;
    assert_eq!(standing(&keeper, "policy/a"), ("held back", None));
    assert!(rig.taken().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_broken_trial_file_puts_all_on_trial_again() {
    let rig = Rig::new().await;
    rig.say("policy/a", 1, "good 1").await;
    for broken in ["", "nonsense", "held 12", "trial zz\n"] {
        rig.state.write(trial::FILE, broken.as_bytes()).unwrap();
        let keeper = rig.start().await;
        assert_eq!(
            standing(&keeper, "policy/a"),
            ("in force", Some(1)),
            "{broken:?}"
        );
        assert!(rig.trial().starts_with("trial "), "{broken:?}");
    }
}
