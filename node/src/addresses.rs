//! Addresses of this host.

use std::net::{IpAddr, Ipv4Addr};

use tokio::net::{UdpSocket, lookup_host};

/// The address by which others most likely reach this host: that of its default route, else the first of an interface.
/// `None` if there is only loopback.
pub(crate) async fn of_this_host() -> Option<IpAddr> {
    let routed = route_to(ANYWHERE).await;
    routed.filter(|ip| !ip.is_loopback()).or_else(|| {
        let trie = std::fs::read_to_string("/proc/net/fib_trie").ok()?;
        local_in(&trie).map(IpAddr::V4)
    })
}

/// The local address that packets to `host:port` would carry. Nothing is sent.
pub(crate) async fn route_to(host: &str) -> Option<IpAddr> {
    let to = lookup_host(host).await.ok()?.next()?;
    let from: IpAddr = if to.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((from, 0)).await.ok()?;
    socket.connect(to).await.ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// The kernel's list of its own addresses: a line `|-- 10.0.0.1`, and below it `/32 host LOCAL`.
fn local_in(trie: &str) -> Option<Ipv4Addr> {
    let mut last = None;
    for line in trie.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL"
            && let Some(ip) = last.filter(|ip| !ip.is_loopback())
        {
            return Some(ip);
        }
    }
    None
}

/// An address for documentation (RFC 5737): its route is the default route.
const ANYWHERE: &str = "192.0.2.1:9";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_addresses_are_found() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     +-- 10.0.0.0/24 2 0 2\n        |-- 10.0.0.0\n           \
                    /24 link UNICAST\n        |-- 10.0.0.7\n           /32 host LOCAL\n";
        assert_eq!(local_in(trie), Some([10, 0, 0, 7].into()));
        let loopback = "     |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 10.0.0.255\n        /32 link BROADCAST\n";
        assert_eq!(local_in(loopback), None);
        assert_eq!(local_in(""), None);
    }
}
