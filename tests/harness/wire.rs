//! Network namespaces as hosts, joined by a bridge that has a namespace of its own: the machine's own network is not touched.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::Host;
use crate::process::run;
use crate::program;

/// Hosts on one Ethernet. Its namespaces go away when it is dropped; drop what runs in them first.
#[derive(Debug)]
pub struct Wire {
    prefix: String,
    made: Vec<String>,
}

impl Wire {
    /// A bridge without hosts.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static SWEPT: Once = Once::new();
        SWEPT.call_once(sweep);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut wire = Self {
            prefix: format!("{PREFIX}{}-{number}", std::process::id()),
            made: Vec::new(),
        };
        let switch = wire.add("sw");
        in_namespace(&switch, "link add br0 type bridge");
        in_namespace(&switch, "link set br0 up");
        wire
    }

    /// Another host on it.
    pub fn host(&mut self, name: &str) -> Host {
        let number = u32::try_from(self.made.len()).expect("a wire has few hosts");
        self.host_at(name, Ipv4Addr::from(u32::from(NETWORK) + number))
    }

    /// Another host on it, at an address of a /24 that all its hosts share.
    pub fn host_at(&mut self, name: &str, ip: Ipv4Addr) -> Host {
        let number = self.made.len();
        let (switch, host) = (self.switch().to_owned(), self.add(name));
        let plug = format!("h{number}");
        ip_command(&format!(
            "link add eth0 netns {host} type veth peer name {plug} netns {switch}"
        ));
        in_namespace(&switch, &format!("link set {plug} master br0 up"));
        in_namespace(&host, &format!("addr add {ip}/24 dev eth0"));
        in_namespace(&host, "link set lo up");
        in_namespace(&host, "link set eth0 up");
        Host::namespace(name, ip, host)
    }

    /// The namespace whose device `br0` sees what all hosts send each other.
    pub fn switch(&self) -> &str {
        &self.made[0]
    }

    fn add(&mut self, name: &str) -> String {
        let namespace = format!("{}-{name}", self.prefix);
        ip_command(&format!("netns add {namespace}"));
        self.made.push(namespace.clone());
        namespace
    }
}

impl Default for Wire {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for namespace in self.made.iter().rev() {
            // What is left over is swept by the next run.
            let _ = ip(&format!("netns del {namespace}")).status();
        }
    }
}

/// Removes what test processes that no longer run have left behind.
fn sweep() {
    for name in run(ip("netns list"))
        .lines()
        .filter_map(|line| line.split(' ').next())
    {
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        let is_left_over = owner
            .and_then(|pid| pid.parse::<u32>().ok())
            .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
        if is_left_over {
            let _ = ip(&format!("netns del {name}")).status();
        }
    }
}

fn in_namespace(namespace: &str, words: &str) {
    ip_command(&format!("-n {namespace} {words}"));
}

fn ip_command(words: &str) {
    run(ip(words));
}

fn ip(words: &str) -> Command {
    let mut command = Command::new(program::path("ip"));
    command.args(words.split(' '));
    command
}

const PREFIX: &str = "starling";
/// RFC 2544: set aside for tests.
const NETWORK: Ipv4Addr = Ipv4Addr::new(198, 18, 77, 0);
