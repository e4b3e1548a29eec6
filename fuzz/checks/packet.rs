//! What must hold of the codec for every input. The fuzz target calls it, and so does the test that
//! replays the corpus.
//!
//! 1. The first byte of the input says where the rest of it, a stream, is cut in two.
//! 2. The stream is split into frames: as one piece, and as its two parts one after the other. Both
//!    give the same frames and the same remainder, and together these are the stream.
//! 3. Every frame has a meaning or a reason; a meaning encodes to the very same bytes, prints as
//!    one line, and a topic list yields every byte of its payload.

use hvlp::packet::{Frame, FrameBuf, Packet};

pub(crate) fn check(input: &[u8]) {
    let Some((&cut, stream)) = input.split_first() else {
        return;
    };
    let (frames, remainder) = split_all(stream);
    assert_eq!([&frames.concat(), remainder].concat(), stream);

    let (first, second) = stream.split_at(usize::from(cut).min(stream.len()));
    let (mut frames_in_parts, remainder_of_first) = split_all(first);
    let buffer = [remainder_of_first, second].concat();
    let (frames_of_second, remainder_in_parts) = split_all(&buffer);
    frames_in_parts.extend(frames_of_second);
    assert_eq!(
        (frames_in_parts, remainder_in_parts),
        (frames.clone(), remainder)
    );

    for frame in frames {
        check_frame(frame);
    }
}

fn split_all(mut stream: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut frames = Vec::new();
    while let Some((frame, rest)) = Frame::split_first(stream) {
        frames.push(frame.bytes());
        stream = rest;
    }
    (frames, stream)
}

fn check_frame(bytes: &[u8]) {
    assert_eq!(
        Packet::decode(&bytes[..bytes.len() - 1]),
        Ok(None),
        "no prefix is a frame"
    );
    let (frame, rest) = Frame::split_first(bytes).expect("it was split off as a whole frame");
    assert_eq!((frame.bytes(), rest), (bytes, &[][..]));
    assert_eq!(FrameBuf::from(frame).as_frame(), frame);
    assert_eq!(
        FrameBuf::new(frame.id(), frame.payload()).map(|it| it.as_frame() == frame),
        Ok(true)
    );

    let text = match frame.packet() {
        Ok(packet) => {
            assert_eq!(
                packet.encode().map(|it| it.bytes() == bytes),
                Ok(true),
                "{packet}"
            );
            assert_eq!(packet.encoded_len(), bytes.len());
            check_topics(packet, frame.payload());
            packet.to_string()
        }
        Err(error) => error.to_string(),
    };
    assert!(
        !text.is_empty() && !text.contains(char::is_control),
        "{text:?}"
    );
}

fn check_topics(packet: Packet<'_>, payload: &[u8]) {
    match packet {
        Packet::Subscribe { topics } | Packet::Unsubscribe { topics } => {
            let yielded: usize = topics.map(|topic| topic.len() + 1).sum();
            assert_eq!(yielded, payload.len());
        }
        Packet::Publish { topic, data } => {
            assert_eq!(topic.len() + data.len() + 1, payload.len());
        }
        Packet::Connect { payload: whole }
        | Packet::Disconnect { payload: whole }
        | Packet::Unknown { payload: whole, .. } => {
            assert_eq!(whole, payload);
        }
    }
}
