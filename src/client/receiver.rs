//! The half of a client that receives: the decoder, fed from the socket.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::connection::Connection;
use super::decoder::{MessageDecoder, Misbehaved};
use super::dialogue::{Dialogue, KEPT_MAX};
use super::error::{ClientError, Wait};
use super::message::Message;
use super::reconnect::Shared;
use crate::packet::{Extensions, id};

/// Receives messages. Nothing is read ahead of the program by more than one buffer: who does not
/// take its messages is what the broker calls a slow consumer.
#[derive(Debug)]
pub struct Receiver {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    dialogue: Dialogue,
    /// When the broker is to be sent a byte.
    next_beat: Option<Instant>,
}

impl Receiver {
    pub(super) fn new(shared: Arc<Shared>, connection: Arc<Connection>) -> Self {
        let dialogue = Dialogue::new(shared.settings().asks);
        let next_beat = next_beat(&shared);
        Self {
            shared,
            connection,
            dialogue,
            next_beat,
        }
    }

    pub(super) const fn extensions(&self) -> Extensions {
        match self.dialogue.granted() {
            Some(granted) => granted,
            None => Extensions::NONE,
        }
    }

    /// Waits until the broker has answered CONNECT; false if it does not within `timeout`.
    pub(super) fn await_grant(&mut self, timeout: Duration) -> Result<bool, ClientError> {
        let deadline = Instant::now() + timeout;
        while self.dialogue.granted().is_none() {
            let read = self
                .connection
                .receive(self.dialogue.decoder.space(), Some(deadline))?;
            match read {
                None | Some(0) => break,
                Some(len) => self.dialogue.decoder.advance(len),
            }
            self.keep_messages()?;
        }
        Ok(self.dialogue.granted().is_some())
    }

    /// Whoever asked before and has given up gets no answer any more.
    pub(super) fn begin_request(&mut self) {
        self.connection.requests().await_none();
        self.dialogue.drop_answers();
    }

    /// The next answer that somebody waits for; `None` at the deadline.
    pub(super) fn answer(&mut self, deadline: Instant) -> Result<Option<Bytes>, ClientError> {
        loop {
            let has_room = self.keep_messages()?;
            if let Some(answer) = self.dialogue.take_answer() {
                return Ok(Some(answer));
            }
            if !has_room {
                return Err(ClientError::TooManyMessages {
                    address: self.connection.address().clone(),
                    kept: KEPT_MAX,
                });
            }
            let read = self
                .connection
                .receive(self.dialogue.decoder.space(), Some(deadline))?;
            match read {
                None => return Ok(None),
                Some(0) => return Err(self.end_of_stream()?),
                Some(len) => self.dialogue.decoder.advance(len),
            }
        }
    }

    /// Keeps the messages that came; false if they are too many.
    fn keep_messages(&mut self) -> Result<bool, ClientError> {
        let kept = self.dialogue.keep_messages();
        self.take_notes()?;
        kept.map_err(|misbehaved| self.not_a_broker(misbehaved))
    }

    /// Takes note of what the broker has said beside messages.
    fn take_notes(&mut self) -> Result<(), ClientError> {
        if !self.dialogue.has_notes() {
            return Ok(());
        }
        let connection = &self.connection;
        let mut requests = connection.requests();
        self.dialogue
            .take_notes(connection.address(), &mut requests)
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
        if let Some(message) = self.dialogue.take_kept() {
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
        self.dialogue.decoder.skipped()
    }

    /// How often this half has gone on with a new connection.
    pub fn reconnects(&self) -> u64 {
        self.connection.generation() / 2
    }

    /// A better reason for a connection that ended: what the peer said before.
    pub(super) fn explain(&mut self, error: ClientError) -> ClientError {
        if let ClientError::Closed { .. } | ClientError::Reset { .. } = error {
            let now = Some(Instant::now());
            if let Ok(Some(len)) = self.connection.receive(self.dialogue.decoder.space(), now) {
                self.dialogue.decoder.advance(len);
            }
            if let Some(cause) = self.dialogue.decoder.foreign() {
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
                .receive(self.dialogue.decoder.space(), Some(deadline))?;
            match read {
                Some(0) if self.dialogue.decoder.looks_foreign() => {
                    return Err(self.not_a_broker(Misbehaved::NoMessage));
                }
                Some(0) => return Ok(()),
                Some(len) => self.dialogue.decoder.advance(len),
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
            let failure = match self.connection.receive(self.dialogue.decoder.space(), wake) {
                Ok(None) if wake != deadline => {
                    self.keep_alive()?;
                    continue;
                }
                Ok(None) => return Ok(None),
                Ok(Some(0)) => self.end_of_stream()?,
                Ok(Some(len)) => {
                    self.dialogue.decoder.advance(len);
                    // Also where the next read never has to wait.
                    self.keep_alive()?;
                    continue;
                }
                Err(error) => error,
            };
            self.shared.lost(&self.connection, failure)?;
            match self.shared.ready(deadline)? {
                Some(connection) => {
                    self.connection = connection;
                    self.dialogue.begin_again(self.shared.settings().asks);
                    self.next_beat = next_beat(&self.shared);
                }
                None => return Ok(None),
            }
        }
    }

    fn decoded<T>(
        &mut self,
        decode: fn(&mut MessageDecoder) -> Result<Option<T>, Misbehaved>,
    ) -> Result<Option<T>, ClientError> {
        let decoded = decode(&mut self.dialogue.decoder);
        self.take_notes()?;
        decoded.map_err(|misbehaved| self.not_a_broker(misbehaved))
    }

    /// Why the stream has ended; an error at once if trying again would end the same way.
    fn end_of_stream(&self) -> Result<ClientError, ClientError> {
        if self.shared.is_disconnected() {
            return Err(ClientError::Disconnected);
        }
        let end = self.dialogue.end(self.connection.address());
        end.map_err(|misbehaved| self.not_a_broker(misbehaved))
    }

    pub(super) fn not_a_broker(&self, cause: Misbehaved) -> ClientError {
        self.connection.shut_down();
        ClientError::NotABroker {
            address: self.connection.address().clone(),
            cause,
        }
    }
}

/// The empty SUBSCRIBE, which changes nothing with any broker.
const BEAT: [u8; 2] = [id::SUBSCRIBE, 0];

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
