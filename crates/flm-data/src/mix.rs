//! A fixed hash of a number.

/// The output function of SplitMix64 (Steele, Lea and Flood, 2014): a bijection of 64-bit numbers
/// in which every input bit changes every output bit with a probability of about one half.
pub(crate) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_splitmix64() {
        // The first output of the reference implementation with state 0.
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
    }
}
