//! Another time of day for one agent; takes `faketime`.

use std::fs;
use std::path::PathBuf;

/// What has to be in an agent's environment so that its clock is wrong by `offset`, as in `+90s`.
pub fn ahead(offset: &str) -> [(&'static str, String); 3] {
    [
        preloaded(),
        ("FAKETIME", offset.to_owned()),
        not_monotonic(),
    ]
}

/// A clock that can be set while an agent runs by it.
#[derive(Debug)]
pub struct Clock {
    file: PathBuf,
}

impl Clock {
    /// One that is right until it is set; `file` keeps how wrong it is.
    pub fn new(file: PathBuf) -> Self {
        let clock = Self { file };
        clock.set("+0");
        clock
    }

    /// Has it be wrong by `offset`, as in `-1h`, from now on.
    pub fn set(&self, offset: &str) {
        // Whole or not at all: it is read at each look at the clock.
        let new = self.file.with_extension("new");
        fs::write(&new, offset)
            .and_then(|()| fs::rename(&new, &self.file))
            .expect("a file can be written");
    }

    /// What has to be in an agent's environment so that it goes by this clock.
    pub fn environment(&self) -> [(&'static str, String); 4] {
        [
            preloaded(),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            not_monotonic(),
        ]
    }
}

/// The library that lets a program believe in another time.
fn preloaded() -> (&'static str, String) {
    let found = fs::read_dir("/usr/lib").expect("there is a directory of libraries");
    let mut libraries = found.filter_map(|entry| {
        let library = entry.ok()?.path().join("faketime/libfaketimeMT.so.1");
        library.is_file().then_some(library)
    });
    let library = libraries.next().expect("faketime has a library");
    ("LD_PRELOAD", library.display().to_string())
}

fn not_monotonic() -> (&'static str, String) {
    ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned())
}
