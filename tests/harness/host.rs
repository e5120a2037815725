//! Where agents and apps run.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::{leashed, run};
use crate::program;

/// A network namespace on a [`crate::Wire`], or an address of 127.0.0.0/8 that no other test uses.
#[derive(Debug)]
pub struct Host {
    name: String,
    ip: Ipv4Addr,
    namespace: Option<String>,
}

impl Host {
    /// A host that is only an address.
    pub fn loopback(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // A /24 or so per process, so that tests of different processes do not meet on a port either.
        let number =
            std::process::id() % 0x3fff * 0x100 + NEXT.fetch_add(1, Ordering::Relaxed) % 0xfe + 1;
        let ip = Ipv4Addr::from(0x7f00_0000 + 0x1_0000 + number);
        Self {
            name: name.to_owned(),
            ip,
            namespace: None,
        }
    }

    pub(crate) fn namespace(name: &str, ip: Ipv4Addr, namespace: String) -> Self {
        Self {
            name: name.to_owned(),
            ip,
            namespace: Some(namespace),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where other hosts reach it.
    pub fn ip(&self) -> IpAddr {
        self.ip.into()
    }

    /// What its own apps take for local.
    pub fn local(&self) -> IpAddr {
        match self.namespace {
            Some(_) => Ipv4Addr::LOCALHOST.into(),
            None => self.ip.into(),
        }
    }

    /// A program on this host that does not outlive the test.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        match &self.namespace {
            None => leashed(program),
            // Both end in exec, so the process that is started is the program itself.
            Some(namespace) => {
                let mut command = leashed(program::path("ip"));
                command
                    .args(["netns", "exec", namespace])
                    .arg(program.as_ref());
                command
            }
        }
    }

    /// Runs `work` as if on this host: sockets it makes are this host's.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter();
                work()
            });
            match thread.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Makes this thread one of this host, for good.
    pub fn enter(&self) {
        if let Some(namespace) = &self.namespace {
            let file = File::open(format!("/run/netns/{namespace}")).expect("the host is there");
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("root may enter it");
        }
    }

    /// An address for a local app or upstream. No test of this process gets it again; it is free until another process takes it.
    pub fn free_tcp(&self) -> SocketAddr {
        self.run(|| not_given_before(|| TcpListener::bind((self.local(), 0))?.local_addr()))
    }

    /// An address for a mesh port.
    pub fn free_udp(&self) -> SocketAddr {
        self.run(|| not_given_before(|| UdpSocket::bind((self.ip(), 0))?.local_addr()))
    }

    /// Drops every packet to and from this host, as if its cable were cut.
    pub fn cut(&self) {
        self.nft(
            "table inet cut {\n\
             chain in { type filter hook input priority 0; policy drop; iif lo accept; }\n\
             chain out { type filter hook output priority 0; policy drop; oif lo accept; }\n}",
        );
    }

    /// Puts the cable back.
    pub fn heal(&self) {
        self.nft("delete table inet cut");
    }

    /// Puts rules of nftables in force on this host.
    pub fn nft(&self, rules: &str) {
        assert!(self.namespace.is_some(), "only a namespace has a cable");
        let mut command = self.command(program::path("nft"));
        command.arg(rules);
        run(command);
    }
}

/// The kernel may name a port again that nothing listens at yet.
fn not_given_before(mut free: impl FnMut() -> io::Result<SocketAddr>) -> SocketAddr {
    static GIVEN: Mutex<BTreeSet<SocketAddr>> = Mutex::new(BTreeSet::new());
    loop {
        let address = free().expect("some port is free");
        let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
        if given.insert(address) {
            return address;
        }
    }
}
