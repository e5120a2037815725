//! A leaf certificate with its line, as a stranger shows it in a handshake.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _leaf = starling_transport::Leaf::parse(data);
    let _line = starling_transport::Line::from_extension(data);
});
