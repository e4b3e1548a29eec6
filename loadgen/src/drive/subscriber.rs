//! The receiving side: every delivered frame is checked, and timed where there is a schedule.

use crate::sequence::{Faults, Sequence};
use crate::stamp::{PROBE, Stamp, StampKind};
use crate::target::{Delivery, Dialect, Template, topic_index};

/// What every delivered frame of one topic looks like.
#[derive(Clone, Debug)]
struct Shape {
    /// All bytes before the payload, and the first eight of them as one word.
    head: Vec<u8>,
    head_word: u64,
    frame_len: usize,
    stamp_kind: StampKind,
}

impl Shape {
    fn new(template: &Template, stamp_kind: StampKind) -> Self {
        let head = template.bytes[..template.payload_at].to_vec();
        let head_word = read_u64(&head, 0).expect("a head is at least eight bytes");
        Self {
            head,
            head_word,
            frame_len: template.bytes.len(),
            stamp_kind,
        }
    }

    /// How many frames at the front of `input` are exactly the next ones of `publisher`.
    ///
    /// This is all that the generator does with a frame as long as nothing goes wrong.
    fn expected_frames(&self, input: &[u8], publisher: u16, first: u32) -> usize {
        let frames = input.chunks_exact(self.frame_len);
        let long_head = self.head.len() > 8;
        let headed = |frame: &[u8]| {
            read_u64(frame, 0) == Some(self.head_word)
                && (!long_head || frame[..self.head.len()] == self.head)
        };
        let at = self.head.len() + self.stamp_kind.sequence_at();
        let mut next = first;
        let mut numbered = |frame: &[u8]| {
            let number = read_u32(frame, at);
            let as_expected = number == Some(next);
            next = next.wrapping_add(1);
            as_expected
        };
        match self.stamp_kind {
            StampKind::Absent => frames.take_while(|frame| headed(frame)).count(),
            StampKind::Short => frames
                .take_while(|frame| headed(frame) && numbered(frame))
                .count(),
            StampKind::Full => frames
                .take_while(|frame| {
                    headed(frame) && numbered(frame) && read_u16(frame, at + 4) == Some(publisher)
                })
                .count(),
        }
    }
}

/// One publisher's messages on one topic, as they arrive at one subscriber.
#[derive(Clone, Debug)]
struct Flow {
    topic: usize,
    publisher: u16,
    shape: Shape,
    sequence: Sequence,
    probed: bool,
}

/// What one subscriber has received.
///
/// Invariant: `flows` is ascending by topic and publisher, and `current` is one of them.
#[derive(Clone, Debug)]
pub struct Inbound {
    dialect: Dialect,
    flows: Vec<Flow>,
    /// The flow of the last frame: the next one is most likely of the same.
    current: usize,
    unprobed: usize,
    /// Whether the barrier was passed. Before it every frame is looked at, for it may be a probe.
    begun: bool,
    foreign: u64,
    /// Messages of any kind, probes and foreign ones too.
    received: u64,
    /// What was said beside messages; hardly ever anything.
    aside: Option<Box<Aside>>,
}

/// What a target says beside messages, and what must not be passed over.
#[derive(Clone, Debug, Default)]
pub struct Aside {
    /// Pings that want an answer.
    pub pings: usize,
    /// What it complains of.
    pub complaints: Vec<Vec<u8>>,
}

/// Where the messages of a [`Inbound::receive`] are accounted for.
pub trait Sink {
    /// `count` messages of `publisher` arrived.
    fn arrived(&mut self, publisher: u16, count: usize);
    /// Whether [`Sink::stamped`] wants to know of each.
    fn is_timed(&self) -> bool;
    /// One message arrived with this stamp.
    fn stamped(&mut self, stamp: &Stamp);
}

impl Inbound {
    /// Expects the messages of these topics and publishers, given in ascending order.
    pub fn new<'a>(
        dialect: Dialect,
        flows: impl Iterator<Item = (usize, u16, &'a Template)>,
        stamp_kind: StampKind,
    ) -> Self {
        let flows: Vec<_> = flows
            .map(|(topic, publisher, template)| Flow {
                topic,
                publisher,
                shape: Shape::new(template, stamp_kind),
                sequence: Sequence::default(),
                probed: false,
            })
            .collect();
        Self {
            dialect,
            unprobed: flows.len(),
            flows,
            current: 0,
            begun: false,
            foreign: 0,
            received: 0,
            aside: None,
        }
    }

    /// Takes all whole frames of `input` and returns how many bytes they were.
    pub fn receive(&mut self, input: &[u8], now_ns: u64, sink: &mut impl Sink) -> usize {
        let mut rest = input;
        loop {
            let flow = &mut self.flows[self.current];
            let frames = if self.begun {
                flow.shape
                    .expected_frames(rest, flow.publisher, flow.sequence.next())
            } else {
                0
            };
            if frames > 0 {
                self.received += frames as u64;
                let (run, behind) = rest.split_at(frames * flow.shape.frame_len);
                flow.sequence
                    .advance(u32::try_from(frames).expect("a read is below 4 GiB"));
                sink.arrived(flow.publisher, frames);
                if sink.is_timed() {
                    let head_len = flow.shape.head.len();
                    for frame in run.chunks_exact(flow.shape.frame_len) {
                        let payload = &frame[head_len..];
                        Stamp::read(flow.shape.stamp_kind, payload, now_ns)
                            .iter()
                            .for_each(|stamp| sink.stamped(stamp));
                    }
                }
                rest = behind;
            }
            let Some((delivery, len)) = self.dialect.split(rest) else {
                break;
            };
            self.take(delivery, len, now_ns, sink);
            rest = &rest[len..];
        }
        input.len() - rest.len()
    }

    /// What was said beside messages since the last time.
    pub fn take_aside(&mut self) -> Option<Aside> {
        self.aside.take().map(|aside| *aside)
    }

    /// Messages of any kind so far.
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Whose messages arrived last.
    pub fn current_publisher(&self) -> u16 {
        self.flows[self.current].publisher
    }

    /// Whether a probe of every flow was really seen.
    pub const fn is_reached(&self) -> bool {
        self.unprobed == 0
    }

    /// From now on messages arrive.
    pub const fn begin(&mut self) {
        self.begun = true;
    }

    /// The topics and publishers that no probe was seen of.
    pub fn unreached(&self) -> impl Iterator<Item = (usize, u16)> {
        self.flows
            .iter()
            .filter(|flow| !flow.probed)
            .map(|flow| (flow.topic, flow.publisher))
    }

    /// The verdict, once nothing more can arrive; `sent` says how many messages there were.
    pub fn finish(&self, sent: impl Fn(usize, u16) -> u32) -> Faults {
        let mut faults = Faults {
            foreign: self.foreign,
            ..Faults::default()
        };
        for flow in &self.flows {
            faults.add(&flow.sequence.finish(sent(flow.topic, flow.publisher)));
        }
        faults
    }

    /// What is wrong with what has arrived, whatever may still be on its way.
    pub fn finish_arrived(&self) -> Faults {
        let mut faults = Faults {
            foreign: self.foreign,
            ..Faults::default()
        };
        for flow in &self.flows {
            faults.add(&flow.sequence.finish(flow.sequence.next()));
        }
        faults
    }

    /// Takes one frame that is not simply the next one.
    fn take(&mut self, delivery: Delivery<'_>, len: usize, now_ns: u64, sink: &mut impl Sink) {
        match delivery {
            Delivery::Answer => return,
            Delivery::Ping => {
                self.aside.get_or_insert_default().pings += 1;
                return;
            }
            Delivery::Complaint(text) => {
                let aside = self.aside.get_or_insert_default();
                aside.complaints.push(text.to_vec());
                return;
            }
            Delivery::Message { .. } => self.received += 1,
            Delivery::Other => {}
        }
        let Some((index, stamp)) = self.find(delivery, len, now_ns) else {
            self.foreign += 1;
            return;
        };
        let flow = &mut self.flows[index];
        self.current = index;
        let is_probe = match &stamp {
            Some(stamp) => stamp.sequence == PROBE && flow.sequence.next() != PROBE,
            // Without stamps, whatever arrives before the load begins.
            None => !self.begun,
        };
        if is_probe {
            self.unprobed -= usize::from(!flow.probed);
            flow.probed = true;
            return;
        }
        sink.arrived(flow.publisher, 1);
        match stamp {
            Some(stamp) => {
                flow.sequence.take(stamp.sequence);
                sink.stamped(&stamp);
            }
            None => flow.sequence.advance(1),
        }
    }

    /// Which flow a frame belongs to; `None` if to none of this subscriber's.
    fn find(
        &self,
        delivery: Delivery<'_>,
        len: usize,
        now_ns: u64,
    ) -> Option<(usize, Option<Stamp>)> {
        let Delivery::Message { topic, payload } = delivery else {
            return None;
        };
        let topic = topic_index(topic)?;
        let first = self.flows.partition_point(|flow| flow.topic < topic);
        let flow = self.flows.get(first).filter(|flow| flow.topic == topic)?;
        if flow.shape.frame_len != len {
            return None;
        }
        let kind = flow.shape.stamp_kind;
        let stamp = Stamp::read(kind, payload, now_ns);
        let index = match &stamp {
            Some(stamp) if kind == StampKind::Full => {
                let key = (topic, stamp.publisher);
                self.flows
                    .binary_search_by_key(&key, |flow| (flow.topic, flow.publisher))
                    .ok()?
            }
            _ => first,
        };
        Some((index, stamp))
    }
}

fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts what arrives, and keeps the stamps.
    #[derive(Default)]
    struct Tally {
        arrived: Vec<(u16, usize)>,
        stamps: Vec<Stamp>,
    }

    impl Sink for Tally {
        fn arrived(&mut self, publisher: u16, count: usize) {
            self.arrived.push((publisher, count));
        }
        fn is_timed(&self) -> bool {
            true
        }
        fn stamped(&mut self, stamp: &Stamp) {
            self.stamps.push(*stamp);
        }
    }

    fn frame(topic: usize, publisher: u16, sequence: u32, payload_len: usize) -> Vec<u8> {
        let mut template = Dialect::Hvlp.publish(topic, payload_len);
        let stamp = Stamp {
            intended_ns: 6_400,
            lag_ns: Some(3),
            sequence,
            publisher,
        };
        let kind = StampKind::of_payload(payload_len);
        stamp.write(kind, &mut template.bytes[template.payload_at..]);
        template.bytes
    }

    /// A subscriber of topics 1 and 2, each with publishers 0 and 7, past its barrier.
    fn inbound(payload_len: usize) -> Inbound {
        let templates = [1, 2].map(|topic| (topic, Dialect::Hvlp.publish(topic, payload_len)));
        let publishers: &[u16] = if payload_len < 18 { &[0] } else { &[0, 7] };
        let flows = templates.iter().flat_map(|(topic, template)| {
            publishers
                .iter()
                .map(move |&publisher| (*topic, publisher, template))
        });
        let mut inbound = Inbound::new(Dialect::Hvlp, flows, StampKind::of_payload(payload_len));
        for topic in [1, 2] {
            for &publisher in publishers {
                let probe = frame(topic, publisher, PROBE, payload_len);
                inbound.receive(&probe, 0, &mut Tally::default());
            }
        }
        assert!(inbound.is_reached());
        inbound.begin();
        inbound
    }

    #[test]
    fn a_run_of_expected_frames_is_taken_at_once_and_timed_one_by_one() {
        for payload_len in [8, 18, 64] {
            let mut inbound = inbound(payload_len);
            let mut tally = Tally::default();
            let input: Vec<u8> = (0..50).flat_map(|n| frame(1, 0, n, payload_len)).collect();
            let (most, rest) = input.split_at(input.len() - 5);
            // The last frame is not whole yet.
            let taken = inbound.receive(most, 12_800, &mut tally);
            let tail = [&most[taken..], rest].concat();
            assert_eq!(inbound.receive(&tail, 12_800, &mut tally), tail.len());
            assert_eq!(
                tally.arrived.iter().map(|(_, count)| count).sum::<usize>(),
                50
            );
            assert!(tally.stamps.iter().map(|stamp| stamp.sequence).eq(0..50));
            assert!(tally.stamps.iter().all(|stamp| stamp.intended_ns == 6_400));
            let faults = inbound.finish(
                |topic, publisher| {
                    if (topic, publisher) == (1, 0) { 50 } else { 0 }
                },
            );
            assert!(!faults.any(), "{payload_len}: {faults:?}");
        }
    }

    #[test]
    fn every_single_fault_in_a_run_is_found() {
        let expected: Vec<Vec<u8>> = (0..20).map(|n| frame(1, 0, n, 64)).collect();
        let finish = |frames: &[Vec<u8>]| {
            let mut inbound = inbound(64);
            inbound.receive(&frames.concat(), 0, &mut Tally::default());
            inbound.finish(|topic, publisher| if (topic, publisher) == (1, 0) { 20 } else { 0 })
        };
        assert!(!finish(&expected).any());
        for position in 0..20 {
            let mut dropped = expected.clone();
            dropped.remove(position);
            assert_eq!(
                finish(&dropped),
                Faults {
                    lost: 1,
                    ..Faults::default()
                }
            );

            let mut doubled = expected.clone();
            doubled.insert(position, expected[position].clone());
            assert_eq!(
                finish(&doubled),
                Faults {
                    duplicate: 1,
                    ..Faults::default()
                }
            );

            if position > 0 {
                let mut swapped = expected.clone();
                swapped.swap(position - 1, position);
                assert_eq!(
                    finish(&swapped),
                    Faults {
                        reordered: 1,
                        ..Faults::default()
                    }
                );
            }
            for stranger in [
                frame(3, 0, 0, 64),          // a topic that was not subscribed to
                frame(1, 9, 0, 64),          // a publisher that this run does not have
                frame(1, 0, 0, 63),          // another length
                b"\x05\x04\x01aAB".to_vec(), // somebody else's message
                b"\x02\x00".to_vec(),        // no message at all
            ] {
                let mut mixed = expected.clone();
                mixed.insert(position, stranger);
                assert_eq!(
                    finish(&mixed),
                    Faults {
                        foreign: 1,
                        ..Faults::default()
                    }
                );
            }
        }
    }

    #[test]
    fn publishers_and_topics_are_followed_apart() {
        let mut inbound = inbound(64);
        let mut tally = Tally::default();
        let mut input = Vec::new();
        for n in 0..10 {
            for (topic, publisher) in [(1, 0), (2, 7), (1, 7)] {
                input.extend(frame(topic, publisher, n, 64));
            }
        }
        inbound.receive(&input, 0, &mut tally);
        assert_eq!(
            tally
                .arrived
                .iter()
                .filter(|(publisher, _)| *publisher == 7)
                .count(),
            20
        );
        let sent = |topic, publisher| if (topic, publisher) == (2, 0) { 0 } else { 10 };
        assert!(!inbound.finish(sent).any());
    }

    #[test]
    fn a_subscriber_is_reached_when_every_flow_was_probed() {
        let template = Dialect::Hvlp.publish(1, 64);
        let flows = [(1, 0, &template), (1, 7, &template)];
        let mut inbound = Inbound::new(Dialect::Hvlp, flows.into_iter(), StampKind::Full);
        inbound.receive(&frame(1, 7, PROBE, 64), 0, &mut Tally::default());
        inbound.receive(&frame(1, 7, PROBE, 64), 0, &mut Tally::default());
        assert_eq!(inbound.unreached().collect::<Vec<_>>(), [(1, 0)]);
        inbound.receive(&frame(1, 0, PROBE, 64), 0, &mut Tally::default());
        assert!(inbound.is_reached());
        assert!(!inbound.finish(|_, _| 0).any());
    }
}
