//! The book of an issuer: the certificates that it signed and that are still good, in its state directory.
//!
//! From it an operator who knows no more than a leaked key learns which line to revoke, and which hosts go with an issuer. One
//! record a line, the leaf and the intermediate in base64, so that an answer proves itself. `starling ca issue` writes to it
//! beside the agent: a lock keeps an append from falling into a rewrite. What cannot be written is kept in memory, answers
//! questions from there, and is written with the next certificate.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{FlockOperation, flock};
use starling_transport::Leaf;

use crate::state::{StateDir, StateError};

/// The book in a state directory.
#[derive(Debug)]
pub struct Book {
    state: StateDir,
    /// Size from which on what has ended is dropped.
    compact_at: AtomicU64,
    /// See [`BYTES_MAX`].
    bytes_max: u64,
    unwritten: Mutex<Unwritten>,
}

/// What is not on the disk as it should be.
#[derive(Debug, Default)]
struct Unwritten {
    /// Records, the oldest first.
    records: VecDeque<String>,
    /// Why the records were not written.
    append: Option<String>,
    /// Why what has ended was not dropped.
    compact: Option<String>,
}

/// A certificate that was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// What it says, its issuers included.
    pub leaf: Leaf,
    /// Leaf and intermediate in DER.
    pub chain: [Vec<u8>; 2],
}

impl Book {
    pub(super) fn new(state: &StateDir) -> Self {
        Self::with_bound(state, BYTES_MAX)
    }

    fn with_bound(state: &StateDir, bytes_max: u64) -> Self {
        // Each command that signs has a book of its own and must not rewrite a large one for a single certificate.
        let size = std::fs::symlink_metadata(state.path().join(BOOK));
        let size = size.map_or(0, |book| book.len());
        Self {
            state: state.clone(),
            compact_at: AtomicU64::new(compact_at(size, bytes_max)),
            bytes_max,
            unwritten: Mutex::default(),
        }
    }

    /// Adds a certificate, and those before it that could not be written. Reaches the disk with the next write of the kernel:
    /// what a crash loses is asked for in vain. After an error the certificate is known to this process only.
    pub fn add(&self, leaf: &[u8], intermediate: &[u8], now: SystemTime) -> io::Result<()> {
        let mut unwritten = self.unwritten();
        if unwritten.records.len() >= UNWRITTEN_MAX {
            unwritten.records.pop_front();
            tracing::warn!(
                file = BOOK,
                "the book cannot be written; the oldest certificate that waits for it is dropped"
            );
        }
        unwritten.records.push_back(line(leaf, intermediate));
        drop(unwritten);
        self.flush(now)
    }

    /// Writes what could not be written before.
    pub fn flush(&self, now: SystemTime) -> io::Result<()> {
        let written = self.append();
        let mut unwritten = self.unwritten();
        // Another thread may have written it meanwhile.
        let is_written = unwritten.records.is_empty();
        unwritten.append = match &written {
            Err(error) if !is_written => Some(error.to_string()),
            _ => None,
        };
        drop(unwritten);
        let Some((lock, size)) = written? else {
            return Ok(());
        };
        if size < self.compact_at.load(Ordering::Relaxed) {
            return Ok(());
        }
        let compacted = self.compact(now);
        drop(lock);
        self.unwritten().compact = compacted.as_ref().err().map(ToString::to_string);
        if compacted.is_err() {
            // Not for each certificate: it reads the whole book.
            self.compact_at
                .store(size + COMPACT_AT_LEAST, Ordering::Relaxed);
        }
        compacted.map_err(io::Error::other)
    }

    /// Why certificates are not in the book, or what has ended still is.
    pub fn trouble(&self) -> Option<String> {
        let unwritten = self.unwritten();
        unwritten
            .append
            .clone()
            .or_else(|| unwritten.compact.clone())
    }

    /// What is good at `now`, the oldest first. Lines that cannot be read are skipped and said.
    pub fn good(&self, now: SystemTime) -> io::Result<Vec<Signed>> {
        // Before the file is read, as what is written meanwhile is in the file.
        let waiting = self.unwritten().records.clone();
        self.read(now, &waiting)
    }

    /// What is good of the file and of `waiting`, each record of `waiting` once.
    fn read(&self, now: SystemTime, waiting: &VecDeque<String>) -> io::Result<Vec<Signed>> {
        let mut missing: BTreeSet<_> = waiting.iter().map(|record| record.trim_end()).collect();
        let mut bytes = Vec::new();
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(self.path());
        match opened {
            Ok(file) => {
                file.take(self.bytes_max * 2).read_to_end(&mut bytes)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let lines = bytes.split(|byte| *byte == b'\n');
        let lines = lines.filter(|line| !line.is_empty());
        let lines = lines.map(|line| str::from_utf8(line).ok());
        let (mut good, mut damaged) = (Vec::new(), 0);
        let mut read = |line: Option<&str>| match line.and_then(Signed::read) {
            Some(signed) if signed.leaf.not_after > now => good.push(signed),
            Some(_ended) => {}
            None => damaged += 1,
        };
        for line in lines {
            if let Some(line) = line {
                missing.remove(line);
            }
            read(line);
        }
        for record in waiting.iter().map(|record| record.trim_end()) {
            if missing.remove(record) {
                read(Some(record));
            }
        }
        if damaged > 0 {
            tracing::warn!(lines = damaged, file = BOOK, "skipped damaged lines");
        }
        Ok(good)
    }

    /// Writes all that waits. Returns the lock and the size of the book, or nothing if nothing waited.
    fn append(&self) -> io::Result<Option<(File, u64)>> {
        let lock = self.lock()?;
        let mut unwritten = self.unwritten();
        if unwritten.records.is_empty() {
            return Ok(None);
        }
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(self.path())?;
        let before = file.metadata()?.len();
        // A crash may have torn the last line; these stand on their own.
        let mut text = "\n".to_owned();
        text.extend(unwritten.records.iter().map(String::as_str));
        if let Err(error) = file.write_all(text.as_bytes()) {
            // Best effort: it is written again whole, and a half is a damaged line.
            let _ = file.set_len(before);
            return Err(error);
        }
        unwritten.records.clear();
        Ok(Some((lock, file.metadata()?.len())))
    }

    /// Drops what has ended; past the bound the oldest goes too, and only a question for its key misses it.
    fn compact(&self, now: SystemTime) -> Result<(), StateError> {
        let good = self
            .read(now, &VecDeque::new())
            .map_err(|source| StateError::io("read", &self.path(), source))?;
        let lines: Vec<_> = good.iter().map(Signed::line).collect();
        let mut bytes: u64 = lines.iter().map(|line| line.len() as u64).sum();
        let is_over = |line: &&String| {
            let over = bytes > self.bytes_max / 2;
            bytes -= if over { line.len() as u64 } else { 0 };
            over
        };
        let dropped = lines.iter().take_while(is_over).count();
        if dropped > 0 {
            tracing::warn!(
                certificates = dropped,
                file = BOOK,
                "the book is full; the oldest certificates are dropped"
            );
        }
        let text: String = lines[dropped..].concat();
        let size = text.len() as u64;
        self.state.write(BOOK, text.as_bytes())?;
        let at = compact_at(size, self.bytes_max);
        self.compact_at.store(at, Ordering::Relaxed);
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.state.path().join(BOOK)
    }

    fn unwritten(&self) -> MutexGuard<'_, Unwritten> {
        self.unwritten
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Held until it is dropped. On a file of its own, as the book is replaced.
    fn lock(&self) -> io::Result<File> {
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(self.state.path().join(LOCK))?;
        let mut tries = 0;
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Err(rustix::io::Errno::WOULDBLOCK) if tries < LOCK_TRIES => tries += 1,
                locked => {
                    locked?;
                    return Ok(lock);
                }
            }
            std::thread::yield_now();
        }
    }
}

impl Signed {
    fn read(line: &str) -> Option<Self> {
        let (leaf, intermediate) = line.split_once(' ')?;
        let der = |text: &str| STANDARD.decode(text).ok();
        let chain = [der(leaf)?, der(intermediate)?];
        Some(Self {
            leaf: Leaf::of_der(&chain).ok()?,
            chain,
        })
    }

    fn line(&self) -> String {
        line(&self.chain[0], &self.chain[1])
    }
}

/// One record of the book.
fn line(leaf: &[u8], intermediate: &[u8]) -> String {
    format!(
        "{} {}\n",
        STANDARD.encode(leaf),
        STANDARD.encode(intermediate)
    )
}

/// The size at which a book of `size` bytes is compacted: half of it may have ended.
fn compact_at(size: u64, bytes_max: u64) -> u64 {
    (2 * size).max(COMPACT_AT_LEAST).min(bytes_max)
}

/// In the state directory.
pub const BOOK: &str = "ca/issued";
const LOCK: &str = "ca/issued.lock";

/// Of the file: some 25,000 certificates, which is what issuers of a full mesh sign in a day.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Tries for the lock, some 50 ms. Others hold it for the time of a write; what stops them must not stop this agent.
const LOCK_TRIES: u32 = 50_000;

/// Certificates that wait for a book that cannot be written: 3 MiB, some minutes of a full mesh whose leaves live a day.
const UNWRITTEN_MAX: usize = 1024;

/// Below this nothing is dropped: reading a mebibyte takes milliseconds.
const COMPACT_AT_LEAST: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use starling_gossip::NodeName;
    use starling_transport::{SpiffeId, TrustDomain};

    use super::*;
    use crate::ca::Authority;

    struct Rig {
        authority: Authority,
        book: Book,
        id: SpiffeId,
        _dir: tempfile::TempDir,
    }

    fn rig() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("state")).unwrap();
        let domain = TrustDomain::parse("example.org").unwrap();
        let authority = Authority::init(&state, &domain, &NodeName::parse("n1").unwrap()).unwrap();
        Rig {
            authority,
            book: Book::new(&state),
            id: SpiffeId::node(&domain, "n2").unwrap(),
            _dir: dir,
        }
    }

    impl Rig {
        fn issue(&self, life_s: u64) {
            let life = Duration::from_secs(life_s);
            self.authority.issue(&self.id, life).unwrap();
        }

        /// The last one.
        fn signed(&self) -> Signed {
            self.issue(3600);
            self.authority
                .book
                .good(SystemTime::now())
                .unwrap()
                .pop()
                .unwrap()
        }

        fn text(&self) -> String {
            std::fs::read_to_string(self.book.path()).unwrap()
        }
    }

    #[test]
    fn what_is_signed_is_found_until_it_ends() {
        let rig = rig();
        let now = SystemTime::now();
        assert_eq!(rig.book.good(now).unwrap(), []);
        rig.issue(60);
        rig.issue(3600);
        let good = rig.book.good(now).unwrap();
        assert_eq!(good.len(), 2);
        assert!(good[0].leaf.line.is_some() && good[0].leaf.line != good[1].leaf.line);
        let later = now + Duration::from_secs(120);
        assert_eq!(rig.book.good(later).unwrap(), good[1..]);
    }

    #[test]
    fn a_torn_or_damaged_line_costs_no_other() {
        let rig = rig();
        rig.issue(3600);
        let whole = rig.text();
        let torn = format!("{}{}", whole, &whole[..whole.len() / 2]);
        let damaged = [torn.as_bytes(), b"\nx y\n\xff\xfe\n"].concat();
        std::fs::write(rig.book.path(), damaged).unwrap();
        rig.issue(3600);
        assert_eq!(rig.book.good(SystemTime::now()).unwrap().len(), 2);
    }

    #[test]
    fn a_book_that_is_no_file_holds_up_neither_a_certificate_nor_a_question() {
        let rig = rig();
        let path = rig.book.path();
        let fifo = || {
            let made = std::process::Command::new("mkfifo").arg(&path).status();
            assert!(made.unwrap().success());
        };
        fifo();
        rig.issue(60);
        assert!(rig.authority.unbooked().is_some());
        let _nothing_or_error = rig.book.good(SystemTime::now());
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        rig.issue(60);
        assert!(rig.authority.unbooked().is_some());
        assert!(rig.book.good(SystemTime::now()).is_err());
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        rig.issue(60);
        assert!(rig.authority.unbooked().is_some());
        std::fs::remove_dir(&path).unwrap();
        rig.issue(60);
        assert_eq!(rig.authority.unbooked(), None);
        // All of them, each once.
        assert_eq!(rig.book.good(SystemTime::now()).unwrap().len(), 4);
        assert_eq!(rig.authority.book.good(SystemTime::now()).unwrap().len(), 4);
    }

    #[test]
    fn a_lock_that_is_never_given_back_costs_a_note_and_no_time() {
        let rig = rig();
        rig.issue(60);
        let _held = rig.book.lock().unwrap();
        rig.issue(60);
        assert!(rig.authority.unbooked().is_some());
    }

    #[test]
    fn what_has_ended_is_dropped_once_the_book_has_grown() {
        let rig = rig();
        rig.issue(60);
        rig.issue(3600);
        let later = SystemTime::now() + Duration::from_secs(120);
        let good = rig.book.good(later).unwrap();
        rig.book.compact_at.store(1, Ordering::Relaxed);
        rig.book
            .add(&good[0].chain[0], &good[0].chain[1], later)
            .unwrap();
        assert_eq!(rig.text(), good[0].line().repeat(2));
        assert_eq!(
            rig.book.compact_at.load(Ordering::Relaxed),
            COMPACT_AT_LEAST
        );
    }

    #[test]
    fn what_was_signed_while_another_process_held_the_lock_is_known_and_written_later() {
        let rig = rig();
        let held = rig.authority.book.lock().unwrap();
        rig.issue(3600);
        rig.issue(3600);
        assert!(rig.authority.unbooked().is_some());
        let now = SystemTime::now();
        assert_eq!(rig.authority.book.good(now).unwrap().len(), 2, "here");
        assert_eq!(rig.book.good(now).unwrap(), [], "on the disk");
        drop(held);
        rig.issue(3600);
        assert_eq!(rig.authority.unbooked(), None);
        assert_eq!(rig.book.good(now).unwrap().len(), 3);
    }

    #[test]
    fn two_processes_that_sign_at_once_lose_nothing_of_each_other() {
        let rig = rig();
        let other = Authority::load(&rig.book.state).unwrap();
        let both = [&rig.authority, &other];
        std::thread::scope(|scope| {
            for authority in both {
                scope.spawn(|| {
                    for _ in 0..50 {
                        authority.book.compact_at.store(1, Ordering::Relaxed);
                        let life = Duration::from_secs(3600);
                        authority.issue(&rig.id, life).unwrap();
                    }
                });
            }
        });
        for authority in both {
            authority.issue(&rig.id, Duration::from_secs(3600)).unwrap();
        }
        let good = rig.book.good(SystemTime::now()).unwrap();
        assert_eq!(good.len(), 102);
    }

    #[test]
    fn a_command_beside_the_agent_does_not_rewrite_a_book_that_is_all_good() {
        use std::os::unix::fs::MetadataExt;

        let rig = rig();
        rig.issue(3600);
        let copies = usize::try_from(COMPACT_AT_LEAST).unwrap() / rig.text().len() + 1;
        std::fs::write(rig.book.path(), rig.text().repeat(copies)).unwrap();
        let inode = || std::fs::metadata(rig.book.path()).unwrap().ino();
        let before = inode();
        let other = Authority::load(&rig.book.state).unwrap();
        other.issue(&rig.id, Duration::from_secs(3600)).unwrap();
        assert_eq!(inode(), before);
    }

    #[test]
    fn new_files_of_the_ca_keep_what_waits_for_the_disk() {
        let rig = rig();
        let held = rig.authority.book.lock().unwrap();
        rig.issue(3600);
        drop(held);
        let next = Authority::load(&rig.book.state).unwrap();
        let next = next.with_book_of(&rig.authority);
        assert!(next.unbooked().is_some());
        next.book().flush(SystemTime::now()).unwrap();
        assert_eq!(next.unbooked(), None);
        assert_eq!(rig.book.good(SystemTime::now()).unwrap().len(), 1);
    }

    #[test]
    fn a_book_that_cannot_be_written_for_long_forgets_the_oldest() {
        let rig = rig();
        let (first, last) = (rig.signed(), rig.signed());
        std::fs::remove_file(rig.book.path()).unwrap();
        let _held = rig.book.lock().unwrap();
        let now = SystemTime::now();
        let book = Book::new(&rig.book.state);
        // Without the time that the lock costs.
        let fill = |signed: &Signed, times: usize| {
            let lines = std::iter::repeat_n(signed.line(), times);
            book.unwritten().records.extend(lines);
        };
        fill(&first, 1);
        assert_eq!(book.good(now).unwrap(), [first]);
        fill(&last, UNWRITTEN_MAX - 1);
        let add = |signed: &Signed| book.add(&signed.chain[0], &signed.chain[1], now);
        assert!(add(&last).is_err());
        assert_eq!(book.unwritten().records.len(), UNWRITTEN_MAX);
        assert_eq!(book.good(now).unwrap(), [last]);
    }

    #[test]
    fn of_a_full_book_the_oldest_go_and_of_a_small_one_none() {
        let rig = rig();
        let all: Vec<_> = (0..8).map(|_| rig.signed()).collect();
        let size = rig.text().len() as u64;
        let now = SystemTime::now();
        let add = |book: &Book| {
            book.compact_at.store(1, Ordering::Relaxed);
            let last = &all[7];
            book.add(&last.chain[0], &last.chain[1], now).unwrap();
            book.good(now).unwrap()
        };
        let kept = add(&Book::with_bound(&rig.book.state, 4 * size));
        assert_eq!(kept[..8], all);
        // Half of the bound has room for four.
        let kept = add(&Book::with_bound(&rig.book.state, size));
        assert!((3..=4).contains(&kept.len()), "{}", kept.len());
        assert_eq!(kept.last(), all.last());
        assert!(!kept.contains(&all[0]));
    }
}
