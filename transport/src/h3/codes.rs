//! HTTP/3 error codes (RFC 9114 §8.1, RFC 9204 §6) as they go on the wire.

use ::h3::error::Code;

pub(super) const NO_ERROR: u64 = Code::H3_NO_ERROR.value();
pub(super) const INTERNAL_ERROR: u64 = Code::H3_INTERNAL_ERROR.value();
pub(super) const STREAM_CREATION_ERROR: u64 = Code::H3_STREAM_CREATION_ERROR.value();
pub(super) const CLOSED_CRITICAL_STREAM: u64 = Code::H3_CLOSED_CRITICAL_STREAM.value();
pub(super) const FRAME_UNEXPECTED: u64 = Code::H3_FRAME_UNEXPECTED.value();
pub(super) const FRAME_ERROR: u64 = Code::H3_FRAME_ERROR.value();
pub(super) const EXCESSIVE_LOAD: u64 = Code::H3_EXCESSIVE_LOAD.value();
pub(super) const ID_ERROR: u64 = Code::H3_ID_ERROR.value();
pub(super) const SETTINGS_ERROR: u64 = Code::H3_SETTINGS_ERROR.value();
pub(super) const MISSING_SETTINGS: u64 = Code::H3_MISSING_SETTINGS.value();
pub(super) const REQUEST_REJECTED: u64 = Code::H3_REQUEST_REJECTED.value();
pub(super) const REQUEST_CANCELLED: u64 = Code::H3_REQUEST_CANCELLED.value();
pub(super) const REQUEST_INCOMPLETE: u64 = Code::H3_REQUEST_INCOMPLETE.value();
pub(super) const MESSAGE_ERROR: u64 = Code::H3_MESSAGE_ERROR.value();
pub(super) const CONNECT_ERROR: u64 = Code::H3_CONNECT_ERROR.value();
pub(super) const QPACK_DECOMPRESSION_FAILED: u64 = Code::QPACK_DECOMPRESSION_FAILED.value();
pub(super) const QPACK_ENCODER_STREAM_ERROR: u64 = Code::QPACK_ENCODER_STREAM_ERROR.value();
pub(super) const QPACK_DECODER_STREAM_ERROR: u64 = Code::QPACK_DECODER_STREAM_ERROR.value();
