//! `starling apply`: say something for the whole mesh.

use std::path::{Path, PathBuf};

use clap::Args;

use super::sign::{Change, Sign};
use super::{doubts, out, signed};
use crate::admin::view;
use crate::config::{Problem, Problems};
use crate::documents::file::DocumentFile;
use crate::documents::kinds;

/// Sign documents and hand them to the mesh
///
/// A document is a TOML file that names its `kind` and its `name` and says the rest. What would change is shown first.
/// It works on any host with an agent, also while parts of the mesh cannot reach each other. Documents that are signed already, as
/// `starling get --signed` prints them, are handed over as they are.
#[derive(Debug, Args)]
pub(super) struct Apply {
    /// A document; may be repeated
    #[arg(
        short = 'f',
        long = "file",
        value_name = "FILE",
        required_unless_present = "dir"
    )]
    files: Vec<PathBuf>,
    /// All documents (*.toml) in a directory; what is not there is left alone
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    sign: Sign,
}

impl Apply {
    /// Everything is read and checked before anything is asked or signed.
    pub(super) fn run(mut self) -> anyhow::Result<()> {
        if let Some(dir) = &self.dir {
            self.files.extend(files(dir)?);
        }
        let packets = signed_packets(&self.files)?;
        if !packets.is_empty() {
            return signed::hand_over(self.sign.socket(), &packets);
        }
        let mut changes: Vec<Change> = Vec::new();
        let mut problems = Problems::default();
        let mut routes = Vec::new();
        for file in &self.files {
            match read(file) {
                Ok(read) if changes.iter().any(|change| change.key == read.key) => {
                    let what = format!("{} is in another file too", read.key);
                    problems.append(about(file, what));
                }
                Ok(read) => {
                    routes.extend(kinds::as_route(&read.key, file, &read.body));
                    changes.push(Change {
                        key: read.key,
                        body: Some(read.body),
                        signer: None,
                    });
                }
                Err(more) => problems.append(more),
            }
        }
        if !problems.is_empty() {
            return Err(problems.into());
        }
        doubts::of_routes(&routes, self.sign.socket())
            .iter()
            .for_each(|doubt| out::complain(doubt));
        let unsigned: Vec<_> = changes.iter().filter_map(unsigned).collect();
        doubts::of_readers(&unsigned, self.sign.socket())
            .iter()
            .for_each(|doubt| out::complain(doubt));
        self.sign.make(changes)
    }
}

/// The packets in files of signed documents; none if there is no such file.
fn signed_packets(files: &[PathBuf]) -> anyhow::Result<Vec<Vec<u8>>> {
    let read = |file: &PathBuf| {
        (
            file.clone(),
            std::fs::read_to_string(file).unwrap_or_default(),
        )
    };
    let texts: Vec<_> = files.iter().map(read).collect();
    let (signed, others): (Vec<_>, Vec<_>) = texts
        .into_iter()
        .partition(|(_, text)| signed::is_signed(text));
    if let (Some(_), Some((file, _))) = (signed.first(), others.first()) {
        let what = "it is not signed, and others are: hand over those that are signed in a command of their own";
        return Err(about(file, what.to_owned()).into());
    }
    let mut packets = Vec::new();
    for (file, text) in &signed {
        let read = signed::from_text(text);
        packets.extend(read.map_err(|error| about(file, error.to_string()))?);
    }
    Ok(packets)
}

fn unsigned(change: &Change) -> Option<view::Unsigned> {
    Some(view::Unsigned {
        kind: change.key.kind.to_string(),
        name: change.key.name.to_string(),
        body: change.body.clone()?,
    })
}

fn files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let failed = |error: std::io::Error| about(dir, format!("cannot be listed: {error}"));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            files.push(path);
        }
    }
    files.sort_unstable();
    anyhow::ensure!(
        !files.is_empty(),
        about(dir, "there are no documents (*.toml) in it".to_owned())
    );
    Ok(files)
}

fn read(file: &Path) -> Result<DocumentFile, Problems> {
    let text =
        std::fs::read(file).map_err(|error| about(file, format!("cannot be read: {error}")))?;
    let text = String::from_utf8(text)
        .map_err(|_invalid| about(file, "it is not UTF-8 text".to_owned()))?;
    DocumentFile::parse(file, &text)
}

fn about(file: &Path, what: String) -> Problems {
    Problems::from(Problem {
        file: file.into(),
        line: None,
        what,
        hint: None,
    })
}
