//! PROXY protocol, version 2, towards tcp apps that want to know who calls: the address of the caller's host, and the
//! identity that the agent saw proved.
//!
//! The layout is HAProxy's `doc/proxy-protocol.txt`. The identity stands where the name of a client certificate does, so
//! that servers show it without knowing of the mesh (nginx: `$proxy_protocol_tlv_ssl_cn`).

use std::net::{IpAddr, SocketAddr};

/// Who calls, as far as that is known.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// Where the call comes from; none on this node.
    pub from: Option<SocketAddr>,
    /// None for a caller without the mesh.
    pub caller: Option<&'a str>,
}

/// The header, to be written before anything else on a connection to `app`.
pub fn header(origin: Origin<'_>, app: SocketAddr) -> Vec<u8> {
    let mut rest = Vec::new();
    let family = match origin.from {
        Some(from) => addresses(from, app, &mut rest),
        None => UNSPECIFIED,
    };
    if let Some(caller) = origin.caller {
        identity(caller, origin.from.is_some(), &mut rest);
    }
    let mut header = SIGNATURE.to_vec();
    header.extend([VERSION_2_PROXY, family]);
    header.extend(length(rest.len()));
    header.extend(rest);
    header
}

/// Both addresses are of one family: IPv4 is written as IPv6 beside IPv6.
fn addresses(from: SocketAddr, to: SocketAddr, out: &mut Vec<u8>) -> u8 {
    let family = match (from.ip().to_canonical(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            out.extend(from.octets());
            out.extend(to.octets());
            TCP_V4
        }
        (from, to) => {
            for ip in [from, to] {
                let ip = match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                out.extend(ip.octets());
            }
            TCP_V6
        }
    };
    out.extend(from.port().to_be_bytes());
    out.extend(to.port().to_be_bytes());
    family
}

/// As the name of a client certificate. Calls within a node come without TLS, and then nothing else is claimed.
fn identity(caller: &str, is_tls: bool, out: &mut Vec<u8>) {
    let mut ssl = vec![if is_tls { CLIENT_CERTIFICATE } else { 0 }];
    // "Verified" is zero.
    ssl.extend([0; 4]);
    if is_tls {
        field(SSL_VERSION, b"TLSv1.3", &mut ssl);
    }
    field(SSL_CN, caller.as_bytes(), &mut ssl);
    field(SSL, &ssl, out);
}

fn field(kind: u8, value: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    out.extend(length(value.len()));
    out.extend(value);
}

fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes)
        .expect("a SPIFFE ID has up to 2048 bytes")
        .to_be_bytes()
}

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const VERSION_2_PROXY: u8 = 0x21;
const UNSPECIFIED: u8 = 0;
const TCP_V4: u8 = 0x11;
const TCP_V6: u8 = 0x21;
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_CN: u8 = 0x22;
/// Over TLS, with a certificate on this connection.
const CLIENT_CERTIFICATE: u8 = 0b111;

#[cfg(test)]
mod tests {
    use super::*;

    fn made(from: Option<&str>, caller: Option<&str>, app: &str) -> Vec<u8> {
        let from = from.map(|from| from.parse().unwrap());
        header(Origin { from, caller }, app.parse().unwrap())
    }

    #[test]
    fn addresses_are_those_of_the_calls_two_ends() {
        let four = made(Some("192.0.2.1:7400"), None, "127.0.0.1:5432");
        assert_eq!(&four[..12], SIGNATURE);
        assert_eq!(
            &four[12..],
            [
                0x21, 0x11, 0, 12, 192, 0, 2, 1, 127, 0, 0, 1, 0x1c, 0xe8, 0x15, 0x38
            ]
        );
        let mapped = made(Some("[::ffff:192.0.2.1]:7400"), None, "127.0.0.1:5432");
        assert_eq!(mapped, four);
        let six = made(Some("192.0.2.1:7400"), None, "[::1]:5432");
        assert_eq!(&six[12..16], [0x21, 0x21, 0, 36]);
        assert_eq!(&six[26..32], [255, 255, 192, 0, 2, 1]);
    }

    #[test]
    fn the_identity_is_the_name_of_the_certificate() {
        let id = "spiffe://mesh.test/svc/web";
        let header = made(Some("192.0.2.1:7400"), Some(id), "127.0.0.1:5432");
        let ssl = &header[28..];
        assert_eq!(ssl[..3], [0x20, 0, 44]);
        assert_eq!(ssl[3..8], [7, 0, 0, 0, 0]);
        assert_eq!(&ssl[8..18], b"\x21\x00\x07TLSv1.3");
        assert_eq!(ssl[18..21], [0x22, 0, 26]);
        assert_eq!(&ssl[21..], id.as_bytes());
        assert_eq!(usize::from(header[15]), header.len() - 16);
    }

    #[test]
    fn within_a_node_there_is_no_address_and_no_tls() {
        let header = made(None, Some("spiffe://a/svc/b"), "127.0.0.1:1");
        assert_eq!(&header[12..14], [0x21, 0]);
        assert_eq!(&header[16..24], [0x20, 0, 24, 0, 0, 0, 0, 0]);
    }
}
