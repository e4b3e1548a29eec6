//! The MQTT dialect: 3.1.1 at QoS 0. A delivered packet is byte for byte the published one.

use super::{Delivery, Template, topic_name};

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;

/// What a connection says first: a clean session, no keep-alive, an id of the server's choice.
pub fn greeting() -> Vec<u8> {
    packet(CONNECT, b"\x00\x04MQTT\x04\x02\x00\x00\x00\x00")
}

/// What a subscriber says next: one packet for all topics.
pub fn subscribe(topics: impl Iterator<Item = usize>) -> Vec<u8> {
    let mut body = vec![0, 1];
    for topic in topics {
        body.extend(string(topic));
        body.push(0);
    }
    packet(SUBSCRIBE, &body)
}

/// How a message is published, and how it arrives.
pub fn publish(topic: usize, payload_len: usize) -> Template {
    let body = [string(topic), vec![0; payload_len]].concat();
    let bytes = packet(PUBLISH, &body);
    Template::new(&bytes[..bytes.len() - payload_len], payload_len, b"")
}

/// Splits the first packet off `input`; `None` until it is whole.
pub fn split(input: &[u8]) -> Option<(Delivery<'_>, usize)> {
    let (&kind, rest) = input.split_first()?;
    let Some((body_len, length_len)) = remaining_length(rest)? else {
        // Nothing behind a length that is none can be found again.
        return Some((Delivery::Other, input.len()));
    };
    let body = rest.get(length_len..length_len + body_len)?;
    let delivery = match (kind, body) {
        (PUBLISH, body) => message(body).unwrap_or(Delivery::Other),
        (CONNACK, [_, 0]) => Delivery::Answer,
        (CONNACK, _) => Delivery::Complaint(b"CONNACK: connection refused"),
        (SUBACK, [_, _, codes @ ..]) if codes.iter().all(|&code| code == 0) => Delivery::Answer,
        (SUBACK, _) => Delivery::Complaint(b"SUBACK: subscription refused"),
        _ => Delivery::Other,
    };
    Some((delivery, 1 + length_len + body_len))
}

fn message(body: &[u8]) -> Option<Delivery<'_>> {
    let (&topic_len, rest) = body.split_first_chunk()?;
    let (topic, payload) = rest.split_at_checked(u16::from_be_bytes(topic_len).into())?;
    Some(Delivery::Message { topic, payload })
}

/// Seven bits per byte, at most four bytes: the length and how many bytes said it. The outer
/// `None` until all are there, the inner one if there are too many.
fn remaining_length(input: &[u8]) -> Option<Option<(usize, usize)>> {
    let mut len = 0;
    for index in 0..4 {
        let byte = *input.get(index)?;
        len |= usize::from(byte & 0x7F) << (7 * index);
        if byte < 0x80 {
            return Some(Some((len, index + 1)));
        }
    }
    Some(None)
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    let mut rest = body.len();
    while rest >= 0x80 {
        bytes.push(rest.to_le_bytes()[0] | 0x80);
        rest /= 0x80;
    }
    bytes.push(rest.to_le_bytes()[0]);
    bytes.extend_from_slice(body);
    bytes
}

fn string(topic: usize) -> Vec<u8> {
    let name = topic_name(topic);
    let len = u16::try_from(name.len()).expect("a topic of ours is short");
    [&len.to_be_bytes(), name.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_written_as_the_standard_has_it() {
        assert_eq!(greeting(), b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00");
        let subscription = b"\x82\x12\x00\x01\x00\x05t0000\x00\x00\x05t001f\x00";
        assert_eq!(subscribe([0, 31].into_iter()), subscription);
        let template = publish(0x1f, 2);
        assert_eq!(template.bytes, b"\x30\x09\x00\x05t001f\0\0");
        assert_eq!(template.payload_at, 9);
    }

    #[test]
    fn a_delivery_splits_into_topic_and_payload_wherever_it_is_cut() {
        // One and two bytes of length.
        for payload_len in [3, 200] {
            let bytes = publish(0x1f, payload_len).bytes;
            let payload = &vec![0; payload_len][..];
            let topic = b"t001f";
            for cut in 0..bytes.len() {
                assert_eq!(split(&bytes[..cut]), None, "{cut}");
            }
            let followed = [&bytes[..], b"\x30"].concat();
            let message = Delivery::Message { topic, payload };
            assert_eq!(split(&followed), Some((message, bytes.len())));
        }
    }

    #[test]
    fn acknowledgements_refusals_and_strangers_are_told_apart() {
        let refused = Delivery::Complaint(b"CONNACK: connection refused");
        let not_subscribed = Delivery::Complaint(b"SUBACK: subscription refused");
        for (bytes, delivery) in [
            (&b"\x20\x02\x00\x00"[..], Delivery::Answer),
            (b"\x20\x02\x00\x05", refused),
            (b"\x90\x03\x00\x01\x00", Delivery::Answer),
            (b"\x90\x03\x00\x01\x80", not_subscribed),
            (b"\xd0\x00", Delivery::Other),
            (b"\x30\x01\x00", Delivery::Other),
            (b"\x30\xff\xff\xff\xff\x01", Delivery::Other),
        ] {
            assert_eq!(split(bytes), Some((delivery, bytes.len())));
        }
    }
}
