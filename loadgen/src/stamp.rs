//! What the generator writes into each payload, to know the message again when it arrives.
//!
//! Little endian. 18 bytes: intended time ns u64, lag of the first send attempt ns u32, sequence
//! u32, publisher u16. Payloads of 8 to 17 bytes carry 8: sequence u32, coarse intended time u32;
//! their topics have one publisher. Smaller payloads carry nothing.

/// The sequence of a message that only asks whether somebody listens.
pub const PROBE: u32 = u32::MAX;

/// One unit of the coarse time: 64 ns, so that 32 bits reach 274 s.
const COARSE_SHIFT: u32 = 6;

/// Which stamp fits into the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StampKind {
    /// Nothing: the run is counted, but neither checked nor timed.
    Absent,
    /// 8 bytes.
    Short,
    /// 18 bytes.
    Full,
}

impl StampKind {
    /// The largest stamp that fits.
    pub const fn of_payload(payload_len: usize) -> Self {
        match payload_len {
            0..8 => Self::Absent,
            8..18 => Self::Short,
            _ => Self::Full,
        }
    }

    /// Where in the payload the sequence stands.
    pub const fn sequence_at(self) -> usize {
        match self {
            Self::Full => 12,
            Self::Short | Self::Absent => 0,
        }
    }
}

/// One message's stamp. Times are nanoseconds of the generator's own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// When the schedule wanted it sent.
    pub intended_ns: u64,
    /// How much later it was first handed to the socket; `None` where there is no room for it.
    pub lag_ns: Option<u32>,
    /// Which message of its publisher and topic it is.
    pub sequence: u32,
    /// Who sent it; 0 where there is no room for it.
    pub publisher: u16,
}

impl Stamp {
    /// Writes the stamp to the front of `payload`.
    pub fn write(&self, kind: StampKind, payload: &mut [u8]) {
        match kind {
            StampKind::Absent => {}
            StampKind::Short => {
                payload[0..4].copy_from_slice(&self.sequence.to_le_bytes());
                payload[4..8].copy_from_slice(&coarse(self.intended_ns).to_le_bytes());
            }
            StampKind::Full => {
                payload[0..8].copy_from_slice(&self.intended_ns.to_le_bytes());
                payload[8..12].copy_from_slice(&self.lag_ns.unwrap_or(0).to_le_bytes());
                payload[12..16].copy_from_slice(&self.sequence.to_le_bytes());
                payload[16..18].copy_from_slice(&self.publisher.to_le_bytes());
            }
        }
    }

    /// Reads it back from a payload that arrived at `now_ns`; `None` if there is none.
    pub fn read(kind: StampKind, payload: &[u8], now_ns: u64) -> Option<Self> {
        match kind {
            StampKind::Absent => None,
            StampKind::Short => {
                let age = coarse(now_ns).wrapping_sub(read_u32(payload, 4)?);
                Some(Self {
                    intended_ns: now_ns.saturating_sub(u64::from(age) << COARSE_SHIFT),
                    lag_ns: None,
                    sequence: read_u32(payload, 0)?,
                    publisher: 0,
                })
            }
            StampKind::Full => Some(Self {
                intended_ns: u64::from_le_bytes(payload.get(0..8)?.try_into().ok()?),
                lag_ns: Some(read_u32(payload, 8)?),
                sequence: read_u32(payload, 12)?,
                publisher: u16::from_le_bytes(payload.get(16..18)?.try_into().ok()?),
            }),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "wraps on purpose: ages are differences"
)]
const fn coarse(time_ns: u64) -> u32 {
    (time_ns >> COARSE_SHIFT) as u32
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        intended_ns: 1_234_567_890_123,
        lag_ns: Some(4_567),
        sequence: 89,
        publisher: 0xABCD,
    };

    #[test]
    fn a_full_stamp_is_eighteen_bytes_and_reads_back_as_written() {
        let mut payload = [0xEE; 20];
        STAMP.write(StampKind::Full, &mut payload);
        assert_eq!(payload[18..], [0xEE, 0xEE]);
        assert_eq!(Stamp::read(StampKind::Full, &payload, 0), Some(STAMP));
        assert_eq!(payload[12..16], 89_u32.to_le_bytes());
    }

    #[test]
    fn a_short_stamp_keeps_the_sequence_and_the_age_to_64_ns() {
        let mut payload = [0xEE; 8];
        STAMP.write(StampKind::Short, &mut payload);
        // The coarse clock wraps between sending and receiving.
        for age_ns in [0, 1, 63, 64, 50_000, 200_000_000_000] {
            let now_ns = STAMP.intended_ns + age_ns;
            let read = Stamp::read(StampKind::Short, &payload, now_ns).unwrap();
            assert_eq!((read.sequence, read.lag_ns, read.publisher), (89, None, 0));
            assert!(
                read.intended_ns.abs_diff(STAMP.intended_ns) < 64,
                "{age_ns}"
            );
        }
    }

    #[test]
    fn the_payload_decides_which_stamp_it_carries() {
        for (payload_len, kind) in [
            (0, StampKind::Absent),
            (7, StampKind::Absent),
            (8, StampKind::Short),
            (17, StampKind::Short),
            (18, StampKind::Full),
        ] {
            assert_eq!(StampKind::of_payload(payload_len), kind);
        }
    }

    #[test]
    fn a_cut_payload_has_no_stamp() {
        assert_eq!(Stamp::read(StampKind::Full, &[0; 17], 0), None);
        assert_eq!(Stamp::read(StampKind::Short, &[0; 7], 0), None);
        assert_eq!(Stamp::read(StampKind::Absent, &[0; 64], 0), None);
    }
}
