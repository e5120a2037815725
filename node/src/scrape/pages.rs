//! Pages of metrics that others read piece by piece.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::telemetry::Format;

/// The last few, so that two readers do not take each other's away.
#[derive(Debug, Default)]
pub(super) struct Pages(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    pages: VecDeque<Page>,
    made: u64,
}

#[derive(Debug)]
struct Page {
    number: u64,
    format: Format,
    at: Instant,
    text: Arc<str>,
}

/// A part of a page.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Piece {
    pub(super) page: u64,
    pub(super) text: String,
    /// Whether there is more behind it.
    pub(super) more: bool,
}

impl Pages {
    /// The first piece of a page that is no older than a second, made by `render` if there is none.
    pub(super) fn first(&self, format: Format, render: impl FnOnce() -> String) -> Piece {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let is_fresh = |page: &&Page| page.format == format && now - page.at < FRESH;
        if let Some(page) = kept.pages.iter().find(is_fresh) {
            return page.piece(0);
        }
        kept.made += 1;
        let page = Page {
            number: kept.made,
            format,
            at: now,
            text: render().into(),
        };
        let piece = page.piece(0);
        if piece.more {
            kept.pages.push_back(page);
            let many = kept.pages.len().saturating_sub(PAGES_MAX);
            kept.pages.drain(..many);
        }
        piece
    }

    /// What follows on page `number` after `from` bytes; none if it is gone or `from` is nowhere.
    pub(super) fn piece(&self, number: u64, from: usize) -> Option<Piece> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let page = kept.pages.iter().find(|page| page.number == number)?;
        page.text.is_char_boundary(from).then(|| page.piece(from))
    }
}

impl Page {
    fn piece(&self, from: usize) -> Piece {
        let rest = &self.text[from..];
        let most = rest.len().min(PIECE_BYTES);
        let end = (0..=most).rev().find(|end| rest.is_char_boundary(*end));
        let (text, more) = rest.split_at(end.unwrap_or_default());
        Piece {
            page: self.number,
            text: text.to_owned(),
            more: !more.is_empty(),
        }
    }
}

/// A second look within it sees the same page.
const FRESH: Duration = Duration::from_secs(1);
/// Those of four readers who read at a time. The largest page possible has some 5 MiB, a usual one 30 KiB.
const PAGES_MAX: usize = 4;
/// An answer has at most 64 KiB, and every quote becomes two bytes in it.
const PIECE_BYTES: usize = 30 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(pages: &Pages, text: &str) -> String {
        let mut piece = pages.first(Format::Text, || text.to_owned());
        let mut read = piece.text.clone();
        while piece.more {
            piece = pages.piece(piece.page, read.len()).unwrap();
            read.push_str(&piece.text);
        }
        read
    }

    #[tokio::test(start_paused = true)]
    async fn pages_are_read_whole_whatever_is_in_them() {
        for text in [
            String::new(),
            "short\n".to_owned(),
            "\"ä€\"".repeat(20_000),
            "x".repeat(3 * PIECE_BYTES),
        ] {
            let pages = Pages::default();
            assert!(whole(&pages, &text) == text, "{} bytes", text.len());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_goes_when_others_came() {
        let pages = Pages::default();
        let long = "x".repeat(PIECE_BYTES + 1);
        let first = pages.first(Format::Text, || long.clone());
        // Within a second it is the same one; another format is another page.
        assert_eq!(pages.first(Format::Text, String::new), first);
        assert_ne!(pages.first(Format::OpenMetrics, || long.clone()), first);
        for _ in 1..PAGES_MAX {
            assert!(pages.piece(first.page, 1).is_some());
            tokio::time::advance(FRESH).await;
            pages.first(Format::Text, || long.clone());
        }
        assert_eq!(pages.piece(first.page, 1), None);
    }

    #[tokio::test]
    async fn a_piece_from_nowhere_is_none() {
        let pages = Pages::default();
        let page = pages.first(Format::Text, || "ä".repeat(PIECE_BYTES)).page;
        assert_eq!(pages.piece(page, 1), None);
        assert_eq!(pages.piece(page, usize::MAX), None);
        assert_eq!(pages.piece(page + 1, 0), None);
    }
}
