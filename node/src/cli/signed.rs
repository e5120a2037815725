//! Signed documents as text: what `starling get --signed` prints and `starling apply` hands to an agent as it is.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use x509_parser::pem::Pem;

use super::{block_on, client, out};
use crate::admin::view;

/// Whether a file's text is that of signed documents.
pub(super) fn is_signed(text: &str) -> bool {
    text.trim_start().starts_with(BEGIN)
}

/// Packets as text.
pub(super) fn to_text<'p>(packets: impl IntoIterator<Item = &'p [u8]>) -> String {
    let mut text = String::new();
    for packet in packets {
        let lines = STANDARD.encode(packet);
        text += &format!("{BEGIN}\n");
        for line in lines.as_bytes().chunks(64) {
            text += &format!("{}\n", String::from_utf8_lossy(line));
        }
        text += &format!("-----END {LABEL}-----\n");
    }
    text
}

/// The packets in a text, in order.
pub(super) fn from_text(text: &str) -> anyhow::Result<Vec<Vec<u8>>> {
    let blocks: Result<Vec<Pem>, _> = Pem::iter_from_buffer(text.as_bytes()).collect();
    let blocks = blocks.map_err(|_detail| anyhow::anyhow!("it is damaged"))?;
    let begun = text.matches(BEGIN).count();
    anyhow::ensure!(
        begun == blocks.len() && begun == text.matches(END).count(),
        "it is cut off: not each of its blocks has an end"
    );
    for block in &blocks {
        anyhow::ensure!(
            block.label == LABEL,
            "it holds a {}",
            block.label.escape_debug()
        );
    }
    Ok(blocks.into_iter().map(|block| block.contents).collect())
}

/// Hands packets to the agent at `socket`, in order; prints what it took.
pub(super) fn hand_over(socket: &Path, packets: &[Vec<u8>]) -> anyhow::Result<()> {
    for packet in packets {
        let receipt: view::Receipt = block_on(client::post_for(socket, "/v1/documents", packet))??;
        let view::Receipt {
            kind,
            name,
            revision,
            is_news,
        } = receipt;
        let what = match is_news {
            true => "is taken",
            false => "is held here already",
        };
        out::say(&format!("{kind}/{name}@{revision} {what}"))?;
    }
    Ok(())
}

const LABEL: &str = "STARLING DOCUMENT";
const BEGIN: &str = "-----BEGIN STARLING DOCUMENT-----";
const END: &str = "-----END STARLING DOCUMENT-----";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_read_back_and_anything_else_is_refused() {
        let packets = [vec![1; 100], vec![2; 3]];
        let text = to_text(packets.iter().map(Vec::as_slice));
        assert!(is_signed(&text) && !is_signed("kind = \"policy\""));
        assert_eq!(from_text(&text).unwrap(), packets);
        from_text(&text[..text.len() - 10]).unwrap_err();
        from_text(&text.replace("DOCUMENT", "OTHER")).unwrap_err();
    }
}
