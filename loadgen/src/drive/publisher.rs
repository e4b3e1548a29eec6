//! The sending side: frames from templates, many in one write.

use crate::stamp::{PROBE, Stamp, StampKind};
use crate::target::Template;

/// One publisher's messages on one topic.
#[derive(Clone, Debug)]
struct Flow {
    topic: usize,
    template: Template,
    fan_out: u64,
    sent: u32,
}

/// What one publisher has to send: its topics in turn, and the bytes that the socket has not taken.
///
/// Invariant: `written <= end <= bytes.len()`. What lies before `written` is the kernel's; what
/// lies behind `end` was sent long ago and is kept, because with a single topic the next frames
/// differ from it in their stamps alone.
#[derive(Clone, Debug)]
pub struct Outgoing {
    publisher: u16,
    stamp_kind: StampKind,
    flows: Vec<Flow>,
    /// Messages and probes so far.
    published: u64,
    turn: usize,
    bytes: Vec<u8>,
    end: usize,
    written: usize,
    /// Whether `bytes` holds frames of one topic and nothing else.
    is_uniform: bool,
}

impl Outgoing {
    /// A publisher of these topics, each with its number of subscribers.
    pub fn new(
        publisher: u16,
        stamp_kind: StampKind,
        topics: impl Iterator<Item = (usize, Template, usize)>,
    ) -> Self {
        let flows: Vec<_> = topics
            .map(|(topic, template, fan_out)| Flow {
                topic,
                template,
                fan_out: fan_out as u64,
                sent: 0,
            })
            .collect();
        Self {
            publisher,
            stamp_kind,
            is_uniform: flows.len() == 1,
            flows,
            published: 0,
            turn: 0,
            bytes: Vec::new(),
            end: 0,
            written: 0,
        }
    }

    /// How many deliveries the next message becomes.
    pub fn next_fan_out(&self) -> u64 {
        self.flows[self.turn].fan_out
    }

    /// Appends the next message.
    pub fn push(&mut self, intended_ns: u64, lag_ns: u32) {
        let flow = &mut self.flows[self.turn];
        let stamp = Stamp {
            intended_ns,
            lag_ns: Some(lag_ns),
            sequence: flow.sent,
            publisher: self.publisher,
        };
        flow.sent = flow.sent.wrapping_add(1);
        let index = self.turn;
        self.turn = if index + 1 == self.flows.len() {
            0
        } else {
            index + 1
        };
        self.append(index, &stamp);
    }

    /// Appends one probe of the topic `topic`, if it is one of this publisher's.
    pub fn push_probe(&mut self, topic: usize) {
        let Ok(index) = self.flows.binary_search_by_key(&topic, |flow| flow.topic) else {
            return;
        };
        let stamp = Stamp {
            intended_ns: 0,
            lag_ns: None,
            sequence: PROBE,
            publisher: self.publisher,
        };
        self.append(index, &stamp);
    }

    /// Appends something that is no message.
    pub fn push_control(&mut self, bytes: &[u8]) {
        self.bytes.truncate(self.end);
        self.bytes.extend_from_slice(bytes);
        self.end = self.bytes.len();
        self.is_uniform = false;
    }

    /// How many messages were sent to `topic`.
    pub fn sent(&self, topic: usize) -> u32 {
        let index = self.flows.binary_search_by_key(&topic, |flow| flow.topic);
        index.map_or(0, |index| self.flows[index].sent)
    }

    /// How many messages and probes there were in all.
    pub const fn published(&self) -> u64 {
        self.published
    }

    /// What the socket has not taken yet.
    pub fn unwritten(&self) -> &[u8] {
        &self.bytes[self.written..self.end]
    }

    /// The socket took `len` more bytes.
    pub fn advance(&mut self, len: usize) {
        self.written += len;
        debug_assert!(self.written <= self.end, "more taken than offered");
        if self.written == self.end {
            self.end = 0;
            self.written = 0;
            if !self.is_uniform && self.flows.len() == 1 {
                // Something else stood between the frames.
                self.bytes.clear();
                self.is_uniform = true;
            }
        }
    }

    /// Puts one frame behind the others.
    fn append(&mut self, index: usize, stamp: &Stamp) {
        self.published += 1;
        let template = &self.flows[index].template;
        let end = self.end + template.bytes.len();
        if self.bytes.len() < end {
            self.bytes.truncate(self.end);
            self.bytes.extend_from_slice(&template.bytes);
        } else if !self.is_uniform {
            self.bytes[self.end..end].copy_from_slice(&template.bytes);
        }
        let payload = &mut self.bytes[self.end + template.payload_at..end];
        stamp.write(self.stamp_kind, payload);
        self.end = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Dialect;

    #[test]
    fn topics_are_published_to_in_turn_each_with_its_own_sequence() {
        let topics = [3, 8]
            .into_iter()
            .map(|topic| (topic, Dialect::Hvlp.publish(topic, 20), 5));
        let mut outgoing = Outgoing::new(9, StampKind::Full, topics);
        for intended_ns in [10, 20, 30] {
            assert_eq!(outgoing.next_fan_out(), 5);
            outgoing.push(intended_ns, 1);
        }
        assert_eq!(
            (outgoing.sent(3), outgoing.sent(8), outgoing.sent(5)),
            (2, 1, 0)
        );
        let stamps = outgoing.unwritten().chunks_exact(28).map(|frame| {
            let stamp = Stamp::read(StampKind::Full, &frame[8..], 0).unwrap();
            (
                frame[..8].to_vec(),
                stamp.intended_ns,
                stamp.sequence,
                stamp.publisher,
            )
        });
        assert_eq!(
            stamps.collect::<Vec<_>>(),
            [
                (b"\x05\x1a\x05t0003".to_vec(), 10, 0, 9),
                (b"\x05\x1a\x05t0008".to_vec(), 20, 0, 9),
                (b"\x05\x1a\x05t0003".to_vec(), 30, 1, 9),
            ]
        );
    }

    #[test]
    fn what_the_socket_refused_stays_in_front() {
        let topics = [(0, Dialect::Hvlp.publish(0, 64), 1)].into_iter();
        let mut outgoing = Outgoing::new(0, StampKind::Full, topics);
        outgoing.push(0, 0);
        let whole = outgoing.unwritten().to_vec();
        outgoing.advance(30);
        assert_eq!(outgoing.unwritten(), &whole[30..]);
        outgoing.push(1, 0);
        assert_eq!(outgoing.unwritten()[..42], whole[30..]);
        outgoing.advance(42 + 72);
        assert!(outgoing.unwritten().is_empty());
    }

    #[test]
    fn frames_in_a_buffer_that_was_sent_before_are_the_same_as_in_a_new_one() {
        for topics in [1, 2, 3] {
            let fresh = || {
                let topics = (0..topics).map(|topic| (topic, Dialect::Hvlp.publish(topic, 20), 1));
                Outgoing::new(4, StampKind::Full, topics)
            };
            let (mut reused, mut expected) = (fresh(), fresh());
            for intended_ns in 0..5 {
                reused.push(intended_ns, 9);
                expected.push(intended_ns, 9);
            }
            reused.advance(5 * 28);
            for intended_ns in 5..12 {
                reused.push(intended_ns, 0);
                expected.push(intended_ns, 0);
            }
            assert_eq!(
                reused.unwritten(),
                &expected.unwritten()[5 * 28..],
                "{topics}"
            );
        }
    }

    #[test]
    fn an_answer_between_frames_leaves_the_frames_behind_it_whole() {
        let topics = [(0, Dialect::Nats.publish(0, 20), 1)].into_iter();
        let mut outgoing = Outgoing::new(0, StampKind::Full, topics);
        let head = b"PUB t0000 20\r\n";
        for round in 0..3 {
            outgoing.push(round, 0);
            outgoing.push_control(b"PONG\r\n");
            outgoing.push(round, 0);
            let bytes = outgoing.unwritten();
            assert_eq!(bytes.len(), 2 * 36 + 6);
            assert!(bytes.starts_with(head));
            assert!(bytes[36..].starts_with(b"PONG\r\nPUB t0000 20\r\n"));
            assert!(bytes.ends_with(b"\0\0\r\n"));
            outgoing.advance(bytes.len());
            // A run of frames over what the answer had displaced.
            (0..5).for_each(|_| outgoing.push(round, 0));
            let frames = outgoing.unwritten().chunks_exact(36);
            assert!(frames.clone().all(|frame| frame.starts_with(head)));
            assert_eq!(frames.len(), 5);
            outgoing.advance(5 * 36);
        }
    }

    #[test]
    fn a_probe_is_no_message() {
        let topics = [(0, Dialect::Hvlp.publish(0, 8), 1)].into_iter();
        let mut outgoing = Outgoing::new(0, StampKind::Short, topics);
        outgoing.push_probe(0);
        outgoing.push_probe(1);
        assert_eq!(outgoing.unwritten()[8..12], PROBE.to_le_bytes());
        assert_eq!((outgoing.unwritten().len(), outgoing.sent(0)), (16, 0));
    }
}
