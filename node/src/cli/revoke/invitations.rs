//! What a revocation ends besides certificates: invitations that were made before it.

use std::time::SystemTime;

use super::Target;
use crate::admin::view::{EndedInvitation, EndedInvitations, RevokedName};
use crate::cli::ask::span;
use crate::cli::sign::Sign;
use crate::cli::table::{Table, plain};
use crate::cli::{block_on, client, out};
use crate::mesh::unix_s;

/// Ends the invitations of what was revoked, and lists them. The revocation is made already, so an issuer that cannot
/// be asked is no failure.
pub(super) fn end(target: &Target, sign: &Sign, issued_before: SystemTime) -> anyhow::Result<()> {
    let Some(name) = name(target, issued_before) else {
        return Ok(());
    };
    let question = serde_json::to_vec(&name)?;
    let asked = client::post_for(sign.socket(), "/v1/invitations", &question);
    match block_on(asked)? {
        Ok(ended) => {
            out::say(&list(&ended, unix_s(SystemTime::now())))?;
            if let Some(missing) = missing(&ended) {
                out::complain(&missing);
            }
        }
        Err(error) => out::complain(&format!(
            "Invitations are not listed: {error}. Issuers refuse those that are older than the revocation."
        )),
    }
    Ok(())
}

/// None for what no invitation names.
fn name(target: &Target, issued_before: SystemTime) -> Option<RevokedName> {
    let (host, service) = target.host_and_service();
    if host.is_none() && service.is_none() {
        return None;
    }
    Some(RevokedName {
        host,
        service,
        issued_before: unix_s(issued_before),
    })
}

fn list(ended: &EndedInvitations, now: u64) -> String {
    if ended.invitations.is_empty() {
        return match ended.not_asked.is_empty() {
            true => "No issuer has an invitation of that name from before.".to_owned(),
            false => {
                "The issuers that answered have no invitation of that name from before.".to_owned()
            }
        };
    }
    let mut table = Table::new(["INVITATION", "ISSUER", "NODE", "SERVICES", "MADE", "WAS"]);
    for invitation in &ended.invitations {
        table.row([
            invitation.invitation.clone(),
            invitation.issuer.clone(),
            invitation.node.clone(),
            invitation.services.join(", "),
            format!("{} ago", span(now.saturating_sub(invitation.made_at))),
            was(invitation, now),
        ]);
    }
    let more = match ended.left_out {
        0 => String::new(),
        more => format!("\nand {more} more"),
    };
    format!(
        "These invitations are ended; no host joins with them any more:\n{}{more}",
        table.render()
    )
}

fn was(invitation: &EndedInvitation, now: u64) -> String {
    let ago = span(now.saturating_sub(invitation.at));
    match (invitation.was.as_str(), &invitation.from) {
        ("open", _) => format!("open for {}", span(invitation.at.saturating_sub(now))),
        (was, Some(from)) => format!("{was} {ago} ago from {from}"),
        (was, None) => format!("{was} {ago} ago"),
    }
}

fn missing(ended: &EndedInvitations) -> Option<String> {
    if ended.not_asked.is_empty() {
        return None;
    }
    let lines = ended.not_asked.iter();
    let lines = lines.map(|gap| {
        format!(
            "Issuer {} was not asked: {}.\n",
            plain(&gap.node),
            plain(&gap.why)
        )
    });
    Some(format!(
        "{}It refuses invitations from before once it hears of the revocation. To list and end them there, run this command again.",
        lines.collect::<String>()
    ))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::admin::view::Gap;

    #[test]
    fn what_an_operator_sees() {
        let invitation = |id: u8, was: &str, at, from: Option<&str>| EndedInvitation {
            issuer: "n1".into(),
            invitation: format!("{id:032x}"),
            node: "n3".into(),
            services: vec!["orders".into()],
            made_at: 400,
            was: was.into(),
            at,
            from: from.map(str::to_owned),
        };
        let ended = EndedInvitations {
            invitations: vec![
                invitation(1, "open", 4600, None),
                invitation(2, "used", 900, Some("10.0.0.2:5")),
                invitation(3, "expired", 500, None),
            ],
            left_out: 2,
            not_asked: vec![Gap {
                node: "n2".into(),
                why: "it is not alive".into(),
                age_s: None,
            }],
        };
        let expected = "\
These invitations are ended; no host joins with them any more:
INVITATION                        ISSUER  NODE  SERVICES  MADE        WAS
00000000000000000000000000000001  n1      n3    orders    10m 0s ago  open for 1h 0m
00000000000000000000000000000002  n1      n3    orders    10m 0s ago  used 1m 40s ago from 10.0.0.2:5
00000000000000000000000000000003  n1      n3    orders    10m 0s ago  expired 8m 20s ago
and 2 more";
        assert_eq!(list(&ended, 1000), expected);
        let missing = missing(&ended).unwrap();
        assert!(
            missing.starts_with("Issuer n2 was not asked: it is not alive.\n"),
            "{missing}"
        );
    }

    #[test]
    fn only_names_that_an_invitation_can_have_are_asked_for() {
        let now = UNIX_EPOCH + Duration::from_millis(7_900);
        let name = |text: &str| name(&text.parse().unwrap(), now);
        let on = name("svc/orders@n3").unwrap();
        assert_eq!(
            (on.host.as_deref(), on.service.as_deref()),
            (Some("n3"), Some("orders"))
        );
        assert_eq!(on.issued_before, 7);
        assert_eq!(name("issuer/n1"), None);
    }
}
