//! A small HTTP/1.1 client: one request at a time on a kept connection. Real clients are used where clients matter; this
//! one is for looking at agents and for load.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// What came back, all of it.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The first header of this (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Why the mesh failed the call, if it says that it did.
    pub fn mesh_error(&self) -> Option<&str> {
        self.header("starling-error")
    }

    fn wants_close(&self) -> bool {
        self.header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// `GET path` on a connection of its own.
pub fn get(address: SocketAddr, path: &str) -> io::Result<Answer> {
    Client::new(address).get(path)
}

/// A client that keeps its connection and makes a new one when it has lost it.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    connection: Option<BufReader<TcpStream>>,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            connection: None,
        }
    }

    pub fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.send("GET", path, &[])
    }

    /// Sends a request and reads its answer. After an error the next one goes over a new connection.
    pub fn send(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<Answer> {
        self.ask(method, path, &[], body)
    }

    /// The same with header fields.
    pub fn ask(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(self.address)?,
        };
        let fields: String = fields
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\n{fields}content-length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        connection
            .get_mut()
            .write_all(&[head.as_bytes(), body].concat())?;
        let answer = read_answer(&mut connection, method)?;
        if !answer.wants_close() {
            self.connection = Some(connection);
        }
        Ok(answer)
    }
}

fn connect(address: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(BufReader::new(stream))
}

fn read_answer(connection: &mut impl BufRead, method: &str) -> io::Result<Answer> {
    let status_line = read_line(connection)?;
    let status = status_line
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse().ok());
    let status = status.ok_or_else(|| invalid(&status_line))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(connection)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| invalid(&line))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut answer = Answer {
        status,
        headers,
        body: Vec::new(),
    };
    if method != "HEAD" && status != 204 && status != 304 {
        answer.body = read_body(connection, &answer)?;
    }
    Ok(answer)
}

fn read_body(connection: &mut impl BufRead, answer: &Answer) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if let Some(length) = answer.header("content-length") {
        let length = length.parse().map_err(|_error| invalid(length))?;
        body.resize(length, 0);
        connection.read_exact(&mut body)?;
    } else if answer.header("transfer-encoding").is_some() {
        loop {
            let line = read_line(connection)?;
            let size = usize::from_str_radix(&line, 16).map_err(|_error| invalid(&line))?;
            let start = body.len();
            body.resize(start + size, 0);
            connection.read_exact(&mut body[start..])?;
            // The end of a chunk, or of the (absent) trailers.
            read_line(connection)?;
            if size == 0 {
                break;
            }
        }
    } else {
        connection.read_to_end(&mut body)?;
    }
    Ok(body)
}

fn read_line(connection: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if connection.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP: {what:?}"))
}

/// Longer than any bounded wait of the mesh, so that its own answer comes first.
const PATIENCE: Duration = Duration::from_secs(20);
