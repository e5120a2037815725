//! A document, a grant and lists of them, as a peer, an operator or a file has them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| starling_gossip::fuzz::fuzz_document(data));
