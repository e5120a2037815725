//! The state directory: keys, certificates and what the agent remembers between starts.
//!
//! ```text
//! trust.pem                      root certificates
//! node.pem node.key              this node's chain (leaf first) and PKCS#8 key
//! svc/<service>.pem .key         the same for each service this node may speak for
//! ca/root.* ca/intermediate.*    on issuers only
//! ca/issued                      on issuers only: certificates that they signed and that are still good
//! invites/                       on issuers only: open and ended invitations
//! documents/                     what operators said, and which of it is on trial
//! reset.key generation peers.cache
//! ```
//!
//! Whoever can write here can become this node, so nothing is read before it is known that only we can: the directory
//! is ours and closed to others, files are regular, ours and not links. A looser directory is refused, never repaired,
//! as what it holds may already have been read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::ca::{INTERMEDIATE_CERT, INTERMEDIATE_KEY};
use crate::random;

mod error;
mod fingerprint;
mod identities;

pub use error::StateError;
pub use fingerprint::Fingerprint;
pub use identities::service_files;

/// A state directory that was checked. Holds a path, no open files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir {
    path: PathBuf,
    owner: u32,
}

/// How closed a file must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Secrecy {
    /// Others may read it, never write it.
    Public,
    /// Nobody else may do anything.
    Secret,
}

impl StateDir {
    /// Opens a directory that exists. Nothing is changed.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        Self::open_as(path, rustix::process::geteuid().as_raw())
    }

    /// Opens the directory of another user, as root may, to look at what that user would find.
    pub fn open_as(path: &Path, owner: u32) -> Result<Self, StateError> {
        check_directory(path, owner)?;
        Ok(Self {
            path: path.to_owned(),
            owner,
        })
    }

    /// Makes the directory with mode 0700 unless it exists, then opens it.
    pub fn create(path: &Path) -> Result<Self, StateError> {
        make_directory(path)?;
        Self::open(path)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names `<service>` of which `svc/<service>.pem` exists, sorted. Whether they are names of services is for the
    /// reader to judge.
    pub fn services(&self) -> Result<Vec<String>, StateError> {
        let path = self.path.join(SERVICES);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(StateError::io("list", &path, source)),
        };
        check_directory(&path, self.owner)?;
        let mut names = Vec::new();
        for entry in entries {
            let name = entry
                .map_err(|source| StateError::io("list", &path, source))?
                .file_name();
            let Some(name) = name.to_str().and_then(|name| name.strip_suffix(".pem")) else {
                continue;
            };
            if !name.starts_with('.') {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    pub fn exists(&self, name: &str) -> bool {
        fs::symlink_metadata(self.path.join(name)).is_ok()
    }

    /// Reads a file that holds no secret, such as `trust.pem` or `svc/orders.pem`.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, StateError> {
        self.read_as(name, Secrecy::Public)
    }

    /// Reads a file that only we may read, such as `node.key`.
    pub fn read_secret(&self, name: &str) -> Result<Vec<u8>, StateError> {
        self.read_as(name, Secrecy::Secret)
    }

    /// Replaces a file at once and for good: a reader sees the old bytes or the new, also after a crash. Mode 0600.
    /// Directories in `name` are made if missing.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let path = self.path.join(name);
        let parent = path.parent().unwrap_or(&self.path);
        if parent != self.path {
            make_directory(parent)?;
            check_directory(parent, self.owner)?;
        }
        let unfinished = unfinished_name(&path);
        let replaced = write_synced(&unfinished, bytes)
            .and_then(|()| fs::rename(&unfinished, &path))
            .and_then(|()| File::open(parent)?.sync_all());
        replaced.map_err(|source| {
            // Best effort: the file is ours alone and the error that counts is the first.
            let _ = fs::remove_file(&unfinished);
            StateError::io("write", &path, source)
        })
    }

    /// Makes a file that must not be there yet: of all who try at once exactly one gets `true`. Durable when it returns.
    pub fn create_new(&self, name: &str, bytes: &[u8]) -> Result<bool, StateError> {
        let path = self.path.join(name);
        let parent = path.parent().unwrap_or(&self.path);
        let unfinished = unfinished_name(&path);
        // Linked once it is whole: a reader never sees a file that is there but empty.
        let made = write_synced(&unfinished, bytes)
            .and_then(|()| match fs::hard_link(&unfinished, &path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                linked => linked.map(|()| true),
            })
            .and_then(|is_new| File::open(parent)?.sync_all().map(|()| is_new));
        // Best effort: the name is hidden and holds nothing that counts.
        let _ = fs::remove_file(&unfinished);
        made.map_err(|source| StateError::io("write", &path, source))
    }

    /// Removes a file; that it is not there is no error.
    pub fn remove(&self, name: &str) -> Result<(), StateError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StateError::io("remove", &path, error))
            }
            _ => Ok(()),
        }
    }

    /// Gives a file the place of another, at once and for good.
    fn rename(&self, from: &str, to: &str) -> Result<(), StateError> {
        let (from, to) = (self.path.join(from), self.path.join(to));
        let parent = to.parent().unwrap_or(&self.path);
        let renamed = fs::rename(&from, &to).and_then(|()| File::open(parent)?.sync_all());
        renamed.map_err(|source| StateError::io("write", &to, source))
    }

    /// Makes a directory in here, closed to others, unless it is there.
    pub fn make_directory(&self, name: &str) -> Result<(), StateError> {
        let path = self.path.join(name);
        make_directory(&path)?;
        check_directory(&path, self.owner)
    }

    /// Names of the files in a directory in here, but hidden ones; none if it is not there.
    pub fn list(&self, name: &str) -> Vec<String> {
        let paths = fingerprint::entries(&self.path.join(name));
        let names = paths
            .iter()
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()));
        names.collect()
    }

    /// The same for the CA's files: what they look like now.
    pub fn authority_fingerprint(&self) -> Fingerprint {
        let files = [INTERMEDIATE_CERT, INTERMEDIATE_KEY, TRUST];
        Fingerprint::of(files.map(|name| self.path.join(name)))
    }

    /// What the identity files look like now. Cheap; equal as long as nobody touched them, so that polling it tells when
    /// to load them again.
    pub fn fingerprint(&self) -> Fingerprint {
        let svc = self.path.join(SERVICES);
        let files = [TRUST, NODE_CHAIN, NODE_KEY].map(|name| self.path.join(name));
        Fingerprint::of(files.into_iter().chain(fingerprint::entries(&svc)))
    }

    /// The key from which QUIC stateless resets are made, made on first use. It must outlive the process: it lets peers
    /// notice at once that an agent was restarted.
    pub fn reset_key(&self) -> Result<[u8; 64], StateError> {
        if self.exists(RESET_KEY) {
            let bytes = self.read_secret(RESET_KEY)?;
            let key = <[u8; 64]>::try_from(bytes.as_slice()).ok();
            return key.ok_or_else(|| StateError::ResetKey {
                path: self.path.join(RESET_KEY),
            });
        }
        let key = random::bytes()
            .map_err(|source| StateError::io("make", &self.path.join(RESET_KEY), source))?;
        self.write(RESET_KEY, &key)?;
        Ok(key)
    }

    fn read_as(&self, name: &str, secrecy: Secrecy) -> Result<Vec<u8>, StateError> {
        let path = self.path.join(name);
        let parent = path.parent().unwrap_or(&self.path);
        if parent != self.path {
            check_directory(parent, self.owner)?;
        }
        // O_NONBLOCK so that a FIFO cannot hold us up; it means nothing for a regular file.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path)
            .map_err(|source| StateError::open(&path, source))?;
        self.check_file(&path, &file, secrecy)?;
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| StateError::io("read", &path, source))?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(StateError::TooLarge { path });
        }
        Ok(bytes)
    }

    fn check_file(&self, path: &Path, file: &File, secrecy: Secrecy) -> Result<(), StateError> {
        let meta = file
            .metadata()
            .map_err(|source| StateError::io("look at", path, source))?;
        if !meta.is_file() {
            return Err(StateError::NotAFile {
                path: path.to_owned(),
            });
        }
        let forbidden = match secrecy {
            Secrecy::Public => 0o022,
            Secrecy::Secret => 0o077,
        };
        check_access(path, &meta, self.owner, forbidden)
    }
}

fn check_directory(path: &Path, owner: u32) -> Result<(), StateError> {
    let meta = fs::symlink_metadata(path).map_err(|source| StateError::open(path, source))?;
    if meta.is_symlink() {
        return Err(StateError::Symlink {
            path: path.to_owned(),
        });
    }
    if !meta.is_dir() {
        return Err(StateError::NotADirectory {
            path: path.to_owned(),
        });
    }
    check_access(path, &meta, owner, 0o077)
}

fn check_access(
    path: &Path,
    meta: &fs::Metadata,
    owner: u32,
    forbidden: u32,
) -> Result<(), StateError> {
    if meta.uid() != owner {
        return Err(StateError::ForeignOwner {
            path: path.to_owned(),
            owner: meta.uid(),
            us: owner,
        });
    }
    let mode = meta.permissions().mode() & 0o7777;
    if mode & forbidden != 0 {
        return Err(StateError::TooOpen {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(())
}

fn make_directory(path: &Path) -> Result<(), StateError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| StateError::io("make", path, source))
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A name beside `path` that no two writers share, hidden from listings.
fn unfinished_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{:016x}", fastrand::u64(..)))
}

/// Root certificates, PEM.
pub const TRUST: &str = "trust.pem";
/// This node's chain, leaf first.
pub const NODE_CHAIN: &str = "node.pem";
/// This node's key.
pub const NODE_KEY: &str = "node.key";
/// Directory of the services' chains and keys.
pub const SERVICES: &str = "svc";
/// Key of QUIC stateless resets.
pub const RESET_KEY: &str = "reset.key";

/// Every file here is a few KiB; the peer cache of a full cell is the largest.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

#[cfg(test)]
mod tests;
