//! Asking a running agent, over its admin socket or its loopback listener.
//!
//! HTTP/1.0 is asked for on purpose: the answer then ends where the connection ends, and no body framing is needed.

use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::admin::view;
use crate::said;

/// Why the agent was not asked or did not answer. Asking changes nothing, and a document has its number, so either can be tried
/// again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ClientError {
    #[error("no agent answers at {}", socket.display())]
    NotRunning { socket: PathBuf, source: io::Error },
    #[error("the admin socket {} belongs to another user", socket.display())]
    Denied { socket: PathBuf, source: io::Error },
    #[error("the agent broke off")]
    Broken(#[source] io::Error),
    #[error("the agent did not answer within {wait:?}")]
    TimedOut { wait: Duration },
    #[error("the agent answered with something that is not HTTP")]
    NotHttp,
    #[error("the agent answered {status}: {text}")]
    Status { status: u16, text: String },
    #[error("the agent refused it: {error}")]
    Refused { error: String, hint: Option<String> },
    #[error("the agent's answer is not what this version of starling expects")]
    NotUnderstood(#[source] serde_json::Error),
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl ClientError {
    /// What puts it right.
    pub(super) fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotRunning { .. } => {
                "start it with `starling agent --config /etc/starling`, or name the socket of another agent with --socket"
            }
            Self::Denied { .. } => {
                "ask as the user that runs the agent, for example with `sudo -u starling`"
            }
            Self::TimedOut { .. } => {
                "it may be overloaded or stopped in a debugger; its log tells more"
            }
            Self::NotUnderstood(_) => {
                "is the agent of another version? restart it after an upgrade"
            }
            Self::Refused { hint, .. } => return hint.clone(),
            Self::Broken(_) | Self::NotHttp | Self::Status { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

/// Asks the agent behind the unix socket for `path` and returns the JSON text of its answer.
pub(crate) async fn ask(socket: &Path, path: &str) -> Result<Vec<u8>, ClientError> {
    let answer = get(connect(socket).await?, path, &[]).await?;
    body_of(answer)
}

/// Hands `body` to the agent behind the unix socket, for it to do what `path` means, and returns its answer.
pub(crate) async fn post_for<T: DeserializeOwned>(
    socket: &Path,
    path: &str,
    body: &[u8],
) -> Result<T, ClientError> {
    let head = format!(
        "POST {path} HTTP/1.0\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let request = [head.as_bytes(), body].concat();
    let answer = exchange(connect(socket).await?, &request).await?;
    serde_json::from_slice(&body_of(answer)?).map_err(ClientError::NotUnderstood)
}

/// Asks for `path`, with one more header field, and hands over each message of the answer's events until it ends or is enough.
pub(crate) async fn follow(
    socket: &Path,
    path: &str,
    (name, value): (&str, &str),
    mut each: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<(), ClientError> {
    let mut stream = BufReader::new(connect(socket).await?);
    let request = format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n{name}: {value}\r\n\r\n");
    let sent = stream.write_all(request.as_bytes()).await;
    sent.map_err(ClientError::Broken)?;
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head += &line(&mut stream).await?.ok_or(ClientError::NotHttp)?;
    }
    let answer = parse(head.as_bytes()).ok_or(ClientError::NotHttp)?;
    if answer.status != 200 {
        let mut body = Vec::new();
        let read = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut body).await;
        read.map_err(ClientError::Broken)?;
        return body_of(Answer { body, ..answer }).map(drop);
    }
    while let Some(line) = line(&mut stream).await? {
        let message = line.strip_prefix("data: ").map(str::trim_end);
        if message.is_some_and(|message| each(message).is_break()) {
            break;
        }
    }
    Ok(())
}

/// The next line with its end; none at the end. The agent says something all the time, if only that nothing is new.
async fn line(stream: &mut BufReader<UnixStream>) -> Result<Option<String>, ClientError> {
    let mut line = String::new();
    let mut bounded = stream.take(LINE_BYTES_MAX);
    let read = timeout(SILENCE, bounded.read_line(&mut line)).await;
    let length = read.map_err(|_elapsed| ClientError::TimedOut { wait: SILENCE })?;
    let length = length.map_err(ClientError::Broken)?;
    Ok((length > 0).then_some(line))
}

/// The process that listens on `socket`, if the kernel says.
pub(super) async fn pid(socket: &Path) -> Option<i32> {
    let stream = connect(socket).await.ok()?;
    stream.peer_cred().ok()?.pid()
}

async fn connect(socket: &Path) -> Result<UnixStream, ClientError> {
    UnixStream::connect(socket).await.map_err(|source| {
        let socket = socket.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied => ClientError::Denied { socket, source },
            _ => ClientError::NotRunning { socket, source },
        }
    })
}

fn body_of(answer: Answer) -> Result<Vec<u8>, ClientError> {
    if answer.status != 200 {
        if let Ok(refused) = serde_json::from_slice::<view::Refused>(&answer.body) {
            return Err(ClientError::Refused {
                error: refused.error,
                hint: refused.hint,
            });
        }
        let text = said::line(String::from_utf8_lossy(&answer.body).trim());
        return Err(ClientError::Status {
            status: answer.status,
            text,
        });
    }
    Ok(answer.body)
}

/// The same as a value, for what takes longer than a look at a snapshot.
pub(super) async fn ask_patiently<T: DeserializeOwned>(
    socket: &Path,
    path: &str,
    wait: Duration,
) -> Result<T, ClientError> {
    let request = format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n");
    let asked = exchange_within(connect(socket).await?, request.as_bytes(), wait);
    serde_json::from_slice(&body_of(asked.await?)?).map_err(ClientError::NotUnderstood)
}

/// The same as a value.
pub(crate) async fn ask_for<T: DeserializeOwned>(
    socket: &Path,
    path: &str,
) -> Result<T, ClientError> {
    serde_json::from_slice(&ask(socket, path).await?).map_err(ClientError::NotUnderstood)
}

/// `GET path` at a TCP address.
pub(crate) async fn get_tcp(address: SocketAddr, path: &str) -> Result<Answer, ClientError> {
    get_tcp_with(address, path, &[]).await
}

/// The same with more fields, whose values are visible characters.
pub(crate) async fn get_tcp_with(
    address: SocketAddr,
    path: &str,
    fields: &[(&str, &str)],
) -> Result<Answer, ClientError> {
    let stream = TcpStream::connect(address).await;
    get(stream.map_err(ClientError::Broken)?, path, fields).await
}

async fn get<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    path: &str,
    fields: &[(&str, &str)],
) -> Result<Answer, ClientError> {
    let fields = fields
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"));
    let fields: String = fields.collect();
    let request = format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n{fields}\r\n");
    exchange(stream, request.as_bytes()).await
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    request: &[u8],
) -> Result<Answer, ClientError> {
    exchange_within(stream, request, ANSWER_WAIT).await
}

async fn exchange_within<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    request: &[u8],
    wait: Duration,
) -> Result<Answer, ClientError> {
    let exchange = async {
        stream.write_all(request).await?;
        let mut bytes = Vec::new();
        stream
            .take(ANSWER_BYTES_MAX)
            .read_to_end(&mut bytes)
            .await?;
        Ok(bytes)
    };
    let bytes = timeout(wait, exchange)
        .await
        .map_err(|_elapsed| ClientError::TimedOut { wait })?;
    parse(&bytes.map_err(ClientError::Broken)?).ok_or(ClientError::NotHttp)
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let head_end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = str::from_utf8(&bytes[..head_end]).ok()?;
    let mut words = head.lines().next()?.split(' ');
    words
        .next()
        .filter(|version| version.starts_with("HTTP/1."))?;
    Some(Answer {
        status: words.next()?.parse().ok()?,
        body: bytes[head_end + 4..].to_vec(),
    })
}

/// A healthy agent answers in a millisecond.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// It says every five seconds that it is there.
const SILENCE: Duration = Duration::from_secs(20);
/// One message of events is smaller.
const LINE_BYTES_MAX: u64 = 1024 * 1024;
/// The catalogue of a full cell is about a megabyte.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &str, expected: Option<(u16, &str)>) {
        let answer = parse(bytes.as_bytes());
        assert_eq!(
            answer,
            expected.map(|(status, body)| Answer {
                status,
                body: body.into()
            }),
            "{bytes:?}"
        );
    }

    #[test]
    fn answers_are_read() {
        check("HTTP/1.0 200 OK\r\na: b\r\n\r\n{}", Some((200, "{}")));
        check(
            "HTTP/1.1 503 Service Unavailable\r\n\r\nno\r\n\r\n",
            Some((503, "no\r\n\r\n")),
        );
        check("HTTP/1.0 200\r\n\r\n", Some((200, "")));
        check("SSH-2.0-x\r\n\r\n", None);
        check("HTTP/1.0 abc\r\n\r\n", None);
        check("HTTP/1.0 200 OK\r\n", None);
        check("", None);
    }

    #[tokio::test]
    async fn an_agent_that_is_not_there_is_told_how_to_start() {
        let dir = tempfile::tempdir().unwrap();
        let error = ask(&dir.path().join("admin.sock"), "/v1/status")
            .await
            .unwrap_err();
        assert!(matches!(error, ClientError::NotRunning { .. }), "{error}");
        assert!(error.hint().unwrap().contains("starling agent"));
    }
}
