//! Names of nodes and services, and the labels of instances.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What an instance says of itself beyond its service, such as `version = "v2"`.
pub type Labels = BTreeMap<String, String>;

/// Why a text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, or longer than a DNS label may be.
    #[error("a name has 1 to 63 characters")]
    Length,
    /// Something other than `a-z`, `0-9` and inner `-`.
    #[error("a name holds only a-z, 0-9 and -, and neither begins nor ends with -")]
    Character,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text`: one DNS label, `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                check_label(text)?;
                Ok(Self(text.into()))
            }

            /// The name as written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }
    };
}

name! {
    /// The name of a node, such as `rack1-host7`. Cheap to clone.
    NodeName
}
name! {
    /// The name callers use for a service, such as `orders`. Cheap to clone.
    ServiceName
}

name! {
    /// What a document is about, such as `policy`. Cheap to clone.
    DocumentKind
}
name! {
    /// The name of a document among those of its kind. Cheap to clone.
    DocumentName
}
name! {
    /// Who signs documents, such as `alice`. Cheap to clone.
    OperatorName
}

/// A node as the wire names it: the first 16 bytes of SHA-256 over its SPIFFE ID. It survives key renewal, has one length, and
/// cannot be claimed without a certificate for that ID.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId([u8; 16]);

impl NodeId {
    /// The id of the node with this SPIFFE ID.
    pub fn of(identity: &str) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, identity.as_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&digest.as_ref()[..16]);
        Self(id)
    }

    /// The id with these bytes, as read from the wire.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes that stand on the wire.
    pub fn bytes(&self) -> [u8; 16] {
        self.0
    }

    /// Reads the text form.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        Some(Self(bytes.try_into().ok()?))
    }
}

/// 22 characters of URL-safe base64.
impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether these labels may be announced: at most [`LABELS_MAX`], keys and values of 1 to 63 (values: 0 to 63) characters of
/// `a-z A-Z 0-9 . _ / -`. Kept narrow so that a label is plain text in a log line, a metric and a shell.
pub fn labels_ok(labels: &Labels) -> bool {
    let text_ok = |text: &str| text.len() <= LABEL_BYTES_MAX && text.bytes().all(is_label_byte);
    labels.len() <= LABELS_MAX
        && labels
            .iter()
            .all(|(key, value)| !key.is_empty() && text_ok(key) && text_ok(value))
}

fn is_label_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'/' | b'-')
}

fn check_label(text: &str) -> Result<(), NameError> {
    if text.is_empty() || text.len() > LABEL_BYTES_MAX {
        return Err(NameError::Length);
    }
    let inner_ok = text
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !inner_ok || text.starts_with('-') || text.ends_with('-') {
        return Err(NameError::Character);
    }
    Ok(())
}

/// Labels one instance may carry; 16 of the longest are 2 KiB of the 16 KiB a manifest may have.
pub const LABELS_MAX: usize = 16;

/// The length of a DNS label, which is what names become in certificates.
const LABEL_BYTES_MAX: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        let long = "a".repeat(63);
        for good in ["a", "0", "web", "rack-1", "a--b", long.as_str()] {
            assert_eq!(NodeName::parse(good).unwrap().as_str(), good);
        }
        let longer = "a".repeat(64);
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a.b",
            "a_b",
            "é",
            "a\0",
            longer.as_str(),
        ] {
            assert!(ServiceName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn labels_are_plain_text() {
        let one = |key: &str, value: &str| Labels::from([(key.into(), value.into())]);
        assert!(labels_ok(&one("version", "v2.1_rc/3-a")));
        assert!(labels_ok(&one("canary", "")));
        for (key, value) in [
            ("", "x"),
            ("a b", "x"),
            ("a", "x\n"),
            ("a", "\u{1b}[31m"),
            ("a", "\""),
        ] {
            assert!(!labels_ok(&one(key, value)), "{key:?}={value:?}");
        }
        let many = (0..17).map(|n| (n.to_string(), String::new())).collect();
        assert!(!labels_ok(&many));
    }

    #[test]
    fn a_node_id_is_22_characters_and_reads_back() {
        let id = NodeId::of("spiffe://example.org/node/n1");
        assert_eq!(id.to_string().len(), 22);
        assert_eq!(NodeId::parse(&id.to_string()), Some(id));
        assert_eq!(NodeId::parse("short"), None);
    }
}
