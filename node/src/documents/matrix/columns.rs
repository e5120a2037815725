//! The ways to deny a call of `web` to `orders` that passed before.

use std::time::{Duration, SystemTime};

use starling_gossip::DocumentKey;
use starling_gossip::documents::system::{KeyStatement, RetentionEntry, retention_lists};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::world::World;

/// One way.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    /// Whether the host's own file allows the call; else a document does.
    pub(super) is_allowed_by_toml: bool,
    /// What was there before, signed by operators who stay good.
    pub(super) base: fn(&World) -> Vec<Vec<u8>>,
    /// What denies, in the order in which it is taken. Signed by alice.
    pub(super) newest: fn(&World) -> Vec<Vec<u8>>,
}

/// A line that is new in this version: an older one cannot read a text with it.
pub(super) const NEW: &str = "# new in this version\n";

/// A policy that has nothing to do with the call.
pub(super) const UNRELATED: &str = "[[deny]]\nservices = [\"db\"]\nfrom = [\"*\"]\n";

pub(super) const COLUMNS: &[Column] = &[
    Column {
        name: "first deny",
        is_allowed_by_toml: true,
        base: |_| Vec::new(),
        newest: |world| vec![policy(world, 1, &rule("deny", "\"web\""))],
    },
    Column {
        name: "deny added to an earlier revision",
        is_allowed_by_toml: false,
        base: |world| vec![granted(world, &rule("grant", "\"web\""))],
        newest: |world| {
            let both = rule("grant", "\"web\"") + &rule("deny", "\"web\"");
            vec![policy(world, 2, &both)]
        },
    },
    Column {
        name: "grant removed",
        is_allowed_by_toml: false,
        base: |world| vec![granted(world, &rule("grant", "\"web\", \"mobile\""))],
        newest: |world| vec![policy(world, 2, &rule("grant", "\"mobile\""))],
    },
    Column {
        name: "group narrowed",
        is_allowed_by_toml: false,
        base: |world| vec![granted(world, &group("\"web\", \"mobile\""))],
        newest: |world| vec![policy(world, 2, &group("\"mobile\""))],
    },
    Column {
        name: "node revoked",
        is_allowed_by_toml: true,
        base: |_| Vec::new(),
        newest: |world| vec![revocation(world, &dated("host = \"n9\""))],
    },
    Column {
        name: "service revoked",
        is_allowed_by_toml: true,
        base: |_| Vec::new(),
        newest: |world| {
            let identity = format!("identity = \"{}\"", world.caller.id());
            vec![revocation(world, &dated(&identity))]
        },
    },
    Column {
        name: "key revoked",
        is_allowed_by_toml: true,
        base: |_| Vec::new(),
        newest: |world| {
            let key = world.caller.leaf().key_hash;
            vec![revocation(world, &format!("public_key = \"{key}\"\n"))]
        },
    },
    Column {
        name: "issuer revoked",
        is_allowed_by_toml: true,
        base: |_| Vec::new(),
        newest: |world| vec![revocation(world, &dated("issuer = \"n1\""))],
    },
    Column {
        name: "operator revoked",
        is_allowed_by_toml: false,
        base: |world| {
            let grant = rule("grant", "\"web\"");
            let granted = world.cast.bob.write(&world.network, "policy/a", 1, &grant);
            vec![granted]
        },
        newest: operator_revoked,
    },
];

/// Alice says that what bob signed stays where it allows less, then that bob's key is revoked.
fn operator_revoked(world: &World) -> Vec<Vec<u8>> {
    let (key, signer) = (world.cast.bob.key_hash(), world.cast.alice.key_hash());
    let document: DocumentKey = "policy/a".parse().unwrap();
    let documents = world.host(0).membership.documents();
    let entry = RetentionEntry {
        revision: 1,
        hash: documents.get(&document).unwrap().newest().hash,
        document,
        keep: true,
    };
    let lists = retention_lists(&key, Some(&signer), &[entry]);
    let reason = "key found on a forum".into();
    let statement = KeyStatement { key, reason };
    let said = (statement.document(Some(&signer)), statement.to_text());
    let sign = |(document, body): (DocumentKey, String)| {
        let document = document.to_string();
        world.cast.alice.write(&world.network, &document, 1, &body)
    };
    lists.into_iter().chain([said]).map(sign).collect()
}

fn policy(world: &World, revision: u64, body: &str) -> Vec<u8> {
    let body = format!("{NEW}{body}");
    world
        .cast
        .alice
        .write(&world.network, "policy/a", revision, &body)
}

fn granted(world: &World, body: &str) -> Vec<u8> {
    world.cast.carol.write(&world.network, "policy/a", 1, body)
}

fn revocation(world: &World, what: &str) -> Vec<u8> {
    let body = format!("{NEW}[[revoked]]\n{what}");
    world
        .cast
        .alice
        .write(&world.network, "revocation/a", 1, &body)
}

/// Certificates of all that was issued or begun until now.
fn dated(what: &str) -> String {
    let in_a_minute = SystemTime::now() + Duration::from_secs(60);
    let before = OffsetDateTime::from(in_a_minute).replace_nanosecond(0);
    let before = before.unwrap().format(&Rfc3339).unwrap();
    format!("{what}\nissued_before = {before}\n")
}

fn rule(table: &str, from: &str) -> String {
    format!("[[{table}]]\nservices = [\"orders\"]\nfrom = [{from}]\n")
}

fn group(members: &str) -> String {
    format!("[groups]\nfront = [{members}]\n") + &rule("grant", "\"group:front\"")
}

/// A text that denies nothing to `web`, some `bytes` long.
pub(super) fn filler(kind: &str, bytes: usize) -> String {
    let says = match kind {
        "policy" => UNRELATED.to_owned(),
        "revocation" => format!("[[revoked]]\n{}", dated("host = \"n77\"")),
        _ => "[[rule]]\nto = { version = \"v1\" }\n".to_owned(),
    };
    says + &format!("# {}\n", "x".repeat(118)).repeat(bytes / 121)
}
