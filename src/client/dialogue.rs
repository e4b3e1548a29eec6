//! What one connection has brought and nobody has taken yet. It knows no socket and no clock: the
//! blocking client and the asynchronous one feed it alike.

use std::collections::VecDeque;

use bytes::Bytes;

use super::decoder::{MessageDecoder, Misbehaved};
use super::error::ClientError;
use super::message::Message;
use crate::address::Address;
use crate::packet::{Answer, Extensions, Frame, Reason, Status, Topics, id};

/// Messages that are kept at most while an answer is waited for: some 64 MiB. More than a broker
/// keeps last values for by default, and all of them may come in front of an answer.
pub(super) const KEPT_MAX: usize = 262_144;

/// The decoder of a connection, and what it has found beside the next message.
#[derive(Debug)]
pub(super) struct Dialogue {
    pub(super) decoder: MessageDecoder,
    /// Messages that came before an answer that was waited for.
    kept: VecDeque<Message>,
    /// Answers that somebody waits for.
    answers: VecDeque<Bytes>,
    /// What the broker has granted, once it has answered CONNECT.
    granted: Option<Extensions>,
    /// What it had granted on the connection before: what is subscribed relies on it.
    needed: Extensions,
    /// Why the broker said that it closes the connection.
    farewell: Option<Reason>,
}

/// The requests of a connection that are not answered yet, in their order.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// Whether somebody waits for the answer. `None` where there are no answers.
    awaited: Option<VecDeque<bool>>,
}

impl Dialogue {
    /// For a new connection; `asks`: for extensions.
    pub(super) fn new(asks: bool) -> Self {
        let decoder = match asks {
            true => MessageDecoder::with_answers(),
            false => MessageDecoder::new(),
        };
        Self {
            decoder,
            kept: VecDeque::new(),
            answers: VecDeque::new(),
            granted: None,
            needed: Extensions::NONE,
            farewell: None,
        }
    }

    /// The connection was lost, and this is a new one. Messages that came are still to be taken.
    pub(super) fn begin_again(&mut self, asks: bool) {
        let kept = std::mem::take(&mut self.kept);
        let needed = self.granted.unwrap_or(self.needed);
        *self = Self {
            kept,
            needed,
            ..Self::new(asks)
        };
    }

    pub(super) const fn granted(&self) -> Option<Extensions> {
        self.granted
    }

    /// A message that was kept.
    pub(super) fn take_kept(&mut self) -> Option<Message> {
        self.kept.pop_front()
    }

    /// Keeps all messages in front of what is read next; false if they are too many.
    pub(super) fn keep_messages(&mut self) -> Result<bool, Misbehaved> {
        while let Some(message) = self.decoder.decode()? {
            self.kept.push_back(message);
        }
        Ok(self.kept.len() <= KEPT_MAX)
    }

    /// The next answer that somebody waits for.
    pub(super) fn take_answer(&mut self) -> Option<Bytes> {
        self.answers.pop_front()
    }

    /// Whoever waited for answers does not any more.
    pub(super) fn drop_answers(&mut self) {
        self.answers.clear();
    }

    /// Whether the decoder has met anything beside messages.
    pub(super) fn has_notes(&self) -> bool {
        self.decoder.has_answers()
    }

    /// Takes note of that.
    ///
    /// # Errors
    /// The broker at `address` refuses CONNECT, or grants less than before.
    pub(super) fn take_notes(
        &mut self,
        address: &Address,
        requests: &mut Requests,
    ) -> Result<(), ClientError> {
        let address = || address.clone();
        while let Some(bytes) = self.decoder.take_answer() {
            match answer_of(&bytes) {
                Some(Answer::Hello { have, status }) => {
                    if status != Status::Ok {
                        let address = address();
                        return Err(ClientError::Refused { address, status });
                    }
                    if !have.contains(self.needed) {
                        return Err(ClientError::NotGranted {
                            address: address(),
                            missing: Extensions::from_bits(self.needed.bits() & !have.bits()),
                        });
                    }
                    if !have.contains(Extensions::ACK) {
                        requests.set_answered(false);
                    }
                    self.granted = Some(have);
                }
                Some(Answer::Disconnect { reason, .. }) => self.farewell = Some(reason),
                _ if requests.take() => self.answers.push_back(bytes),
                _ => {}
            }
        }
        Ok(())
    }

    /// Why the stream has ended, unless it cannot be a broker's.
    pub(super) fn end(&self, address: &Address) -> Result<ClientError, Misbehaved> {
        if self.decoder.looks_foreign() {
            return Err(Misbehaved::NoMessage);
        }
        let address = address.clone();
        Ok(match (self.farewell, self.decoder.remainder_len()) {
            (Some(reason), _) => ClientError::ClosedFor { address, reason },
            (None, 0) => ClientError::Closed { address },
            (None, received) => ClientError::ClosedInFrame { address, received },
        })
    }
}

impl Requests {
    /// From now on requests are answered, or no longer.
    pub(super) fn set_answered(&mut self, is_answered: bool) {
        self.awaited = is_answered.then(VecDeque::new);
    }

    /// These frames are about to be sent; whoever notes them sends them before others do.
    pub(super) fn note(&mut self, frames: &[u8], is_awaited: bool) {
        if let Some(awaited) = &mut self.awaited {
            awaited.extend(std::iter::repeat_n(is_awaited, requests(frames)));
        }
    }

    /// These, the last of them, were not sent after all.
    pub(super) fn forget(&mut self, frames: &[u8]) {
        if let Some(awaited) = &mut self.awaited {
            awaited.truncate(awaited.len().saturating_sub(requests(frames)));
        }
    }

    /// Nobody waits for any of them.
    pub(super) fn await_none(&mut self) {
        self.awaited
            .iter_mut()
            .flatten()
            .for_each(|one| *one = false);
    }

    /// An answer has come; whether somebody waits for it.
    fn take(&mut self) -> bool {
        let first = self.awaited.as_mut().and_then(VecDeque::pop_front);
        first.unwrap_or(false)
    }
}

/// How many of these frames are answered, where any are.
fn requests(mut frames: &[u8]) -> usize {
    let mut count = 0;
    while let Some((frame, rest)) = Frame::split_first(frames) {
        count += usize::from(matches!(frame.id(), id::SUBSCRIBE | id::UNSUBSCRIBE));
        frames = rest;
    }
    count
}

/// What an answer to a ping says.
pub(super) fn pong_of(answer: &Bytes) -> Result<u32, Misbehaved> {
    match answer_of(answer) {
        Some(Answer::Pong { dropped }) => Ok(dropped),
        _ => Err(Misbehaved::Astray),
    }
}

/// The statuses in an answer to a list of topics, one for each.
pub(super) fn statuses_of(request: Frame<'_>, answer: &Bytes) -> Result<Vec<Status>, Misbehaved> {
    let count = Topics::parse(request.payload()).map_or(0, Iterator::count);
    match answer_of(answer) {
        Some(Answer::Subscribe { statuses } | Answer::Unsubscribe { statuses })
            if statuses.len() == count =>
        {
            Ok(statuses.iter().map(|byte| Status::of(*byte)).collect())
        }
        _ => Err(Misbehaved::Astray),
    }
}

/// Those of `topics` that were not granted.
pub(super) fn refused<'a>(topics: &[&'a str], statuses: &[Status]) -> Vec<&'a str> {
    let all = topics.iter().zip(statuses);
    let refused = all.filter(|(_, status)| **status != Status::Ok);
    refused.map(|(topic, _)| *topic).collect()
}

fn answer_of(frame: &Bytes) -> Option<Answer<'_>> {
    Frame::split_first(frame).and_then(|(frame, _)| Answer::of(frame))
}
