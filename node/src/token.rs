//! The token that lets one host in: `starling1-` and base64url of what the host must know and prove.
//!
//! Whoever holds it can become the node that it names, once and until it expires. So it is never logged: [`Debug`] shows
//! no seed, and there is no other way to print it than [`Token::encode`].

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::signature::{Ed25519KeyPair, KeyPair};
use starling_gossip::{NodeName, ServiceName};
use starling_transport::TrustDomain;

use crate::config::is_host_port;

/// An invitation as it travels.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The mesh.
    pub trust_domain: TrustDomain,
    /// SHA-256 of the root certificate that the issuers' chains must lead to.
    pub root_sha256: [u8; 32],
    /// Which invitation it is.
    pub id: InviteId,
    /// Seed of the Ed25519 key that proves possession of the token.
    pub seed: [u8; 32],
    /// Who the host will be.
    pub node: NodeName,
    /// Services it will hold certificates of, in order.
    pub services: Vec<ServiceName>,
    /// Seconds since 1970.
    pub not_after: u64,
    /// The issuer that made it, and the only one that redeems it.
    pub home: NodeName,
    /// `host:port` of join ports, the first to try first.
    pub issuers: Vec<String>,
}

/// Names an invitation. Random, so that it cannot be guessed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InviteId(pub [u8; 16]);

/// Why a text is no token. None of these quotes the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    #[error("it does not begin with `{PREFIX}`; is it of another version of starling?")]
    Prefix,
    #[error("it is cut off, or holds characters that no token has")]
    Text,
    #[error("it is damaged: its checksum does not fit")]
    Checksum,
    #[error("what it says makes no sense")]
    Content,
}

impl Token {
    /// As text for the operator. A secret.
    pub fn encode(&self) -> String {
        let mut body = Vec::with_capacity(256);
        put(&mut body, self.trust_domain.as_str());
        body.extend(self.root_sha256);
        body.extend(self.id.0);
        body.extend(self.seed);
        put(&mut body, self.node.as_str());
        put_all(&mut body, self.services.iter().map(ServiceName::as_str));
        body.extend(self.not_after.to_be_bytes());
        put(&mut body, self.home.as_str());
        put_all(&mut body, self.issuers.iter().map(String::as_str));
        let sum = checksum(&body);
        body.extend(sum);
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(body))
    }

    /// Reads what [`Token::encode`] wrote, and nothing that it would have written differently.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.len() > TEXT_BYTES_MAX {
            return Err(TokenError::Text);
        }
        let encoded = text.strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded);
        let bytes = bytes.map_err(|_detail| TokenError::Text)?;
        let (body, sum) = bytes.split_last_chunk::<SUM>().ok_or(TokenError::Text)?;
        if checksum(body) != *sum {
            return Err(TokenError::Checksum);
        }
        let token = Self::read(&mut Reader(body)).ok_or(TokenError::Content)?;
        if token.encode() == text {
            Ok(token)
        } else {
            Err(TokenError::Content)
        }
    }

    /// The key whose possession proves possession of the token.
    pub fn key(&self) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&self.seed).expect("any 32 bytes are a seed")
    }

    /// The public half of [`Token::key`].
    pub fn public_key(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.key().public_key().as_ref());
        bytes
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let token = Self {
            trust_domain: TrustDomain::parse(reader.text()?).ok()?,
            root_sha256: reader.array()?,
            id: InviteId(reader.array()?),
            seed: reader.array()?,
            node: NodeName::parse(reader.text()?).ok()?,
            services: reader.texts(SERVICES_MAX, |name| ServiceName::parse(name).ok())?,
            not_after: u64::from_be_bytes(reader.array()?),
            home: NodeName::parse(reader.text()?).ok()?,
            issuers: reader.texts(ISSUERS_MAX, |address| {
                is_host_port(address).then(|| address.to_owned())
            })?,
        };
        let is_whole = reader.0.is_empty() && !token.issuers.is_empty();
        (is_whole && token.services.is_sorted_by(|a, b| a < b)).then_some(token)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("id", &self.id)
            .field("trust_domain", &self.trust_domain)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl InviteId {
    /// Reads what `Display` writes.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "an invitation's id is 32 hexadecimal digits".to_owned();
        let is_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 32 || !text.bytes().all(is_hex) {
            return Err(wrong());
        }
        let number = u128::from_str_radix(text, 16).map_err(|_detail| wrong())?;
        Ok(Self(number.to_be_bytes()))
    }
}

impl fmt::Display for InviteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for InviteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Reads `data` as a token, for fuzzing: any bytes are read or refused, and what is read is written the same.
#[doc(hidden)]
pub fn fuzz(data: &[u8]) {
    if let Ok(text) = str::from_utf8(data)
        && let Ok(token) = Token::parse(text)
    {
        assert_eq!(token.encode(), text.trim());
    }
    // Past the checksum, which a fuzzer does not guess.
    let sealed = [data, &checksum(data)].concat();
    let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(sealed));
    if let Ok(token) = Token::parse(&text) {
        assert_eq!(token.encode(), text);
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        let [length] = self.array()?;
        let (text, rest) = self.0.split_at_checked(usize::from(length))?;
        self.0 = rest;
        str::from_utf8(text).ok()
    }

    fn texts<T>(&mut self, max: usize, parse: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
        let [count] = self.array()?;
        if usize::from(count) > max {
            return None;
        }
        (0..count).map(|_| parse(self.text()?)).collect()
    }
}

fn put(body: &mut Vec<u8>, text: &str) {
    body.push(u8::try_from(text.len()).expect("names and addresses have at most 255 bytes"));
    body.extend(text.as_bytes());
}

fn put_all<'a>(body: &mut Vec<u8>, texts: impl ExactSizeIterator<Item = &'a str>) {
    body.push(u8::try_from(texts.len()).expect("there are at most 32"));
    texts.for_each(|text| put(body, text));
}

/// Against slips of the hand only; what must not be forged is signed with the token's key.
fn checksum(body: &[u8]) -> [u8; SUM] {
    let mut sum = [0; SUM];
    sum.copy_from_slice(&digest(&SHA256, body).as_ref()[..SUM]);
    sum
}

const PREFIX: &str = "starling1-";
const SUM: usize = 4;

/// Services one host is invited with; more can follow with another invitation.
pub const SERVICES_MAX: usize = 32;

/// Join ports in one token; two or three are enough.
pub const ISSUERS_MAX: usize = 8;

/// 32 services and 8 addresses of the longest names are about 6 KiB.
const TEXT_BYTES_MAX: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(services: &[&str]) -> Token {
        Token {
            trust_domain: TrustDomain::parse("example.org").unwrap(),
            root_sha256: [1; 32],
            id: InviteId([2; 16]),
            seed: [3; 32],
            node: NodeName::parse("n2").unwrap(),
            services: services
                .iter()
                .map(|s| ServiceName::parse(s).unwrap())
                .collect(),
            not_after: 1_900_000_000,
            home: NodeName::parse("n1").unwrap(),
            issuers: vec!["10.0.0.1:7402".into(), "n3.example.org:7402".into()],
        }
    }

    #[test]
    fn a_token_reads_back_and_does_not_show_its_secret() {
        let token = token(&["orders", "web"]);
        let text = token.encode();
        assert_eq!(Token::parse(&format!(" {text}\n")), Ok(token.clone()));
        assert!(!format!("{token:?}").contains("3, 3"), "{token:?}");
    }

    #[test]
    fn what_is_no_token_says_how() {
        let good = token(&["orders"]).encode();
        let check = |text: &str, error| assert_eq!(Token::parse(text), Err(error), "{text}");
        check("", TokenError::Prefix);
        check(&good[1..], TokenError::Prefix);
        check(&good.replace("starling1", "starling2"), TokenError::Prefix);
        check(&good[..good.len() - 8], TokenError::Checksum);
        check("starling1-", TokenError::Text);
        check("starling1-!!!!", TokenError::Text);
        check(&format!("{good}="), TokenError::Text);
        check(&format!("{good}{}", "A".repeat(9000)), TokenError::Text);
        let mut unordered = token(&[]);
        unordered.services = ["web", "orders"]
            .map(|s| ServiceName::parse(s).unwrap())
            .into();
        check(&unordered.encode(), TokenError::Content);
        let nowhere = Token {
            issuers: Vec::new(),
            ..token(&[])
        };
        check(&nowhere.encode(), TokenError::Content);
        let everywhere = Token {
            issuers: vec!["0.0.0.0:1".into()],
            ..token(&[])
        };
        check(&everywhere.encode(), TokenError::Content);
    }

    proptest! {
        #[test]
        fn a_change_anywhere_is_noticed(at in 0usize..300, bit in 0u8..7) {
            let good = token(&["orders", "web"]).encode();
            let mut bytes = good.clone().into_bytes();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            if let Ok(text) = String::from_utf8(bytes) {
                prop_assert!(text.trim() == good || Token::parse(&text).is_err());
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            fuzz(&bytes);
        }

        #[test]
        fn ids_read_back(id in any::<[u8; 16]>()) {
            prop_assert_eq!(InviteId::parse(&InviteId(id).to_string()), Ok(InviteId(id)));
        }
    }
}
