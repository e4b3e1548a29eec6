//! A script of operations, read off any bytes, and the frames that its operations send.

pub(crate) struct Script<'a>(pub(crate) &'a [u8]);

impl Script<'_> {
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    pub(crate) fn bytes(&mut self, count: u8) -> Vec<u8> {
        let (bytes, rest) = self.0.split_at(usize::from(count).min(self.0.len()));
        self.0 = rest;
        bytes.to_vec()
    }
}

/// A CONNECT of the base protocol, or one that asks for extensions.
pub(crate) fn connect(argument: u8) -> Vec<u8> {
    match argument / 16 {
        0..8 => vec![1, 0],
        8 => vec![1, 4, 0xFF, b'H', b'+', argument % 8],
        9 => vec![1, 5, 0xFF, b'H', b'+', argument % 8, 1],
        _ => vec![1, 5, 0xFF, b'H', b'+', argument % 8, 0],
    }
}

/// A few topics or filters, or none, which is a ping of those who may send one.
pub(crate) fn list(id: u8, argument: u8) -> Vec<u8> {
    let (first, second) = (argument % 4, argument / 4 % 4);
    match argument / 16 {
        8 => vec![id, 2, 1, b'+'],
        9 => vec![id, 4, 1, b'#', 1, first],
        10 => vec![id, 4, 3, first, b'/', b'#'],
        11 => vec![id, 3, 2, first, b'+'],
        12 => vec![id, 5, 1, first, 2, second, b'#'],
        13 | 14 => vec![id, 0],
        15 => vec![id, 2, 3, first],
        even if even % 2 == 0 => vec![id, 2, 1, first],
        _ => vec![id, 4, 1, first, 1, second],
    }
}

pub(crate) fn publish(topic: &[u8], data_len: u8) -> Vec<u8> {
    let data = vec![0xD5; usize::from(data_len).min(253)];
    let payload_len = u8::try_from(2 + data.len()).expect("it fits");
    [&[5, payload_len, 1], topic, &data].concat()
}
