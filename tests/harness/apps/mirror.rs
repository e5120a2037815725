//! An app that shows what it gets: it answers each request with its head.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use crate::host::Host;
use crate::stream;

/// Serves HTTP/1.1 on `host` for as long as the test process runs. The body of each answer is the head of the request as it
/// came. An answer to a path that ends in `/endless` begins with that and never ends; an upgrade is agreed to, and what comes
/// then is sent back. Request bodies are not read: send none.
pub fn mirror(host: &Host) -> SocketAddr {
    stream::serve(host, |stream| {
        // Ends with its caller.
        let _ = converse(stream);
    })
}

fn converse(mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if reader.read_until(b'\n', &mut head)? == 0 {
                return Ok(());
            }
        }
        let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
        if text.contains("\r\nupgrade: ") {
            let agreed = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: mirror\r\n\r\n";
            stream.write_all(agreed.as_bytes())?;
            return std::io::copy(&mut reader, &mut stream).map(drop);
        }
        if text.contains("/endless ") {
            let begun = format!(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n",
                head.len()
            );
            stream.write_all(&[begun.as_bytes(), &head, b"\r\n"].concat())?;
            return reader.read_until(b'\n', &mut head).map(drop);
        }
        let length = match text.starts_with("head ") {
            true => 0,
            false => head.len(),
        };
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", head.len());
        stream.write_all(&[answer.as_bytes(), &head[..length]].concat())?;
    }
}
