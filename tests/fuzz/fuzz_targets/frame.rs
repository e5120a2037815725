//! A gossip frame, as a peer sends it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| starling_gossip::fuzz::fuzz_frame(data));
