//! Why a connection ended. A peer may give a reason in words (RFC 9000 §19.19), and before the handshake is done anyone can:
//! they are shown as its words, on one line.

use std::fmt::{self, Write};

use quinn::ConnectionError;

/// The end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended(pub(crate) ConnectionError);

impl From<ConnectionError> for Ended {
    fn from(error: ConnectionError) -> Self {
        Self(error)
    }
}

impl Ended {
    /// `error`, or the end of the connection if that caused it.
    pub(crate) fn or_other<E: std::error::Error + Send + Sync + 'static>(
        error: E,
    ) -> Box<dyn std::error::Error + Send + Sync> {
        let mut causes = std::iter::successors(
            Some(&error as &(dyn std::error::Error + 'static)),
            |cause| cause.source(),
        );
        match causes.find_map(|cause| cause.downcast_ref::<ConnectionError>()) {
            Some(ended) => Box::new(Self(ended.clone())),
            None => Box::new(error),
        }
    }
}

impl std::error::Error for Ended {}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, reason) = match &self.0 {
            ConnectionError::ApplicationClosed(close) => {
                (close.error_code.into_inner(), &close.reason)
            }
            ConnectionError::ConnectionClosed(close) => {
                (u64::from(close.error_code), &close.reason)
            }
            ours => return fmt::Display::fmt(ours, f),
        };
        write!(f, "the peer closed the connection ({code:#x})")?;
        if reason.is_empty() {
            return Ok(());
        }
        f.write_str(", saying \"")?;
        let reason = &reason[..reason.len().min(REASON_BYTES_MAX)];
        for char in String::from_utf8_lossy(reason).chars() {
            match char {
                ' '..='~' if char != '"' => f.write_char(char)?,
                other => write!(f, "{}", other.escape_unicode())?,
            }
        }
        f.write_char('"')
    }
}

/// What a peer's reason shows of itself.
const REASON_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use quinn::{ApplicationClose, VarInt};

    use super::*;

    #[test]
    fn a_reason_of_a_peer_is_one_line_in_marks_that_it_cannot_end() {
        let shown = |reason: &[u8]| {
            let close = ApplicationClose {
                error_code: VarInt::from_u32(0x100),
                reason: reason.to_vec().into(),
            };
            Ended(ConnectionError::ApplicationClosed(close)).to_string()
        };
        assert_eq!(shown(b""), "the peer closed the connection (0x100)");
        assert_eq!(
            shown("a\"\nfix: \u{202e}b\u{ff}".as_bytes()),
            "the peer closed the connection (0x100), saying \"a\\u{22}\\u{a}fix: \\u{202e}b\\u{ff}\""
        );
        assert!(shown(&[0xff; 70_000]).len() < 1500);
    }
}
