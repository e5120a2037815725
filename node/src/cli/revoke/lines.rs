//! What a revocation reaches besides its target: the line of a key, and hosts whose certificates an issuer signed.

use std::path::Path;

use anyhow::Context;
use starling_gossip::NodeName;
use starling_transport::{KeyHash, Leaf, LineName, SpiffeId};
use x509_parser::pem::Pem;

use super::Target;
use crate::admin::view::{LineAnswer, LineQuestion};
use crate::cli::sign::Sign;
use crate::cli::table::plain;
use crate::cli::{block_on, client, out};

/// The line of the certificate with this key: from what this host has seen, or else from the issuers. None if none of them
/// knows it, or they cannot be asked: the key must be revoked all the same.
pub(super) fn of_key(key: &KeyHash, sign: &Sign) -> Option<(LineName, SpiffeId)> {
    let known = known_line(key, sign);
    known.unwrap_or_else(|error| {
        out::complain(&format!(
            "The line of the key could not be asked for: {error:#}."
        ));
        None
    })
}

fn known_line(key: &KeyHash, sign: &Sign) -> anyhow::Result<Option<(LineName, SpiffeId)>> {
    let answer = ask(
        &LineQuestion {
            key: Some(key.to_string()),
            ..LineQuestion::default()
        },
        sign,
    )?;
    let Some(found) = &answer.found else {
        for gap in &answer.not_asked {
            let (node, why) = (plain(&gap.node), plain(&gap.why));
            out::complain(&format!("Issuer {node} was not asked: {why}."));
        }
        return Ok(None);
    };
    let host = found.host.as_deref().map(plain);
    let on = host.map(|host| format!(" on {host}")).unwrap_or_default();
    out::say(&format!(
        "The key is one of {identity}{on}. All certificates that it was or will be renewed to go with it, and \
         the host must be invited anew.",
        identity = plain(&found.identity)
    ))?;
    Ok(Some((
        found.line.parse()?,
        SpiffeId::parse(&found.identity)?,
    )))
}

/// The line of the certificate in `file`, which must be the one of `key`. None if it names no line.
pub(super) fn of_file(file: &Path, key: &KeyHash) -> anyhow::Result<Option<(LineName, SpiffeId)>> {
    let pem = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let not_one = || {
        format!(
            "{} is not the certificate of a node or a service",
            file.display()
        )
    };
    let first = Pem::iter_from_buffer(&pem).next().with_context(not_one)?;
    let leaf = Leaf::parse(&first.with_context(not_one)?.contents).with_context(not_one)?;
    anyhow::ensure!(
        leaf.key_hash == *key,
        "the key of {} is {}, another one",
        file.display(),
        leaf.key_hash
    );
    Ok(leaf.line.map(|line| (line.name, leaf.id)))
}

/// What a revocation of `target` reaches: when its youngest line began and, if `with_issuer`, the hosts whose certificates it
/// signed as an issuer.
pub(super) fn of(target: &Target, with_issuer: bool, sign: &Sign) -> anyhow::Result<LineAnswer> {
    let issuer = target.node().filter(|_| with_issuer);
    let (host, service) = target.host_and_service();
    let question = LineQuestion {
        key: None,
        issuer: issuer.map(ToString::to_string),
        host,
        service,
    };
    ask(&question, sign)
}

fn ask(question: &LineQuestion, sign: &Sign) -> anyhow::Result<LineAnswer> {
    let question = serde_json::to_vec(question)?;
    let answer = client::post_for(sign.socket(), "/v1/lines", &question);
    Ok(block_on(answer)??)
}

/// The hosts that go with an issuer, for people.
pub(super) fn thrown_out(answer: &LineAnswer, issuer: Option<&NodeName>) -> String {
    let issuer = issuer.map(NodeName::as_str).unwrap_or_default();
    let others = answer.holders.iter().filter(|holder| holder.host != issuer);
    let hosts: Vec<_> = others.map(|holder| plain(&holder.host)).collect();
    let mut text = match (hosts.as_slice(), answer.left_out) {
        ([], 0) => format!(
            "{issuer} is an issuer; no other host is known to have a certificate that it signed."
        ),
        (hosts, more) => {
            let more = match more {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!(
                "{issuer} is an issuer. These hosts have certificates that it signed, or that were renewed from such, and must be \
                 invited anew by another issuer: {}{more}.",
                hosts.join(", ")
            )
        }
    };
    if answer.own {
        text.push_str(
            " This host is one of them: it passes the revocation on before it is cut off.",
        );
    }
    for gap in &answer.not_asked {
        let (node, why) = (plain(&gap.node), plain(&gap.why));
        text.push_str(&format!("\nIssuer {node} was not asked: {why}."));
    }
    text
}

/// Said when a key was revoked without a line.
pub(super) const UNKNOWN: &str = "the key is revoked, but not what was renewed from its certificate: no issuer that was asked knows the certificate, or it names no line. \
     If it is an operator's: --operator. If you have the certificate: --certificate FILE. If it is an issuer's: `starling revoke issuer/NODE`. An issuer that knows it says so in its `starling check`";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::view::{Gap, LineHolder};

    #[test]
    fn an_operator_sees_who_must_be_invited_anew() {
        let holder = |host: &str| LineHolder {
            host: host.into(),
            identities: Vec::new(),
        };
        let node = NodeName::parse("n1").unwrap();
        let mut answer = LineAnswer {
            is_issuer: true,
            ..LineAnswer::default()
        };
        assert_eq!(
            thrown_out(&answer, Some(&node)),
            "n1 is an issuer; no other host is known to have a certificate that it signed."
        );
        answer.holders = vec![holder("n1"), holder("n2"), holder("n3")];
        answer.left_out = 1;
        answer.own = true;
        answer.not_asked = vec![Gap {
            node: "n9".into(),
            why: "it is not alive".into(),
            age_s: None,
        }];
        assert_eq!(
            thrown_out(&answer, Some(&node)),
            "n1 is an issuer. These hosts have certificates that it signed, or that were renewed from such, and must be \
             invited anew by another issuer: n2, n3 and 1 more. \
             This host is one of them: it passes the revocation on before it is cut off.\n\
             Issuer n9 was not asked: it is not alive."
        );
    }
}
