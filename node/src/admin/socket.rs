//! The unix socket of the admin server: closed to others from its first moment, and never two agents on one.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Why there is no admin socket. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    #[error("another agent answers on {}", path.display())]
    InUse { path: PathBuf },
    #[error("{} exists and is not a socket", path.display())]
    NotASocket { path: PathBuf },
    #[error("cannot make the admin socket {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("cannot make the directory of the admin socket {}", path.display())]
    Directory { path: PathBuf, source: io::Error },
}

impl SocketError {
    /// What puts it right.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Directory { .. } | Self::Io { .. } => Some(
                "name a path that this user may write: `[admin] socket = \"/path/admin.sock\"`, and `--socket` for commands"
                    .to_owned(),
            ),
            Self::InUse { .. } | Self::NotASocket { .. } => None,
        }
    }
}

/// A listening socket with mode 0600 whose file goes when this is dropped.
#[derive(Debug)]
pub struct Socket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Socket {
    /// Listens at `path`, in place of a socket that nobody answers. Needs a tokio runtime.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let io = |source| SocketError::Io {
            path: path.to_owned(),
            source,
        };
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(SocketError::NotASocket {
                    path: path.to_owned(),
                });
            }
            Ok(_) if is_answered(path) => {
                return Err(SocketError::InUse {
                    path: path.to_owned(),
                });
            }
            _ => {}
        }
        make_directory(path).map_err(|source| SocketError::Directory {
            path: path.to_owned(),
            source,
        })?;
        let (listener, inode) = bind_closed(path).map_err(io)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            inode,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Another agent may have taken the place meanwhile.
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode);
        if is_ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Anything but "nobody listens" counts as an answer, also a full backlog or a socket of another user.
fn is_answered(path: &Path) -> bool {
    match UnixStream::connect(path) {
        Ok(_) => true,
        Err(error) => !matches!(
            error.kind(),
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
        ),
    }
}

/// Makes the directory of the socket, as `/run` is empty after each start of a host. Others may enter it, and the socket stays closed.
fn make_directory(path: &Path) -> io::Result<()> {
    let Some(parent) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    else {
        return Ok(());
    };
    match DirBuilder::new().mode(0o755).create(parent) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// `bind` makes a socket with the rights of the umask, so it happens in a directory nobody else may enter; the file
/// appears at `path` by a rename, with its final rights.
fn bind_closed(path: &Path) -> io::Result<(UnixListener, u64)> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."));
    let nursery = parent.join(format!(".{:08x}", fastrand::u32(..)));
    DirBuilder::new().mode(0o700).create(&nursery)?;
    let bound = bind_in(&nursery, path);
    let _ = fs::remove_dir_all(&nursery);
    bound
}

fn bind_in(nursery: &Path, path: &Path) -> io::Result<(UnixListener, u64)> {
    let young = nursery.join("s");
    let listener = UnixListener::bind(&young)?;
    fs::set_permissions(&young, Permissions::from_mode(0o600))?;
    let inode = fs::symlink_metadata(&young)?.ino();
    fs::rename(&young, path)?;
    Ok((listener, inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[tokio::test]
    async fn a_socket_is_closed_to_others_and_goes_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let socket = Socket::bind(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing else is left"
        );
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn one_that_is_answered_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let _first = Socket::bind(&path).unwrap();
        let error = Socket::bind(&path).unwrap_err();
        assert!(matches!(error, SocketError::InUse { .. }), "{error}");
        assert!(
            UnixStream::connect(&path).is_ok(),
            "the first still answers"
        );
    }

    #[tokio::test]
    async fn a_stale_one_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "left behind, as by a killed agent");
        let _socket = Socket::bind(&path).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        assert_eq!(mode(&path), 0o600);
    }

    #[tokio::test]
    async fn nothing_but_a_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(
            Socket::bind(&path).unwrap_err(),
            SocketError::NotASocket { .. }
        ));
        assert_eq!(fs::read(&path).unwrap(), b"precious");

        let link = dir.path().join("link.sock");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(
            Socket::bind(&link).unwrap_err(),
            SocketError::NotASocket { .. }
        ));
    }

    #[tokio::test]
    async fn a_successors_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let first = Socket::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _second = Socket::bind(&path).unwrap();
        drop(first);
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[tokio::test]
    async fn the_directory_of_the_socket_is_made_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("absent/admin.sock");
        let _socket = Socket::bind(&path).unwrap();
        assert_eq!(
            mode(&dir.path().join("absent")) & !0o755,
            0,
            "closed to writers"
        );
        let error = Socket::bind(&dir.path().join("no/where/admin.sock")).unwrap_err();
        assert!(matches!(error, SocketError::Directory { .. }), "{error}");
        assert!(error.hint().is_some());
    }
}
