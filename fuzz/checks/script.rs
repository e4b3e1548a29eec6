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

pub(crate) fn list(id: u8, argument: u8) -> Vec<u8> {
    let (first, second) = (argument % 4, argument / 4 % 4);
    match argument / 16 % 2 {
        0 => vec![id, 2, 1, first],
        _ => vec![id, 4, 1, first, 1, second],
    }
}

pub(crate) fn publish(topic: &[u8], data_len: u8) -> Vec<u8> {
    let data = vec![0xD5; usize::from(data_len).min(253)];
    let payload_len = u8::try_from(2 + data.len()).expect("it fits");
    [&[5, payload_len, 1], topic, &data].concat()
}
