//! The files of the last configuration that could be read, kept in the state directory: an agent that starts while the files are broken
//! runs on these.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::{Config, Contents, STATE};
use crate::state::StateDir;

/// One file.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    file: PathBuf,
    text: String,
}

/// Keeps `files`. That it cannot is logged: the agent runs on.
pub(super) fn keep(state: &StateDir, files: &Contents) {
    let kept = files.iter().map(|(file, content)| Kept {
        file: file.clone(),
        text: String::from_utf8_lossy(content).into_owned(),
    });
    let kept = serde_json::to_vec(&kept.collect::<Vec<_>>()).expect("strings can be written");
    // What is there already is not written again, on a disk that may be full.
    if state.read(FILE).is_ok_and(|before| before == kept) {
        return;
    }
    if let Err(error) = state.write(FILE, &kept) {
        let error: &(dyn std::error::Error + 'static) = &error;
        tracing::warn!(
            error,
            "failed to keep the configuration for a start on broken files"
        );
    }
}

/// The configuration that was kept, if there is one that this version can read.
pub fn read(state: &StateDir) -> Option<Config> {
    let kept: Vec<Kept> = serde_json::from_slice(&state.read(FILE).ok()?).ok()?;
    let files = kept.into_iter();
    let files: Contents = files
        .map(|kept| (kept.file, kept.text.into_bytes()))
        .collect();
    Config::from_files(&files).ok()
}

/// The state directory that the files in `directory` name, though they may be broken elsewhere; else the usual one.
pub fn state_of(directory: &Path) -> PathBuf {
    let text = std::fs::read_to_string(directory.join("starling.toml")).unwrap_or_default();
    let top = text
        .lines()
        .take_while(|line| !line.trim_start().starts_with('['));
    let named = top.filter_map(|line| {
        let value = line.trim().strip_prefix("state")?.trim_start();
        let value = value.strip_prefix('=')?.trim_start().strip_prefix('"')?;
        value.split_once('"').map(|(path, _)| PathBuf::from(path))
    });
    named.last().unwrap_or_else(|| STATE.into())
}

/// In the state directory.
const FILE: &str = "last-config";

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_was_kept_is_read_as_it_was_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("state")).unwrap();
        assert!(read(&state).is_none());
        let config = dir.path().join("config");
        fs::create_dir_all(config.join("services.d")).unwrap();
        fs::write(config.join("starling.toml"), "zone = \"a\"").unwrap();
        let service = "[[service]]\nname = \"web\"\nport = 80\nprotocol = \"http\"\n";
        fs::write(config.join("services.d/web.toml"), service).unwrap();
        let (loaded, files) = Config::load_with_files(&config).unwrap();
        keep(&state, &files);
        let kept = read(&state).unwrap();
        assert_eq!((kept.zone.as_str(), kept.services.len()), ("a", 1));
        assert_eq!(kept.services[0].declared, loaded.services[0].declared);
        for broken in ["", "[", "[{\"file\":\"x.toml\",\"text\":\"zone = 1\"}]"] {
            state.write(FILE, broken.as_bytes()).unwrap();
            assert!(read(&state).is_none(), "{broken}");
        }
    }

    #[test]
    fn broken_files_still_name_the_state_directory() {
        let dir = tempfile::tempdir().unwrap();
        let named = |text: &str| {
            fs::write(dir.path().join("starling.toml"), text).unwrap();
            state_of(dir.path())
        };
        assert_eq!(
            named("state = \"/srv/s\"\nunknown = 1"),
            Path::new("/srv/s")
        );
        assert_eq!(named("state = \"/srv/s\"\n[["), Path::new("/srv/s"));
        assert_eq!(
            named("zone = \"a\n[x]\nstate = \"/srv/s\""),
            Path::new(STATE)
        );
        assert_eq!(named("state = 1"), Path::new(STATE));
    }
}
