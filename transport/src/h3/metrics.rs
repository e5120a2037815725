//! What this crate counts of HTTP/3.

use metrics::{Unit, counter, describe_counter};

use super::guard::Reason;

/// Messages, streams and connections of peers that were refused, by `reason`.
pub const REFUSED_TOTAL: &str = "starling_h3_refused_total";

/// Gives the recorder the help texts. Call once it is installed.
pub fn describe() {
    describe_counter!(
        REFUSED_TOTAL,
        Unit::Count,
        "HTTP/3 messages and streams of peers refused as malformed or excessive, by reason; not what policy denied"
    );
}

/// Counts one refusal.
pub(super) fn refused(reason: Reason) {
    counter!(REFUSED_TOTAL, "reason" => reason.label()).increment(1);
}
