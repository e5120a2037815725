//! Moves the bytes of one TCP connection: to and from a tunnel, or to another local socket.
//!
//! A half that ends ends the same half at the other side and leaves the other one open. A half that breaks breaks both.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use socket2::SockRef;
use starling_transport::h3::{Tunnel, TunnelRecv, TunnelSend};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::Instant;

use crate::reason::Reason;
use crate::telemetry::series::Traffic;

/// Which way the bytes that are read from the socket go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The socket is the calling app's.
    Caller,
    /// The socket is the called app's.
    Callee,
}

/// A connection, and what of it was read already.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    early: Bytes,
}

impl Socket {
    /// `early` comes before whatever else `stream` brings.
    pub fn new(stream: TcpStream, early: Bytes) -> Self {
        Self { stream, early }
    }
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self::new(stream, Bytes::new())
    }
}

/// Pumps until both halves have ended. Whatever breaks is passed on: a reset of the socket resets the tunnel and the
/// other way round. Broken off for the reason that `cut` resolves with.
pub async fn tunnel(
    socket: Socket,
    tunnel: Tunnel,
    end: End,
    idle: Duration,
    traffic: &Traffic,
    cut: impl Future<Output = Reason>,
) -> Result<(), Reason> {
    let Socket {
        stream: mut socket,
        early,
    } = socket;
    let (mut send, mut recv) = tunnel.split();
    let (mut read, mut write) = socket.split();
    let activity = Activity::new();
    let up = socket_to_tunnel(early, &mut read, &mut send, end, &activity, traffic);
    let down = tunnel_to_socket(&mut recv, &mut write, end, &activity, traffic);
    let ended = tokio::select! {
        both = async { tokio::try_join!(up, down) } => both.map(drop),
        () = activity.idle_for(idle) => Err(Reason::Idle),
        reason = cut => Err(reason),
    };
    if ended.is_err() {
        send.reset();
        recv.stop();
        reset(&socket);
    }
    ended
}

/// Pumps between two local sockets: caller and callee on one node. Every one of `traffic` counts all of it. Broken off
/// for the reason that `cut` resolves with.
pub async fn sockets(
    caller: Socket,
    callee: Socket,
    idle: Duration,
    traffic: &[&Traffic],
    cut: impl Future<Output = Reason>,
) -> Result<(), Reason> {
    let activity = Activity::new();
    let (from_caller, from_callee) = (caller.early, callee.early);
    let (mut caller, mut callee) = (caller.stream, callee.stream);
    let ended = {
        let (mut caller_read, mut caller_write) = caller.split();
        let (mut callee_read, mut callee_write) = callee.split();
        let up = copy(
            from_caller,
            &mut caller_read,
            &mut callee_write,
            &activity,
            |n| traffic.iter().for_each(|traffic| traffic.add_in(n)),
        );
        let down = copy(
            from_callee,
            &mut callee_read,
            &mut caller_write,
            &activity,
            |n| traffic.iter().for_each(|traffic| traffic.add_out(n)),
        );
        tokio::select! {
            both = async { tokio::try_join!(up, down) } => both.map(drop).map_err(|_broken| Reason::UpstreamReset),
            () = activity.idle_for(idle) => Err(Reason::Idle),
            reason = cut => Err(reason),
        }
    };
    if ended.is_err() {
        reset(&caller);
        reset(&callee);
    }
    ended
}

async fn socket_to_tunnel(
    early: Bytes,
    read: &mut ReadHalf<'_>,
    send: &mut TunnelSend,
    end: End,
    activity: &Activity,
    traffic: &Traffic,
) -> Result<(), Reason> {
    if !early.is_empty() {
        end.count(traffic, early.len(), Way::FromSocket);
        send.send(early)
            .await
            .map_err(|_error| end.tunnel_broke())?;
    }
    let mut buffer = BytesMut::new();
    loop {
        // Waits without a buffer, so that an idle connection holds none.
        read.readable().await.map_err(|_error| end.socket_broke())?;
        buffer.reserve(READ_BYTES);
        match read.try_read_buf(&mut buffer) {
            Ok(0) => {
                let _gone = send.finish().await;
                return Ok(());
            }
            Ok(bytes) => {
                end.count(traffic, bytes, Way::FromSocket);
                activity.touch();
                send.send(buffer.split().freeze())
                    .await
                    .map_err(|_error| end.tunnel_broke())?;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(end.socket_broke()),
        }
        // Small reads share what is left of the buffer; nothing is kept once it is used up or the reader must wait.
        if buffer.capacity() < READ_BYTES / 4 {
            buffer = BytesMut::new();
        }
    }
}

async fn tunnel_to_socket(
    recv: &mut TunnelRecv,
    write: &mut WriteHalf<'_>,
    end: End,
    activity: &Activity,
    traffic: &Traffic,
) -> Result<(), Reason> {
    let mut chunks = Vec::new();
    while recv
        .read_chunks(&mut chunks)
        .await
        .map_err(|_error| end.tunnel_broke())?
    {
        let bytes = chunks.iter().map(Bytes::len).sum();
        write_all(write, &mut chunks)
            .await
            .map_err(|_error| end.socket_broke())?;
        end.count(traffic, bytes, Way::ToSocket);
        activity.touch();
    }
    let _gone = write.shutdown().await;
    Ok(())
}

/// Writes all chunks, as many in one call as the system takes, and leaves the list empty.
async fn write_all(write: &mut WriteHalf<'_>, chunks: &mut Vec<Bytes>) -> io::Result<()> {
    let mut first = 0;
    while first < chunks.len() {
        let mut written = poll_fn(|cx| {
            // Made anew for each try, so that a connection that waits holds no room for them.
            let mut slices = [IoSlice::new(&[]); 64];
            let mut used = 0;
            for (slice, chunk) in slices.iter_mut().zip(&chunks[first..]) {
                *slice = IoSlice::new(chunk);
                used += 1;
            }
            Pin::new(&mut *write).poll_write_vectored(cx, &slices[..used])
        })
        .await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while first < chunks.len() && written >= chunks[first].len() {
            written -= chunks[first].len();
            first += 1;
        }
        if written > 0 {
            chunks[first].advance(written);
        }
    }
    chunks.clear();
    Ok(())
}

async fn copy(
    mut early: Bytes,
    read: &mut ReadHalf<'_>,
    write: &mut WriteHalf<'_>,
    activity: &Activity,
    count: impl Fn(usize),
) -> io::Result<()> {
    count(early.len());
    write.write_all_buf(&mut early).await?;
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    while read.read_buf(&mut buffer).await? > 0 {
        count(buffer.len());
        activity.touch();
        write.write_all_buf(&mut buffer).await?;
        buffer.reserve(READ_BYTES);
    }
    let _gone = write.shutdown().await;
    Ok(())
}

enum Way {
    FromSocket,
    ToSocket,
}

impl End {
    fn socket_broke(self) -> Reason {
        match self {
            Self::Caller => Reason::CallerGone,
            Self::Callee => Reason::AppBroken,
        }
    }

    fn tunnel_broke(self) -> Reason {
        match self {
            Self::Caller => Reason::UpstreamReset,
            Self::Callee => Reason::CallerGone,
        }
    }

    fn count(self, traffic: &Traffic, bytes: usize, way: Way) {
        match (self, way) {
            (Self::Caller, Way::FromSocket) | (Self::Callee, Way::ToSocket) => {
                traffic.add_in(bytes)
            }
            _ => traffic.add_out(bytes),
        }
    }
}

/// When bytes last moved in either direction.
struct Activity {
    began: Instant,
    last_ms: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            last_ms: AtomicU64::new(0),
        }
    }

    fn touch(&self) {
        let now_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Resolves when nothing moved for `idle`. Looks only when that may be so, not at every byte.
    async fn idle_for(&self, idle: Duration) {
        loop {
            let due =
                self.began + Duration::from_millis(self.last_ms.load(Ordering::Relaxed)) + idle;
            if due <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

/// Makes the coming close an RST, so that the app does not take a broken connection for a complete one.
pub fn reset(socket: &TcpStream) {
    let _best_effort = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// One read: large enough that calls, not copies, are what is saved (docs/performance.md).
const READ_BYTES: usize = 64 * 1024;
