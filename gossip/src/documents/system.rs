//! The kinds of documents that say whose word counts, which every version of this crate has to read alike: revocations of
//! operators' keys, and the lists of what stays in force of a revoked operator. Each has a name made of the keys that it is about and
//! that signed it, so nobody can take another's.
//!
//! ```text
//! operator-revocation/<target>-<signer>     key sha256:…
//! root-revocation/<target>                  reason …
//! retention/<target>-<signer>-<part>        key sha256:…
//! root-retention/<target>-<part>            keep policy/orders@7 <hash>
//!                                           drop policy/web@3 <hash>
//! ```

use std::fmt::Write as _;

use super::{DocumentKey, KeyError};
use crate::metrics::Refusal;
use crate::names::{DocumentKind, DocumentName};

/// What a document of such a kind says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// A key is revoked.
    Revokes(KeyStatement),
    /// What stays of a revoked key.
    Retains {
        /// The key.
        key: [u8; 32],
        /// In order.
        entries: Vec<RetentionEntry>,
    },
}

/// Which key is revoked, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyStatement {
    /// The hash that names the key.
    pub key: [u8; 32],
    /// For people.
    pub reason: String,
}

/// What a list says of one revision of a revoked key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RetentionEntry {
    /// Of which document.
    pub document: DocumentKey,
    /// Its number.
    pub revision: u64,
    /// What names it.
    pub hash: [u8; 32],
    /// Whether it stays, as a narrowing; otherwise it goes.
    pub keep: bool,
}

/// Revocations of operators' keys by operators.
pub const OPERATOR_REVOCATION: &str = "operator-revocation";
/// Revocations of operators' keys by the root.
pub const ROOT_REVOCATION: &str = "root-revocation";
/// Lists of what stays of a revoked operator, by operators.
pub const RETENTION: &str = "retention";
/// The same by the root.
pub const ROOT_RETENTION: &str = "root-retention";

/// The right that an operator needs to sign a document of this kind.
pub(crate) fn right(kind: &DocumentKind) -> Right {
    match kind.as_str() {
        OPERATOR_REVOCATION => Right::Kind("revocation"),
        RETENTION => Right::Any,
        ROOT_REVOCATION | ROOT_RETENTION => Right::Root,
        _ => Right::Own,
    }
}

/// What a signer needs for a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    /// The kind itself in the grant.
    Own,
    /// This kind in the grant.
    Kind(&'static str),
    /// Any grant: each entry of a list counts only if the grant has its kind.
    Any,
    /// The root's own signature.
    Root,
}

/// The kind that a grant has to name so that its operator may sign documents of `kind`; none if any grant does.
pub fn needed_kind(kind: &DocumentKind) -> Option<String> {
    match right(kind) {
        Right::Own | Right::Root => Some(kind.to_string()),
        Right::Kind(kind) => Some(kind.to_owned()),
        Right::Any => None,
    }
}

/// Whether a document of this kind says whose word counts.
pub fn is_system(kind: &DocumentKind) -> bool {
    right(kind) != Right::Own
}

impl KeyStatement {
    /// The text of a revocation.
    pub fn to_text(&self) -> String {
        let reason: String = self.reason.chars().filter(|c| !c.is_control()).collect();
        format!("key sha256:{}\nreason {reason}\n", hex(&self.key))
    }

    /// The document in which `signer` revokes the key, `None` for the root.
    pub fn document(&self, signer: Option<&[u8; 32]>) -> DocumentKey {
        match signer {
            Some(signer) => key(OPERATOR_REVOCATION, &revocation_name(&self.key, signer)),
            None => key(ROOT_REVOCATION, &hex(&self.key)[..ROOT_NAME_DIGITS]),
        }
    }
}

/// The texts of lists that together hold `entries`, with the documents that they are to be: as many parts as it takes. `signer` is
/// the hash of the signer's key, `None` for the root.
pub fn retention_lists(
    about: &[u8; 32],
    signer: Option<&[u8; 32]>,
    entries: &[RetentionEntry],
) -> Vec<(DocumentKey, String)> {
    let parts = entries.chunks(ENTRIES_PER_PART);
    let list = |(part, entries): (usize, &[RetentionEntry])| {
        let mut text = format!("key sha256:{}\n", hex(about));
        for entry in entries {
            let word = if entry.keep { "keep" } else { "drop" };
            let (document, hash) = (&entry.document, hex(&entry.hash));
            let _ = writeln!(text, "{word} {document}@{} {hash}", entry.revision);
        }
        let name = match signer {
            Some(signer) => key(
                RETENTION,
                &format!("{}-{part}", revocation_name(about, signer)),
            ),
            None => key(
                ROOT_RETENTION,
                &format!("{}-{part}", &hex(about)[..ROOT_NAME_DIGITS]),
            ),
        };
        (name, text)
    };
    parts.enumerate().map(list).collect()
}

/// Reads a document of such a kind and holds its name against what it says and against who signed it. `None` if it is of
/// another kind or a deletion.
pub(crate) fn read(
    document: &DocumentKey,
    body: &str,
    deleted: bool,
    signer: &[u8; 32],
) -> Result<Option<Statement>, Refusal> {
    if !is_system(&document.kind) {
        return Ok(None);
    }
    if deleted {
        return check_deletion(document, signer).map(|()| None);
    }
    let mut lines = body.lines();
    let about = lines
        .next()
        .and_then(|line| line.strip_prefix("key sha256:"));
    let about = about.and_then(from_hex).ok_or(Refusal::Malformed)?;
    let is_named = |name: &str| match document.name.as_str().strip_prefix(name) {
        Some("") => true,
        Some(part) => is_part(part),
        None => false,
    };
    let root_name = || hex(&about)[..ROOT_NAME_DIGITS].to_owned();
    match document.kind.as_str() {
        OPERATOR_REVOCATION | ROOT_REVOCATION => {
            let expected = match document.kind.as_str() {
                OPERATOR_REVOCATION => revocation_name(&about, signer),
                _ => root_name(),
            };
            let reason = lines.next().and_then(|line| line.strip_prefix("reason "));
            let reason = reason.ok_or(Refusal::Malformed)?;
            if document.name.as_str() != expected || lines.next().is_some() {
                return Err(Refusal::Malformed);
            }
            Ok(Some(Statement::Revokes(KeyStatement {
                key: about,
                reason: reason.to_owned(),
            })))
        }
        _ => {
            let expected = match document.kind.as_str() {
                RETENTION => revocation_name(&about, signer),
                _ => root_name(),
            };
            if !is_named(&expected) {
                return Err(Refusal::Malformed);
            }
            let entries = lines.map(|line| entry(line).ok_or(Refusal::Malformed));
            Ok(Some(Statement::Retains {
                key: about,
                entries: entries.collect::<Result<_, _>>()?,
            }))
        }
    }
}

/// A key's own revocation stays: a thief of the key could otherwise take it back.
fn check_deletion(document: &DocumentKey, signer: &[u8; 32]) -> Result<(), Refusal> {
    let signed_by = &hex(signer)[..NAME_DIGITS];
    let mut words = document.name.as_str().split('-');
    let (about, by) = (words.next().unwrap_or_default(), words.next());
    match document.kind.as_str() {
        OPERATOR_REVOCATION if by != Some(signed_by) => Err(Refusal::NotItsSigner),
        OPERATOR_REVOCATION if about == signed_by => Err(Refusal::OwnRevocation),
        RETENTION if by != Some(signed_by) => Err(Refusal::NotItsSigner),
        _ => Ok(()),
    }
}

fn is_part(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or_default();
    let is_number =
        !digits.is_empty() && digits.len() <= 4 && digits.bytes().all(|b| b.is_ascii_digit());
    is_number && (digits == "0" || !digits.starts_with('0'))
}

fn entry(line: &str) -> Option<RetentionEntry> {
    let mut words = line.split(' ');
    let keep = match words.next()? {
        "keep" => true,
        "drop" => false,
        _ => return None,
    };
    let (document, revision) = words.next()?.split_once('@')?;
    let hash = from_hex(words.next()?)?;
    let parsed: Result<DocumentKey, KeyError> = document.parse();
    words.next().is_none().then_some(())?;
    Some(RetentionEntry {
        document: parsed.ok()?,
        revision: revision.parse().ok()?,
        hash,
        keep,
    })
}

fn revocation_name(about: &[u8; 32], signer: &[u8; 32]) -> String {
    format!(
        "{}-{}",
        &hex(about)[..NAME_DIGITS],
        &hex(signer)[..NAME_DIGITS]
    )
}

fn key(kind: &str, name: &str) -> DocumentKey {
    DocumentKey {
        kind: DocumentKind::parse(kind).expect("a plain word"),
        name: DocumentName::parse(name).expect("hex digits, dashes and a number"),
    }
}

/// Bytes as 64 hex digits.
pub fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads 64 lower-case hex digits.
pub fn from_hex(text: &str) -> Option<[u8; 32]> {
    let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if text.len() != 64 || !text.bytes().all(is_digit) {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, at) in hash.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(hash)
}

/// Hex digits of a key in a name: 64 bits, far beyond what a search among keys that the root signed could meet.
const NAME_DIGITS: usize = 16;

/// The same in the names of the root's documents, which have only one key in them.
const ROOT_NAME_DIGITS: usize = 40;

/// Entries in one list: each has at most 220 bytes, so that the longest list fits a document.
const ENTRIES_PER_PART: usize = 280;
