//! The HVLP dialect: a delivered frame is byte for byte the published one.

use hvlp::packet::{Answer, Extensions, Frame, FrameBuf, Hello, Status, id};

use super::{Delivery, Template, topic_name};

/// What a connection says first.
pub fn greeting() -> Vec<u8> {
    FrameBuf::connect(&[])
        .expect("an empty payload fits")
        .bytes()
        .to_vec()
}

/// The same of one that wants answers.
pub fn asking() -> Vec<u8> {
    let hello = Hello {
        want: Extensions::ACK,
        ..Hello::default()
    };
    let frame = hello.to_frame().expect("no user is short");
    frame.bytes().to_vec()
}

/// What a subscriber says next: as few frames as its topics fit into.
pub fn subscribe(topics: impl Iterator<Item = usize>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut frame = empty_list();
    for topic in topics.map(topic_name) {
        if frame.push_topic(&topic).is_err() {
            bytes.extend_from_slice(frame.bytes());
            frame = empty_list();
            frame
                .push_topic(&topic)
                .expect("one of our topics fits into an empty frame");
        }
    }
    bytes.extend_from_slice(frame.bytes());
    bytes
}

/// How a message is published, and how it arrives.
pub fn publish(topic: usize, payload_len: usize) -> Template {
    let frame = FrameBuf::publish(&topic_name(topic), &vec![0; payload_len])
        .expect("the plan's payload was checked to fit");
    let head = &frame.bytes()[..frame.bytes().len() - payload_len];
    Template::new(head, payload_len, b"")
}

/// Splits the first delivery off `input`, with its length; `None` until it is whole.
pub fn split(input: &[u8]) -> Option<(Delivery<'_>, usize)> {
    let (frame, _) = Frame::split_first(input)?;
    let delivery = match frame.publish_parts() {
        Ok((topic, payload)) if frame.id() == id::PUBLISH => Delivery::Message { topic, payload },
        _ => Delivery::Other,
    };
    Some((delivery, frame.bytes().len()))
}

/// As `split`, where there are answers: no refusal is one of these.
pub fn split_acked(input: &[u8]) -> Option<(Delivery<'_>, usize)> {
    let (delivery, len) = split(input)?;
    let (frame, _) = Frame::split_first(input)?;
    let delivery = match Answer::of(frame) {
        Some(Answer::Hello {
            status: Status::Ok, ..
        }) => Delivery::Answer,
        Some(Answer::Subscribe { statuses }) if statuses.iter().all(|status| *status == 0) => {
            Delivery::Answer
        }
        Some(Answer::Disconnect { text, .. }) => Delivery::Complaint(text.as_bytes()),
        _ => delivery,
    };
    Some((delivery, len))
}

fn empty_list() -> FrameBuf {
    FrameBuf::new(id::SUBSCRIBE, &[]).expect("an empty payload fits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_frame_splits_into_its_topic_and_payload() {
        let template = publish(0x1f, 2);
        assert_eq!(template.bytes, b"\x05\x08\x05t001f\0\0");
        assert_eq!(template.payload_at, 8);
        let message = Delivery::Message {
            topic: b"t001f",
            payload: &[0, 0],
        };
        assert_eq!(split(&template.bytes), Some((message, 10)));
        assert_eq!(split(&template.bytes[..9]), None);
    }

    #[test]
    fn anything_but_publish_is_other_and_is_skipped_whole() {
        assert_eq!(split(b"\x02\x01\x04rest"), Some((Delivery::Other, 3)));
        assert_eq!(split(b"\x05\x00"), Some((Delivery::Other, 2)));
        assert_eq!(split(b"\x05\x02\x09x"), Some((Delivery::Other, 4)));
    }

    #[test]
    fn many_topics_are_subscribed_to_in_several_frames() {
        let bytes = subscribe(0..100);
        let mut rest: &[u8] = &bytes;
        let mut topics = 0;
        while let Some((frame, behind)) = Frame::split_first(rest) {
            assert_eq!(frame.id(), id::SUBSCRIBE);
            topics += frame.payload().len() / 6;
            rest = behind;
        }
        assert!(rest.is_empty());
        assert_eq!(topics, 100);
    }

    #[test]
    fn answers_are_told_from_messages_and_refusals() {
        for (input, is_answer) in [
            (&[1, 5, 0xFF, 0x48, 0x2B, 1, 0][..], true),
            (&[1, 5, 0xFF, 0x48, 0x2B, 0, 3], false),
            (&[3, 2, 0, 0], true),
            (&[3, 2, 0, 3], false),
            (&[5, 2, 1, 0x61], false),
        ] {
            let (delivery, len) = split_acked(input).unwrap();
            assert_eq!(delivery == Delivery::Answer, is_answer, "{input:?}");
            assert_eq!(len, input.len());
        }
        let (last, _) = split_acked(b"\x02\x05\x03late").unwrap();
        assert_eq!(last, Delivery::Complaint(b"late"));
    }
}
