//! Lines: what ties a certificate to those that it was renewed from.
//!
//! A line begins when a host is invited and goes on with every renewal. Each leaf carries its line in an X.509 extension, so
//! a revocation reaches what is renewed later, also by an issuer that has not heard of the revocation. The extension counts
//! because an issuer signed it; a request for a certificate says nothing about it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::digest::{SHA256, digest};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::revocation;
use crate::svid::{Leaf, Refusal};

/// The name of a line: 16 random bytes, written as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LineName(pub [u8; 16]);

/// Text that is not a [`LineName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line is 32 hex digits")]
pub struct LineNameError;

/// The line of a leaf, as its extension says. Times are whole seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Of this line alone.
    pub name: LineName,
    /// By this a revocation of a host or of an identity judges: when the invitation was made, or the first bundle.
    pub begins: SystemTime,
    /// When the first leaf was signed. For people.
    pub first: SystemTime,
    /// The intermediates that signed leaves of it.
    pub signers: Signers,
}

/// The intermediates that signed leaves of one line: for each host the `not_before` of the oldest. A revocation of an issuer
/// reaches all that became valid before a moment, so the oldest of a host speaks for the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signers(BTreeMap<HostHash, SystemTime>);

/// The first 8 bytes of the SHA-256 of a host's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostHash([u8; 8]);

/// A line that issuers on [`SIGNERS_MAX`] other hosts have renewed. The host needs a new invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "issuers on {SIGNERS_MAX} hosts have renewed this certificate, which is the most that one can hold"
)]
pub struct LineFull;

impl fmt::Display for LineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for LineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for LineName {
    type Err = LineNameError;

    fn from_str(text: &str) -> Result<Self, LineNameError> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(LineNameError);
        }
        let number = u128::from_str_radix(text, 16).map_err(|_detail| LineNameError)?;
        Ok(Self(number.to_be_bytes()))
    }
}

impl HostHash {
    /// Of the name of a host.
    pub fn of(host: &str) -> Self {
        let hash = digest(&SHA256, host.as_bytes());
        Self(*hash.as_ref().first_chunk().expect("SHA-256 has 32 bytes"))
    }
}

impl fmt::Display for HostHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Signers {
    /// Adds an intermediate by the host of its issuer and the start of its validity.
    pub fn add(&mut self, host: HostHash, not_before: SystemTime) {
        let oldest = self.0.entry(host).or_insert(not_before);
        *oldest = (*oldest).min(not_before);
    }

    /// Adds an intermediate, a certificate in DER. Returns whether it is one of our issuers'; one of another CA is not added.
    pub fn add_intermediate(&mut self, der: &[u8]) -> Result<bool, Refusal> {
        let (_, cert) = X509Certificate::from_der(der).map_err(|_detail| Refusal::BadEncoding)?;
        let signer = revocation::signer(&cert);
        if let Some((host, not_before)) = signer {
            self.add(host, not_before);
        }
        Ok(signer.is_some())
    }

    /// Whether the issuer on a host signed a leaf of the line.
    pub fn has(&self, host: HostHash) -> bool {
        self.0.contains_key(&host)
    }

    /// Hosts and the `not_before` of the oldest intermediate of each.
    pub fn iter(&self) -> impl Iterator<Item = (HostHash, SystemTime)> {
        self.0.iter().map(|(host, not_before)| (*host, *not_before))
    }
}

impl Line {
    /// The number of the extension, below the arc of UUIDs (ITU-T X.667). Not critical: software that does not know it may
    /// still read the certificate.
    pub const OID: &[u64] = &[2, 25, 3_186_208_413_701_954_621];

    /// The line that a renewal of `leaf` goes on with. One that names none gets a name, `new`.
    pub fn renewed(leaf: &Leaf, new: LineName) -> Self {
        let line = leaf.line.as_ref();
        Self {
            name: line.map_or(new, |line| line.name),
            begins: leaf.begins,
            first: line.map_or(leaf.not_before, |line| line.first),
            signers: leaf.signers.clone(),
        }
    }

    /// The content of the extension: an OCTET STRING in DER, with the name, the two times in seconds since 1970, and for
    /// each signer the hash of its host and its `not_before`. Numbers have 8 bytes, big-endian; signers are in order.
    pub fn to_extension(&self) -> Result<Vec<u8>, LineFull> {
        if self.signers.0.len() > SIGNERS_MAX {
            return Err(LineFull);
        }
        let mut content = Vec::with_capacity(CONTENT_BYTES_MAX);
        content.extend(self.name.0);
        content.extend(seconds(self.begins));
        content.extend(seconds(self.first));
        for (host, not_before) in self.signers.iter() {
            content.extend(host.0);
            content.extend(seconds(not_before));
        }
        let mut der = vec![OCTET_STRING];
        // A length below 128 is one byte; otherwise the number of its bytes comes first (X.690 §8.1.3).
        match u8::try_from(content.len()) {
            Ok(length @ ..=127) => der.push(length),
            Ok(length) => der.extend([0x81, length]),
            Err(_) => {
                der.push(0x82);
                der.extend(
                    u16::try_from(content.len())
                        .expect("at most 544")
                        .to_be_bytes(),
                );
            }
        }
        der.extend(content);
        Ok(der)
    }

    /// Reads what [`Line::to_extension`] writes. Anything else is refused, so that one line has one form.
    pub fn from_extension(der: &[u8]) -> Result<Self, Refusal> {
        let line = Self::read(der).ok_or(Refusal::BadEncoding)?;
        let is_same = line.to_extension().is_ok_and(|same| same == der);
        is_same.then_some(line).ok_or(Refusal::BadEncoding)
    }

    fn read(der: &[u8]) -> Option<Self> {
        let content = match der {
            [OCTET_STRING, 0x82, _, _, content @ ..] => content,
            [OCTET_STRING, 0x81, _, content @ ..] => content,
            [OCTET_STRING, _, content @ ..] => content,
            _ => return None,
        };
        let (name, rest) = content.split_first_chunk()?;
        let (begins, rest) = rest.split_first_chunk()?;
        let (first, rest) = rest.split_first_chunk()?;
        let (entries, []) = rest.as_chunks::<16>() else {
            return None;
        };
        if entries.len() > SIGNERS_MAX {
            return None;
        }
        let mut signers = Signers::default();
        for entry in entries {
            let (host, not_before) = entry.split_first_chunk()?;
            signers.add(HostHash(*host), time(*not_before.first_chunk()?)?);
        }
        Some(Self {
            name: LineName(*name),
            begins: time(*begins)?,
            first: time(*first)?,
            signers,
        })
    }

    /// The line of a certificate, if it has one.
    pub(crate) fn of(cert: &X509Certificate<'_>) -> Result<Option<Self>, Refusal> {
        let mut found = cert.extensions().iter().filter(|extension| {
            let arcs = extension.oid.iter();
            arcs.is_some_and(|arcs| arcs.eq(Self::OID.iter().copied()))
        });
        match (found.next(), found.next()) {
            (None, _) => Ok(None),
            (Some(one), None) => Self::from_extension(one.value).map(Some),
            (Some(_), Some(_)) => Err(Refusal::BadEncoding),
        }
    }
}

fn seconds(time: SystemTime) -> [u8; 8] {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs().to_be_bytes()
}

fn time(seconds: [u8; 8]) -> Option<SystemTime> {
    let seconds = u64::from_be_bytes(seconds);
    (seconds <= SECONDS_MAX).then(|| UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Hosts whose issuers may sign leaves of one line. 32 make an extension of 550 bytes, with which a handshake stays below the
/// 3,600 bytes that a server may send to an address that it has not validated (RFC 9000 §8.1, three datagrams of 1,200).
pub const SIGNERS_MAX: usize = 32;

const CONTENT_BYTES_MAX: usize = 32 + 16 * SIGNERS_MAX;
const OCTET_STRING: u8 = 4;

/// The end of the year 9999, the last that a certificate can name (RFC 5280 §4.1.2.5).
const SECONDS_MAX: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn line(signers: &[(u64, u64)]) -> Line {
        let mut line = Line {
            name: LineName([7; 16]),
            begins: at(1000),
            first: at(1010),
            signers: Signers::default(),
        };
        for (host, not_before) in signers {
            line.signers
                .add(HostHash(host.to_be_bytes()), at(*not_before));
        }
        line
    }

    #[test]
    fn of_one_host_the_oldest_intermediate_counts() {
        let host = HostHash::of("n1");
        let mut signers = Signers::default();
        for not_before in [30, 10, 20] {
            signers.add(host, at(not_before));
        }
        assert_eq!(signers.iter().collect::<Vec<_>>(), [(host, at(10))]);
        assert!(signers.has(host) && !signers.has(HostHash::of("n2")));
    }

    #[test]
    fn a_line_takes_the_issuers_of_32_hosts_and_no_more() {
        let signers: Vec<_> = (0..SIGNERS_MAX as u64).map(|host| (host, 5)).collect();
        let full = line(&signers);
        let der = full.to_extension().unwrap();
        assert_eq!(der.len(), 4 + CONTENT_BYTES_MAX);
        assert_eq!(Line::from_extension(&der), Ok(full.clone()));
        let mut over = full;
        over.signers.add(HostHash::of("another"), at(5));
        assert_eq!(over.to_extension(), Err(LineFull));
    }

    #[test]
    fn what_is_not_written_like_this_is_refused() {
        let good = line(&[(1, 5), (2, 6)]).to_extension().unwrap();
        assert!(Line::from_extension(&good).is_ok());
        let mut swapped = good.clone();
        let (one, other) = (2 + 32, 2 + 48);
        swapped.copy_within(other..other + 16, one);
        swapped[other..other + 16].copy_from_slice(&good[one..one + 16]);
        let mut long_form = good.clone();
        long_form.insert(1, 0x81);
        let mut far = good.clone();
        far[2 + 16] = 0xff;
        let mut longer = good.clone();
        longer.push(0);
        for bad in [
            swapped,
            long_form,
            far,
            longer,
            good[..good.len() - 1].to_vec(),
            Vec::new(),
        ] {
            assert_eq!(
                Line::from_extension(&bad),
                Err(Refusal::BadEncoding),
                "{bad:x?}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_line_is_read_as_it_is_written(
            name in any::<[u8; 16]>(),
            begins in 0..=SECONDS_MAX,
            first in 0..=SECONDS_MAX,
            signers in prop::collection::vec((any::<u64>(), 0..=SECONDS_MAX), 0..=SIGNERS_MAX),
        ) {
            let line = Line { name: LineName(name), begins: at(begins), first: at(first), ..line(&signers) };
            prop_assert_eq!(Line::from_extension(&line.to_extension().unwrap()), Ok(line));
        }

        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(line) = Line::from_extension(&bytes) {
                prop_assert_eq!(line.to_extension().unwrap(), bytes);
            }
        }

        #[test]
        fn a_name_is_read_as_it_is_shown(name in any::<[u8; 16]>()) {
            prop_assert_eq!(LineName(name).to_string().parse(), Ok(LineName(name)));
        }

        #[test]
        fn any_other_text_is_no_name(text in "[0-9a-f+ -]{0,40}") {
            let good = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            prop_assert_eq!(text.parse::<LineName>().is_ok(), good);
        }
    }
}
