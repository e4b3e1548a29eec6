//! The same client for programs on tokio: a future for each call, and a stream of messages.

use bytes::Bytes;
use futures_util::stream::{self, Stream};

use super::batch::Batch;
use super::builder::ClientBuilder;
use super::decoder::MessageDecoder;
use super::dialogue::{pong_of, refused, statuses_of};
use super::error::ClientError;
use super::message::Message;
use super::requests::PING;
use super::{Client, DRAIN_TIMEOUT};
use crate::address::Address;
use crate::packet::{Extensions, Frame, FrameBuf, Status, id};
use crate::topic_frames::topic_frames;

mod link;
mod socket;

use link::Link;
use socket::Socket;

/// A connection to a broker, in the hands of one task.
///
/// Every future may be dropped at any time, in `select!` or by a time limit: no frame is torn and
/// no message lost. What was to be sent is then either not sent, or sent whole with the next call
/// at the latest. It starts no task; who neither sends nor receives does not reconnect either.
///
/// ```
/// # #[cfg(feature = "broker")] {
/// use futures_util::TryStreamExt;
/// use hvlp::client::AsyncClient;
/// use hvlp::packet::Extensions;
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// # runtime.block_on(async {
/// # let broker = hvlp::Broker::builder().listen("127.0.0.1:0")?.spawn()?;
/// # let address = broker.local_addr();
/// let builder = AsyncClient::builder().address(address)?;
/// let mut consumer = builder.extensions(Extensions::ACK).connect_async().await?;
/// consumer.subscribe_acked(["temperature"]).await?;
///
/// let mut producer = AsyncClient::connect(address).await?;
/// producer.publish("temperature", b"21.5").await?;
///
/// let mut messages = std::pin::pin!(consumer.messages());
/// let message = messages.try_next().await?.expect("it goes on for ever");
/// assert_eq!((message.topic(), message.data()), ("temperature", &b"21.5"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct AsyncClient {
    link: Link,
}

impl AsyncClient {
    /// Connects with the default settings: `host:port`, `[v6]:port` or `unix:/path`.
    ///
    /// # Errors
    /// The text is no address, nobody is there, or not in time.
    pub async fn connect<A: TryInto<Address>>(address: A) -> Result<Self, ClientError>
    where
        ClientError: From<A::Error>,
    {
        Self::builder().address(address)?.connect_async().await
    }

    /// For other settings than the default ones; [`ClientBuilder::connect_async`] ends it.
    pub fn builder() -> ClientBuilder {
        Client::builder()
    }

    /// Publishes one message. It waits while the broker takes nothing.
    ///
    /// # Errors
    /// `Encode` if it does not fit; nothing is written then. Otherwise the connection's fault.
    pub async fn publish(&mut self, topic: &str, data: &[u8]) -> Result<(), ClientError> {
        let frame = FrameBuf::publish(topic, data)?;
        self.link.send(frame.bytes(), false).await
    }

    /// Publishes all messages of `batch`, with as few system calls as the socket allows, and
    /// empties it.
    ///
    /// # Errors
    /// The connection's fault.
    pub async fn send_batch(&mut self, batch: &mut Batch) -> Result<(), ClientError> {
        self.link.flush().await?;
        // From here on they are the link's, whatever becomes of this future.
        let frames = batch.bytes().to_vec();
        batch.clear();
        self.link.send(&frames, false).await
    }

    /// Subscribes to all `topics`. Topics that are subscribed already do not matter.
    ///
    /// # Errors
    /// `Encode` if a topic is longer than 254 bytes; nothing is written then. Otherwise the
    /// connection's fault.
    pub async fn subscribe<T: AsRef<str>>(
        &mut self,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<(), ClientError> {
        let topics: Vec<T> = topics.into_iter().collect();
        let topics: Vec<&str> = topics.iter().map(AsRef::as_ref).collect();
        self.list(id::SUBSCRIBE, &topics, false).await.map(drop)
    }

    /// Ends the subscriptions to all `topics`. Topics that are not subscribed do not matter.
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe).
    pub async fn unsubscribe<T: AsRef<str>>(
        &mut self,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<(), ClientError> {
        let topics: Vec<T> = topics.into_iter().collect();
        let topics: Vec<&str> = topics.iter().map(AsRef::as_ref).collect();
        self.list(id::UNSUBSCRIBE, &topics, false).await.map(drop)
    }

    /// As [`Client::subscribe_acked`].
    ///
    /// # Errors
    /// `NotGranted` without ACK; `Encode` if a topic is longer than 254 bytes, nothing is written
    /// then; otherwise the connection's fault, and nobody knows what has taken effect.
    pub async fn subscribe_acked<T: AsRef<str>>(
        &mut self,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<Vec<Status>, ClientError> {
        let topics: Vec<T> = topics.into_iter().collect();
        let topics: Vec<&str> = topics.iter().map(AsRef::as_ref).collect();
        let statuses = self.list_acked(id::SUBSCRIBE, &topics).await?;
        self.link.memory.forget(&refused(&topics, &statuses));
        Ok(statuses)
    }

    /// As [`Client::unsubscribe_acked`].
    ///
    /// # Errors
    /// As [`subscribe_acked`](Self::subscribe_acked).
    pub async fn unsubscribe_acked<T: AsRef<str>>(
        &mut self,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<Vec<Status>, ClientError> {
        let topics: Vec<T> = topics.into_iter().collect();
        let topics: Vec<&str> = topics.iter().map(AsRef::as_ref).collect();
        self.list_acked(id::UNSUBSCRIBE, &topics).await
    }

    /// As [`Client::barrier`].
    ///
    /// # Errors
    /// `NotGranted` without ACK; otherwise the connection's fault.
    pub async fn barrier(&mut self) -> Result<u32, ClientError> {
        self.begin_request()?;
        self.link.send(&PING, true).await?;
        let answer = self.link.answer().await?;
        pong_of(&answer).map_err(|astray| self.link.not_a_broker(astray))
    }

    /// The next message; it waits for as long as it takes.
    ///
    /// # Errors
    /// The connection's end, by its kind. With [reconnecting](ClientBuilder::reconnect) only what
    /// reconnecting cannot cure.
    pub async fn receive(&mut self) -> Result<Message, ClientError> {
        self.link.message().await
    }

    /// The next whole frame, message or not, for programs that look at the protocol itself.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub async fn receive_frame(&mut self) -> Result<Bytes, ClientError> {
        self.link.next(MessageDecoder::decode_frame).await
    }

    /// All messages, as a stream that ends behind its first error.
    pub fn messages(&mut self) -> impl Stream<Item = Result<Message, ClientError>> + Send {
        stream::unfold(Some(self), |client| async {
            let client = client?;
            match client.receive().await {
                Ok(message) => Some((Ok(message), Some(client))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// The extensions that are in force on this connection.
    pub fn extensions(&self) -> Extensions {
        self.link.dialogue.granted().unwrap_or_default()
    }

    /// What is subscribed, in alphabetical order.
    pub fn topics(&self) -> Vec<String> {
        self.link.memory.topics()
    }

    /// The address that this client was built with.
    pub const fn broker(&self) -> &Address {
        &self.link.settings.address
    }

    /// The address of this end; none for a unix socket, or without a connection.
    pub fn local_address(&self) -> Option<Address> {
        self.link.socket()?.local_address()
    }

    /// How often the connection was lost and made again.
    pub const fn reconnects(&self) -> u64 {
        self.link.reconnects
    }

    /// Sends DISCONNECT and waits until the broker has everything that was sent and closes.
    ///
    /// Dropping a client instead closes the connection at once; what was sent last may be lost.
    ///
    /// # Errors
    /// The connection's fault, or the broker does not close within 5 s: it is not certain then that
    /// it got everything.
    pub async fn disconnect(mut self) -> Result<(), ClientError> {
        self.link.end_sending();
        let is_there = |socket: &Socket| !socket.is_ended();
        if !self.link.socket().is_some_and(is_there) {
            return Err(ClientError::Closed {
                address: self.broker().clone(),
            });
        }
        let disconnect = FrameBuf::disconnect(&[])?;
        self.link.send(disconnect.bytes(), false).await?;
        let ended = self.link.socket().map_or(Ok(()), Socket::end_writing);
        ended.map_err(|source| ClientError::from_io(self.broker(), source))?;
        self.link.drain(DRAIN_TIMEOUT).await
    }

    async fn list(
        &mut self,
        id: u8,
        topics: &[&str],
        is_awaited: bool,
    ) -> Result<Vec<u8>, ClientError> {
        let frames = topic_frames(id, topics.iter().copied())?;
        // Before: a connection that is lost from here on carries the change to the next one.
        match id {
            id::SUBSCRIBE => self.link.memory.add(topics),
            _ => self.link.memory.forget(topics),
        }
        self.link.send(&frames, is_awaited).await?;
        Ok(frames)
    }

    async fn list_acked(&mut self, id: u8, topics: &[&str]) -> Result<Vec<Status>, ClientError> {
        self.begin_request()?;
        let frames = self.list(id, topics, true).await?;
        let (mut statuses, mut rest) = (Vec::new(), &frames[..]);
        while let Some((frame, behind)) = Frame::split_first(rest) {
            rest = behind;
            let answer = self.link.answer().await?;
            let given = statuses_of(frame, &answer);
            statuses.extend(given.map_err(|astray| self.link.not_a_broker(astray))?);
        }
        Ok(statuses)
    }

    /// Whoever asked before and has given up gets no answer any more.
    fn begin_request(&mut self) -> Result<(), ClientError> {
        self.link.requests.await_none();
        self.link.dialogue.drop_answers();
        match self.extensions().contains(Extensions::ACK) {
            true => Ok(()),
            false => Err(ClientError::NotGranted {
                address: self.broker().clone(),
                missing: Extensions::ACK,
            }),
        }
    }
}

impl ClientBuilder {
    /// As [`connect`](Self::connect), within a tokio runtime that has time and input enabled.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_async(mut self) -> Result<AsyncClient, ClientError> {
        if let Some(hello) = self.ask()? {
            let mut client = self.open_async().await?;
            client.link.memory.set_connect(hello);
            client.link.send(hello.bytes(), false).await?;
            let granted = client.link.await_grant(super::builder::GRANT_TIMEOUT).await;
            if self.is_granted(granted, &client.link.settings.address)? {
                return Ok(client);
            }
            self.ask_for_nothing();
        }
        let connect = self.connect_frame()?;
        let mut client = self.open_async().await?;
        client.link.memory.set_connect(connect);
        client.link.send(connect.bytes(), false).await?;
        Ok(client)
    }

    async fn open_async(&self) -> Result<AsyncClient, ClientError> {
        let link = Link::open(self.settings().clone()).await?;
        Ok(AsyncClient { link })
    }
}

/// So that nobody adds something that ties a client to a thread.
const _: fn() = || {
    fn is_send<T: Send>() {}
    is_send::<AsyncClient>();
};
