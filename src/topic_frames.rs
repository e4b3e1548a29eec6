//! Topics of any number, in as few frames as hold them.

use crate::packet::{EncodeError, FrameBuf};

/// SUBSCRIBE or UNSUBSCRIBE frames for all `topics`, back to back; none for none.
pub(crate) fn topic_frames<'a>(
    id: u8,
    topics: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<u8>, EncodeError> {
    let mut frames = Vec::new();
    let mut topics = topics.into_iter();
    let Some(first) = topics.next() else {
        return Ok(frames);
    };
    let mut frame = list_of(id, first)?;
    for topic in topics {
        match frame.push_topic(topic) {
            Ok(()) => {}
            Err(EncodeError::ListTooLong { .. }) => {
                frames.extend_from_slice(frame.bytes());
                frame = list_of(id, topic)?;
            }
            Err(error) => return Err(error),
        }
    }
    frames.extend_from_slice(frame.bytes());
    Ok(frames)
}

fn list_of(id: u8, topic: &str) -> Result<FrameBuf, EncodeError> {
    let mut frame = FrameBuf::new(id, &[])?;
    frame.push_topic(topic)?;
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Frame, Packet, id};

    #[test]
    fn many_topics_take_as_many_frames_as_needed_and_keep_their_order() {
        let topics: Vec<String> = (0..1000).map(|n| format!("topic/{n}")).collect();
        let frames = topic_frames(id::SUBSCRIBE, topics.iter().map(String::as_str)).unwrap();
        let (mut rest, mut seen, mut count) = (frames.as_slice(), Vec::new(), 0);
        while let Some((frame, behind)) = Frame::split_first(rest) {
            let Ok(Packet::Subscribe { topics }) = frame.packet() else {
                panic!("{frame:?} is no SUBSCRIBE");
            };
            seen.extend(topics.map(String::from));
            (rest, count) = (behind, count + 1);
        }
        assert!(rest.is_empty());
        assert_eq!(seen, topics);
        let list_len: usize = topics.iter().map(|topic| topic.len() + 1).sum();
        assert!(count <= list_len.div_ceil(255 - 10), "{count} frames");
    }

    #[test]
    fn one_topic_too_long_refuses_the_whole_list() {
        let long = "x".repeat(255);
        let refused = topic_frames(id::SUBSCRIBE, ["a", &long]);
        assert_eq!(refused, Err(EncodeError::TopicTooLong { len: 255 }));
        assert_eq!(topic_frames(id::SUBSCRIBE, []), Ok(Vec::new()));
    }
}
