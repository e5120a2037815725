//! Which revision is in force, what acts in its place, and what a crash, a kill or another build changes.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::BoxFuture;
use starling_gossip::DocumentName;
use starling_gossip::testing::{Memory, Node, Operator};

use super::kinds::Fallback;
use super::preflight::{End, Ending, Evidence, Patience, Text};
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

type Taken = Arc<Mutex<BTreeMap<&'static str, Vec<String>>>>;

/// What is in force, as `name@revision=body` and `name@revision denies coverage`.
fn told<T>(set: &Set<InForce<T>>, show: impl Fn(&T) -> String) -> Vec<String> {
    let texts = set.documents.iter().flat_map(|held| {
        let texts = held.texts.iter();
        let texts = texts.filter_map(|text| Some((text.revision, text.document.as_ref()?)));
        texts.map(|(revision, document)| format!("{}@{revision}={}", held.name, show(document)))
    });
    let missing = set.missing.iter().map(|missing| {
        let denied = missing.denied.describe();
        format!("{}@{} denies {denied}", missing.name, missing.revision)
    });
    texts.chain(missing).collect()
}

fn consumers(taken: &Taken) -> Vec<Box<dyn Consumer>> {
    let other = |kind: &'static str, fallback| {
        let taken = taken.clone();
        Kind::new(kind, fallback, parse, move |set| {
            let told = told(&set, Clone::clone);
            taken.lock().unwrap().insert(kind, told);
        })
    };
    let policies = taken.clone();
    vec![
        other("revocation", Fallback::KeepAndDeny),
        Kind::policy(kinds::policy, move |set| {
            let told = told(&set, |document| document.services_named().describe());
            policies.lock().unwrap().insert("policy", told);
        }),
        other("route", Fallback::Keep),
    ]
}

/// A child that ends as the texts say.
#[derive(Default)]
struct Scripted {
    seen: Mutex<Vec<String>>,
    is_missing: std::sync::atomic::AtomicBool,
}

impl Scripted {
    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    async fn check(&self, texts: &[Text], patience: Patience) -> Ending {
        let mut ending = Ending::default();
        if self.is_missing.load(std::sync::atomic::Ordering::Relaxed) {
            ending.end = End::Stopped("none".into());
            return ending;
        }
        for (at, text) in texts.iter().enumerate() {
            self.seen.lock().unwrap().push(text.key.to_string());
            ending.begun += 1;
            if let Ok(document) = crate::policy::Document::parse(&text.body) {
                ending.coverages.push((at, document.services_named()));
            }
            let says = |word| text.body.contains(word);
            if says("slow") {
                tokio::time::sleep(Duration::from_secs(30)).await;
            }
            let end = match () {
                () if says("segv") => End::Crashed(Evidence::Segv),
                () if says("oom") => End::Stopped("killed".into()),
                () if says("hang") && patience == Patience::Batch => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    End::Stopped("no report".into())
                }
                () if says("unread") => {
                    ending.problems.push((at, "unread".into()));
                    End::Ended
                }
                () => End::Ended,
            };
            if end != End::Ended {
                ending.end = end;
                return ending;
            }
            ending.done += 1;
        }
        ending
    }
}

impl Runner for Scripted {
    fn run<'a>(&'a self, texts: &'a [Text], patience: Patience) -> BoxFuture<'a, Ending> {
        Box::pin(self.check(texts, patience))
    }
}

struct Rig {
    network: Memory,
    node: Node,
    alice: Operator,
    state: StateDir,
    taken: Taken,
    runner: Arc<Scripted>,
    _dir: tempfile::TempDir,
}

impl Rig {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let network = Memory::new(1);
        let kinds = ["odd", "policy", "revocation", "route"];
        Self {
            node: Node::start(&network, "n1", &[]).await,
            alice: Operator::new(&network, "alice", &kinds),
            state: StateDir::create(&dir.path().join("state")).unwrap(),
            taken: Taken::default(),
            runner: Arc::default(),
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
        self.start_as("b1").await
    }

    async fn start_as(&self, build: &str) -> Arc<Keeper> {
        let (state, runner) = (&self.state, self.runner.clone());
        let consumers = consumers(&self.taken);
        Keeper::start_as(build, state, &self.node.membership, consumers, runner).await
    }

    /// Does what [`Keeper::run`] does, for as long as it takes to decide everything, or for `time`.
    async fn follow_for(&self, keeper: &Keeper, time: Duration) {
        let end = Instant::now() + time;
        loop {
            let grace = keeper.update(&self.node.membership.documents());
            keeper.save().await;
            let until = end.min(grace.unwrap_or(end));
            if timeout_at(until, keeper.preflight.decided()).await.is_err() && until == end {
                return;
            }
        }
    }

    async fn follow(&self, keeper: &Keeper) {
        self.follow_for(keeper, Duration::from_millis(500)).await;
    }

    fn taken(&self, kind: &str) -> Vec<String> {
        let taken = self.taken.lock().unwrap();
        taken.get(kind).cloned().unwrap_or_default()
    }
}

fn standing(keeper: &Keeper, key: &str) -> (&'static str, Option<u64>) {
    let standings = keeper.standings();
    let standing = standings.get(&key.parse().unwrap()).unwrap();
    let in_force = standing.in_force().map(|revision| revision.revision);
    (standing.word(), in_force)
}

fn why(keeper: &Keeper, key: &str) -> String {
    let standings = keeper.standings();
    let standing = standings.get(&key.parse().unwrap()).unwrap();
    standing.why().unwrap()
}

/// A policy that is about `service`.
fn rule(table: &str, service: &str) -> String {
    format!("[[{table}]]\nservices = [\"{service}\"]\nfrom = [\"web\"]\n")
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_kill_within_a_minute_of_a_denial_does_not_open_the_door() {
    for after in [Duration::from_millis(100), SECOND, 14 * SECOND, 59 * SECOND] {
        let rig = Rig::new().await;
        rig.say("policy/a", 1, &rule("grant", "orders")).await;
        rig.say("revocation/n1", 1, "good one").await;
        let keeper = rig.start().await;
        rig.say("policy/a", 2, &rule("deny", "cart")).await;
        rig.say("revocation/n1", 2, "good two").await;
        rig.follow_for(&keeper, after).await;
        drop(keeper);
        for _ in 0..2 {
            let keeper = rig.start().await;
            assert_eq!(rig.taken("policy"), ["a@2=cart"], "{after:?}");
            assert_eq!(rig.taken("revocation"), ["n1@2=good two"], "{after:?}");
            assert_eq!(standing(&keeper, "policy/a"), ("in force", Some(2)));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_cannot_be_read_does_not_leave_the_earlier_grant_in_force() {
    let rig = Rig::new().await;
    let keeper = rig.start().await;
    for (revision, body) in [(1, "good one"), (2, "unread")] {
        for kind in ["revocation", "route"] {
            rig.say(&format!("{kind}/a"), revision, body).await;
        }
        let policy = if revision == 1 {
            &rule("grant", "orders")
        } else {
            "grants = 1"
        };
        rig.say("policy/a", revision, policy).await;
        rig.follow(&keeper).await;
    }
    assert_eq!(rig.taken("policy"), ["a@2 denies all services"]);
    assert_eq!(standing(&keeper, "policy/a"), ("not in force", None));
    // What was revoked stays revoked, and nobody knows who is revoked besides.
    let revoked = ["a@1=good one", "a@2 denies all services"];
    assert_eq!(rig.taken("revocation"), revoked);
    assert_eq!(rig.taken("route"), ["a@1=good one"]);
    assert_eq!(standing(&keeper, "route/a"), ("not in force", Some(1)));
}

#[tokio::test(start_paused = true)]
async fn a_deletion_is_never_held_back() {
    let rig = Rig::new().await;
    rig.say("policy/a", 1, &(rule("deny", "orders") + "# segv"))
        .await;
    let keeper = rig.start().await;
    assert_eq!(standing(&keeper, "policy/a"), ("held back", None));
    rig.say("policy/a", 2, "").await;
    rig.follow(&keeper).await;
    assert_eq!(standing(&keeper, "policy/a").0, "deleted");
    assert!(rig.taken("policy").is_empty());
    drop(keeper);
    let keeper = rig.start().await;
    assert_eq!(standing(&keeper, "policy/a").0, "deleted");
}

#[tokio::test(start_paused = true)]
async fn what_crashes_its_child_twice_denies_what_it_and_the_one_before_are_about() {
    let rig = Rig::new().await;
    rig.say("policy/a", 1, &rule("grant", "cart")).await;
    rig.say("policy/b", 1, &rule("grant", "db")).await;
    let keeper = rig.start().await;
    rig.say("policy/a", 2, &(rule("grant", "orders") + "# segv"))
        .await;
    rig.follow(&keeper).await;
    let expected = ["b@1=db", "a@2 denies cart, orders"];
    assert_eq!(rig.taken("policy"), expected);
    assert_eq!(standing(&keeper, "policy/a"), ("held back", None));
    let why = why(&keeper, "policy/a");
    assert!(
        why.contains("SIGSEGV") && why.ends_with("calls to cart, orders are denied"),
        "{why}"
    );
    drop(keeper);
    // The same build does not try it again, another one does.
    rig.runner.seen();
    let keeper = rig.start().await;
    assert_eq!(
        (rig.taken("policy"), rig.runner.seen().len()),
        (expected.map(String::from).into(), 0)
    );
    drop(keeper);
    let _keeper = rig.start_as("b2").await;
    assert_eq!(rig.taken("policy"), expected);
    let tried = rig.runner.seen();
    assert!(
        tried.iter().filter(|key| *key == "policy/a").count() >= 3,
        "{tried:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_revocation_that_crashes_its_child_denies_all_and_keeps_the_entries_before() {
    let rig = Rig::new().await;
    rig.say("revocation/a", 1, "good one").await;
    let keeper = rig.start().await;
    rig.say("revocation/a", 2, "good segv").await;
    rig.follow(&keeper).await;
    let expected = ["a@1=good one", "a@2 denies all services"];
    assert_eq!(rig.taken("revocation"), expected);
    rig.say("revocation/a", 3, "good three").await;
    rig.follow(&keeper).await;
    assert_eq!(rig.taken("revocation"), ["a@3=good three"]);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_was_killed_holds_nothing_back_for_good() {
    let rig = Rig::new().await;
    rig.say("policy/a", 1, &(rule("grant", "cart") + "# oom"))
        .await;
    let keeper = rig.start().await;
    assert_eq!(rig.taken("policy"), ["a@1 denies cart"]);
    assert!(why(&keeper, "policy/a").contains("not ended yet"));
    drop(keeper);
    // The memory is there again, and the same build tries it.
    rig.runner.seen();
    rig.say("policy/a", 2, &rule("grant", "cart")).await;
    let keeper = rig.start().await;
    assert_eq!(standing(&keeper, "policy/a"), ("in force", Some(2)));
}

#[tokio::test(start_paused = true)]
async fn what_is_undecided_after_a_second_acts_as_held_back_until_it_is_decided() {
    let rig = Rig::new().await;
    rig.say("policy/a", 1, &rule("grant", "cart")).await;
    let keeper = rig.start().await;
    rig.say("policy/a", 2, &(rule("grant", "cart") + "# slow"))
        .await;
    rig.follow_for(&keeper, Duration::from_millis(900)).await;
    assert_eq!(rig.taken("policy"), ["a@1=cart"]);
    // One revision after the other does not put the end off.
    rig.say("policy/a", 3, &(rule("grant", "cart") + "# slow 3"))
        .await;
    rig.follow_for(&keeper, Duration::from_millis(200)).await;
    assert_eq!(rig.taken("policy"), ["a@3 denies all services"]);
    rig.follow_for(&keeper, 90 * SECOND).await;
    assert_eq!(rig.taken("policy"), ["a@3=cart"]);
}

#[tokio::test(start_paused = true)]
async fn a_start_serves_nothing_before_it_is_decided_and_waits_no_longer_than_a_second() {
    let rig = Rig::new().await;
    rig.say("policy/a", 1, &(rule("grant", "cart") + "# slow"))
        .await;
    rig.say("revocation/n1", 1, "good one").await;
    let began = Instant::now();
    let keeper = rig.start().await;
    assert_eq!(began.elapsed().as_secs(), 1);
    assert_eq!(rig.taken("policy"), ["a@1 denies all services"]);
    // It waits for nothing.
    assert_eq!(rig.taken("revocation"), ["n1@1=good one"]);
    assert_eq!(standing(&keeper, "policy/a"), ("held back", None));
}

#[tokio::test(start_paused = true)]
async fn one_text_that_hangs_holds_back_no_other() {
    let rig = Rig::new().await;
    let keeper = rig.start().await;
    rig.say("policy/a", 1, &(rule("grant", "cart") + "# hang"))
        .await;
    rig.say("policy/b", 1, &rule("grant", "db")).await;
    rig.follow_for(&keeper, 3 * SECOND).await;
    assert_eq!(standing(&keeper, "policy/b"), ("in force", Some(1)));
    // It passes by itself, where it has more time.
    assert_eq!(standing(&keeper, "policy/a"), ("in force", Some(1)));
}

#[tokio::test(start_paused = true)]
async fn without_a_child_the_agent_reads_documents_itself_and_says_so() {
    let rig = Rig::new().await;
    rig.runner
        .is_missing
        .store(true, std::sync::atomic::Ordering::Relaxed);
    rig.say("policy/a", 1, &rule("grant", "cart")).await;
    let keeper = rig.start().await;
    assert_eq!(rig.taken("policy"), ["a@1 denies all services"]);
    rig.follow(&keeper).await;
    assert_eq!(rig.taken("policy"), ["a@1=cart"]);
    assert_eq!(keeper.no_child().as_deref(), Some("none"));
    drop(keeper);
    // Another start tries for a child again.
    rig.runner
        .is_missing
        .store(false, std::sync::atomic::Ordering::Relaxed);
    let keeper = rig.start().await;
    assert_eq!(
        (rig.runner.seen(), keeper.no_child()),
        (vec!["policy/a".to_owned()], None)
    );
}

#[tokio::test(start_paused = true)]
async fn a_document_that_its_operator_hands_over_is_refused_if_it_cannot_be_read_or_crashes() {
    let rig = Rig::new().await;
    let keeper = rig.start().await;
    let check = async |body: &str| {
        let document = rig.alice.write(&rig.network, "policy/a", 1, body);
        let revision = rig.node.membership.check(&document).unwrap();
        keeper.check(&revision[0]).await
    };
    assert_eq!(check(&rule("grant", "cart")).await, Ok(()));
    assert_eq!(check("unread").await, Err("unread".to_owned()));
    let crashed = check("# segv").await.unwrap_err();
    assert!(crashed.contains("SIGSEGV"), "{crashed}");
    let killed = check("# oom").await.unwrap_err();
    assert!(killed.contains("try again"), "{killed}");
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_this_version_does_not_know_is_not_in_force() {
    let rig = Rig::new().await;
    rig.say("odd/b", 1, "good").await;
    let keeper = rig.start().await;
    assert_eq!(standing(&keeper, "odd/b"), ("not in force", None));
    assert!(why(&keeper, "odd/b").contains("knows no documents of kind `odd`"));
    assert_eq!(keeper.standings().count().out_of_force(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_broken_file_of_clearances_has_all_checked_again() {
    let rig = Rig::new().await;
    rig.say("policy/a", 1, &rule("grant", "cart")).await;
    drop(rig.start().await);
    for broken in [
        "",
        "nonsense",
        "build b1\nheld 12",
        "build b1\ncleared zz\n",
    ] {
        rig.state.write(clearance::FILE, broken.as_bytes()).unwrap();
        rig.runner.seen();
        let keeper = rig.start().await;
        assert_eq!(standing(&keeper, "policy/a"), ("in force", Some(1)));
        assert_eq!(rig.runner.seen(), ["policy/a"], "{broken:?}");
    }
}
