//! The examples about traffic, as their pages tell them: the same TOML, commands and addresses.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;

use harness::process::{Process, run};
use harness::{Host, Need, Scratch, Wire, need, program, turn, wait_until};

/// An example on three hosts: `web` on n1 calls a service that n2 and n3 offer.
struct Story {
    agents: Vec<Process>,
    /// Those of n2 and n3.
    apps: Vec<Option<Process>>,
    hosts: Vec<Host>,
    scratch: Scratch,
    _wire: Wire,
}

impl Story {
    /// Runs `examples/NAME`; the apps on n2 and n3 serve a file `version` that says these words.
    fn start(name: &str, service: &str, versions: [&str; 2]) -> Self {
        let scratch = Scratch::new();
        let mut wire = Wire::new();
        let hosts: Vec<_> = [1, 2, 3]
            .map(|number| wire.host_at(&format!("n{number}"), Ipv4Addr::new(10, 0, 0, number)))
            .into();
        let state = |host: &Host| {
            scratch
                .path()
                .join(format!("{}-state", host.name()))
                .display()
                .to_string()
        };
        let first = state(&hosts[0]);
        starling(&[
            "init",
            "--trust-domain",
            "example.org",
            "--node",
            "n1",
            "--service",
            "web",
            "--state",
            &first,
        ]);
        let mut apps = Vec::new();
        for (host, version) in hosts[1..].iter().zip(versions) {
            let (node, out) = (host.name(), state(host));
            starling(&[
                "ca",
                "issue",
                "--node",
                node,
                "--service",
                service,
                "--out",
                &out,
                "--state",
                &first,
            ]);
            let files = scratch.directory(&format!("www-{node}"));
            fs::write(files.join("version"), version).expect("a file can be written");
            apps.push(Some(app(host, &scratch)));
        }
        // The story changes files, so it gets its own.
        let mut copy = Command::new("cp");
        copy.arg("-r")
            .arg(program::repository("examples").join(name))
            .arg(scratch.path().join("etc"));
        run(copy);
        let agents = hosts
            .iter()
            .map(|host| {
                crate::agent(
                    host,
                    &scratch.path().join("etc"),
                    &state(host),
                    scratch.path(),
                )
            })
            .collect();
        let mut story = Self {
            agents,
            apps,
            hosts,
            scratch,
            _wire: wire,
        };
        wait_until(crate::PATIENCE, "n1 to know both instances", || {
            story.agents.iter_mut().for_each(Process::check);
            story.healthy(service) == 2
        });
        story
    }

    /// Waits until `starling routes` on n1 knows of these.
    fn wait_routes(&self, versions: [&str; 2]) {
        for version in versions {
            let what = format!("`starling routes` to know of {version}");
            wait_until(crate::PATIENCE, &what, || {
                !self.routes().contains("none") && self.routes().contains(version)
            });
        }
    }

    /// Healthy instances as n1 knows them.
    fn healthy(&self, service: &str) -> usize {
        let page = self.ask(&["services", "--json"]);
        let all: serde_json::Value = serde_json::from_str(&page).unwrap_or_default();
        let services = all.as_array().into_iter().flatten();
        let found = services.filter(|entry| entry["service"] == service);
        found
            .flat_map(|entry| entry["instances"].as_array().into_iter().flatten())
            .filter(|instance| instance["healthy"] == true)
            .count()
    }

    fn stop_app(&mut self, index: usize) {
        self.apps[index] = None;
    }

    fn start_app(&mut self, index: usize) {
        self.apps[index] = Some(app(&self.hosts[index + 1], &self.scratch));
    }

    /// What curl on n1 gets with these options.
    fn version(&self, options: &[&str]) -> String {
        let mut curl = self.hosts[0].command(program::path("curl"));
        curl.args(["--silent", "--show-error", "--fail", "--max-time", "10"])
            .args(options);
        curl.arg("http://127.0.0.1:9001/version");
        run(curl)
    }

    /// `starling routes` on n1.
    fn routes(&self) -> String {
        self.ask(&["routes"])
    }

    /// A command of the operator on n1.
    fn ask(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("nsenter");
        command.args([
            "--target",
            &self.agents[0].pid().to_string(),
            "--mount",
            "--net",
        ]);
        let output = command
            .arg(program::agent())
            .args(arguments)
            .output()
            .expect("it runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs the page's `sed -i SCRIPT services.d/FILE` and waits until `starling routes` shows it.
    fn edit(&self, script: &str, file: &str, is_shown: impl Fn(&str) -> bool) {
        let mut sed = Command::new("sed");
        sed.args(["-i", script])
            .arg(self.scratch.path().join("etc/n1/services.d").join(file));
        run(sed);
        wait_until(crate::PATIENCE, "the edited route", || {
            is_shown(&self.routes())
        });
    }
}

#[test]
fn the_canary_goes_as_its_page_says() {
    need!(
        Need::Agent,
        Need::Root,
        Need::Program("ip"),
        Need::Program("curl"),
        Need::Program("python3")
    );
    let _turn = turn::shared();
    let story = Story::start("canary", "cart", ["v1", "v2"]);
    story.wait_routes(["v1", "v2"]);
    assert_eq!(story.version(&["-H", "x-beta: 1"]), "v2");
    let of_users = || -> Vec<_> {
        let users = (0..20).map(|user| format!("session=user-{user}"));
        users
            .map(|session| story.version(&["-b", &session]))
            .collect()
    };
    let before = of_users();
    assert_eq!(of_users(), before);
    story.edit(
        "s/weight = 90/weight = 50/; s/weight = 10 /weight = 50 /",
        "cart-route.toml",
        |page| page.contains("50% version=v1"),
    );
    let after = of_users();
    assert!(
        after.contains(&"v1".to_owned()) && after.contains(&"v2".to_owned()),
        "{after:?}"
    );
    for (old, new) in before.iter().zip(&after) {
        assert!(old == new || (old == "v1" && new == "v2"), "{old} -> {new}");
    }
}

#[test]
fn blue_becomes_green_as_its_page_says() {
    need!(
        Need::Agent,
        Need::Root,
        Need::Program("ip"),
        Need::Program("curl"),
        Need::Program("python3")
    );
    let _turn = turn::shared();
    let story = Story::start("blue-green", "shop", ["blue", "green"]);
    story.wait_routes(["blue", "green"]);
    let live = |expected: &str| {
        for _ in 0..10 {
            assert_eq!(story.version(&[]), expected);
        }
    };
    live("blue");
    assert_eq!(story.version(&["-H", "x-preview: 1"]), "green");
    story.edit(
        "s/color = \"blue\"/color = \"green\"/",
        "shop-route.toml",
        |page| !page.contains("color=blue"),
    );
    live("green");
}

#[test]
fn the_other_rack_takes_over_as_its_page_says() {
    need!(
        Need::Agent,
        Need::Root,
        Need::Program("ip"),
        Need::Program("curl"),
        Need::Program("python3")
    );
    let _turn = turn::shared();
    let mut story = Story::start("failover", "orders", ["rack-1", "rack-2"]);
    let always = |story: &Story, expected: &str| {
        for _ in 0..10 {
            assert_eq!(story.version(&[]), expected);
        }
    };
    // What finds out whether an instance is back is a single call; the others follow when its own agent says so.
    let settled = |story: &Story| {
        wait_until(crate::PATIENCE, "calls to stay in the rack", || {
            (0..10).all(|_| story.version(&[]) == "rack-1")
        });
    };
    settled(&story);
    story.stop_app(0);
    always(&story, "rack-2");
    story.start_app(0);
    settled(&story);
}

#[test]
fn rates_are_kept_as_their_page_says() {
    need!(
        Need::Agent,
        Need::Root,
        Need::Program("ip"),
        Need::Program("curl"),
        Need::Program("python3")
    );
    let _turn = turn::shared();
    let story = Story::start("rate-limit", "api", ["n2", "n3"]);
    let get = |customer: &str| {
        let mut curl = story.hosts[0].command(program::path("curl"));
        curl.args(["--silent", "--show-error", "--include", "--max-time", "10"]);
        curl.args(["-H", &format!("x-customer: {customer}")]);
        curl.arg("http://127.0.0.1:9001/version");
        run(curl)
    };
    for customer in ["ada", "grace"] {
        for _ in 0..5 {
            let answer = get(customer);
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        let answer = get(customer);
        assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
        assert!(answer.contains("starling-error: rate-limited"), "{answer}");
        assert!(answer.contains("retry-after: 7"), "{answer}");
    }
}

/// The app on `host`, which serves its files.
fn app(host: &Host, scratch: &Scratch) -> Process {
    let node = host.name();
    let mut command = host.command(program::path("python3"));
    command
        .args(["-m", "http.server", "--bind", "127.0.0.1", "8080"])
        .current_dir(scratch.path().join(format!("www-{node}")));
    let log = scratch.path().join(format!("app-{node}.log"));
    let process = Process::spawn("app", command, &log);
    wait_until(crate::PATIENCE, "the app", || {
        host.run(|| TcpStream::connect("127.0.0.1:8080").is_ok())
    });
    process
}

fn starling(arguments: &[&str]) {
    let mut command = Command::new(program::agent());
    command.args(arguments);
    run(command);
}
