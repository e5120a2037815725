//! The URI name of a certificate.
#![no_main]

use starling_transport::SpiffeId;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(id) = SpiffeId::parse(text) {
        assert_eq!(id.as_str(), text, "an identity is written as it was read");
    }
});
