//! An operator's file: the key that signs documents, and the root's word that it may.
//!
//! ```text
//! -----BEGIN PRIVATE KEY-----                  Ed25519, PKCS#8
//! -----BEGIN STARLING OPERATOR GRANT-----      name, public key, kinds, dates, signed by the root
//! ```

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData, SigningKey};
use starling_gossip::documents::{self, Draft, Grant, SignedGrant};
use starling_transport::KeyHash;
use x509_parser::pem::Pem;

/// Who signs documents.
pub struct Operator {
    key: KeyPair,
    grant: SignedGrant,
}

/// Why an operator's file is not used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperatorError {
    #[error("cannot read the operator's file {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write the operator's file {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} is open to other users (mode {mode:04o})", path.display())]
    TooOpen { path: PathBuf, mode: u32 },
    #[error("{} is not an operator's file", path.display())]
    Malformed { path: PathBuf },
    #[error("the key in {} is not the one that its grant names", path.display())]
    OtherKey { path: PathBuf },
    #[error("the key cannot be used")]
    Key(#[from] rcgen::Error),
}

impl OperatorError {
    /// What puts it right.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "name the file that `starling operator new` made with --key or in STARLING_OPERATOR"
                    .to_owned()
            }
            Self::Write { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => {
                "choose another --out; a key is never overwritten".to_owned()
            }
            Self::TooOpen { path, .. } => format!(
                "`chmod go= {}`; if others may have read it, make another operator",
                path.display()
            ),
            Self::Malformed { .. } | Self::OtherKey { .. } => {
                "`starling operator new` makes another one where the root's key is".to_owned()
            }
            _ => return None,
        })
    }
}

impl Operator {
    /// Makes a key and has `grant` vouch for its public half.
    pub fn make<E: From<OperatorError>>(
        grant: impl FnOnce([u8; 32]) -> Result<SignedGrant, E>,
    ) -> Result<Self, E> {
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(OperatorError::Key)?;
        let grant = grant(public_key(&key))?;
        Ok(Self { key, grant })
    }

    /// Reads a file that nobody else may read.
    pub fn read(path: &Path) -> Result<Self, OperatorError> {
        let failed = |source| OperatorError::Read {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        let mode = meta.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(OperatorError::TooOpen {
                path: path.to_owned(),
                mode,
            });
        }
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        let operator = Self::parse(&bytes).ok_or_else(|| OperatorError::Malformed {
            path: path.to_owned(),
        })?;
        if public_key(&operator.key) != operator.grant.grant().public_key {
            return Err(OperatorError::OtherKey {
                path: path.to_owned(),
            });
        }
        Ok(operator)
    }

    /// Writes a new file with mode 0600.
    pub fn write(&self, path: &Path) -> Result<(), OperatorError> {
        let write = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)?;
            file.write_all(self.to_pem().as_bytes())?;
            file.sync_all()
        };
        write().map_err(|source| OperatorError::Write {
            path: path.to_owned(),
            source,
        })
    }

    /// What it may.
    pub fn grant(&self) -> &Grant {
        self.grant.grant()
    }

    /// Signs a draft: the document as it travels.
    pub fn sign(&self, draft: &Draft) -> Result<Vec<u8>, OperatorError> {
        let signature = self.key.sign(&draft.to_sign(&self.grant))?;
        Ok(draft.signed(&self.grant, signature))
    }

    /// What [`crate::pass`] has it sign, and the grant that goes with it.
    pub(crate) fn vouch(
        &self,
        to_sign: impl FnOnce(&SignedGrant) -> Vec<u8>,
    ) -> Result<(Vec<u8>, Vec<u8>), OperatorError> {
        let signature = self.key.sign(&to_sign(&self.grant))?;
        Ok((self.grant.encode(), signature))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let blocks: Vec<Pem> = Pem::iter_from_buffer(bytes)
            .collect::<Result<_, _>>()
            .ok()?;
        let block = |label: &str| blocks.iter().find(|block| block.label == label);
        Some(Self {
            key: KeyPair::try_from(block(KEY_LABEL)?.contents.as_slice()).ok()?,
            grant: SignedGrant::decode(&block(GRANT_LABEL)?.contents).ok()?,
        })
    }

    fn to_pem(&self) -> String {
        let grant = STANDARD.encode(self.grant.encode());
        let lines: Vec<_> = grant
            .as_bytes()
            .chunks(64)
            .map(String::from_utf8_lossy)
            .collect();
        format!(
            "{}-----BEGIN {GRANT_LABEL}-----\n{}\n-----END {GRANT_LABEL}-----\n",
            self.key.serialize_pem(),
            lines.join("\n")
        )
    }
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operator")
            .field("grant", self.grant.grant())
            .finish_non_exhaustive()
    }
}

/// How revocations name an operator's key: as `openssl pkey -in alice.operator -pubout -outform der | sha256sum` gives it.
pub fn key_hash(public_key: &[u8; 32]) -> KeyHash {
    KeyHash::from_bytes(documents::key_hash(public_key))
}

fn public_key(key: &KeyPair) -> [u8; 32] {
    key.der_bytes()
        .try_into()
        .expect("an Ed25519 public key has 32 bytes")
}

const KEY_LABEL: &str = "PRIVATE KEY";
const GRANT_LABEL: &str = "STARLING OPERATOR GRANT";

/// A key and a grant are 3 KiB at most.
const FILE_BYTES_MAX: u64 = 16 * 1024;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use starling_transport::{Identities, IdentitySet, TrustBundle, TrustDomain};

    use super::*;
    use crate::ca::{Authority, CaError, RootKey};
    use crate::state::{StateDir, TRUST};

    fn alice(state: &StateDir) -> Operator {
        let root = RootKey::load(state).unwrap();
        let kinds = ["policy".parse().unwrap()].into();
        Operator::make(|public_key| {
            let grant = root.grant(
                "alice".parse().unwrap(),
                public_key,
                kinds,
                1,
                Duration::from_secs(3600),
            );
            Ok::<_, OperatorError>(grant.unwrap())
        })
        .unwrap()
    }

    fn mesh(dir: &Path) -> StateDir {
        let state = StateDir::create(&dir.join("state")).unwrap();
        Authority::init(
            &state,
            &TrustDomain::parse("example.org").unwrap(),
            &"n1".parse().unwrap(),
        )
        .unwrap();
        state
    }

    #[test]
    fn an_operator_reads_back_and_only_its_owner_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let operator = alice(&mesh(dir.path()));
        let path = dir.path().join("alice.operator");
        operator.write(&path).unwrap();
        assert_eq!(Operator::read(&path).unwrap().grant(), operator.grant());
        assert!(matches!(
            operator.write(&path),
            Err(OperatorError::Write { .. })
        ));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let refused = Operator::read(&path).unwrap_err();
        assert!(
            matches!(refused, OperatorError::TooOpen { .. }),
            "{refused}"
        );
    }

    #[test]
    fn a_spoilt_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let state = mesh(dir.path());
        let (one, other) = (alice(&state), alice(&state));
        let path = dir.path().join("alice.operator");
        let mixed = Operator {
            key: one.key,
            grant: other.grant,
        };
        mixed.write(&path).unwrap();
        let refused = Operator::read(&path).unwrap_err();
        assert!(
            matches!(refused, OperatorError::OtherKey { .. }),
            "{refused}"
        );
        let whole = std::fs::read(&path).unwrap();
        for length in [0, 10, whole.len() / 2, whole.len() - 40] {
            std::fs::write(&path, &whole[..length]).unwrap();
            let refused = Operator::read(&path).unwrap_err();
            assert!(
                matches!(refused, OperatorError::Malformed { .. }),
                "{refused}"
            );
        }
    }

    #[test]
    fn the_mesh_knows_operators_of_its_root_and_no_others() {
        use starling_gossip::Verifier;
        let dir = tempfile::tempdir().unwrap();
        let state = mesh(dir.path());
        let root = RootKey::load(&state).unwrap();
        let trust_domain = TrustDomain::parse("example.org").unwrap();
        let authority = Authority::load(&state).unwrap();
        let id = starling_transport::SpiffeId::node(&trust_domain, "n1").unwrap();
        let issued = authority.issue(&id, Duration::from_secs(60)).unwrap();
        let (chain, key) = (issued.chain_pem.as_bytes(), issued.key_pem.as_bytes());
        let node = starling_transport::Svid::from_pem(chain, key).unwrap();
        let trust = TrustBundle::from_pem(trust_domain, &state.read(TRUST).unwrap()).unwrap();
        let identities = Identities::new(IdentitySet {
            trust,
            node: node.clone(),
            services: [].into(),
        });
        let verifier = crate::mesh::BundleVerifier::new(identities.clone());
        let message = b"a grant";
        verifier
            .root(message, &root.sign(message).unwrap())
            .unwrap();
        // Neither an issuer nor a node can make operators, though the root vouches for both.
        assert!(
            verifier
                .root(message, &node.sign(message).unwrap())
                .is_err()
        );
        let issuer = state.read_secret(crate::ca::INTERMEDIATE_KEY).unwrap();
        let issuer = KeyPair::from_pem(std::str::from_utf8(&issuer).unwrap()).unwrap();
        assert!(
            verifier
                .root(message, &issuer.sign(message).unwrap())
                .is_err()
        );
    }

    #[test]
    fn a_key_is_named_as_openssl_names_it() {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let spki = key.subject_public_key_info();
        assert_eq!(key_hash(&public_key(&key)), KeyHash::of(&spki));
    }

    #[test]
    fn without_the_roots_key_there_is_no_operator() {
        let dir = tempfile::tempdir().unwrap();
        let state = mesh(dir.path());
        std::fs::remove_file(state.path().join("ca/root.key")).unwrap();
        let refused = RootKey::load(&state).unwrap_err();
        assert!(matches!(refused, CaError::NoRootKey { .. }), "{refused}");
    }
}
