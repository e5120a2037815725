//! Messages between agents: one message is one unidirectional stream, one question is one bidirectional stream.
//!
//! Streams instead of datagrams because QUIC then retransmits what is lost and a message may be larger than a packet.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::ended::Ended;
use crate::endpoint::{Callee, DialError, Endpoint};
use crate::identity::SpiffeId;
use crate::session::{Protocol, Session};

/// Carries messages to and from agents, dialling when there is no link yet. Links are shared both ways. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Courier {
    endpoint: Endpoint,
    caller: SpiffeId,
    links: Arc<Mutex<HashMap<SocketAddr, Link>>>,
    outbox: mpsc::Sender<Parcel>,
    inbox: Arc<AsyncMutex<mpsc::Receiver<Parcel>>>,
}

/// The link to one address; the lock is held while dialling, so that there is one dial at a time.
type Link = Arc<AsyncMutex<Option<Session>>>;

/// Something a peer sent.
#[derive(Debug)]
pub struct Parcel {
    /// Where the peer's packets come from.
    pub from: SocketAddr,
    /// Which node it proved to be.
    pub peer: SpiffeId,
    /// What it sent.
    pub body: Bytes,
    /// Set for a question: where the answer goes. Dropping it resets the stream.
    pub answer: Option<oneshot::Sender<Bytes>>,
}

impl Courier {
    /// Speaks as `caller`, this node's own identity.
    pub fn new(endpoint: Endpoint, caller: SpiffeId) -> Self {
        let (outbox, inbox) = mpsc::channel(INBOX_MAX);
        Self {
            endpoint,
            caller,
            links: Arc::default(),
            outbox,
            inbox: Arc::new(AsyncMutex::new(inbox)),
        }
    }

    /// Takes over a session that a peer dialled: reads from it, and sends over it.
    pub fn adopt(&self, session: Session) {
        let link = self.link(session.peer_addr());
        if let Ok(mut held) = link.try_lock()
            && held.as_ref().is_none_or(|old| !old.is_open())
        {
            *held = Some(session.clone());
        }
        self.read_from(session);
    }

    /// Sends one message. Returns once QUIC has it all; an answer, if any, comes as a message. Not cancel-safe: dropped
    /// midway, the message is lost whole.
    pub async fn send(&self, to: SocketAddr, message: Bytes) -> Result<SpiffeId, MessageError> {
        let session = self.session(to).await?;
        let sent = async {
            let mut stream = session.quinn().open_uni().await?;
            stream.write_chunk(message).await?;
            stream.finish().map_err(|_closed| MessageError::Reset)
        };
        within(sent).await?;
        Ok(session.peer().clone())
    }

    /// Asks one question and reads the answer, at most `answer_bytes_max`. Returns who answered too.
    pub async fn ask(
        &self,
        to: SocketAddr,
        question: Bytes,
        answer_bytes_max: usize,
    ) -> Result<(SpiffeId, Bytes), MessageError> {
        let session = self.session(to).await?;
        let asked = async {
            let (mut send, mut recv) = session.quinn().open_bi().await?;
            send.write_chunk(question).await?;
            send.finish().map_err(|_closed| MessageError::Reset)?;
            Ok(recv.read_to_end(answer_bytes_max).await?)
        };
        let answer = within(asked).await?;
        Ok((session.peer().clone(), answer.into()))
    }

    /// The next message or question of any peer. Cancel-safe.
    pub async fn receive(&self) -> Option<Parcel> {
        self.inbox.lock().await.recv().await
    }

    async fn session(&self, to: SocketAddr) -> Result<Session, MessageError> {
        let link = self.link(to);
        let mut held = link.lock().await;
        if let Some(session) = held.as_ref().filter(|session| session.is_open()) {
            return Ok(session.clone());
        }
        *held = None;
        let dialled = self
            .endpoint
            .dial(
                &self.caller,
                &Callee::AnyNode,
                to,
                Protocol::Gossip,
                DIAL_BUDGET,
            )
            .await;
        let session = dialled.map_err(MessageError::Dial)?;
        self.read_from(session.clone());
        *held = Some(session.clone());
        Ok(session)
    }

    /// The link for `addr`; forgets links that have ended when there are many.
    fn link(&self, addr: SocketAddr) -> Link {
        let mut links = self
            .links
            .lock()
            .expect("no code panics while it holds this lock");
        if links.len() >= LINKS_MAX {
            links.retain(|_, link| match link.try_lock() {
                Ok(held) => held.as_ref().is_some_and(Session::is_open),
                Err(_) => true,
            });
        }
        Arc::clone(links.entry(addr).or_default())
    }

    /// Reads until the session ends. A peer that proved to be no node is cut off.
    fn read_from(&self, session: Session) {
        if session.peer().node_name().is_none() {
            return session.close();
        }
        let outbox = self.outbox.clone();
        tokio::spawn(async move {
            let mut reading = JoinSet::new();
            while let Some(stream) = next_stream(&session).await {
                if reading.len() >= READING_MAX {
                    reading.join_next().await;
                }
                reading.spawn(read_one(session.clone(), stream, outbox.clone()));
                while reading.try_join_next().is_some() {}
            }
        });
    }
}

/// Why a message did not arrive, as far as this end knows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// There is no link.
    #[error("no link")]
    Dial(#[source] DialError),
    /// The link ended.
    #[error("the link ended")]
    Ended(#[source] Ended),
    /// The peer did not read it all.
    #[error("the peer stopped reading")]
    Write(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The peer did not answer in full, or with too much.
    #[error("no whole answer")]
    Read(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The stream was reset.
    #[error("the stream was reset")]
    Reset,
    /// Took too long.
    #[error("not done within {MESSAGE_BUDGET:?}")]
    TimedOut,
}

impl From<quinn::ConnectionError> for MessageError {
    fn from(error: quinn::ConnectionError) -> Self {
        Self::Ended(error.into())
    }
}

impl From<quinn::WriteError> for MessageError {
    fn from(error: quinn::WriteError) -> Self {
        Self::Write(Ended::or_other(error))
    }
}

impl From<quinn::ReadToEndError> for MessageError {
    fn from(error: quinn::ReadToEndError) -> Self {
        Self::Read(Ended::or_other(error))
    }
}

enum Stream {
    Message(quinn::RecvStream),
    Question(quinn::SendStream, quinn::RecvStream),
}

async fn next_stream(session: &Session) -> Option<Stream> {
    tokio::select! {
        uni = session.quinn().accept_uni() => uni.ok().map(Stream::Message),
        bi = session.quinn().accept_bi() => bi.ok().map(|(send, recv)| Stream::Question(send, recv)),
    }
}

async fn read_one(session: Session, stream: Stream, outbox: mpsc::Sender<Parcel>) {
    let (mut recv, send) = match stream {
        Stream::Message(recv) => (recv, None),
        Stream::Question(send, recv) => (recv, Some(send)),
    };
    let Ok(Ok(body)) =
        tokio::time::timeout(MESSAGE_BUDGET, recv.read_to_end(MESSAGE_BYTES_MAX)).await
    else {
        return;
    };
    let (answer, answered) = match send {
        Some(_) => Some(oneshot::channel()).unzip(),
        None => (None, None),
    };
    let parcel = Parcel {
        from: session.peer_addr(),
        peer: session.peer().clone(),
        body: body.into(),
        answer,
    };
    if outbox.send(parcel).await.is_err() {
        return;
    }
    let (Some(mut send), Some(answered)) = (send, answered) else {
        return;
    };
    match tokio::time::timeout(MESSAGE_BUDGET, answered).await {
        Ok(Ok(body)) => {
            if send.write_chunk(body).await.is_ok() {
                let _ = send.finish();
                // Dropped before the peer has it all, the stream would count as done all the same.
                let _ = tokio::time::timeout(MESSAGE_BUDGET, send.stopped()).await;
            }
        }
        _ => drop(send.reset(0u32.into())),
    }
}

async fn within<T>(work: impl Future<Output = Result<T, MessageError>>) -> Result<T, MessageError> {
    tokio::time::timeout(MESSAGE_BUDGET, work)
        .await
        .unwrap_or(Err(MessageError::TimedOut))
}

/// The largest gossip frame (a digest of 600 ids and its delta) with room to spare.
const MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// Messages read and not yet handled, over all peers; past it peers wait.
const INBOX_MAX: usize = 256;

/// Streams of one peer read at once: 16 × 256 KiB is what it can make us hold.
const READING_MAX: usize = 16;

/// Links remembered before those that have ended are forgotten: twice what one cell may hold.
const LINKS_MAX: usize = 1024;

const DIAL_BUDGET: Duration = Duration::from_secs(3);
const MESSAGE_BUDGET: Duration = Duration::from_secs(10);
