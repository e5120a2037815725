//! The logs of the demo, which may run for days.

use std::convert::Infallible;
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

/// Where they are.
#[derive(Debug)]
pub(super) struct Logs(pub(super) PathBuf);

impl Logs {
    /// Empties each that has grown too large, again and again.
    pub(super) async fn keep_small(&self) -> Infallible {
        let mut every = tokio::time::interval(EVERY);
        loop {
            every.tick().await;
            self.empty_above(BYTES_MAX);
        }
    }

    /// One that cannot be read or emptied is left as it is: nobody waits for it.
    fn empty_above(&self, bytes: u64) {
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            if entry.metadata().is_ok_and(|log| log.len() > bytes) {
                let _emptied = File::options()
                    .write(true)
                    .truncate(true)
                    .open(entry.path());
            }
        }
    }
}

/// An agent of the demo writes about 5 KiB a second, so this is an hour of it.
const BYTES_MAX: u64 = 16 * 1024 * 1024;
const EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_log_that_is_emptied_goes_on_from_its_start() {
        let dir = tempfile::tempdir().unwrap();
        let (large, small) = (dir.path().join("n1.log"), dir.path().join("n2.log"));
        let mut writer = File::options()
            .append(true)
            .create(true)
            .open(&large)
            .unwrap();
        writer.write_all(&[b'x'; 100]).unwrap();
        fs::write(&small, "short").unwrap();
        Logs(dir.path().to_owned()).empty_above(50);
        writer.write_all(b"new").unwrap();
        assert_eq!(fs::read_to_string(&large).unwrap(), "new");
        assert_eq!(fs::read_to_string(&small).unwrap(), "short");
    }
}
