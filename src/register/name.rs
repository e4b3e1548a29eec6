//! Names of topics, compared.

/// Whether two topics are equal. Why not `==`: for lengths that are not constant that is a call
/// into the C library, and most topics are shorter than such a call is long (9 % of the broker's
/// time in a stream of 64-byte messages).
#[inline]
pub(crate) fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && match one.len() {
            0..8 => one.iter().zip(other).all(|(a, b)| a == b),
            // Eight bytes from each end, overlapping in the middle.
            8..=16 => {
                one.first_chunk::<8>() == other.first_chunk::<8>()
                    && one.last_chunk::<8>() == other.last_chunk::<8>()
            }
            _ => one == other,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_the_same_only_if_every_byte_is() {
        for len in 0..40 {
            let topic: Vec<u8> = (0..len).collect();
            assert!(is_same(&topic, &topic.clone()));
            assert!(!is_same(&topic, &[&topic[..], b"x"].concat()));
            for at in 0..topic.len() {
                let mut other = topic.clone();
                other[at] ^= 0x80;
                assert!(!is_same(&topic, &other), "{len} bytes, different at {at}");
            }
        }
    }
}
