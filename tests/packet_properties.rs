//! What holds of the codec for every input, tried on random ones.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails by panicking"
)]

use proptest::collection::vec;
use proptest::prelude::*;

use hvlp::packet::{EncodeError, Frame, FrameBuf, Packet, Topics};

/// A packet that owns its parts, to be generated and compared with.
#[derive(Clone, Debug)]
enum Owned {
    Connect(Vec<u8>),
    Disconnect(Vec<u8>),
    Subscribe(Vec<String>),
    Unsubscribe(Vec<String>),
    Publish(String, Vec<u8>),
    Unknown(u8, Vec<u8>),
}

impl Owned {
    fn encode(&self) -> Result<FrameBuf, EncodeError> {
        match self {
            Self::Connect(payload) => FrameBuf::connect(payload),
            Self::Disconnect(payload) => FrameBuf::disconnect(payload),
            Self::Subscribe(topics) => FrameBuf::subscribe(topics),
            Self::Unsubscribe(topics) => FrameBuf::unsubscribe(topics),
            Self::Publish(topic, data) => FrameBuf::publish(topic, data),
            Self::Unknown(id, payload) => Packet::Unknown { id: *id, payload }.encode(),
        }
    }

    /// Whether `packet` is this one, part by part.
    fn is(&self, packet: Packet<'_>) -> bool {
        match (self, packet) {
            (Self::Connect(ours), Packet::Connect { payload })
            | (Self::Disconnect(ours), Packet::Disconnect { payload }) => ours == payload,
            (Self::Subscribe(ours), Packet::Subscribe { topics })
            | (Self::Unsubscribe(ours), Packet::Unsubscribe { topics }) => topics.eq(ours),
            (Self::Publish(our_topic, our_data), Packet::Publish { topic, data }) => {
                our_topic == topic && our_data == data
            }
            (Self::Unknown(our_id, ours), Packet::Unknown { id, payload }) => {
                *our_id == id && ours == payload
            }
            _ => false,
        }
    }
}

/// Packets of every kind that fit into a frame.
fn packets() -> impl Strategy<Value = Owned> {
    let payload = || vec(any::<u8>(), 0..=255);
    // 20 characters of at most 4 bytes and a length byte, three times: 243 bytes at most.
    let topics = || {
        vec(
            vec(any::<char>(), 0..=20).prop_map(String::from_iter),
            0..=3,
        )
    };
    prop_oneof![
        payload().prop_map(Owned::Connect),
        payload().prop_map(Owned::Disconnect),
        topics().prop_map(Owned::Subscribe),
        topics().prop_map(Owned::Unsubscribe),
        (
            vec(any::<char>(), 0..=20).prop_map(String::from_iter),
            vec(any::<u8>(), 0..=174)
        )
            .prop_map(|(topic, data)| Owned::Publish(topic, data)),
        (prop_oneof![Just(0), 6..=255_u8], payload())
            .prop_map(|(id, payload)| Owned::Unknown(id, payload)),
    ]
}

/// Bytes as an enemy sends them: random, or frames of known ids with random payloads.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let frame = (0..=6_u8, vec(prop_oneof![0..=4_u8, any::<u8>()], 0..=255))
        .prop_map(|(id, payload)| FrameBuf::new(id, &payload).unwrap().bytes().to_vec());
    prop_oneof![
        vec(any::<u8>(), 0..=1024),
        vec(frame, 0..=6).prop_map(|frames| frames.concat())
    ]
}

/// Splits off all whole frames; those bytes, and what is left.
fn split_all(mut input: &[u8]) -> (Vec<Vec<u8>>, &[u8]) {
    let mut frames = Vec::new();
    while let Some((frame, rest)) = Frame::split_first(input) {
        frames.push(frame.bytes().to_vec());
        input = rest;
    }
    (frames, input)
}

/// A failure is printed in its smallest form, to become a vector; it is not kept in a file.
fn settings() -> ProptestConfig {
    ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(settings())]

    #[test]
    fn what_is_encoded_decodes_to_itself(packet in packets(), behind in vec(any::<u8>(), 0..8)) {
        let frame = packet.encode().unwrap();
        let input = [frame.bytes(), &behind].concat();
        let (decoded, rest) = Packet::decode(&input).unwrap().unwrap();
        prop_assert!(packet.is(decoded), "{decoded}");
        prop_assert_eq!(rest, behind);
        prop_assert_eq!(decoded.encoded_len(), frame.bytes().len());
        prop_assert_eq!(decoded.encode().unwrap(), frame);
    }

    #[test]
    fn any_split_gives_the_same_frames(
        input in hostile(),
        cuts in vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        cuts.extend([0, input.len()]);
        cuts.sort_unstable();

        let mut buffer = Vec::new();
        let mut frames = Vec::new();
        for part in cuts.windows(2).map(|edge| &input[edge[0]..edge[1]]) {
            buffer.extend_from_slice(part);
            let (whole, rest) = split_all(&buffer);
            frames.extend(whole);
            buffer = rest.to_vec();
        }
        prop_assert_eq!((frames, &buffer[..]), split_all(&input));
    }

    #[test]
    fn frames_and_the_rest_are_the_input(input in hostile()) {
        let (frames, rest) = split_all(&input);
        prop_assert_eq!(&[&frames.concat(), rest].concat(), &input);
        prop_assert!(rest.len() < 257);
    }

    #[test]
    fn a_packet_of_any_bytes_is_its_frame_again(input in hostile()) {
        for bytes in split_all(&input).0 {
            let (frame, _) = Frame::split_first(&bytes).unwrap();
            if let Ok(packet) = frame.packet() {
                let encoded = packet.encode().unwrap();
                prop_assert_eq!(encoded.bytes(), &bytes[..]);
                prop_assert_eq!(encoded.as_frame(), frame);
            }
        }
    }

    #[test]
    fn a_list_that_was_accepted_yields_all_its_bytes(payload in vec(0..=4_u8, 0..=255)) {
        if let Ok(topics) = Topics::parse(&payload) {
            let yielded: usize = topics.map(|topic| topic.len() + 1).sum();
            prop_assert_eq!(yielded, payload.len());
        }
    }

    #[test]
    fn packets_and_errors_print_as_one_line_without_control_characters(
        packet in packets(),
        input in hostile(),
    ) {
        let frame = packet.encode().unwrap();
        let packet = frame.as_frame().packet().unwrap();
        let mut texts = vec![format!("{packet}"), format!("{packet:#}"), format!("{packet:200}")];
        for bytes in split_all(&input).0 {
            let (frame, _) = Frame::split_first(&bytes).unwrap();
            texts.push(frame.packet().map_or_else(|e| e.to_string(), |p| p.to_string()));
        }
        for text in texts {
            prop_assert!(!text.is_empty() && !text.contains(char::is_control), "{text:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_what_fits_is_not(
        topics in vec(vec(any::<char>(), 0..=90).prop_map(String::from_iter), 0..=6),
    ) {
        let needed: usize = topics.iter().map(|topic| topic.len() + 1).sum();
        match FrameBuf::subscribe(&topics) {
            Ok(frame) => prop_assert_eq!(frame.bytes().len(), needed + 2),
            Err(error) => prop_assert!(needed > 255, "{}", error),
        }
    }

    #[test]
    fn a_topic_that_was_refused_leaves_the_frame_as_it_was(
        topics in vec("[a-z]{0,80}", 1..=8),
    ) {
        let mut frame = FrameBuf::subscribe([""; 0]).unwrap();
        let mut taken: Vec<&str> = Vec::new();
        for topic in &topics {
            let before = frame.bytes().to_vec();
            match frame.push_topic(topic) {
                Ok(()) => taken.push(topic),
                Err(_) => prop_assert_eq!(frame.bytes(), before),
            }
        }
        prop_assert_eq!(frame, FrameBuf::subscribe(taken).unwrap());
    }
}
