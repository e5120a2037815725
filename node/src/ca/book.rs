//! The book of an issuer: the certificates that it signed and that are still good, in its state directory.
//!
//! From it an operator who knows no more than a leaked key learns which line to revoke, and which hosts go with an issuer. One
//! record a line, the leaf and the intermediate in base64, so that an answer proves itself. `starling ca issue` writes to it
//! beside the agent: a lock keeps an append from falling into a rewrite.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
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
        Self {
            state: state.clone(),
            compact_at: AtomicU64::new(COMPACT_AT_LEAST),
        }
    }

    /// Adds a certificate. Reaches the disk with the next write of the kernel: what a crash loses is asked for in vain.
    pub fn add(&self, leaf: &[u8], intermediate: &[u8], now: SystemTime) -> io::Result<()> {
        let _lock = self.lock()?;
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(self.path())?;
        // A crash may have torn the last line; this one stands on its own.
        let record = format!(
            "\n{} {}\n",
            STANDARD.encode(leaf),
            STANDARD.encode(intermediate)
        );
        file.write_all(record.as_bytes())?;
        if file.metadata()?.len() >= self.compact_at.load(Ordering::Relaxed) {
            self.compact(now).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// What is good at `now`, the oldest first. Lines that cannot be read are skipped and said.
    pub fn good(&self, now: SystemTime) -> io::Result<Vec<Signed>> {
        let mut bytes = Vec::new();
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(self.path());
        match opened {
            Ok(file) => {
                file.take(BYTES_MAX * 2).read_to_end(&mut bytes)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let lines = bytes.split(|byte| *byte == b'\n');
        let lines = lines.filter(|line| !line.is_empty());
        let (mut good, mut damaged) = (Vec::new(), 0);
        for line in lines {
            match str::from_utf8(line).ok().and_then(Signed::read) {
                Some(signed) if signed.leaf.not_after > now => good.push(signed),
                Some(_ended) => {}
                None => damaged += 1,
            }
        }
        if damaged > 0 {
            tracing::warn!(lines = damaged, file = BOOK, "skipped damaged lines");
        }
        Ok(good)
    }

    /// Drops what has ended; past the bound the oldest goes too, and only a question for its key misses it.
    fn compact(&self, now: SystemTime) -> Result<(), StateError> {
        let good = self
            .good(now)
            .map_err(|source| StateError::io("read", &self.path(), source))?;
        let lines: Vec<_> = good.iter().map(Signed::line).collect();
        let mut bytes: u64 = lines.iter().map(|line| line.len() as u64).sum();
        let is_over = |line: &&String| {
            let over = bytes > BYTES_MAX / 2;
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
        self.compact_at
            .store((2 * size).max(COMPACT_AT_LEAST), Ordering::Relaxed);
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.state.path().join(BOOK)
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
        let [leaf, intermediate] = self.chain.each_ref().map(|der| STANDARD.encode(der));
        format!("{leaf} {intermediate}\n")
    }
}

/// In the state directory.
pub const BOOK: &str = "ca/issued";
const LOCK: &str = "ca/issued.lock";

/// Of the file: some 25,000 certificates, which is what issuers of a full mesh sign in a day.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Tries for the lock, some 50 ms. Others hold it for the time of a write; what stops them must not stop this agent.
const LOCK_TRIES: u32 = 50_000;

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
        assert_eq!(rig.book.good(SystemTime::now()).unwrap().len(), 1);
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
}
