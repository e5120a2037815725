//! A certificate signing request, as an issuer gets it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| starling::ca::fuzz_request(data));
