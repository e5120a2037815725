//! A token, as it is mistyped or forged.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| starling::token::fuzz(data));
