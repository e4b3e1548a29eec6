//! The half of a client that receives: the decoder, fed from the socket.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::connection::Connection;
use super::decoder::{MessageDecoder, Misbehaved};
use super::error::{ClientError, Wait};
use super::message::Message;
use super::reconnect::Shared;
use crate::packet::{Answer, Extensions, Frame, Reason, Status, id};

/// Receives messages. Nothing is read ahead of the program by more than one buffer: who does not
/// take its messages is what the broker calls a slow consumer.
#[derive(Debug)]
pub struct Receiver {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    decoder: MessageDecoder,
    /// Messages that came before an answer that was waited for.
    kept: VecDeque<Message>,
    /// Answers that somebody waits for.
    answers: VecDeque<Bytes>,
    /// What the broker has granted on this connection, once it has answered CONNECT.
    granted: Option<Extensions>,
    /// Why the broker said that it closes the connection.
    farewell: Option<Reason>,
    /// When the broker is to be sent a byte.
    next_beat: Option<Instant>,
}

impl Receiver {
    pub(super) fn new(shared: Arc<Shared>, connection: Arc<Connection>) -> Self {
        let decoder = decoder(&shared);
        let next_beat = next_beat(&shared);
        Self {
            shared,
            connection,
            decoder,
            kept: VecDeque::new(),
            answers: VecDeque::new(),
            granted: None,
            farewell: None,
            next_beat,
        }
    }

    pub(super) const fn extensions(&self) -> Extensions {
        match self.granted {
            Some(granted) => granted,
            None => Extensions::NONE,
        }
    }

    /// Waits until the broker has answered CONNECT; `None` if it does not within `timeout`.
    pub(super) fn await_grant(
        &mut self,
        timeout: Duration,
    ) -> Result<Option<Extensions>, ClientError> {
        let deadline = Instant::now() + timeout;
        while self.granted.is_none() {
            let read = self
                .connection
                .receive(self.decoder.space(), Some(deadline))?;
            match read {
                None | Some(0) => break,
                Some(len) => self.decoder.advance(len),
            }
            self.keep_messages()?;
        }
        Ok(self.granted)
    }

    /// The next answer that somebody waits for; `None` at the deadline.
    pub(super) fn answer(&mut self, deadline: Instant) -> Result<Option<Bytes>, ClientError> {
        loop {
            self.keep_messages()?;
            if let Some(answer) = self.answers.pop_front() {
                return Ok(Some(answer));
            }
            if self.kept.len() > KEPT_MAX {
                return Ok(None);
            }
            let read = self
                .connection
                .receive(self.decoder.space(), Some(deadline))?;
            match read {
                None => return Ok(None),
                Some(0) => return Err(self.end_of_stream()?),
                Some(len) => self.decoder.advance(len),
            }
        }
    }

    /// The broker answers something else than it was asked.
    pub(super) fn astray(&self) -> ClientError {
        self.not_a_broker(Misbehaved::Astray)
    }

    fn keep_messages(&mut self) -> Result<(), ClientError> {
        while let Some(message) = self.decoded(MessageDecoder::decode)? {
            self.kept.push_back(message);
        }
        Ok(())
    }

    /// Takes note of what the broker has said beside messages.
    fn take_notes(&mut self) -> Result<(), ClientError> {
        while let Some(bytes) = self.decoder.take_answer() {
            let frame = Frame::split_first(&bytes);
            match frame.and_then(|(frame, _)| Answer::of(frame)) {
                Some(Answer::Hello { have, status }) => {
                    let address = self.connection.address().clone();
                    if status != Status::Ok {
                        return Err(ClientError::Refused { address, status });
                    }
                    if !have.contains(Extensions::ACK) {
                        self.connection.set_answered(false);
                    }
                    self.granted = Some(have);
                }
                Some(Answer::Disconnect { reason, .. }) => self.farewell = Some(reason),
                _ if self.connection.take_request() => self.answers.push_back(bytes),
                _ => {}
            }
        }
        Ok(())
    }

    /// Sends what keeps a silent connection open, if it is time.
    fn keep_alive(&mut self) -> Result<(), ClientError> {
        if self.next_beat.is_some_and(|beat| beat <= Instant::now()) {
            self.next_beat = next_beat(&self.shared);
            self.shared.request(&BEAT, false)?;
        }
        Ok(())
    }

    /// The next message; `None` if none comes within `timeout`. Without a timeout (`None`) it waits
    /// for as long as it takes; `Duration::ZERO` takes only what is there.
    ///
    /// # Errors
    /// The connection's end, by its kind. With [reconnecting](super::ClientBuilder::reconnect) only
    /// what reconnecting cannot cure.
    pub fn receive(
        &mut self,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Option<Message>, ClientError> {
        if let Some(message) = self.kept.pop_front() {
            return Ok(Some(message));
        }
        self.next(timeout.into(), MessageDecoder::decode)
    }

    /// The next whole frame, message or not, for programs that look at the protocol itself.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn receive_frame(
        &mut self,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Option<Bytes>, ClientError> {
        self.next(timeout.into(), MessageDecoder::decode_frame)
    }

    /// All messages, until none comes within `timeout` or this client disconnects.
    pub fn messages(&mut self, timeout: impl Into<Option<Duration>>) -> Messages<'_> {
        Messages {
            receiver: self,
            timeout: timeout.into(),
            ended: false,
        }
    }

    /// Frames on this connection that were no messages and therefore skipped.
    pub const fn skipped(&self) -> u64 {
        self.decoder.skipped()
    }

    /// How often this half has gone on with a new connection.
    pub fn reconnects(&self) -> u64 {
        self.connection.generation() / 2
    }

    /// A better reason for a connection that ended: what the peer said before.
    pub(super) fn explain(&mut self, error: ClientError) -> ClientError {
        if let ClientError::Closed { .. } | ClientError::Reset { .. } = error {
            let now = Some(Instant::now());
            if let Ok(Some(len)) = self.connection.receive(self.decoder.space(), now) {
                self.decoder.advance(len);
            }
            if let Some(cause) = self.decoder.foreign() {
                return self.not_a_broker(cause);
            }
        }
        error
    }

    /// Reads and discards until the broker closes, which it does when it has everything.
    pub(super) fn drain(&mut self, limit: Duration) -> Result<(), ClientError> {
        let deadline = Instant::now() + limit;
        // What is there is read even after the deadline, so a flood has to be ended here.
        while Instant::now() < deadline {
            while self.decoded(MessageDecoder::decode)?.is_some() {}
            let read = self
                .connection
                .receive(self.decoder.space(), Some(deadline))?;
            match read {
                Some(0) if self.decoder.looks_foreign() => {
                    return Err(self.not_a_broker(Misbehaved::NoMessage));
                }
                Some(0) => return Ok(()),
                Some(len) => self.decoder.advance(len),
                None => break,
            }
        }
        Err(ClientError::TimedOut {
            address: self.connection.address().clone(),
            wait: Wait::Close,
            limit,
        })
    }

    fn next<T>(
        &mut self,
        timeout: Option<Duration>,
        decode: fn(&mut MessageDecoder) -> Result<Option<T>, Misbehaved>,
    ) -> Result<Option<T>, ClientError> {
        // A time too far away to be expressed is as good as none.
        let mut deadline = None;
        loop {
            if let Some(item) = self.decoded(decode)? {
                return Ok(Some(item));
            }
            if deadline.is_none() {
                deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
            }
            let wake = deadline.into_iter().chain(self.next_beat).min();
            let failure = match self.connection.receive(self.decoder.space(), wake) {
                Ok(None) if wake != deadline => {
                    self.keep_alive()?;
                    continue;
                }
                Ok(None) => return Ok(None),
                Ok(Some(0)) => self.end_of_stream()?,
                Ok(Some(len)) => {
                    self.decoder.advance(len);
                    continue;
                }
                Err(error) => error,
            };
            self.shared.lost(&self.connection, failure)?;
            match self.shared.ready(deadline)? {
                Some(connection) => {
                    self.connection = connection;
                    self.decoder = decoder(&self.shared);
                    self.next_beat = next_beat(&self.shared);
                    (self.granted, self.farewell) = (None, None);
                    self.answers.clear();
                }
                None => return Ok(None),
            }
        }
    }

    fn decoded<T>(
        &mut self,
        decode: fn(&mut MessageDecoder) -> Result<Option<T>, Misbehaved>,
    ) -> Result<Option<T>, ClientError> {
        let decoded = decode(&mut self.decoder);
        self.take_notes()?;
        decoded.map_err(|misbehaved| self.not_a_broker(misbehaved))
    }

    /// Why the stream has ended; an error at once if trying again would end the same way.
    fn end_of_stream(&self) -> Result<ClientError, ClientError> {
        if self.shared.is_disconnected() {
            return Err(ClientError::Disconnected);
        }
        if self.decoder.looks_foreign() {
            return Err(self.not_a_broker(Misbehaved::NoMessage));
        }
        let address = self.connection.address().clone();
        Ok(match (self.farewell, self.decoder.remainder_len()) {
            (Some(reason), _) => ClientError::ClosedFor { address, reason },
            (None, 0) => ClientError::Closed { address },
            (None, received) => ClientError::ClosedInFrame { address, received },
        })
    }

    fn not_a_broker(&self, cause: Misbehaved) -> ClientError {
        self.connection.shut_down();
        ClientError::NotABroker {
            address: self.connection.address().clone(),
            cause,
        }
    }
}

/// Messages that are kept at most while an answer is waited for: some 16 MiB.
const KEPT_MAX: usize = 65_536;
/// The empty SUBSCRIBE, which changes nothing with any broker.
const BEAT: [u8; 2] = [id::SUBSCRIBE, 0];

fn decoder(shared: &Shared) -> MessageDecoder {
    match shared.settings().asks {
        true => MessageDecoder::with_answers(),
        false => MessageDecoder::new(),
    }
}

/// A byte each half of the keepalive, so that one can be late.
fn next_beat(shared: &Shared) -> Option<Instant> {
    let keepalive = shared.settings().keepalive?;
    Some(Instant::now() + keepalive / 2)
}

/// Iterator over received messages. It ends at its timeout, when this client disconnects, and after
/// an error.
#[derive(Debug)]
pub struct Messages<'a> {
    receiver: &'a mut Receiver,
    timeout: Option<Duration>,
    ended: bool,
}

impl Iterator for Messages<'_> {
    type Item = Result<Message, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = match self.receiver.receive(self.timeout) {
            Err(ClientError::Disconnected) => None,
            received => received.transpose(),
        };
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}
