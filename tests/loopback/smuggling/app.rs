//! An app that reads HTTP/1.1 as strictly as it can be read, and keeps what it got.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use harness::{Host, stream};

pub(super) struct App {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// `METHOD TARGET BODY` of each whole request, in order.
    taken: Mutex<Vec<String>>,
    /// What nobody should have sent.
    complaints: Mutex<Vec<String>>,
    /// What to answer to the next request, instead of telling it back.
    next: Mutex<Option<String>>,
}

impl App {
    pub(super) fn start(host: &Host) -> Self {
        let shared = Arc::new(Shared::default());
        let serving = shared.clone();
        let address = stream::serve(host, move |stream| serving.serve(stream));
        Self { address, shared }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn taken(&self) -> Vec<String> {
        lock(&self.shared.taken).clone()
    }

    /// The same, to be forgotten.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.shared.taken))
    }

    pub(super) fn complaints(&self) -> Vec<String> {
        lock(&self.shared.complaints).clone()
    }

    pub(super) fn answer_next(&self, answer: &str) {
        *lock(&self.shared.next) = Some(answer.to_owned());
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream);
        loop {
            match request(&mut reader) {
                Ok(request) => {
                    let told = format!(
                        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{request}",
                        request.len()
                    );
                    let answer = lock(&self.next).take().unwrap_or(told);
                    lock(&self.taken).push(request);
                    if reader.get_ref().write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                    if answer.contains("connection: close") {
                        return;
                    }
                }
                Err(Some(complaint)) => {
                    lock(&self.complaints).push(complaint);
                    return;
                }
                // Closed, or cut off in the middle: nothing that could be taken for a request.
                Err(None) => return,
            }
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One request, or what is wrong with it.
fn request(reader: &mut BufReader<TcpStream>) -> Result<String, Option<String>> {
    let first = line(reader)?;
    let words: Vec<_> = first.split(' ').collect();
    let [method, target, "HTTP/1.1"] = words[..] else {
        return Err(Some(format!("request line {first:?}")));
    };
    let (mut length, mut chunked, mut hosts) = (None, false, 0);
    loop {
        let field = line(reader)?;
        if field.is_empty() {
            break;
        }
        let Some((name, value)) = field.split_once(": ") else {
            return Err(Some(format!("field {field:?}")));
        };
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(Some(format!("field {field:?}")));
        }
        match name.to_ascii_lowercase().as_str() {
            "host" => hosts += 1,
            "content-length"
                if length.is_none() && value.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                length = value.parse::<usize>().ok();
            }
            "transfer-encoding" if !chunked && value == "chunked" => chunked = true,
            "content-length" | "transfer-encoding" => return Err(Some(format!("field {field:?}"))),
            _ => {}
        }
    }
    if hosts != 1 || (chunked && length.is_some()) {
        return Err(Some(format!(
            "{first:?} has {hosts} hosts, {length:?} and chunked {chunked}"
        )));
    }
    let body = if chunked {
        chunks(reader)?
    } else {
        exactly(reader, length.unwrap_or(0))?
    };
    Ok(format!(
        "{method} {target} {}",
        String::from_utf8_lossy(&body)
    ))
}

fn chunks(reader: &mut BufReader<TcpStream>) -> Result<Vec<u8>, Option<String>> {
    let mut body = Vec::new();
    loop {
        let size = line(reader)?;
        let Ok(bytes) = usize::from_str_radix(&size, 16) else {
            return Err(Some(format!("chunk size {size:?}")));
        };
        if bytes == 0 {
            // Trailers, then an empty line.
            while !line(reader)?.is_empty() {}
            return Ok(body);
        }
        body.extend(exactly(reader, bytes)?);
        if !line(reader)?.is_empty() {
            return Err(Some(format!("a chunk longer than {size}")));
        }
    }
}

fn exactly(reader: &mut BufReader<TcpStream>, bytes: usize) -> Result<Vec<u8>, Option<String>> {
    let mut body = vec![0; bytes];
    reader.read_exact(&mut body).map_err(|_cut_off| None)?;
    Ok(body)
}

/// A line that ends with CR LF and has neither anywhere else.
fn line(reader: &mut BufReader<TcpStream>) -> Result<String, Option<String>> {
    let mut line = Vec::new();
    match reader.read_until(b'\n', &mut line) {
        Ok(_) if line.ends_with(b"\n") => {}
        _ => return Err(None),
    }
    let text = String::from_utf8_lossy(&line).into_owned();
    match text.strip_suffix("\r\n") {
        Some(text) if !text.contains(['\r', '\0']) => Ok(text.to_owned()),
        _ => Err(Some(format!("line {text:?}"))),
    }
}
