//! `starling top`: the mesh as it is now, on a terminal.

mod draw;
mod look;
mod picture;
mod rows;

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};

use super::edges::Window;
use super::{block_on, client, out};
use crate::config::SOCKET;
use look::{Look, Next, Table};
use picture::Picture;

/// Watch the whole mesh on the terminal: who calls whom, services, nodes
///
/// Keys: Tab or 1 2 3 choose a table, up and down a row, s and S the column to sort by, r the other way round, / filters,
/// w looks further back, q ends.
#[derive(Debug, Args)]
pub(super) struct Top {
    /// What to show first
    #[arg(long, value_enum, default_value = "edges")]
    table: Table,
    /// How far back to look
    #[arg(long, value_enum, default_value = "1m")]
    window: Window,
    /// Column to sort by, such as rate or p99
    #[arg(long, value_name = "COLUMN")]
    sort: Option<String>,
    /// Show only rows that hold this text
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Print one frame with all rows, and end
    #[arg(long)]
    once: bool,
    /// Admin socket of the agent
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

impl Top {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let mut look = Look::new(self.table, self.window, self.filter.clone());
        if let Some(column) = &self.sort {
            look.sort_by(column).map_err(anyhow::Error::msg)?;
        }
        if self.once {
            let picture = fetch(&self.socket, self.window)?;
            out::say(&draw::text(&look, &picture, width())?)?;
            return Ok(());
        }
        // Whoever has no agent is told so in plain words, not on a screen that goes away.
        let first = fetch(&self.socket, self.window)?;
        let mut terminal = ratatui::try_init()
            .context("this is no terminal; `starling top --once` prints one frame")?;
        let ended = watch(&mut terminal, look, first, self.socket);
        ratatui::restore();
        ended
    }
}

/// What the two threads share: the one that draws says what to fetch.
struct Order {
    window: Mutex<Window>,
}

fn watch(
    terminal: &mut DefaultTerminal,
    mut look: Look,
    mut picture: Picture,
    socket: PathBuf,
) -> anyhow::Result<()> {
    let order = Arc::new(Order {
        window: Mutex::new(look.window),
    });
    let (sender, pictures) = sync_channel(1);
    let fetcher = fetcher(order.clone(), sender, socket)?;
    let mut trouble = None;
    loop {
        take_newest(&pictures, &mut picture, &mut trouble);
        terminal.draw(|frame| draw::frame(frame, &mut look, &picture, trouble.as_deref()))?;
        let deadline = Instant::now() + REDRAW;
        while event::poll(deadline.saturating_duration_since(Instant::now()))? {
            let next = match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => look.key(key),
                Event::Resize(..) => Next::Redraw,
                _ => Next::Wait,
            };
            match next {
                Next::End => return Ok(()),
                Next::Fetch => {
                    *order.window.lock().unwrap_or_else(PoisonError::into_inner) = look.window;
                    fetcher.unpark();
                    break;
                }
                Next::Redraw => break,
                Next::Wait => {}
            }
        }
    }
}

type Fetched = anyhow::Result<Picture>;

/// Asks the agent every two seconds, and at once when told to. Ends with the one that draws.
fn fetcher(
    order: Arc<Order>,
    pictures: SyncSender<Fetched>,
    socket: PathBuf,
) -> io::Result<Thread> {
    let work = move || {
        loop {
            thread::park_timeout(PERIOD);
            let window = *order.window.lock().unwrap_or_else(PoisonError::into_inner);
            if pictures.send(fetch(&socket, window)).is_err() {
                return;
            }
        }
    };
    let thread = thread::Builder::new()
        .name("fetch".to_owned())
        .spawn(work)?;
    Ok(thread.thread().clone())
}

/// An agent that does not answer may be starting: what there was stays, with what is wrong.
fn take_newest(pictures: &Receiver<Fetched>, picture: &mut Picture, trouble: &mut Option<String>) {
    loop {
        match pictures.try_recv() {
            Ok(Ok(fetched)) => (*picture, *trouble) = (fetched, None),
            Ok(Err(error)) => *trouble = Some(format!("{error:#}")),
            Err(TryRecvError::Empty) => return,
            Err(TryRecvError::Disconnected) => {
                *trouble = Some("nobody asks the agent any more; start top again".to_owned());
                return;
            }
        }
    }
}

fn fetch(socket: &std::path::Path, window: Window) -> anyhow::Result<Picture> {
    let path = window.path();
    let asked = async {
        Ok::<_, client::ClientError>(Picture {
            taken: Instant::now(),
            edges: client::ask_for(socket, &path).await?,
            services: client::ask_for(socket, "/v1/services").await?,
            nodes: client::ask_for(socket, "/v1/nodes").await?,
        })
    };
    Ok(block_on(asked)??)
}

/// As wide as the terminal; a pipe gets all columns.
fn width() -> u16 {
    use std::io::IsTerminal;
    let terminal = io::stdout().is_terminal();
    let size = terminal.then(|| ratatui::crossterm::terminal::size().ok());
    size.flatten().map_or(PIPE_WIDTH, |(columns, _)| columns)
}

/// How often there may be news.
const PERIOD: Duration = Duration::from_secs(2);

/// Ages grow though nothing is fetched.
const REDRAW: Duration = Duration::from_millis(500);

const PIPE_WIDTH: u16 = 200;
