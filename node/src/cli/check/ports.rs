//! Ports that an agent would open: tried, and let go at once.

use std::fs;
use std::io::{Error, ErrorKind};
use std::net::{SocketAddr, TcpListener, UdpSocket};

use crate::check::system::{Port, PortProblem};
use crate::config::Config;

/// What it is for, and where.
struct Wanted {
    what: String,
    protocol: Protocol,
    address: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Udp,
    Tcp,
}

/// Those that cannot be opened now.
pub(super) fn closed(config: &Config, is_issuer: bool) -> Vec<Port> {
    let wanted = wanted(config, is_issuer);
    wanted.into_iter().filter_map(Wanted::problem).collect()
}

fn wanted(config: &Config, is_issuer: bool) -> Vec<Wanted> {
    let port = |what: &str, protocol, address| Wanted {
        what: what.to_owned(),
        protocol,
        address,
    };
    let mut wanted = vec![
        port("the mesh port (`listen`)", Protocol::Udp, config.listen),
        port(
            "the admin port (`admin.listen`)",
            Protocol::Tcp,
            config.admin.listen,
        ),
    ];
    if is_issuer {
        let what = "the join port (`issuer.listen`)";
        wanted.push(port(what, Protocol::Udp, config.join_listen()));
    }
    wanted.extend(config.upstreams.iter().map(|upstream| {
        let what = format!(
            "the upstream of `{}` ({})",
            upstream.service, upstream.declared
        );
        port(&what, Protocol::Tcp, upstream.listen)
    }));
    wanted
}

impl Wanted {
    fn problem(self) -> Option<Port> {
        let opened = match self.protocol {
            Protocol::Udp => UdpSocket::bind(self.address).map(drop),
            Protocol::Tcp => TcpListener::bind(self.address).map(drop),
        };
        let problem = problem(opened.err()?);
        let protocol = match self.protocol {
            Protocol::Udp => "udp",
            Protocol::Tcp => "tcp",
        };
        Some(Port {
            holder: (problem == PortProblem::Taken)
                .then(|| holder(self.protocol, self.address.port()))
                .flatten(),
            what: self.what,
            address: format!("{protocol} {}", self.address),
            problem,
        })
    }
}

fn problem(error: Error) -> PortProblem {
    match error.kind() {
        ErrorKind::AddrInUse => PortProblem::Taken,
        ErrorKind::AddrNotAvailable => PortProblem::NotHere,
        ErrorKind::PermissionDenied => PortProblem::NotAllowed,
        _ => PortProblem::Other(error.to_string()),
    }
}

/// The process that has the port, if this user may know.
fn holder(protocol: Protocol, port: u16) -> Option<String> {
    let tables: &[_] = match protocol {
        Protocol::Udp => &["/proc/self/net/udp", "/proc/self/net/udp6"],
        Protocol::Tcp => &["/proc/self/net/tcp", "/proc/self/net/tcp6"],
    };
    let tables = tables
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok());
    let inodes: Vec<_> = tables
        .flat_map(|table| inodes(&table, protocol, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let holds = |process: &fs::DirEntry| {
        let descriptors = fs::read_dir(process.path().join("fd"))
            .into_iter()
            .flatten();
        descriptors.filter_map(Result::ok).any(|descriptor| {
            fs::read_link(descriptor.path())
                .is_ok_and(|to| inodes.iter().any(|inode| to.as_os_str() == inode.as_str()))
        })
    };
    let mut numbered = processes.filter(|entry| {
        let name = entry.file_name();
        name.to_str()
            .is_some_and(|name| name.parse::<u32>().is_ok())
    });
    let process = numbered.find(holds)?;
    let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
    let pid = process.file_name();
    Some(format!("process {} ({})", pid.display(), name.trim()))
}

/// Inodes of the sockets of a table of the kernel that are bound to `port`; of TCP, those that listen.
fn inodes(table: &str, protocol: Protocol, port: u16) -> Vec<u64> {
    let port = format!(":{port:04X}");
    let rows = table.lines().skip(1).map(|line| line.split_whitespace());
    rows.filter_map(|mut columns| {
        let is_bound = columns.nth(1)?.ends_with(&port);
        let state = columns.nth(1)?;
        let inode = columns.nth(5)?.parse().ok()?;
        let is_wanted = protocol == Protocol::Udp || state == TCP_LISTEN;
        (is_bound && is_wanted).then_some(inode)
    })
    .collect()
}

/// `TCP_LISTEN` of the kernel's `tcp_states.h`.
const TCP_LISTEN: &str = "0A";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
   0: 0100007F:1CE9 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 2 0 0
   1: 0100007F:1CE9 0100007F:8888 01 00000000:00000000 00:00000000 00000000     0        0 222 2 0 0
   2: 0100007F:1CE8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 2 0 0
";
        assert_eq!(inodes(table, Protocol::Tcp, 7401), [111]);
        assert_eq!(inodes(table, Protocol::Udp, 7401), [111, 222]);
        assert!(inodes(table, Protocol::Tcp, 1).is_empty());
    }

    #[test]
    fn a_port_that_is_taken_is_found_with_who_has_it() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let admin = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = Config {
            listen: socket.local_addr().unwrap(),
            ..Config::default()
        };
        config.admin.listen = admin.local_addr().unwrap();
        drop(admin);
        let closed = closed(&config, false);
        assert_eq!(closed.len(), 1, "{closed:?}");
        assert_eq!(closed[0].problem, PortProblem::Taken);
        let holder = closed[0].holder.clone().unwrap();
        assert!(holder.starts_with("process "), "{holder}");
    }
}
