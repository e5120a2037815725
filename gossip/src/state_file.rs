//! What a node keeps on disk: the peers it has seen.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::names::NodeId;

/// One peer as the file has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) node: NodeId,
    pub(crate) addr: SocketAddr,
    pub(crate) generation: u64,
    pub(crate) sequence: u64,
    /// Seconds since 1970.
    pub(crate) at: u64,
}

/// Reads the peers seen before. A line that cannot be read is left out: every address is only a hint.
pub(crate) fn read_peers(file: &Path) -> io::Result<Vec<Seen>> {
    if fs::metadata(file)?.len() > PEERS_BYTES_MAX {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    let text = fs::read_to_string(file)?;
    Ok(text
        .lines()
        .filter_map(parse_line)
        .take(PEERS_MAX)
        .collect())
}

/// Keeps the newest [`PEERS_MAX`] of `peers`.
pub(crate) fn write_peers(file: &Path, mut peers: Vec<Seen>) -> io::Result<()> {
    peers.sort_by_key(|seen| std::cmp::Reverse(seen.at));
    peers.truncate(PEERS_MAX);
    let mut text = String::from("# node address generation sequence seen\n");
    for Seen {
        node,
        addr,
        generation,
        sequence,
        at,
    } in peers
    {
        text.push_str(&format!("{node} {addr} {generation} {sequence} {at}\n"));
    }
    write_atomically(file, text.as_bytes())
}

/// Writes a file so that after a crash there is the old one or the new one, whole. Readable by its owner only.
pub(crate) fn write_atomically(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    write_with(&PathBuf::from(name), file, bytes)
}

/// The same by way of `unfinished`, in the same directory. A crash leaves it behind; the next write through it replaces it.
pub(crate) fn write_with(unfinished: &Path, file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = private_file(unfinished)?;
    new.write_all(bytes)?;
    new.sync_all()?;
    fs::rename(unfinished, file)?;
    match file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(unix)]
fn private_file(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    // A leftover of a crash goes first, so that nothing is ever written through a link somebody put there.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

#[cfg(not(unix))]
fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
}

fn parse_line(line: &str) -> Option<Seen> {
    let mut words = line.split_ascii_whitespace();
    let seen = Seen {
        node: NodeId::parse(words.next()?)?,
        addr: words.next()?.parse().ok()?,
        generation: words.next()?.parse().ok()?,
        sequence: words.next()?.parse().ok()?,
        at: words.next()?.parse().ok()?,
    };
    words.next().is_none().then_some(seen)
}

/// Peers kept: a full cell.
pub(crate) const PEERS_MAX: usize = 256;

/// 256 lines have 40 KiB at most; a file past this is not ours.
const PEERS_BYTES_MAX: u64 = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(n: u16) -> Seen {
        let addr = SocketAddr::from(([10, 0, 0, 1], 7000 + n));
        Seen {
            node: NodeId::of(&n.to_string()),
            addr,
            generation: 5,
            sequence: 6,
            at: u64::from(n),
        }
    }

    #[test]
    fn the_newest_peers_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("peers.cache");
        write_peers(&file, (0..300).map(seen).collect()).unwrap();
        let read = read_peers(&file).unwrap();
        assert_eq!(read.len(), PEERS_MAX);
        assert_eq!((read[0], read[255]), (seen(299), seen(44)));
    }

    #[test]
    fn spoilt_lines_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("peers.cache");
        write_peers(&file, vec![seen(1)]).unwrap();
        let good = fs::read_to_string(&file).unwrap();
        fs::write(
            &file,
            format!("nonsense\n{good}{} 1.2.3.4 1 1 1\n", NodeId::of("x")),
        )
        .unwrap();
        assert_eq!(read_peers(&file).unwrap(), [seen(1)]);
        assert!(read_peers(&dir.path().join("none")).is_err());
    }
}
