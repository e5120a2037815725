use std::os::unix::fs::symlink;

use super::*;

fn fresh() -> (tempfile::TempDir, StateDir) {
    let parent = tempfile::tempdir().unwrap();
    let state = StateDir::create(&parent.path().join("state")).unwrap();
    (parent, state)
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn what_is_made_is_closed_to_others() {
    let (_parent, state) = fresh();
    state.write("svc/orders.key", b"secret").unwrap();
    assert_eq!(mode(state.path()), 0o700);
    assert_eq!(mode(&state.path().join("svc")), 0o700);
    assert_eq!(mode(&state.path().join("svc/orders.key")), 0o600);
    assert_eq!(state.read_secret("svc/orders.key").unwrap(), b"secret");
}

#[test]
fn an_open_directory_is_refused_with_the_fix() {
    for bad in [0o755, 0o710, 0o701, 0o770, 0o1777] {
        let (_parent, state) = fresh();
        chmod(state.path(), bad);
        let error = StateDir::open(state.path()).unwrap_err();
        assert!(
            matches!(error, StateError::TooOpen { mode, .. } if mode == bad),
            "{error}"
        );
        assert_eq!(
            error.hint().unwrap(),
            format!("`chmod -R go= {}`", state.path().display())
        );
        chmod(state.path(), 0o700);
    }
    let (_parent, state) = fresh();
    chmod(state.path(), 0o500);
    StateDir::open(state.path()).unwrap();
    chmod(state.path(), 0o700);
}

#[test]
fn an_open_subdirectory_is_refused() {
    let (_parent, state) = fresh();
    state.write("svc/orders.key", b"secret").unwrap();
    chmod(&state.path().join("svc"), 0o777);
    assert!(matches!(
        state.read_secret("svc/orders.key"),
        Err(StateError::TooOpen { .. })
    ));
    assert!(matches!(state.services(), Err(StateError::TooOpen { .. })));
    assert!(matches!(
        state.write("svc/orders.key", b""),
        Err(StateError::TooOpen { .. })
    ));
}

#[test]
fn keys_are_judged_harder_than_certificates() {
    let (_parent, state) = fresh();
    state.write("node.key", b"k").unwrap();
    for (mode, secret, public) in [
        (0o600, true, true),
        (0o400, true, true),
        (0o640, false, true),
        (0o604, false, true),
        (0o660, false, false),
        (0o602, false, false),
    ] {
        chmod(&state.path().join("node.key"), mode);
        assert_eq!(state.read_secret("node.key").is_ok(), secret, "{mode:o}");
        assert_eq!(state.read("node.key").is_ok(), public, "{mode:o}");
    }
}

#[test]
fn links_fifos_and_directories_are_not_read() {
    let (parent, state) = fresh();
    fs::write(parent.path().join("elsewhere"), b"x").unwrap();
    symlink(
        parent.path().join("elsewhere"),
        state.path().join("node.pem"),
    )
    .unwrap();
    assert!(matches!(
        state.read("node.pem"),
        Err(StateError::Symlink { .. })
    ));

    fs::create_dir(state.path().join("trust.pem")).unwrap();
    assert!(matches!(
        state.read("trust.pem"),
        Err(StateError::NotAFile { .. })
    ));

    let fifo = state.path().join("node.key");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    chmod(&fifo, 0o600);
    assert!(matches!(
        state.read_secret("node.key"),
        Err(StateError::NotAFile { .. })
    ));

    assert!(matches!(
        state.read("reset.key"),
        Err(StateError::Missing { .. })
    ));

    let link = parent.path().join("link");
    symlink(state.path(), &link).unwrap();
    assert!(matches!(
        StateDir::open(&link),
        Err(StateError::Symlink { .. })
    ));
}

#[test]
fn writing_replaces_a_link_and_leaves_its_target_alone() {
    let (parent, state) = fresh();
    let target = parent.path().join("elsewhere");
    fs::write(&target, b"mine").unwrap();
    symlink(&target, state.path().join("node.pem")).unwrap();
    state.write("node.pem", b"new").unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"mine");
    assert_eq!(state.read("node.pem").unwrap(), b"new");
}

#[test]
fn writing_leaves_no_unfinished_file() {
    let (_parent, state) = fresh();
    state.write("a", b"1").unwrap();
    fs::create_dir(state.path().join("b")).unwrap();
    assert!(state.write("b", b"2").is_err());
    let mut names: Vec<_> = fs::read_dir(state.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn a_huge_file_is_refused() {
    let (_parent, state) = fresh();
    state
        .write("trust.pem", &vec![b'x'; 1024 * 1024 + 1])
        .unwrap();
    assert!(matches!(
        state.read("trust.pem"),
        Err(StateError::TooLarge { .. })
    ));
}

#[test]
fn the_reset_key_is_made_once() {
    let (_parent, state) = fresh();
    let key = state.reset_key().unwrap();
    assert_eq!(state.reset_key().unwrap(), key);
    let (_other_parent, other) = fresh();
    assert_ne!(
        other.reset_key().unwrap(),
        key,
        "two installs share nothing"
    );
    state.write(RESET_KEY, &key[..63]).unwrap();
    assert!(
        matches!(state.reset_key(), Err(StateError::ResetKey { .. })),
        "a short key is not silently replaced"
    );
}

#[test]
fn a_fingerprint_changes_with_the_files_only() {
    let (_parent, state) = fresh();
    state.write("node.pem", b"1").unwrap();
    let before = state.fingerprint();
    state.write("peers.cache", b"unwatched").unwrap();
    assert_eq!(state.fingerprint(), before);
    state.write("node.pem", b"2").unwrap();
    let replaced = state.fingerprint();
    assert_ne!(replaced, before);
    state.write("svc/orders.pem", b"3").unwrap();
    let added = state.fingerprint();
    assert_ne!(added, replaced);
    fs::remove_file(state.path().join("svc/orders.pem")).unwrap();
    assert_eq!(state.fingerprint(), replaced);
}

#[test]
fn services_are_the_certificates_in_svc() {
    let (_parent, state) = fresh();
    assert!(state.services().unwrap().is_empty());
    for name in [
        "svc/web.pem",
        "svc/web.key",
        "svc/orders.pem",
        "svc/.web.pem",
        "svc/notes.txt",
    ] {
        state.write(name, b"").unwrap();
    }
    assert_eq!(state.services().unwrap(), ["orders", "web"]);
}
