//! A blocking client: publish, subscribe, receive. With the feature `tokio` `AsyncClient` is the
//! same for asynchronous programs.
//!
//! ```
//! # #[cfg(feature = "broker")] {
//! use std::time::Duration;
//!
//! use hvlp::Client;
//!
//! # let broker = hvlp::Broker::builder().listen("127.0.0.1:0")?.spawn()?;
//! # let address = broker.local_addr();
//! let mut consumer = Client::connect(address)?;
//! consumer.subscribe(["temperature"])?;
//! # while broker.register().subscribers("temperature").next().is_none() {}
//!
//! let mut producer = Client::connect(address)?;
//! producer.publish("temperature", b"21.5")?;
//! producer.disconnect()?;
//!
//! for message in consumer.messages(Duration::from_secs(10)) {
//!     let message = message?;
//!     assert_eq!((message.topic(), message.data()), ("temperature", &b"21.5"[..]));
//! #   break;
//! }
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Client::split`] gives a [`Sender`] and a [`Receiver`] for two threads. Many messages at once
//! go into a [`Batch`]. The library starts no thread, keeps at most one read buffer, and reads no
//! further than the program does. [`ClientError::fault`] says who has to change something.
//!
//! A subscription takes effect when the broker has read it; the base protocol has no answer that
//! would tell when. A client that [asks](ClientBuilder::extensions) for answers can wait for that:
//! [`Client::subscribe_acked`], [`Client::barrier`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

#[cfg(feature = "tokio")]
mod asynchronous;
mod batch;
mod builder;
mod connection;
mod decoder;
mod dialogue;
mod error;
mod memory;
mod message;
mod receiver;
mod reconnect;
mod requests;
mod sender;

#[cfg(feature = "tokio")]
pub use asynchronous::AsyncClient;
pub use batch::Batch;
pub use builder::ClientBuilder;
pub use decoder::{MessageDecoder, Misbehaved};
pub use error::{ClientError, Fault, Wait};
pub use message::{Message, Skipped};
pub use receiver::{Messages, Receiver};
pub use reconnect::Reconnect;
pub use sender::Sender;

use self::connection::Connection;
use self::reconnect::Shared;
use crate::address::Address;

/// A connection to a broker, with both directions in one hand.
#[derive(Debug)]
pub struct Client {
    sender: Sender,
    receiver: Receiver,
}

impl Client {
    /// Connects with the default settings: `host:port`, `[v6]:port` or `unix:/path`.
    ///
    /// # Errors
    /// The text is no address, nobody is there, or not in time.
    pub fn connect<A: TryInto<Address>>(address: A) -> Result<Self, ClientError>
    where
        ClientError: From<A::Error>,
    {
        Self::builder().address(address)?.connect()
    }

    /// For other settings than the default ones.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new()
    }

    fn new(shared: &Arc<Shared>, connection: &Arc<Connection>) -> Self {
        Self {
            sender: Sender::new(Arc::clone(shared), Arc::clone(connection)),
            receiver: Receiver::new(Arc::clone(shared), Arc::clone(connection)),
        }
    }

    /// Publishes one message; see [`Sender::publish`].
    ///
    /// # Errors
    /// `Encode` if it does not fit; nothing is written then. Otherwise the connection's fault.
    pub fn publish(&mut self, topic: &str, data: &[u8]) -> Result<(), ClientError> {
        let sent = self.sender.publish(topic, data);
        sent.map_err(|error| self.receiver.explain(error))
    }

    /// Publishes all messages of `batch` and empties it; see [`Sender::send_batch`].
    ///
    /// # Errors
    /// The connection's fault. Messages that were not sent stay in the batch.
    pub fn send_batch(&mut self, batch: &mut Batch) -> Result<(), ClientError> {
        let sent = self.sender.send_batch(batch);
        sent.map_err(|error| self.receiver.explain(error))
    }

    /// Subscribes to all `topics`; see [`Sender::subscribe`].
    ///
    /// # Errors
    /// `Encode` if a topic is longer than 254 bytes; nothing is written then. Otherwise the
    /// connection's fault.
    pub fn subscribe<T: AsRef<str>>(
        &mut self,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<(), ClientError> {
        let sent = self.sender.subscribe(topics);
        sent.map_err(|error| self.receiver.explain(error))
    }

    /// Ends the subscriptions to all `topics`.
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe).
    pub fn unsubscribe<T: AsRef<str>>(
        &mut self,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<(), ClientError> {
        let sent = self.sender.unsubscribe(topics);
        sent.map_err(|error| self.receiver.explain(error))
    }

    /// Sends CONNECT after [`ClientBuilder::open`]; see [`Sender::send_connect`].
    ///
    /// # Errors
    /// `Encode` if the payload is longer than 255 bytes. Otherwise the connection's fault.
    pub fn send_connect(&mut self, payload: &[u8]) -> Result<(), ClientError> {
        self.sender.send_connect(payload)
    }

    /// Sends any bytes as they are; see [`Sender::send_raw`].
    ///
    /// # Errors
    /// The connection's fault; a part of the bytes may have gone.
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.sender.send_raw(bytes)
    }

    /// The next message, or `None` after `timeout`; see [`Receiver::receive`].
    ///
    /// # Errors
    /// The connection's end, by its kind.
    pub fn receive(
        &mut self,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Option<Message>, ClientError> {
        self.receiver.receive(timeout)
    }

    /// The next whole frame of any kind, or `None` after `timeout`.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn receive_frame(
        &mut self,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Option<Bytes>, ClientError> {
        self.receiver.receive_frame(timeout)
    }

    /// All messages, until none comes within `timeout`.
    pub fn messages(&mut self, timeout: impl Into<Option<Duration>>) -> Messages<'_> {
        self.receiver.messages(timeout)
    }

    /// What is subscribed, in alphabetical order.
    pub fn topics(&self) -> Vec<String> {
        self.sender.topics()
    }

    /// The address that this client was built with.
    pub fn broker(&self) -> &Address {
        self.sender.broker()
    }

    /// The address of this end; none for a unix socket.
    pub fn local_address(&self) -> Option<Address> {
        self.sender.local_address()
    }

    /// How often the connection was lost and made again.
    pub fn reconnects(&self) -> u64 {
        self.receiver.reconnects()
    }

    /// Another sender on the same connection, for another thread.
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// Both halves, for two threads: one publishes while the other receives. When the connection is
    /// lost and reconnecting is on, both go on with the same new one.
    ///
    /// ```
    /// # #[cfg(feature = "broker")] {
    /// # let broker = hvlp::Broker::builder().listen("127.0.0.1:0")?.spawn()?;
    /// let client = hvlp::Client::connect(broker.local_addr())?;
    /// let (mut sender, mut receiver) = client.split();
    /// let printing = std::thread::spawn(move || {
    ///     for message in receiver.messages(None).flatten() {
    ///         println!("{message:?}");
    ///     }
    /// });
    /// sender.publish("a", b"1")?;
    /// sender.disconnect()?;
    /// printing.join().expect("the receiver ends when the sender disconnects");
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }

    /// Sends DISCONNECT and waits until the broker has everything that was sent and closes.
    ///
    /// Dropping a client instead closes the connection at once; what was sent last may be lost.
    ///
    /// # Errors
    /// The connection's fault, or the broker does not close within 5 s: it is not certain then that
    /// it got everything.
    pub fn disconnect(mut self) -> Result<(), ClientError> {
        let ended = self.sender.end();
        ended.map_err(|error| self.receiver.explain(error))?;
        self.receiver.drain(DRAIN_TIMEOUT)
    }
}

const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
