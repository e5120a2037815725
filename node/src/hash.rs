//! A hash that is the same on every node and in every version, so that agents agree where a key belongs.

/// FNV-1a over the bytes, then mixed so that near keys land far apart.
pub(crate) fn of(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(fnv)
}

/// Another hash of what `hash` is a hash of; `round` tells them apart.
pub(crate) fn again(hash: u64, round: u64) -> u64 {
    mix(hash ^ round.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// The finalizer of splitmix64.
fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes of different versions must agree: these values never change.
    #[test]
    fn values_are_fixed() {
        assert_eq!(of(b""), 0xf52a_15e9_a9b5_e89b);
        assert_eq!(of(b"alice"), of(b"alice"));
        assert_ne!(of(b"alice"), of(b"alicf"));
        assert_ne!(again(of(b"alice"), 1), again(of(b"alice"), 2));
    }

    #[test]
    fn short_keys_spread() {
        let mut buckets = [0; 16];
        for key in 0..16_000_u32 {
            buckets[(of(key.to_string().as_bytes()) % 16) as usize] += 1;
        }
        assert!(
            buckets.iter().all(|count| (850..1150).contains(count)),
            "{buckets:?}"
        );
    }
}
