//! A configuration file, as an operator mistypes it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| starling::config::fuzz(data));
