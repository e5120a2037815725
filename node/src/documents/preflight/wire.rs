//! What goes through the pipes between the agent and its child: texts in, reports out. Everything has a length and a bound.

use std::io::{self, Read, Write};

use starling_gossip::documents::BODY_BYTES_MAX;
use starling_gossip::{DocumentKey, DocumentKind, DocumentName};

use super::Text;
use crate::documents::coverage::NAMES_MAX;
use crate::policy::ServiceSet;

/// What the child says while it works. Texts are done in the order in which they came, so no report names its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Report {
    Begun,
    /// The policy can be read and is about these services.
    Covers(ServiceSet),
    /// It cannot be read.
    Problem(String),
    Done,
}

/// The bytes of a text on the child's standard input.
pub(super) fn encode(text: &Text) -> Vec<u8> {
    let (kind, name) = (text.key.kind.as_str(), text.key.name.as_str());
    let mut bytes = Vec::with_capacity(kind.len() + name.len() + text.body.len() + 8);
    for word in [kind, name] {
        let length = u16::try_from(word.len()).expect("names are short");
        bytes.extend(length.to_be_bytes());
        bytes.extend(word.as_bytes());
    }
    let length = u32::try_from(text.body.len()).expect("a body is at most 64 KiB");
    bytes.extend(length.to_be_bytes());
    bytes.extend(text.body.as_bytes());
    bytes
}

/// Reads one text; `None` at the end of the input.
pub(super) fn decode(input: &mut impl Read) -> io::Result<Option<Text>> {
    let mut first = [0; 1];
    if input.read(&mut first)? == 0 {
        return Ok(None);
    }
    let mut second = [0; 1];
    input.read_exact(&mut second)?;
    let kind = u16::from_be_bytes([first[0], second[0]]);
    let kind = string(input, kind.into(), WORD_BYTES_MAX)?;
    let mut length = [0; 2];
    input.read_exact(&mut length)?;
    let name = string(input, u16::from_be_bytes(length).into(), WORD_BYTES_MAX)?;
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(io::Error::other)?;
    let body = string(input, length, BODY_BYTES_MAX)?;
    let key = DocumentKey {
        kind: DocumentKind::parse(&kind).map_err(invalid)?,
        name: DocumentName::parse(&name).map_err(invalid)?,
    };
    Ok(Some(Text {
        key,
        body: body.into(),
    }))
}

fn string(input: &mut impl Read, length: usize, length_max: usize) -> io::Result<String> {
    if length > length_max {
        return Err(invalid("a part is longer than it may be"));
    }
    let mut bytes = vec![0; length];
    input.read_exact(&mut bytes)?;
    String::from_utf8(bytes).map_err(invalid)
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl Report {
    /// Writes it in one piece, so that what was said before a crash is said.
    pub(super) fn write(&self, output: &mut impl Write) -> io::Result<()> {
        let (tag, said) = match self {
            Self::Begun => (BEGUN, String::new()),
            Self::Covers(coverage) => (COVERS, coverage.to_string()),
            Self::Problem(problem) => (PROBLEM, problem.chars().take(PROBLEM_CHARS_MAX).collect()),
            Self::Done => (DONE, String::new()),
        };
        let mut bytes = vec![tag];
        let length = u16::try_from(said.len()).map_err(io::Error::other)?;
        bytes.extend(length.to_be_bytes());
        bytes.extend(said.as_bytes());
        output.write_all(&bytes)?;
        output.flush()
    }
}

/// Takes reports out of the bytes that arrived. Holds one report at most besides what was pushed last.
#[derive(Debug, Default)]
pub(super) struct Reports(Vec<u8>);

/// The child said something else than a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotAReport;

impl Reports {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next one that is whole.
    pub(super) fn next(&mut self) -> Result<Option<Report>, NotAReport> {
        let [tag, high, low, rest @ ..] = &self.0[..] else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if length > SAID_BYTES_MAX {
            return Err(NotAReport);
        }
        let Some(said) = rest.get(..length) else {
            return Ok(None);
        };
        let said = std::str::from_utf8(said).map_err(|_invalid| NotAReport)?;
        let report = match (*tag, said) {
            (BEGUN, "") => Report::Begun,
            (COVERS, said) => Report::Covers(said.parse().map_err(|_invalid| NotAReport)?),
            (PROBLEM, said) => Report::Problem(said.to_owned()),
            (DONE, "") => Report::Done,
            _ => return Err(NotAReport),
        };
        self.0.drain(..3 + length);
        Ok(Some(report))
    }
}

const BEGUN: u8 = 1;
const COVERS: u8 = 2;
const PROBLEM: u8 = 3;
const DONE: u8 = 4;

/// Kinds and names have at most 63 characters.
const WORD_BYTES_MAX: usize = 63;

/// As much of a parser's problems as an operator reads.
const PROBLEM_CHARS_MAX: usize = 2_000;

/// The names of a coverage with their commas; problems are shorter.
const SAID_BYTES_MAX: usize = 1 + NAMES_MAX * 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(key: &str, body: &str) -> Text {
        Text {
            key: key.parse().unwrap(),
            body: body.into(),
        }
    }

    #[test]
    fn texts_read_back_and_nothing_longer_than_it_may_be() {
        let texts = [
            text("policy/orders", "mode = \"audit\"\n"),
            text("route/a", ""),
        ];
        let bytes: Vec<u8> = texts.iter().flat_map(encode).collect();
        let mut input = &bytes[..];
        for sent in &texts {
            assert_eq!(decode(&mut input).unwrap().as_ref(), Some(sent));
        }
        assert_eq!(decode(&mut input).unwrap(), None);
        for cut in 1..bytes.len() {
            let mut input = &bytes[..cut];
            // Ends where a text ends, or says that it does not.
            while let Ok(Some(_)) = decode(&mut input) {}
        }
        let mut long = encode(&texts[1]);
        let at = long.len() - 4;
        long[at..].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(decode(&mut &long[..]).is_err());
    }

    #[test]
    fn reports_read_back_however_they_are_cut() {
        let sent = [
            Report::Begun,
            Report::Covers("=a,b".parse().unwrap()),
            Report::Problem("line 3: é".into()),
            Report::Done,
        ];
        let mut bytes = Vec::new();
        for report in &sent {
            report.write(&mut bytes).unwrap();
        }
        let mut reports = Reports::default();
        let mut seen = Vec::new();
        for byte in bytes {
            reports.push(&[byte]);
            seen.extend(reports.next().unwrap());
        }
        assert_eq!(seen, sent);
        for bad in [
            &[9, 0, 0][..],
            &[1, 0, 1, 65],
            &[2, 255, 255],
            &[2, 0, 1, 65],
        ] {
            let mut reports = Reports::default();
            reports.push(bad);
            assert_eq!(reports.next(), Err(NotAReport), "{bad:?}");
        }
    }
}
