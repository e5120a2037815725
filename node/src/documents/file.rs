//! A document as an operator writes it: a TOML file that names its kind and its name, and says the rest.

use std::fmt::Write;
use std::path::Path;

use starling_gossip::{DocumentKey, DocumentKind, DocumentName};
use toml::Table;

use super::{kinds, unknown_kind};
use crate::config::{Problem, Problems};

/// What a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentFile {
    pub key: DocumentKey,
    /// The file without the lines that name it, so that lines keep their numbers.
    pub body: String,
}

impl DocumentFile {
    /// Reads a file's text and checks it as an agent would; `file` only serves messages.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Problems> {
        let (kind, kind_line) = named::<DocumentKind>(file, text, "kind")?;
        let (name, name_line) = named::<DocumentName>(file, text, "name")?;
        let names_it = |at: usize| at == kind_line || at == name_line;
        let lines = text.lines().enumerate();
        let rest = lines.map(|(at, line)| if names_it(at) { "" } else { line });
        let body = rest.collect::<Vec<_>>().join("\n").trim_end().to_owned();
        let key = DocumentKey { kind, name };
        match kinds::check(&key, file, &body) {
            Some(checked) => checked?,
            None => {
                let hint = "is this `starling` older than the file?";
                return Err(problem(file, kind_line, unknown_kind(&key.kind), hint));
            }
        }
        Ok(Self { key, body })
    }
}

/// What [`DocumentFile::parse`] reads as this body under this key.
pub fn to_text(key: &DocumentKey, body: &str) -> String {
    let mut text = format!("kind = \"{}\"\nname = \"{}\"\n", key.kind, key.name);
    let body = body.trim_matches('\n');
    if !body.is_empty() {
        let _ = write!(text, "\n{body}\n");
    }
    text
}

/// The value of a key that stands on a line of its own before the first table, and that line.
fn named<T: std::str::FromStr<Err = starling_gossip::NameError>>(
    file: &Path,
    text: &str,
    key: &'static str,
) -> Result<(T, usize), Problems> {
    let top = text
        .lines()
        .enumerate()
        .take_while(|(_, line)| !line.trim_start().starts_with('['));
    let mut lines = top.filter(|(_, line)| {
        let rest = line.trim_start().strip_prefix(key);
        rest.is_some_and(|rest| rest.trim_start().starts_with('='))
    });
    let Some((at, line)) = lines.next() else {
        let hint = format!("write `{key} = \"…\"` on a line of its own at the beginning");
        return Err(problem(
            file,
            0,
            format!("the document has no `{key}`"),
            &hint,
        ));
    };
    let value = line
        .parse::<Table>()
        .ok()
        .and_then(|table| table.get(key)?.as_str().map(ToOwned::to_owned));
    let Some(value) = value else {
        let hint = format!("as in `{key} = \"orders\"`, and nothing else on that line");
        return Err(problem(file, at, format!("`{key}` is not a text"), &hint));
    };
    match value.parse() {
        Ok(value) => Ok((value, at)),
        Err(error) => {
            let shown = value.escape_debug().take(63).collect::<String>();
            let what = format!("`{shown}` cannot be the {key} of a document");
            Err(problem(file, at, what, &error.to_string()))
        }
    }
}

fn problem(file: &Path, line: usize, what: String, hint: &str) -> Problems {
    Problems::from(Problem {
        file: file.into(),
        line: Some(line + 1),
        what,
        hint: Some(hint.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DocumentFile, String> {
        DocumentFile::parse(Path::new("x.toml"), text).map_err(|problems| problems.to_string())
    }

    #[test]
    fn a_document_is_its_file_without_its_name() {
        let text = "# who\nkind = \"policy\"\nname = 'orders' # yes\n\n[[grant]]\n\
                    services = [\"orders\"]\nfrom = [\"web\"]\n";
        let read = parse(text).unwrap();
        assert_eq!(read.key.to_string(), "policy/orders");
        assert!(read.body.starts_with("# who\n\n\n\n[[grant]]"));
        let again = parse(&to_text(&read.key, &read.body)).unwrap();
        assert_eq!(again.key, read.key);
        assert_eq!(again.body.trim_start(), read.body);
    }

    #[test]
    fn problems_are_told_with_their_line() {
        for (text, expected) in [
            (
                "name = \"a\"",
                "error: x.toml:1: the document has no `kind`",
            ),
            (
                "kind = \"policy\"",
                "error: x.toml:1: the document has no `name`",
            ),
            (
                "\nkind = 7\nname = \"a\"",
                "error: x.toml:2: `kind` is not a text",
            ),
            (
                "kind = \"policy\"\nname = \"A\"",
                "error: x.toml:2: `A` cannot be the name of a document",
            ),
            (
                "name = \"a\"\nkind = \"polcy\"",
                "error: x.toml:2: this version knows no documents of kind `polcy`, only policy, revocation, route",
            ),
            (
                "kind = \"policy\"\nname = \"a\"\n\n[[grant]]\nservices = [\"x\"]\nfrom = [\"y\"]\nmethds = []\n",
                "error: x.toml:7: unknown key `methds`",
            ),
            (
                "[[grant]]\nkind = \"policy\"\nname = \"a\"\n",
                "error: x.toml:1: the document has no `kind`",
            ),
        ] {
            let problems = parse(text).unwrap_err();
            assert!(problems.starts_with(expected), "{text:?}: {problems}");
        }
    }
}
