//! What tests that start real agents share.
