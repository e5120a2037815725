//! Certificates that end too soon: renewal begins at half of a life, so whatever has less than a third left is late.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use x509_parser::pem::Pem;
use x509_parser::time::ASN1Time;

use super::{Check, Finding, Severity, list};
use crate::admin::view;
use crate::span::span;

/// The life of one certificate, as ages, so that it holds whatever the clocks of reader and teller say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Whom it proves, or whose authority it is.
    pub name: String,
    /// From its first to its last moment.
    pub life_s: u64,
    /// Negative once it is over.
    pub left_s: i64,
    pub kind: Kind,
}

/// How soon is soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Of a node or service; renewed by itself.
    Leaf,
    /// Of an issuer, or a root; renewed by people.
    Authority,
}

impl Certificate {
    pub fn new(
        name: impl Into<String>,
        kind: Kind,
        not_before: SystemTime,
        not_after: SystemTime,
        now: SystemTime,
    ) -> Self {
        let life = not_after.duration_since(not_before).unwrap_or_default();
        let left = match not_after.duration_since(now) {
            Ok(left) => i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            Err(over) => -i64::try_from(over.duration().as_secs()).unwrap_or(i64::MAX),
        };
        Self {
            name: name.into(),
            life_s: life.as_secs(),
            left_s: left,
            kind,
        }
    }

    fn severity(&self) -> Option<Severity> {
        let Ok(left) = u64::try_from(self.left_s) else {
            return Some(Severity::Error);
        };
        let (error, warn) = match self.kind {
            Kind::Leaf => (self.life_s / 6, self.life_s / 3),
            Kind::Authority => (self.life_s / 52, self.life_s / 12),
        };
        match left {
            0 => Some(Severity::Error),
            left if left < error => Some(Severity::Error),
            left if left < warn => Some(Severity::Warn),
            _ => None,
        }
    }

    fn ends(&self) -> String {
        let left = span(self.left_s.unsigned_abs());
        let life = span(self.life_s);
        match self.left_s {
            ..=0 => format!("{} ended {left} ago", self.name),
            _ => format!("{} ends in {left}, of a life of {life}", self.name),
        }
    }
}

/// What the certificates of a PEM file say of their time; those that cannot be read are left out.
pub fn read(name: &str, kind: Kind, pem: &[u8], now: SystemTime) -> Vec<Certificate> {
    let blocks = Pem::iter_from_buffer(pem).filter_map(Result::ok);
    let times = blocks.filter_map(|block| {
        let validity = block.parse_x509().ok()?.validity().clone();
        let at = |time: ASN1Time| {
            Some(UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).ok()?))
        };
        Some((at(validity.not_before)?, at(validity.not_after)?))
    });
    times
        .map(|(from, to)| Certificate::new(name, kind, from, to, now))
        .collect()
}

/// One finding for all of a kind: they mostly end together, for one reason.
pub fn judge(all: &[Certificate], trouble: Option<&view::Renewal>) -> Vec<Finding> {
    let of = |kind| {
        let late: Vec<_> = all
            .iter()
            .filter(|one| one.kind == kind)
            .filter_map(|one| Some((one.severity()?, one)))
            .collect();
        let worst = late.iter().map(|(severity, _)| *severity).min()?;
        let names: Vec<_> = late.iter().map(|(_, one)| one.name.as_str()).collect();
        let mut evidence: Vec<_> = late.iter().map(|(_, one)| one.ends()).collect();
        evidence.truncate(EVIDENCE_MAX);
        let what = match late.iter().any(|(_, one)| one.left_s <= 0) {
            true => format!("a certificate has ended: {}", list(&names)),
            false => format!("a certificate ends soon: {}", list(&names)),
        };
        Some((worst, what, evidence))
    };
    let leaves = of(Kind::Leaf).map(|(worst, what, mut evidence)| {
        evidence.extend(trouble.map(renewal));
        let fix = "bring an issuer back, or make one (`starling ca add-issuer`): any renews it; once it has ended, \
                   `starling invite` on an issuer and `starling join` here. Files of another CA: replace them";
        Finding::new(worst, Check::Certificate, what, evidence, fix)
    });
    let authorities = of(Kind::Authority).map(|(worst, what, evidence)| {
        let fix = "an issuer's: `starling ca add-issuer` with the root's key makes another one; a root's: docs/enrolment.md";
        Finding::new(worst, Check::Certificate, what, evidence, fix)
    });
    let due = trouble.filter(|_| leaves.is_none()).map(|trouble| {
        let fix = "bring an issuer back before it ends, or make one: `starling ca add-issuer`";
        let what = "a certificate is due and cannot be renewed";
        Finding::new(
            Severity::Warn,
            Check::Certificate,
            what,
            vec![renewal(trouble)],
            fix,
        )
    });
    [leaves, authorities, due].into_iter().flatten().collect()
}

fn renewal(trouble: &view::Renewal) -> String {
    format!(
        "renewing {} fails for {}: {}",
        trouble.identity,
        span(trouble.failing_s),
        trouble.error
    )
}

/// What a peer's refusal of our certificate means, and what puts it right.
pub(crate) fn refusal(why: &str) -> (&'static str, &'static str) {
    match why {
        "revoked" => (
            "is revoked",
            "an operator threw it out, and `starling get` on another host says why; to bring this host back: `starling invite` on an issuer, then \
             here stop the agent, `starling join TOKEN`, and start the agent",
        ),
        "expired" => (
            "has expired",
            "renew it, or put the clock right, here or there: `timedatectl`",
        ),
        "unknown_issuer" => (
            "is of another mesh",
            "compare trust.pem here and there: it has to hold the root of both",
        ),
        _ => ("is not accepted", "the log of that peer says why"),
    }
}

/// Names of certificates are many on a host with many services.
const EVIDENCE_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_S: i64 = 86_400;

    fn found(kind: Kind, life_s: i64, left_s: i64) -> Option<Severity> {
        let one = Certificate {
            name: "x".into(),
            life_s: life_s.unsigned_abs(),
            left_s,
            kind,
        };
        let found = judge(&[one], None);
        found.first().map(|finding| finding.severity)
    }

    #[test]
    fn late_is_less_than_a_third_and_a_sixth_is_bad() {
        let leaf = |left| found(Kind::Leaf, DAY_S, left);
        assert_eq!(leaf(DAY_S / 2), None);
        assert_eq!(leaf(DAY_S / 3), None);
        assert_eq!(leaf(DAY_S / 3 - 1), Some(Severity::Warn));
        assert_eq!(leaf(DAY_S / 6 - 1), Some(Severity::Error));
        assert_eq!(leaf(-1), Some(Severity::Error));
    }

    #[test]
    fn people_get_a_month_for_what_lives_a_year() {
        let issuer = |days| found(Kind::Authority, 365 * DAY_S, days * DAY_S);
        assert_eq!(issuer(31), None);
        assert_eq!(issuer(29), Some(Severity::Warn));
        assert_eq!(issuer(6), Some(Severity::Error));
    }

    #[test]
    fn certificates_that_end_together_are_one_finding_with_the_reason() {
        let one = |name: &str| Certificate {
            name: name.into(),
            life_s: 86_400,
            left_s: 3_600,
            kind: Kind::Leaf,
        };
        let trouble = view::Renewal {
            identity: "node/n1".into(),
            failing_s: 7_200,
            error: "no issuer is known and alive".into(),
        };
        let all = [one("node/n1"), one("svc/web")];
        let found = judge(&all, Some(&trouble));
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].what,
            "a certificate ends soon: node/n1 and svc/web"
        );
        assert_eq!(
            found[0].evidence,
            [
                "node/n1 ends in 1h 0m, of a life of 1d 0h",
                "svc/web ends in 1h 0m, of a life of 1d 0h",
                "renewing node/n1 fails for 2h 0m: no issuer is known and alive",
            ]
        );
        assert_eq!(judge(&[], Some(&trouble)).len(), 1);
    }
}
