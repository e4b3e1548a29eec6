//! The half of a client that receives: the decoder, fed from the socket.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::connection::Connection;
use super::decoder::{MessageDecoder, Misbehaved};
use super::error::{ClientError, Wait};
use super::message::Message;
use super::reconnect::Shared;

/// Receives messages. Nothing is read ahead of the program by more than one buffer: who does not
/// take its messages is what the broker calls a slow consumer.
#[derive(Debug)]
pub struct Receiver {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    decoder: MessageDecoder,
}

impl Receiver {
    pub(super) fn new(shared: Arc<Shared>, connection: Arc<Connection>) -> Self {
        Self {
            shared,
            connection,
            decoder: MessageDecoder::new(),
        }
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
            let failure = match self.connection.receive(self.decoder.space(), deadline) {
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
                    self.decoder = MessageDecoder::new();
                }
                None => return Ok(None),
            }
        }
    }

    fn decoded<T>(
        &mut self,
        decode: fn(&mut MessageDecoder) -> Result<Option<T>, Misbehaved>,
    ) -> Result<Option<T>, ClientError> {
        decode(&mut self.decoder).map_err(|misbehaved| self.not_a_broker(misbehaved))
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
        Ok(match self.decoder.remainder_len() {
            0 => ClientError::Closed { address },
            received => ClientError::ClosedInFrame { address, received },
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
