//! The dashboard: plain files in the program. They load nothing from elsewhere and show what `/v1/events` tells.

use http::StatusCode;

use super::answer::{Answer, whole};

/// The file of the dashboard at `path`.
pub(super) fn file(path: &str) -> Option<Answer> {
    let (_, kind, text) = FILES.iter().find(|(name, ..)| *name == path)?;
    Some(whole(StatusCode::OK, kind, *text))
}

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, kind and content.
type File = (&'static str, &'static str, &'static str);

macro_rules! script {
    ($name:literal) => {
        (
            concat!("/page/", $name, ".js"),
            SCRIPT,
            include_str!(concat!("page/", $name, ".js")),
        )
    };
}

const FILES: &[File] = &[
    ("/", HTML, include_str!("page/index.html")),
    (
        "/page/icon.svg",
        "image/svg+xml",
        include_str!("page/icon.svg"),
    ),
    ("/page/style.css", STYLE, include_str!("page/style.css")),
    ("/page/parts.css", STYLE, include_str!("page/parts.css")),
    script!("main"),
    script!("pages"),
    script!("live"),
    script!("dom"),
    script!("table"),
    script!("tiles"),
    script!("words"),
    script!("signals"),
    script!("problems"),
    script!("calls"),
    script!("map"),
    script!("past"),
    script!("graph"),
    script!("layout"),
    script!("picture"),
    script!("services"),
    script!("policy"),
    script!("nodes"),
    script!("documents"),
    script!("diff"),
    script!("host"),
    script!("explain"),
    script!("tap"),
    script!("pass"),
    script!("stream"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands between `before` and the next quote.
    fn quoted<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
        let parts = text.split(before).skip(1);
        parts
            .map(|part| part.split(['"', '\'']).next().unwrap_or(part))
            .collect()
    }

    #[test]
    fn all_that_is_loaded_is_here() {
        for (path, _, text) in FILES {
            let mut loaded: Vec<String> = Vec::new();
            for before in ["href=\"/", "src=\"/", "EventSource('/", "fetch(`/"] {
                loaded.extend(quoted(text, before).iter().map(|name| format!("/{name}")));
            }
            let imported = quoted(text, "from './").into_iter();
            loaded.extend(imported.map(|name| format!("/page/{name}")));
            for name in loaded {
                let is_here = name.starts_with("/v1/") || file(&name).is_some();
                assert!(is_here, "{path} loads {name}");
            }
            let is_foreign = text.contains("https:") || text.replace(SVG, "").contains("http:");
            assert!(!is_foreign, "{path} names something elsewhere");
        }
    }

    #[test]
    fn nothing_becomes_markup() {
        for (path, _, text) in FILES {
            for way in [
                "innerHTML",
                "outerHTML",
                "insertAdjacent",
                "document.write",
                "DOMParser",
                "eval(",
                " style=",
                " onclick=",
            ] {
                assert!(!text.contains(way), "{path} has {way}");
            }
        }
    }

    const SVG: &str = "http://www.w3.org/2000/svg";
}
