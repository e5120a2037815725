//! A document of kind `policy`, and a path to judge by it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| starling::policy::fuzz(data));
