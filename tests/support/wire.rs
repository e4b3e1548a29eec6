//! Frames as literal bytes. Shares no code with the crate: what is split and joined here is what
//! the protocol says, not what the codec under test does.

pub(crate) const CONNECT: [u8; 2] = [1, 0];
pub(crate) const DISCONNECT: [u8; 2] = [2, 0];

pub(crate) fn frame(id: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![
        id,
        u8::try_from(payload.len()).expect("a payload of a test fits"),
    ];
    frame.extend_from_slice(payload);
    frame
}

/// A CONNECT that asks for extensions, by their bits, and promises a byte every so many seconds.
pub(crate) fn hello(want: u8, keepalive: u8) -> Vec<u8> {
    frame(1, &[0xFF, b'H', b'+', want, keepalive])
}

/// Its answer.
pub(crate) fn hello_answer(have: u8, status: u8) -> Vec<u8> {
    frame(1, &[0xFF, b'H', b'+', have, status])
}

pub(crate) const ACK: u8 = 1;
pub(crate) const WILD: u8 = 4;
pub(crate) const PING: [u8; 2] = [4, 0];

pub(crate) fn pong(dropped: u32) -> Vec<u8> {
    frame(4, &[&[0xFF], &dropped.to_be_bytes()[..]].concat())
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let mut string = vec![u8::try_from(bytes.len()).expect("a topic of a test fits")];
    string.extend_from_slice(bytes);
    string
}

pub(crate) fn subscribe<T: AsRef<[u8]>>(topics: &[T]) -> Vec<u8> {
    let list: Vec<_> = topics.iter().map(|topic| string(topic.as_ref())).collect();
    frame(3, &list.concat())
}

pub(crate) fn unsubscribe<T: AsRef<[u8]>>(topics: &[T]) -> Vec<u8> {
    let list: Vec<_> = topics.iter().map(|topic| string(topic.as_ref())).collect();
    frame(4, &list.concat())
}

pub(crate) fn publish(topic: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Vec<u8> {
    let mut payload = string(topic.as_ref());
    payload.extend_from_slice(data.as_ref());
    frame(5, &payload)
}

/// Splits the first whole frame off.
pub(crate) fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = 2 + usize::from(*bytes.get(1)?);
    (bytes.len() >= len).then(|| bytes.split_at(len))
}

/// `count` frames of topic `topic` whose data is their number, four bytes big-endian.
pub(crate) fn numbered(topic: &str, count: u32) -> Vec<u8> {
    (0..count)
        .flat_map(|number| publish(topic, number.to_be_bytes()))
        .collect()
}
