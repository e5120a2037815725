//! The matrix: whatever happens to an agent after a document, no call passes that the newest text denies.
//!
//! A row is what happens to the world some time after the agent took the document; each is a test of its own. A column is a
//! way to deny ([`columns`]). Every cell is tried at four ages of the document, with the decision that a real call meets: the
//! caller's chain by the trust in force, then the policy in force. Every cell is tried without the document as well, and then the
//! call has to pass in the end, so that no cell passes because of the row alone.
//!
//! | row | what it is here |
//! |---|---|
//! | kill -9 | all tasks end at once, half-written files lie about, the clearances are lost or not |
//! | OOM kill | the same, and the children that check documents are killed as well, for five seconds |
//! | orderly stop | goodbye is said, all is saved |
//! | split and heal | a second callee hears nothing until the split ends, and takes documents meanwhile |
//! | a host that joins later | an empty state directory and a seed |
//! | rooms full | a thief filled all rooms before; the signer's shares are filled after |
//! | signer revoked | by the root, with a list that keeps what was signed; or with none yet |
//! | signer's grant ended | the clock passes it |
//! | reload refused | a broken file, then a good one, then other certificates |
//! | disk full | nothing can be written, before or after, while the agent runs and over a start |
//! | an older version that cannot read it | it runs when the document comes; or it is installed later |
//! | clock ±1 h | it jumps while the agent runs and stays wrong over a start |
//!
//! As processes: `tests/loopback/matrix.rs`.

mod columns;
mod world;

use std::sync::Arc;
use std::time::Duration;

use starling_gossip::DocumentKey;
use starling_gossip::documents::system::{
    KeyStatement, RetentionEntry, hex, is_system, retention_lists,
};
use starling_gossip::documents::{Receipt, SubmitError};
use starling_gossip::testing::Operator;
use tokio::time::Instant;

use self::columns::{COLUMNS, Column};
use self::world::{Build, Cast, KINDS, World};
use crate::config::Config;

const SECOND: Duration = Duration::from_secs(1);
const AGES: [Duration; 4] = [
    Duration::from_millis(100),
    SECOND,
    Duration::from_secs(14),
    Duration::from_secs(59),
];

/// Tries a row in all columns: `before` happens before the document comes, `after` at each of the [`AGES`].
async fn row(before: impl AsyncFn(&mut World), after: impl AsyncFn(&mut World)) {
    row_on(&Cast::new(), None, COLUMNS, before, after).await;
}

/// The same in some columns, with nodes that start with the documents of `disk`.
async fn row_on(
    cast: &Arc<Cast>,
    disk: Option<&World>,
    columns: &'static [Column],
    before: impl AsyncFn(&mut World),
    after: impl AsyncFn(&mut World),
) {
    for column in columns {
        for age in AGES {
            // Without the document once for each column is enough where all that fills the rooms has to be read again.
            let is_slow = disk.is_some() && age != AGES[0];
            for is_taken in [true, false].into_iter().take(if is_slow { 1 } else { 2 }) {
                let mut world = World::new(cast, column, (age, is_taken), disk).await;
                assert!(world.allows(0), "{}: before", world.label);
                before(&mut world).await;
                if is_taken {
                    world.take_newest().await;
                }
                world.watch(age).await;
                after(&mut world).await;
                world.watch(2 * SECOND).await;
                world.check_end();
            }
        }
    }
}

async fn nothing(_world: &mut World) {}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_denied_passes_after_a_kill() {
    row(nothing, async |world| {
        for has_clearances in [true, false] {
            world.kill(0).await;
            world.leave_half_written(0);
            if !has_clearances {
                world.lose_clearances(0);
            }
            world.start(0).await;
            world.watch(SECOND).await;
        }
        // Again, before it has decided anything.
        world.kill(0).await;
        world.start(0).await;
        world.kill(0).await;
        world.start(0).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_denied_passes_after_the_oom_killer_came() {
    row(nothing, async |world| {
        for has_clearances in [true, false] {
            world.kill(0).await;
            world.leave_half_written(0);
            if !has_clearances {
                world.lose_clearances(0);
            }
            world.sites[0].child.kill_for(5 * SECOND);
            world.start(0).await;
            // A check whose child was killed is made again after a minute at most.
            world.watch(70 * SECOND).await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_denied_passes_after_an_orderly_stop() {
    row(nothing, async |world| {
        for _ in 0..2 {
            world.stop(0).await;
            world.start(0).await;
            world.watch(SECOND).await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_denied_passes_after_a_split_is_healed() {
    let before = async |world: &mut World| {
        world.add("n2").await;
        world.until_alike(1).await;
        world.network.part(1, ["n2"]);
    };
    row(before, async |world| {
        // The other side goes on meanwhile.
        let other = world
            .cast
            .carol
            .write(&world.network, "policy/other", 1, columns::UNRELATED);
        world.submit(1, &other).await.unwrap();
        world.network.heal();
        world.until_denied(1, 10 * SECOND).await;
        world.watch(5 * SECOND).await;
        for at in [0, 1] {
            world.kill(at).await;
            world.start(at).await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_denied_passes_at_a_host_that_joins_later() {
    row(nothing, async |world| {
        // What no file on the new host allows is denied from its first moment, whatever comes first over the wire.
        let is_closed = !world.column.is_allowed_by_toml;
        world.add_denying("n2", is_closed).await;
        world.until_denied(1, 2 * SECOND).await;
        world.watch(5 * SECOND).await;
        world.kill(1).await;
        world.start(1).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_that_policies_deny_passes_with_all_rooms_full() {
    all_rooms_full(&COLUMNS[..4]).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_revoked_passes_with_all_rooms_full() {
    all_rooms_full(&COLUMNS[4..]).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_denied_passes_with_the_room_of_deletions_full() {
    let cast = Cast::new();
    let fill = async |full: &World| fill_deletions(full, &cast.thief).await;
    let full = filled(&cast, fill).await;
    // One column of policies and one of revocations: each change of the documents goes through all that is deleted.
    let columns = &COLUMNS[3..5];
    row_on(&cast, Some(&full), columns, nothing, async |world| {
        world.kill(0).await;
        world.start(0).await;
    })
    .await;
}

async fn all_rooms_full(columns: &'static [Column]) {
    let cast = Cast::new();
    // A thief has filled all rooms, and the one who denies has just enough left for that.
    let fill = async |full: &World| {
        fill_rooms(full, &cast.thief, &KINDS, Left::Nothing).await;
        fill_rooms(full, &cast.alice, &DENYING, Left::Little).await;
    };
    let full = filled(&cast, fill).await;
    row_on(&cast, Some(&full), columns, nothing, async |world| {
        fill_up(world, &world.cast.alice).await;
        world.watch(SECOND).await;
        world.kill(0).await;
        world.start(0).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_denied_passes_after_its_signer_is_revoked() {
    row(nothing, async |world| {
        revoke_alice(world, |_| true).await;
        world.watch(2 * SECOND).await;
        world.kill(0).await;
        world.start(0).await;
        world.watch(SECOND).await;
        // A host that joins now hears the list before the texts.
        world
            .add_denying("n2", !world.column.is_allowed_by_toml)
            .await;
        world.until_denied(1, 2 * SECOND).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_denied_passes_while_no_list_names_what_its_revoked_signer_said() {
    row(nothing, async |world| {
        // What says whose word counts is for seniors to keep; without a list it goes.
        revoke_alice(world, |key| is_system(&key.kind)).await;
        world.watch(2 * SECOND).await;
        world.kill(0).await;
        world.start(0).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_denied_passes_after_its_signer_s_grant_has_ended() {
    row(nothing, async |world| {
        world.skew(world::GRANT_TIME + 600 * SECOND);
        let late = world
            .cast
            .alice
            .write(&world.network, "policy/late", 1, columns::UNRELATED);
        let refused = world.submit(0, &late).await;
        assert!(
            matches!(refused, Err(SubmitError::Refused(_))),
            "{refused:?}"
        );
        world.watch(SECOND).await;
        world.kill(0).await;
        world.start(0).await;
        world.watch(SECOND).await;
        world
            .add_denying("n2", !world.column.is_allowed_by_toml)
            .await;
        world.until_denied(1, 2 * SECOND).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_denied_passes_after_a_reload_is_refused_or_taken() {
    row(nothing, async |world| {
        let toml = world.dir.path().join("starling.toml");
        std::fs::write(&toml, "[[service]]\nname = \"orders\"\nallow = [\"web\"\n").unwrap();
        assert!(Config::load(world.dir.path()).is_err());
        world.watch(SECOND).await;
        // What a reload that is not refused does.
        std::fs::write(&toml, world.toml()).unwrap();
        let config = Config::load(world.dir.path()).unwrap();
        let host = world.host(0);
        host.policy.configure(&config);
        host.identities
            .replace(world.cast.ca.identities("n1", "orders"));
        host.membership.recheck();
        world.watch(SECOND).await;
        world.kill(0).await;
        world.start(0).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_denied_passes_while_the_disk_is_full() {
    row(nothing, async |world| {
        world.fill_disk(0);
        let more = world
            .cast
            .carol
            .write(&world.network, "policy/more", 1, columns::UNRELATED);
        let refused = world.submit(0, &more).await;
        assert!(matches!(refused, Err(SubmitError::Keep(_))), "{refused:?}");
        world.watch(SECOND).await;
        world.kill(0).await;
        world.start(0).await;
        world.watch(2 * SECOND).await;
        world.free_disk(0);
        world.watch(2 * SECOND).await;
        world.kill(0).await;
        world.start(0).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_denied_passes_when_it_came_over_a_full_disk() {
    let before = async |world: &mut World| {
        world.add("n2").await;
        world.until_alike(1).await;
        world.fill_disk(0);
        world.taker = 1;
    };
    row(before, async |world| {
        world.until_denied(0, 2 * SECOND).await;
        world.watch(SECOND).await;
        // It could not be kept, and no peer can give it back at once.
        world.kill(1).await;
        world.kill(0).await;
        world.start(0).await;
        world.watch(2 * SECOND).await;
        world.start(1).await;
        world.until_alike(1).await;
        world.free_disk(0);
        world.watch(3 * SECOND).await;
        world.kill(1).await;
        world.kill(0).await;
        world.start(0).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_denied_passes_at_an_older_version_that_cannot_read_it() {
    let before = async |world: &mut World| world.restart_as(Build::Old).await;
    row(before, async |world| {
        world.kill(0).await;
        world.start(0).await;
        world.watch(SECOND).await;
        world.restart_as(Build::New).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_denied_passes_after_a_downgrade_to_a_version_that_cannot_read_it() {
    row(nothing, async |world| {
        world.restart_as(Build::Old).await;
        world.watch(SECOND).await;
        world.kill(0).await;
        world.start(0).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_denied_passes_when_the_clock_jumps_an_hour_ahead() {
    let hour = async |world: &mut World| jump(world, 3600 * SECOND, false).await;
    row(nothing, hour).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_denied_passes_when_the_clock_jumps_an_hour_back() {
    let hour = async |world: &mut World| jump(world, 3600 * SECOND, true).await;
    row(nothing, hour).await;
}

async fn jump(world: &mut World, by: Duration, is_back: bool) {
    match is_back {
        true => world.skew_back(by),
        false => world.skew(by),
    }
    world.host(0).membership.recheck();
    world.watch(2 * SECOND).await;
    world.kill(0).await;
    world.start(0).await;
    world.watch(2 * SECOND).await;
    // And right again.
    world.skew(Duration::ZERO);
    world.kill(0).await;
    world.start(0).await;
}

/// What `starling operator revoke` does where an agent is: lists first, then the revocation. Keeps what `is_listed` says, and
/// leaves the rest on no list.
async fn revoke_alice(world: &mut World, is_listed: impl Fn(&DocumentKey) -> bool) {
    let key = world.cast.alice.key_hash();
    let documents = world.host(0).membership.documents();
    let held = documents.entries.values().flat_map(|one| one.revisions());
    let of_alice: Vec<_> = held.filter(|held| held.signer.key_hash == key).collect();
    assert_eq!(of_alice.is_empty(), !world.is_taken);
    let listed = of_alice.iter().filter(|held| is_listed(&held.key));
    let entries: Vec<_> = listed
        .map(|held| RetentionEntry {
            document: held.key.clone(),
            revision: held.revision,
            hash: held.hash,
            keep: true,
        })
        .collect();
    for (document, body) in retention_lists(&key, None, &entries) {
        let list = world.by_root(&document, &body);
        world.submit(0, &list).await.unwrap();
    }
    let reason = "laptop stolen".into();
    let statement = KeyStatement { key, reason };
    let revocation = world.by_root(&statement.document(None), &statement.to_text());
    world.submit(0, &revocation).await.unwrap();
    let documents = world.host(0).membership.documents();
    assert!(documents.operators.is_revoked(&key, 2));
}

/// The kinds that can deny.
const DENYING: [&str; 2] = ["policy", "revocation"];

/// How much of an operator's shares is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    /// Room for one more short text of each kind, and one revocation of an operator.
    Little,
}

/// The disk of a node after `fill`.
async fn filled(cast: &Arc<Cast>, fill: impl AsyncFn(&World)) -> World {
    let mut full = World::new(cast, &COLUMNS[0], (SECOND, false), None).await;
    fill(&full).await;
    full.watch(SECOND).await;
    full.stop(0).await;
    full
}

/// Fills one operator's shares of the kinds' rooms.
async fn fill_rooms(world: &World, whose: &Operator, kinds: &[&str], left: Left) {
    for kind in kinds {
        fill_kind(world, whose, kind, "large", 60_000).await;
        fill_kind(world, whose, kind, "small", 4_000).await;
        if left == Left::Little {
            // A shorter text in place of one that is there.
            let key = filler_name(whose, kind, "small", 0);
            let body = columns::filler(kind, 0);
            let shorter = whose.write(&world.network, &key, 2, &body);
            world.submit(0, &shorter).await.unwrap();
        }
    }
    let count = match left {
        Left::Nothing => 512,
        Left::Little => 511,
    };
    let statements = operator_revocations(world, whose, 1, count);
    world.submit(0, &statements).await.unwrap();
}

/// Fills what is left, and sees that no more is taken.
async fn fill_up(world: &World, whose: &Operator) {
    for kind in DENYING {
        fill_kind(world, whose, kind, "last", 2_000).await;
    }
    // A column may have taken the place.
    let last = operator_revocations(world, whose, 2, 1);
    let _ = world.submit(0, &last).await;
    let none = operator_revocations(world, whose, 3, 1);
    assert_full(world.submit(0, &none).await);
}

async fn fill_deletions(world: &World, whose: &Operator) {
    for (part, count) in [1000, 1000, 1000, 1000, 96].into_iter().enumerate() {
        let deletions = deletions_of(world, whose, part, count);
        world.submit(0, &deletions).await.unwrap();
    }
    let none = deletions_of(world, whose, 5, 1);
    assert_full(world.submit(0, &none).await);
}

/// Submits texts of this length until the share is full.
async fn fill_kind(world: &World, whose: &Operator, kind: &str, size: &str, bytes: usize) {
    let body = columns::filler(kind, bytes);
    for nth in 0.. {
        assert!(nth < 40, "{kind} is never full");
        let key = filler_name(whose, kind, size, nth);
        let packet = whose.write(&world.network, &key, 1, &body);
        let submitted = world.submit(0, &packet).await;
        if submitted.is_err() {
            assert!(nth > 0, "{kind} is full");
            return assert_full(submitted);
        }
    }
}

fn assert_full(submitted: Result<Receipt, SubmitError>) {
    let Err(SubmitError::Refused(refusal)) = submitted else {
        panic!("{submitted:?}");
    };
    assert_eq!(refusal.reason(), "full");
}

fn filler_name(whose: &Operator, kind: &str, size: &str, nth: usize) -> String {
    format!("{kind}/{size}-{nth}-{}", &hex(&whose.key_hash())[..6])
}

fn deletions_of(world: &World, whose: &Operator, part: usize, count: u16) -> Vec<u8> {
    let mut draft = whose.draft(&world.network, "policy/x", 1, "");
    let one = draft.rows.remove(0);
    let row = |nth| {
        let name = format!("gone-{part}-{nth:04}-{}", &hex(&whose.key_hash())[..6]);
        let mut row = one.clone();
        (row.name, row.deleted) = (name.parse().unwrap(), true);
        row
    };
    draft.rows = (0..count).map(row).collect();
    whose.sign(&draft)
}

/// Revocations of keys that nobody knows. Those of one `part` are others than those of another.
fn operator_revocations(world: &World, whose: &Operator, part: u8, count: u16) -> Vec<u8> {
    let signer = whose.key_hash();
    let statement = |nth: u16| {
        let mut key = [part; 32];
        key[..2].copy_from_slice(&nth.to_be_bytes());
        let reason = "full".into();
        KeyStatement { key, reason }
    };
    let statements: Vec<_> = (0..count).map(statement).collect();
    let first = statements[0].document(Some(&signer)).to_string();
    let mut draft = whose.draft(&world.network, &first, 1, "");
    let one = draft.rows.remove(0);
    let row = |statement: &KeyStatement| {
        let mut row = one.clone();
        row.name = statement.document(Some(&signer)).name;
        row.body = statement.to_text();
        row
    };
    draft.rows = statements.iter().map(row).collect();
    whose.sign(&draft)
}

impl World {
    /// Waits until a node denies, if there is something that it has to deny; from then on it always has to.
    async fn until_denied(&mut self, at: usize, limit: Duration) {
        let began = Instant::now();
        while self.is_taken && self.allows(at) {
            assert!(began.elapsed() < limit, "{}: node {at}", self.label);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.sites[at].is_denied = self.is_taken;
    }
}
