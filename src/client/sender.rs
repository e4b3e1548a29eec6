//! The half of a client that sends.

use std::sync::Arc;

use super::batch::{Batch, unsent};
use super::connection::{Connection, SendFailure};
use super::error::ClientError;
use super::reconnect::Shared;
use crate::address::Address;
use crate::packet::FrameBuf;

/// Publishes, subscribes and disconnects. Clones share one connection; any number of threads may
/// send at once, and their frames do not mix.
#[derive(Clone, Debug)]
pub struct Sender {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
}

impl Sender {
    pub(super) const fn new(shared: Arc<Shared>, connection: Arc<Connection>) -> Self {
        Self { shared, connection }
    }

    /// Publishes one message, with one system call.
    ///
    /// # Errors
    /// `Encode` if it does not fit; nothing is written then. Otherwise the connection's fault.
    pub fn publish(&mut self, topic: &str, data: &[u8]) -> Result<(), ClientError> {
        let frame = FrameBuf::publish(topic, data)?;
        self.send(frame.bytes()).map_err(|(error, _)| error)
    }

    /// Publishes all messages of `batch`, with as few system calls as the socket allows, and
    /// empties it.
    ///
    /// # Errors
    /// The connection's fault. Messages that were not sent stay in the batch.
    pub fn send_batch(&mut self, batch: &mut Batch) -> Result<(), ClientError> {
        let sent = self.send(batch.bytes());
        batch.keep_last(sent.as_ref().map_or_else(|(_, left)| *left, |()| 0));
        sent.map_err(|(error, _)| error)
    }

    /// Subscribes to all `topics`, in as many frames as they need. Topics that are subscribed
    /// already do not matter.
    ///
    /// # Errors
    /// `Encode` if a topic is longer than 254 bytes; nothing is written then. Otherwise the
    /// connection's fault.
    pub fn subscribe<T: AsRef<str>>(
        &mut self,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<(), ClientError> {
        let topics: Vec<T> = topics.into_iter().collect();
        let topics: Vec<&str> = topics.iter().map(AsRef::as_ref).collect();
        self.shared.subscribe(&topics, false).map(drop)
    }

    /// Ends the subscriptions to all `topics`. Topics that are not subscribed do not matter.
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe).
    pub fn unsubscribe<T: AsRef<str>>(
        &mut self,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<(), ClientError> {
        let topics: Vec<T> = topics.into_iter().collect();
        let topics: Vec<&str> = topics.iter().map(AsRef::as_ref).collect();
        self.shared.unsubscribe(&topics, false).map(drop)
    }

    /// What is subscribed, in alphabetical order.
    pub fn topics(&self) -> Vec<String> {
        self.shared.topics()
    }

    /// Sends CONNECT, which begins the session. Only after [`ClientBuilder::open`]; the other ways
    /// to connect have sent it already, and a broker ignores a second one.
    ///
    /// [`ClientBuilder::open`]: super::ClientBuilder::open
    ///
    /// # Errors
    /// `Encode` if the payload is longer than 255 bytes. Otherwise the connection's fault.
    pub fn send_connect(&mut self, payload: &[u8]) -> Result<(), ClientError> {
        self.shared.send_connect(FrameBuf::connect(payload)?)
    }

    pub(super) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Sends any bytes as they are. They are never sent again on another connection, and what they
    /// subscribe to is not remembered for one.
    ///
    /// # Errors
    /// The connection's fault; a part of the bytes may have gone.
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.shared.adopt(&mut self.connection);
        let connection = &self.connection;
        let SendFailure { error, .. } = match connection.send(bytes) {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        self.shared.lost(connection, error)?;
        Err(ClientError::Closed {
            address: self.broker().clone(),
        })
    }

    /// Sends DISCONNECT and ends the direction to the broker, which still gets everything that was
    /// sent. The receiver gets what is under way and then `Disconnected`; it should be read to that
    /// end, or the system answers with a reset that may overtake what was sent.
    ///
    /// # Errors
    /// The connection's fault: it is not certain then that the broker got everything.
    pub fn disconnect(self) -> Result<(), ClientError> {
        self.end()
    }

    /// Closes the connection without DISCONNECT: what is under way, in either direction, may be
    /// lost. The receiver gets `Disconnected`.
    pub fn close(self) {
        if let Ok(connection) = self.shared.disconnect() {
            connection.shut_down();
        }
    }

    /// The address that this client was built with.
    pub fn broker(&self) -> &Address {
        &self.shared.settings().address
    }

    /// The address of this end, which the broker's logs show; none for a unix socket.
    pub fn local_address(&self) -> Option<Address> {
        self.connection.local_address()
    }

    /// As `disconnect`, for a client that reads the connection to its end itself.
    pub(super) fn end(&self) -> Result<(), ClientError> {
        let connection = self.shared.disconnect()?;
        if connection.is_ended() {
            return Err(ClientError::Closed {
                address: self.broker().clone(),
            });
        }
        let disconnect = FrameBuf::disconnect(&[])?;
        connection
            .send(disconnect.bytes())
            .map_err(|failure| failure.error)?;
        connection.end_writing()
    }

    /// Sends whole frames, across a reconnection too. With an error comes how many bytes have not
    /// been sent, in whole frames.
    fn send(&mut self, mut frames: &[u8]) -> Result<(), (ClientError, usize)> {
        loop {
            self.shared.adopt(&mut self.connection);
            let Err(SendFailure { written, error }) = self.connection.send(frames) else {
                return Ok(());
            };
            frames = unsent(frames, written);
            if matches!(error, ClientError::TimedOut { .. }) {
                return Err((error, frames.len()));
            }
            self.recover(error).map_err(|error| (error, frames.len()))?;
        }
    }

    fn recover(&mut self, cause: ClientError) -> Result<(), ClientError> {
        self.shared.lost(&self.connection, cause)?;
        let ready = self.shared.ready(self.shared.write_deadline())?;
        self.connection = ready.ok_or_else(|| self.shared.not_back())?;
        Ok(())
    }
}
