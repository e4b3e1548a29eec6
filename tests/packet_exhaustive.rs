//! The codec against a naive reading of the protocol, over whole spaces of inputs.
//!
//! The reference below indexes and loops where the codec borrows and splits; it shares no code with
//! it, nor with the standard library's UTF-8.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails by panicking"
)]

use hvlp::packet::{Frame, FrameBuf, Packet, PacketError, Topics};

#[test]
fn a1_no_truncation_of_any_header_is_a_frame() {
    // Payload bytes that would be taken for anything: lengths, ids, letters.
    let payload: Vec<u8> = (0..=254)
        .map(|position: u8| position.wrapping_mul(91))
        .collect();
    let mut truncations = 0;
    for id in 0..=255 {
        for payload_len in 0..=255 {
            let frame = [&[id, payload_len], &payload[..usize::from(payload_len)]].concat();
            for cut in 0..frame.len() {
                assert!(
                    Frame::split_first(&frame[..cut]).is_none(),
                    "id {id}, length {payload_len}, cut at {cut} is no frame"
                );
                truncations += 1;
            }
            let (whole, rest) = Frame::split_first(&frame).expect("all its bytes are there");
            assert_eq!((whole.bytes(), rest), (&frame[..], &[][..]));
            assert_eq!((whole.id(), whole.payload()), (id, &frame[2..]));
        }
    }
    assert_eq!(truncations, 8_486_912);
}

#[test]
fn a3_every_payload_length_with_every_topic_length_reads_as_the_protocol_says() {
    let mut cells = 0;
    for payload_len in 0..=255_u8 {
        for topic_len in 0..=255_u8 {
            let mut payload = vec![b't'; usize::from(payload_len)];
            if let Some(first) = payload.first_mut() {
                *first = topic_len;
            }
            // What follows would complete a topic that reaches past its payload.
            let frame = [&[5, payload_len], &payload[..]].concat();
            let input = [&frame[..], &[b't'; 255]].concat();

            let (split, rest) = Frame::split_first(&input).unwrap();
            assert_eq!((split.bytes(), rest.len()), (&frame[..], 255));
            assert_eq!(
                parts_of(split.packet()),
                naive_publish(&payload),
                "payload of {payload_len}, topic of {topic_len}"
            );
            if let Ok(packet) = split.packet() {
                assert_eq!(packet.encode().unwrap().bytes(), frame);
            }
            cells += 1;
        }
    }
    assert_eq!(cells, 65_536);
}

#[test]
fn a3_every_topic_length_with_every_data_length_encodes_or_is_refused() {
    let letters = "t".repeat(256);
    for topic_len in 0..=256 {
        for data_len in 0..=256 {
            let topic = &letters[..topic_len];
            let data = vec![0x2A; data_len];
            match FrameBuf::publish(topic, &data) {
                Ok(frame) => {
                    assert!(topic_len + data_len <= 254);
                    let (split, rest) = Frame::split_first(frame.bytes()).unwrap();
                    assert_eq!(split.packet(), Ok(Packet::Publish { topic, data: &data }));
                    assert!(rest.is_empty());
                }
                Err(error) => assert!(topic_len + data_len > 254, "{error}"),
            }
        }
    }
}

#[test]
fn a5_every_list_of_up_to_five_small_bytes_reads_as_the_protocol_says() {
    // The bytes that matter in so short a list: lengths, a letter, and bytes that are no UTF-8.
    const ALPHABET: [u8; 8] = [0, 1, 2, 3, b'a', 0x80, 0xC3, 0xFF];
    let mut lists = vec![Vec::new()];
    for _ in 0..5 {
        let longer = lists.iter().flat_map(|list| {
            ALPHABET
                .iter()
                .map(move |&byte| [&list[..], &[byte]].concat())
        });
        lists = [vec![Vec::new()], longer.collect()].concat();
    }
    for list in lists {
        let parsed = Topics::parse(&list).map(|topics| {
            topics
                .map(|topic| topic.as_bytes().to_vec())
                .collect::<Vec<_>>()
        });
        assert_eq!(parsed, naive_topics(&list), "{list:02x?}");
    }
}

#[test]
fn a7_every_topic_of_up_to_three_bytes_is_utf8_exactly_if_unicode_says_so() {
    for first in 0..=255 {
        check_topic(&[first]);
        for second in 0..=255 {
            check_topic(&[first, second]);
            // The third byte matters by its sixteenth of the range alone; both ends of each.
            for third in (0..=255).filter(|third| matches!(third % 16, 0 | 15)) {
                check_topic(&[first, second, third]);
            }
        }
    }
}

#[test]
fn a7_every_four_byte_form_is_utf8_exactly_if_unicode_says_so() {
    const EDGES: [u8; 10] = [0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF];
    for first in 0xE0..=0xFF {
        for second in EDGES {
            for third in EDGES {
                for fourth in EDGES {
                    check_topic(&[first, second, third, fourth]);
                }
            }
        }
    }
}

#[test]
fn a12_every_unknown_id_of_every_length_survives_a_round_trip() {
    let payload = [0x55; 255];
    for id in (0..=255).filter(|id| !(1..=5).contains(id)) {
        for payload_len in 0..=255 {
            let payload = &payload[..payload_len];
            let packet = Packet::Unknown { id, payload };
            let frame = packet.encode().unwrap();
            assert_eq!(frame.as_frame().packet(), Ok(packet));
            assert_eq!(frame.bytes().len(), payload_len + 2);
        }
    }
}

/// Topic and data, or why there are none.
type Parts = Result<(Vec<u8>, Vec<u8>), PacketError>;

fn parts_of(packet: Result<Packet<'_>, PacketError>) -> Parts {
    match packet? {
        Packet::Publish { topic, data } => Ok((topic.as_bytes().to_vec(), data.to_vec())),
        other => panic!("{other} is no PUBLISH"),
    }
}

fn check_topic(topic: &[u8]) {
    let payload = [&[u8::try_from(topic.len()).unwrap()], topic].concat();
    let publish = FrameBuf::new(5, &payload).unwrap();
    assert_eq!(
        parts_of(publish.as_frame().packet()),
        naive_publish(&payload),
        "{topic:02x?}"
    );

    let subscribe = FrameBuf::new(3, &payload).unwrap();
    assert_eq!(
        subscribe.as_frame().packet().is_ok(),
        naive_is_utf8(topic),
        "{topic:02x?}"
    );
}

fn naive_publish(payload: &[u8]) -> Parts {
    if payload.is_empty() {
        return Err(PacketError::EmptyPublish);
    }
    let topic_end = 1 + usize::from(payload[0]);
    if topic_end > payload.len() {
        return Err(PacketError::TopicOverrun);
    }
    if !naive_is_utf8(&payload[1..topic_end]) {
        return Err(PacketError::TopicNotUtf8);
    }
    Ok((
        payload[1..topic_end].to_vec(),
        payload[topic_end..].to_vec(),
    ))
}

fn naive_topics(list: &[u8]) -> Result<Vec<Vec<u8>>, PacketError> {
    let mut topics = Vec::new();
    let mut at = 0;
    while at < list.len() {
        let end = at + 1 + usize::from(list[at]);
        if end > list.len() {
            return Err(PacketError::TopicOverrun);
        }
        let topic = list[at + 1..end].to_vec();
        if !naive_is_utf8(&topic) {
            return Err(PacketError::TopicNotUtf8);
        }
        topics.push(topic);
        at = end;
    }
    Ok(topics)
}

/// Decodes code points and judges them, instead of matching byte ranges.
fn naive_is_utf8(bytes: &[u8]) -> bool {
    let mut at = 0;
    while at < bytes.len() {
        let lead = u32::from(bytes[at]);
        let (len, smallest, mut code_point) = match lead {
            0x00..=0x7F => (1, 0, lead),
            0xC0..=0xDF => (2, 0x80, lead & 0x1F),
            0xE0..=0xEF => (3, 0x800, lead & 0x0F),
            0xF0..=0xF7 => (4, 0x1_0000, lead & 0x07),
            _ => return false,
        };
        if at + len > bytes.len() {
            return false;
        }
        for &byte in &bytes[at + 1..at + len] {
            if byte & 0xC0 != 0x80 {
                return false;
            }
            code_point = (code_point << 6) | u32::from(byte & 0x3F);
        }
        let surrogate = (0xD800..=0xDFFF).contains(&code_point);
        if code_point < smallest || code_point > 0x10_FFFF || surrogate {
            return false;
        }
        at += len;
    }
    true
}
