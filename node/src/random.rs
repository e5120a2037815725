//! Bytes that nobody can guess, for keys and serial numbers.

use std::fs::File;
use std::io::{self, Read};

/// Fresh bytes from the kernel.
pub(crate) fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
