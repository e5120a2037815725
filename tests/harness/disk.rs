//! A small disk that can be filled: a file system in memory in place of one directory, in a mount namespace of its own.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::process::leashed;
use crate::wait::wait_until;

/// Gone when it is dropped, and so are the processes' views of it that were started in it.
#[derive(Debug)]
pub struct Disk {
    holder: Child,
    directory: PathBuf,
}

impl Disk {
    /// Puts one in place of `directory`, with a copy of what is in there.
    pub fn over(directory: &Path) -> Self {
        let script = "cp -a \"$0\" \"$0.kept\" && mount -t tmpfs -o size=3m,mode=700 tmpfs \"$0\" && \
                      cp -a \"$0.kept/.\" \"$0\" && rm -r \"$0.kept\" && touch \"$0/.there\" && exec sleep 3600";
        let holder = leashed("unshare")
            .args(["--mount", "sh", "-c", script])
            .arg(directory)
            .stdin(Stdio::null())
            .spawn()
            .expect("util-linux is there");
        let disk = Self {
            holder,
            directory: directory.to_owned(),
        };
        wait_until(Duration::from_secs(10), "a small disk", || {
            disk.path().join(".there").exists()
        });
        disk
    }

    /// What a command has to begin with to see this disk.
    pub fn enter(&self) -> String {
        format!("nsenter --mount=/proc/{}/ns/mnt --", self.holder.id())
    }

    /// Leaves not a byte free.
    pub fn fill(&self) {
        let file = File::create(self.path().join("full"));
        let mut file = file.expect("there is a file system");
        while file.write_all(&[0; 512]).is_ok() {}
    }

    /// Frees what [`Disk::fill`] took.
    pub fn free(&self) {
        fs::remove_file(self.path().join("full")).expect("it was filled");
    }

    /// The directory as the processes on this disk see it.
    fn path(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        let inside = self.directory.strip_prefix("/").unwrap_or(&self.directory);
        root.join(inside)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _gone = self.holder.kill();
        let _gone = self.holder.wait();
    }
}

/// A script that runs `program` behind `words`, in the file `script`.
pub(crate) fn write_wrapper(script: &Path, words: &str, program: &Path) {
    let text = format!("#!/bin/sh\nexec {words} {} \"$@\"\n", program.display());
    fs::write(script, text).expect("there is room");
    let mut chmod = Command::new("chmod");
    assert!(
        chmod
            .arg("755")
            .arg(script)
            .status()
            .is_ok_and(|status| status.success())
    );
}
