//! The Huffman code of RFC 7541 Appendix B, which QPACK shares with HPACK.
//!
//! The code is canonical, so the lengths alone define it; the decoder's tables are derived from them at compile time.

use super::QpackError;

/// Code length in bits of every byte, then of the end-of-string symbol.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];
const BITS_MIN: usize = 5;
const BITS_MAX: usize = 30;
const TABLES: Tables = Tables::derive();

/// Appends what `encoded` stands for to `out`, at most `bytes_max` bytes of it. The end-of-string symbol is invalid, and so
/// is padding that is too long or not all ones.
pub(super) fn decode(
    encoded: &[u8],
    bytes_max: usize,
    out: &mut Vec<u8>,
) -> Result<(), QpackError> {
    let end = out.len().saturating_add(bytes_max);
    let (mut window, mut held) = (0u64, 0usize);
    let mut rest = encoded.iter();
    loop {
        while held <= 56 {
            let Some(byte) = rest.next() else { break };
            window |= u64::from(*byte) << (56 - held);
            held += 8;
        }
        if held < BITS_MIN {
            return padding(window, held);
        }
        let (symbol, bits) = TABLES.symbol(window).ok_or(QpackError::Invalid)?;
        if bits > held {
            return padding(window, held);
        }
        let byte = u8::try_from(symbol).map_err(|_end_of_string| QpackError::Invalid)?;
        if out.len() >= end {
            return Err(QpackError::TooLarge);
        }
        out.push(byte);
        window <<= bits;
        held -= bits;
    }
}

/// What is left after the last symbol must be fewer than eight bits, all ones.
fn padding(window: u64, held: usize) -> Result<(), QpackError> {
    let ones = held == 0 || window >> (64 - held) == (1 << held) - 1;
    if held < 8 && ones {
        Ok(())
    } else {
        Err(QpackError::Invalid)
    }
}

/// For each code length: the first code left-aligned to 32 bits, the end of its range, and where its symbols start.
struct Tables {
    first: [u64; BITS_MAX + 1],
    limit: [u64; BITS_MAX + 1],
    start: [u16; BITS_MAX + 1],
    symbols: [u16; 257],
}

impl Tables {
    const fn derive() -> Self {
        let mut tables = Self {
            first: [0; BITS_MAX + 1],
            limit: [0; BITS_MAX + 1],
            start: [0; BITS_MAX + 1],
            symbols: [0; 257],
        };
        let (mut bits, mut code, mut placed) = (BITS_MIN, 0u64, 0usize);
        while bits <= BITS_MAX {
            tables.first[bits] = code << (32 - bits);
            tables.start[bits] = placed as u16;
            let mut symbol = 0;
            while symbol < LENGTHS.len() {
                if LENGTHS[symbol] as usize == bits {
                    tables.symbols[placed] = symbol as u16;
                    placed += 1;
                    code += 1;
                }
                symbol += 1;
            }
            tables.limit[bits] = code << (32 - bits);
            code <<= 1;
            bits += 1;
        }
        tables
    }

    /// The symbol at the front of a left-aligned window of bits, and its length.
    fn symbol(&self, window: u64) -> Option<(u16, usize)> {
        let front = window >> 32;
        let bits = (BITS_MIN..=BITS_MAX).find(|bits| front < self.limit[*bits])?;
        let nth = (front - self.first[bits]) >> (32 - bits);
        let symbol = self
            .symbols
            .get(usize::from(self.start[bits]) + nth as usize)?;
        Some((*symbol, bits))
    }
}

/// The other direction, to test against: we never send Huffman codes.
#[cfg(test)]
pub(super) fn encode(text: &[u8]) -> Vec<u8> {
    let (mut out, mut window, mut held) = (Vec::new(), 0u64, 0);
    for byte in text {
        let bits = usize::from(LENGTHS[usize::from(*byte)]);
        let place = TABLES
            .symbols
            .iter()
            .position(|symbol| *symbol == u16::from(*byte))
            .unwrap();
        let nth = (place - usize::from(TABLES.start[bits])) as u64;
        window = window << bits | ((TABLES.first[bits] >> (32 - bits)) + nth);
        held += bits;
        while held >= 8 {
            held -= 8;
            out.push((window >> held) as u8);
        }
    }
    if held > 0 {
        out.push((window << (8 - held)) as u8 | u8::MAX >> held);
    }
    out
}
