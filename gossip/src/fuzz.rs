//! Ways in for a fuzzer: everything that reads bytes of a peer. Each panics if what it read would be written differently.

use crate::wire::credentials::Credentials;
use crate::wire::manifest::{Manifest, Record};
use crate::wire::{Frame, Page, Question};

/// Reads `bytes` as a record, a manifest and credentials.
pub fn fuzz_manifest(bytes: &[u8]) {
    if let Ok((record, manifest)) = Record::decode(bytes) {
        assert_eq!(record.encode(), bytes);
        assert_eq!(manifest.encode(), record.manifest.0);
    }
    if let Ok(manifest) = Manifest::decode(bytes) {
        assert_eq!(manifest.encode(), bytes);
    }
    if let Ok(credentials) = Credentials::decode(bytes) {
        assert_eq!(Credentials::decode(&credentials.encode()), Ok(credentials));
    }
}

/// Reads `bytes` as a frame, a question and an answer, and the records in them.
pub fn fuzz_frame(bytes: &[u8]) {
    if let Ok(frame) = Frame::decode(bytes) {
        assert_eq!(frame.encode(), bytes);
        match frame {
            Frame::SynAck { records, .. }
            | Frame::Ack { records, .. }
            | Frame::Rumour { records, .. } => {
                records.iter().for_each(|record| fuzz_manifest(&record.0));
            }
            Frame::Syn { .. } => {}
        }
    }
    if let Ok(question) = Question::decode(bytes) {
        assert_eq!(question.encode(), bytes);
    }
    if let Ok(page) = Page::decode(bytes) {
        assert_eq!(page.encode(), bytes);
        for vouched in page.records {
            fuzz_manifest(&vouched.record.0);
            fuzz_manifest(&vouched.credentials.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::local::State;
    use crate::metrics::Refusal;
    use crate::names::{NodeId, ServiceName};
    use crate::wire::credentials::{CREDENTIALS_BYTES_MAX, ServiceProof};
    use crate::wire::manifest::{MANIFEST_BYTES_MAX, Service};
    use crate::wire::{Blob, Entry, Vouched};

    fn manifest() -> Manifest {
        let service = |name: &str| Service {
            name: ServiceName::parse(name).unwrap(),
            protocol: "http".into(),
            labels: [("version".into(), "v2".into())].into(),
            weight: 100,
            healthy: true,
        };
        Manifest {
            trust_domain: [1; 16],
            node: NodeId::of("spiffe://example.org/node/n1"),
            generation: 1_790_000_000_000,
            sequence: 7,
            kv_version: 7,
            issued: 1_790_000_000,
            ttl_s: 900,
            cell: 0,
            state: State::Serving,
            addrs: vec![
                "10.0.0.1:7400".parse().unwrap(),
                "[fd00::1]:7400".parse().unwrap(),
            ],
            zone: "rack-1".into(),
            caps: 0,
            services: vec![service("orders"), service("web")],
            calls: vec![ServiceName::parse("db").unwrap()],
            credentials: [2; 32],
            docs: vec![],
        }
    }

    fn record() -> Record {
        Record {
            manifest: Blob(manifest().encode()),
            signature: Blob(vec![3; 64]),
        }
    }

    fn credentials() -> Credentials {
        let chain = vec![vec![4; 300], vec![5; 300]];
        let proof = ServiceProof {
            chain: vec![vec![6; 300], vec![5; 300]],
            signature: vec![7; 64],
        };
        Credentials {
            chain,
            services: BTreeMap::from([(ServiceName::parse("web").unwrap(), proof)]),
        }
    }

    fn samples() -> Vec<Vec<u8>> {
        let entry = Entry {
            node: [8; 16],
            generation: 1,
            heartbeat: 2,
            version: 3,
        };
        let record = Blob(record().encode());
        let vouched = Vouched {
            record: record.clone(),
            credentials: Blob(credentials().encode()),
        };
        vec![
            record.0.clone(),
            manifest().encode(),
            credentials().encode(),
            Frame::SynAck {
                nonce: 1,
                digest: vec![entry],
                records: vec![record],
            }
            .encode(),
            Question::All {
                after: Some([9; 16]),
            }
            .encode(),
            Page {
                records: vec![vouched],
                more: true,
            }
            .encode(),
        ]
    }

    fn read(bytes: &[u8]) {
        fuzz_frame(bytes);
        fuzz_manifest(bytes);
    }

    #[test]
    fn what_is_right_reads_back() {
        assert_eq!(
            Record::decode(&record().encode()),
            Ok((record(), manifest()))
        );
        assert_eq!(
            Credentials::decode(&credentials().encode()),
            Ok(credentials())
        );
        samples().iter().for_each(|bytes| read(bytes));
    }

    fn refused(change: impl FnOnce(&mut Manifest)) {
        let mut manifest = manifest();
        change(&mut manifest);
        assert_eq!(
            Manifest::decode(&manifest.encode()),
            Err(Refusal::Malformed),
            "{manifest:?}"
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        refused(|m| m.addrs.clear());
        refused(|m| m.addrs = vec!["0.0.0.0:7400".parse().unwrap()]);
        refused(|m| m.addrs = vec!["10.0.0.1:0".parse().unwrap()]);
        refused(|m| m.addrs = vec![m.addrs[0]; 9]);
        refused(|m| m.generation = 0);
        refused(|m| m.sequence = 0);
        refused(|m| m.kv_version = u64::MAX);
        refused(|m| m.ttl_s = 0);
        refused(|m| m.ttl_s = 3601);
        refused(|m| m.zone = "a\nb".into());
        refused(|m| m.services.reverse());
        refused(|m| m.services[1] = m.services[0].clone());
        refused(|m| m.services[0].protocol.clear());
        refused(|m| m.services[0].labels = [("a b".into(), String::new())].into());
    }

    #[test]
    fn what_is_too_large_is_not_even_read() {
        assert_eq!(
            Manifest::decode(&vec![1; MANIFEST_BYTES_MAX + 1]),
            Err(Refusal::TooLarge)
        );
        assert_eq!(
            Credentials::decode(&vec![1; CREDENTIALS_BYTES_MAX + 1]),
            Err(Refusal::TooLarge)
        );
    }

    #[test]
    fn a_chain_is_short_and_points_to_what_is_there() {
        let mut long = credentials();
        long.chain = vec![vec![1]; 5];
        assert_eq!(Credentials::decode(&long.encode()), Err(Refusal::Malformed));
        long.chain.clear();
        assert_eq!(Credentials::decode(&long.encode()), Err(Refusal::Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            read(&bytes);
            read(&[&[1], &bytes[..]].concat());
        }

        #[test]
        fn anything_near_what_is_right_is_read_or_refused(
            which in 0usize..6,
            edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = samples().remove(which);
            for (at, byte) in edits {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            read(&bytes);
            bytes.truncate(cut.index(bytes.len()));
            read(&bytes);
        }
    }
}
