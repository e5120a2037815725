//! Ways in for a fuzzer: everything that reads bytes of a peer. Each panics if what it read would be written differently.

use crate::documents::system;
use crate::wire::credentials::{Credentials, hash};
use crate::wire::document::{
    Bodies, Envelope, Kept, Listing, Parts, Rooms, SignedGrantWire, encode_content, encode_grant,
};
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

/// Reads `bytes` as everything that has to do with documents.
pub fn fuzz_document(bytes: &[u8]) {
    if let Ok((envelope, grant, draft)) = Envelope::decode(bytes) {
        assert_eq!(envelope.encode(), bytes);
        let grant_hash = match &grant {
            Some(grant) => {
                assert_eq!(encode_grant(grant), envelope.grant.0);
                hash(&envelope.grant.0)
            }
            None => [0; 32],
        };
        assert_eq!(encode_content(&draft, grant_hash), envelope.content.0);
        for row in &draft.rows {
            let _read = system::read(&row.key(&draft.kind), &row.body, row.deleted, &[1; 32]);
        }
    }
    if let Ok((signed, grant)) = SignedGrantWire::decode(bytes) {
        assert_eq!(signed.encode(), bytes);
        assert_eq!(encode_grant(&grant), signed.grant.0);
    }
    if let Ok(rooms) = Rooms::decode(bytes) {
        assert_eq!(rooms.encode(), bytes);
    }
    if let Ok(parts) = Parts::decode(bytes) {
        assert_eq!(parts.encode(), bytes);
    }
    if let Ok(listing) = Listing::decode(bytes) {
        assert_eq!(listing.encode(), bytes);
    }
    if let Ok(bodies) = Bodies::decode(bytes) {
        assert_eq!(bodies.encode(), bytes);
    }
    if let Ok(kept) = Kept::decode(bytes) {
        assert_eq!(kept.encode(), bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::documents::{BODY_BYTES_MAX, Draft, DraftRow, Grant, SignedGrant};
    use crate::local::State;
    use crate::metrics::Refusal;
    use crate::names::{DocumentKind, NodeId, OperatorName, ServiceName};
    use crate::summary::{CallEnd, Summary, SummaryEdge};
    use crate::wire::credentials::{CREDENTIALS_BYTES_MAX, ServiceProof};
    use crate::wire::manifest::{Extra, MANIFEST_BYTES_MAX, Service};
    use crate::wire::{Blob, Entry, Row, Vouched};

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
            docs: Some([3; 32]),
            docs_out_of_force: 2,
            summary: None,
            later: Vec::new(),
        }
    }

    /// One with more than the first version had, something of a later version included.
    fn extended() -> Manifest {
        let edge = SummaryEdge {
            end: CallEnd::Callee,
            caller: ServiceName::parse("web").unwrap(),
            callee: ServiceName::parse("orders").unwrap(),
            protocol: "http".into(),
            calls: 700,
            failed: 1,
            denied: 2,
            open: 3,
            percentiles_us: Some([4, 5, 6]),
        };
        Manifest {
            summary: Some(Summary {
                lasted_s: 61,
                edges: vec![edge],
            }),
            later: vec![Extra {
                tag: 9,
                body: Blob(vec![1, 2, 3]),
            }],
            ..manifest()
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

    fn grant() -> Grant {
        Grant {
            trust_domain: "example.org".into(),
            operator: OperatorName::parse("alice").unwrap(),
            public_key: [4; 32],
            kinds: ["policy", "route"]
                .map(|kind| DocumentKind::parse(kind).unwrap())
                .into(),
            rank: 3,
            not_before: 1,
            not_after: 2_000_000_000,
            serial: [5; 16],
        }
    }

    fn draft() -> Draft {
        Draft {
            kind: "policy".parse().unwrap(),
            issued: 1_790_000_000,
            rows: vec![DraftRow {
                name: "orders".parse().unwrap(),
                revision: 7,
                replaces: Some([3; 32]),
                deleted: false,
                body: "[[grant]]".into(),
            }],
        }
    }

    fn document_samples() -> Vec<Vec<u8>> {
        let signed = grant().signed(vec![6; 71]).unwrap();
        let document = draft().signed(&signed, vec![8; 64]);
        let row = Row {
            kind: "policy".into(),
            name: "orders".into(),
            revision: 7,
            issued: 1_790_000_000,
            deleted: false,
            hash: [9; 32],
            signer: [8; 32],
            rank: 1,
            packet: [7; 32],
            packet_bytes: 700,
        };
        vec![
            document.clone(),
            signed.encode(),
            Listing {
                rows: vec![row],
                more: true,
            }
            .encode(),
            Bodies {
                documents: vec![Blob(document.clone())],
            }
            .encode(),
            Rooms {
                rooms: vec![(String::new(), [1; 32]), ("policy".into(), [2; 32])],
            }
            .encode(),
            Parts {
                parts: vec![(0, [1; 32]), (255, [2; 32])],
            }
            .encode(),
            Kept {
                heard_at: 1_790_000_000,
                packet: Blob(document),
            }
            .encode(),
        ]
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
            extended().encode(),
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
            Question::Bodies {
                hashes: vec![[9; 32]],
            }
            .encode(),
        ]
        .into_iter()
        .chain(document_samples())
        .collect()
    }

    fn read(bytes: &[u8]) {
        fuzz_frame(bytes);
        fuzz_manifest(bytes);
        fuzz_document(bytes);
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

    #[test]
    fn documents_read_back() {
        let signed = grant().signed(vec![6; 71]).unwrap();
        assert_eq!(SignedGrant::decode(&signed.encode()), Ok(signed.clone()));
        let (_, read_grant, read_draft) = Envelope::decode(&document_samples()[0]).unwrap();
        assert_eq!((read_grant, read_draft), (Some(grant()), draft()));
    }

    fn no_document(change: impl FnOnce(&mut Draft), refusal: Refusal) {
        let mut draft = draft();
        change(&mut draft);
        let signed = grant().signed(vec![6; 71]).unwrap();
        let document = draft.signed(&signed, vec![8; 64]);
        assert_eq!(
            Envelope::decode(&document).err(),
            Some(refusal),
            "{}",
            draft.rows[0].body.len()
        );
    }

    #[test]
    fn documents_that_make_no_sense_are_refused() {
        no_document(|draft| draft.rows[0].revision = 0, Refusal::Number);
        no_document(|draft| draft.rows[0].revision = u64::MAX, Refusal::Number);
        no_document(
            |draft| draft.rows[0].revision = draft.issued + 1,
            Refusal::Number,
        );
        no_document(|draft| draft.rows[0].deleted = true, Refusal::Malformed);
        let twice = |draft: &mut Draft| draft.rows.push(draft.rows[0].clone());
        no_document(twice, Refusal::Malformed);
        let long = "x".repeat(BODY_BYTES_MAX + 1);
        no_document(|draft| draft.rows[0].body = long, Refusal::TooLarge);
        let longer = "x".repeat(4 * BODY_BYTES_MAX);
        no_document(|draft| draft.rows[0].body = longer, Refusal::TooLarge);
    }

    #[test]
    fn a_document_goes_with_one_grant_only() {
        let (one, other) = (
            grant(),
            Grant {
                serial: [1; 16],
                ..grant()
            },
        );
        let [one, other] = [one, other].map(|grant| grant.signed(vec![6; 71]).unwrap());
        let (mut envelope, ..) = Envelope::decode(&draft().signed(&one, vec![8; 64])).unwrap();
        let (of_other, ..) = Envelope::decode(&draft().signed(&other, vec![8; 64])).unwrap();
        envelope.grant = of_other.grant;
        assert_eq!(
            Envelope::decode(&envelope.encode()).err(),
            Some(Refusal::Grant)
        );
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
    fn what_goes_beyond_the_first_version_is_read_carried_or_refused() {
        let good = extended();
        assert_eq!(good.encode()[0], 2);
        assert_eq!(Manifest::decode(&good.encode()), Ok(good.clone()));
        // Who has nothing more to say is read by everybody.
        assert_eq!(manifest().encode()[0], 1);
        refused(|m| {
            m.later = vec![good.later[0].clone(), good.later[0].clone()];
        });
        refused(|m| {
            m.later = (10..19)
                .map(|tag| Extra {
                    tag,
                    body: Blob(Vec::new()),
                })
                .collect();
        });
        refused(|m| m.summary = Some(Summary::default()));
        let mut nothing_more = manifest().encode();
        nothing_more[0] = 2;
        nothing_more.push(0);
        assert_eq!(Manifest::decode(&nothing_more), Err(Refusal::Malformed));
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
            which in 0usize..13,
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
