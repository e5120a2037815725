//! Why the state directory or a file in it is not used, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use starling_transport::{Refusal, SpiffeId, SvidError};

/// Nothing was read or changed, unless the error says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    #[error("{} does not exist", path.display())]
    Missing { path: PathBuf },
    #[error("{} is not a directory", path.display())]
    NotADirectory { path: PathBuf },
    #[error("{} is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    #[error("{} is a symbolic link, and links are not followed here", path.display())]
    Symlink { path: PathBuf },
    #[error("{} belongs to user {owner}, and this process runs as user {us}", path.display())]
    ForeignOwner { path: PathBuf, owner: u32, us: u32 },
    #[error("{} is open to other users (mode {mode:04o})", path.display())]
    TooOpen { path: PathBuf, mode: u32 },
    #[error("{} is larger than any file that belongs here", path.display())]
    TooLarge { path: PathBuf },
    #[error("{} does not hold 64 bytes", path.display())]
    ResetKey { path: PathBuf },
    #[error("{} and its key cannot be used", path.display())]
    Identity { path: PathBuf, source: SvidError },
    #[error("{} is not vouched for by {}: {refusal}", path.display(), trust.display())]
    NotVouched {
        path: PathBuf,
        trust: PathBuf,
        refusal: Refusal,
    },
    #[error("{} is the certificate of {found}, which its file name does not say", path.display())]
    Misplaced { path: PathBuf, found: SpiffeId },
    #[error("cannot {doing} {}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl StateError {
    /// What puts it right.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Missing { .. } => "`starling init --trust-domain example.org` begins a mesh with this host, \
                 `starling join TOKEN` makes it one more of a mesh"
                .to_owned(),
            Self::Symlink { path } => format!("put the file or directory itself at {}", path.display()),
            Self::ForeignOwner { path, owner, us } => {
                format!("run as user {owner}, or `chown -R {us} {}`", path.display())
            }
            Self::TooOpen { path, .. } => format!("`chmod -R go= {}`", path.display()),
            Self::ResetKey { path } => format!("remove it; the agent makes a new {}", path.display()),
            Self::Identity { .. } | Self::Misplaced { .. } => {
                "let this host join again: `starling invite` for this node on an issuer, `starling join TOKEN` here".to_owned()
            }
            Self::NotVouched { trust, .. } => format!(
                "if {} is as the issuer has it, run `starling ca issue` for this node again; else copy it from there",
                trust.display()
            ),
            Self::NotADirectory { .. } | Self::NotAFile { .. } | Self::TooLarge { .. } | Self::Io { .. } => return None,
        })
    }

    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }

    /// What it means that `path` could not be opened without following links.
    pub(super) fn open(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.raw_os_error() {
            Some(libc::ENOENT) => Self::Missing { path },
            Some(libc::ELOOP) => Self::Symlink { path },
            _ => Self::Io {
                doing: "open",
                path,
                source,
            },
        }
    }
}
