//! What a connection speaks, seen from how it begins. For services that say `auto`; who declares is never guessed about.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::config::Protocol;

/// Looks at what the app sends first, in the kernel's buffer, for a bounded time. Who says nothing by then waits for the
/// other side to begin, as HTTP never does.
pub(crate) async fn spoken(socket: &TcpStream) -> Protocol {
    let deadline = Instant::now() + WAIT;
    let mut head = [0; HEAD_BYTES];
    loop {
        let peeked = tokio::time::timeout_at(deadline, socket.peek(&mut head)).await;
        let Ok(Ok(bytes @ 1..)) = peeked else {
            return Protocol::Tcp;
        };
        if let Some(protocol) = guess(&head[..bytes]) {
            return protocol;
        }
        if Instant::now() >= deadline {
            return Protocol::Tcp;
        }
        // What was peeked at stays readable, so there is nothing to wait for but time.
        tokio::time::sleep(PAUSE).await;
    }
}

/// HTTP begins with a method in capitals, a space, and a path, `*` or a URI; also HTTP/2, whose preface was made to look
/// like that. Commands of other protocols in capitals (`SET key`) are followed by something else. None: too early to say.
fn guess(head: &[u8]) -> Option<Protocol> {
    let is_capital = |byte: &&u8| byte.is_ascii_uppercase() || **byte == b'-';
    let method = head.iter().take_while(is_capital).count();
    let is_http = match head.get(method..) {
        Some([]) if method < HEAD_BYTES => return None,
        Some([b' ']) if method >= METHOD_BYTES_MIN => return None,
        Some([b' ', b'/' | b'*' | b'h', ..]) => method >= METHOD_BYTES_MIN,
        _ => false,
    };
    Some(if is_http {
        Protocol::Http
    } else {
        Protocol::Tcp
    })
}

/// An app that speaks first has begun by then: it runs on this host.
const WAIT: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(5);
/// Longer than any method of HTTP with what follows it.
const HEAD_BYTES: usize = 24;
const METHOD_BYTES_MIN: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_tell() {
        let http = Some(Protocol::Http);
        let tcp = Some(Protocol::Tcp);
        for (head, expected) in [
            ("GET / HTTP/1.1\r\n", http),
            ("GET http://orders/ HTTP/1.1", http),
            ("OPTIONS * HTTP/1.1", http),
            ("PROPFIND /dav", http),
            ("M-SEARCH * HTTP/1.1", http),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", http),
            ("GET key\r\n", tcp),
            ("SET a b\r\n", tcp),
            ("QUIT\r\n", tcp),
            ("EHLO mail.example.org\r\n", tcp),
            ("CONNECT {\"verbose\":true}\r\n", tcp),
            ("HI / there", tcp),
            ("get / HTTP/1.1", tcp),
            (" GET /", tcp),
            ("\u{16}\u{3}\u{1}", tcp),
            ("*1\r\n$4\r\nPING\r\n", tcp),
            ("AAAAAAAAAAAAAAAAAAAAAAAA", tcp),
            ("G", None),
            ("GET", None),
            ("GET ", None),
        ] {
            assert_eq!(guess(head.as_bytes()), expected, "{head:?}");
        }
    }
}
