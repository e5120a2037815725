//! A path, as a caller sends it or a rule names it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| starling::path::fuzz(data));
