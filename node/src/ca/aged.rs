//! Certificates that were signed a while ago, for tests.

use std::time::{Duration, SystemTime};

use starling_transport::SpiffeId;

use super::{Asking, Authority, Issued, new_line, request, template};

impl Authority {
    /// A certificate of `id` that lives `life`, of which `age` is over.
    pub(crate) fn issue_aged(&self, id: &SpiffeId, life: Duration, age: Duration) -> Issued {
        let signed = SystemTime::now() - age;
        let not_after = signed + life;
        let asking = Asking::new(id).unwrap();
        let key = request::check(&asking.request, id).unwrap();
        let mut line = new_line(signed).unwrap();
        line.signers
            .add_intermediate(&self.intermediate_der)
            .unwrap();
        let leaf = template::leaf(id, None, &line, signed, not_after).unwrap();
        let leaf = leaf.signed_by(&key, &self.issuer).unwrap();
        Issued {
            chain_pem: leaf.pem() + &self.intermediate_pem,
            key_pem: asking.key_pem,
            not_after,
        }
    }
}
