//! Hosts that join: from nothing to a call in six commands.

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use harness::process::Process;
use harness::{Host, Need, Scratch, Wire, need, program, turn, wait_until};

/// A host with files of its own, and a count of what was typed on all of them.
struct Console<'a> {
    host: Host,
    root: &'a Path,
    typed: &'a Cell<u32>,
}

impl Console<'_> {
    /// Hosts share this machine's files, so each has its own `/run`, and directories in place of the usual ones.
    fn command(&self, program: &Path, words: &[&str]) -> Command {
        self.typed.set(self.typed.get() + 1);
        let mut command = self.host.command("unshare");
        let script = "mount -t tmpfs tmpfs /run && exec \"$0\" \"$@\"";
        command.args(["--mount", "sh", "-c", script]);
        command.arg(program).args(words);
        command
    }

    fn directory(&self, name: &str) -> PathBuf {
        self.root.join(self.host.name()).join(name)
    }

    fn starling(&self, words: &[&str]) -> Output {
        let mut command = self.command(&program::agent(), words);
        command.arg("--state").arg(self.directory("state"));
        command.arg("--config").arg(self.directory("etc"));
        command.output().expect("starling runs")
    }

    fn agent(&self) -> Process {
        let mut command = self.command(&program::agent(), &["agent", "--config"]);
        command.arg(self.directory("etc"));
        let log = self.root.join(format!("{}.log", self.host.name()));
        Process::spawn(self.host.name(), command, &log)
    }
}

fn good(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{error}", output.status);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn two_hosts_talk_after_six_commands() {
    need!(
        Need::Agent,
        Need::Root,
        Need::Program("ip"),
        Need::Program("curl"),
        Need::Program("python3")
    );
    let _turn = turn::shared();
    let (scratch, typed) = (Scratch::new(), Cell::new(0));
    let mut wire = Wire::new();
    let mut console = |name, ip: [u8; 4]| Console {
        host: wire.host_at(name, Ipv4Addr::from(ip)),
        root: scratch.path(),
        typed: &typed,
    };
    let (n1, n2) = (console("n1", [10, 0, 0, 1]), console("n2", [10, 0, 0, 2]));
    // The app is there before the mesh is.
    let mut app = n2.host.command(program::path("python3"));
    app.args(["-m", "http.server", "--bind", "127.0.0.1", "8080"])
        .current_dir(scratch.directory("www"));
    scratch.write("www/bird", "starling\n");
    let _app = Process::spawn("app", app, &scratch.path().join("app.log"));

    let init = "init --trust-domain example.org --node n1 --service web --call orders=9001";
    good(&n1.starling(&init.split(' ').collect::<Vec<_>>()));
    let mut first = n1.agent();
    let token = good(&n1.starling(&["invite", "--node", "n2", "--service", "orders"]));
    assert!(
        token.starts_with("starling1-") && !token.contains('\n'),
        "{token}"
    );
    good(&n2.starling(&["join", &token, "--serve", "orders=8080", "--allow", "web"]));
    let mut second = n2.agent();
    let words = [
        "--silent",
        "--max-time",
        "30",
        "--retry",
        "60",
        "--retry-all-errors",
        "--retry-delay",
        "1",
    ];
    let url = ["--fail", "http://127.0.0.1:9001/bird"];
    let curl = n1
        .command(&program::path("curl"), &[&words[..], &url[..]].concat())
        .output();
    first.check();
    second.check();
    assert_eq!(good(&curl.expect("curl runs")), "starling");
    assert_eq!(typed.get(), 6, "commands typed");

    let again = n2.starling(&["join", &token]);
    let error = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(
        !again.status.success() && error.contains("joined with this token before"),
        "{error}"
    );
    let listed = good(&n1.starling(&["invite", "--list"]));
    assert!(listed.contains("n2") && listed.contains("used"), "{listed}");
    wait_until(crate::PATIENCE, "n1 to show n2", || {
        let mut nodes = Command::new("nsenter");
        nodes.args(["--target", &first.pid().to_string(), "--mount", "--net"]);
        nodes.arg(program::agent()).arg("nodes");
        let shown = nodes.output().expect("nsenter runs");
        String::from_utf8_lossy(&shown.stdout).contains("n2")
    });
}
