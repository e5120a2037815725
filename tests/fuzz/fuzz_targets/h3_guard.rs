//! The bytes of an HTTP/3 stream.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| starling_transport::h3::guard::check_bytes(data));
