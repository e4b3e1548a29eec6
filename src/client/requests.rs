//! Requests with answers: what a client asks of a broker that has granted ACK.

use std::time::Instant;

use bytes::Bytes;

use super::Client;
use super::dialogue::{pong_of, refused, statuses_of};
use super::error::{ClientError, Wait};
use crate::packet::{Extensions, Frame, Status, id};

impl Client {
    /// The extensions that are in force on this connection.
    pub const fn extensions(&self) -> Extensions {
        self.receiver.extensions()
    }

    /// Subscribes to all `topics` and waits until the broker has: what is published from now on, by
    /// anybody, is received. Returns the status of each topic; those that were refused are skipped.
    ///
    /// ```
    /// # #[cfg(feature = "broker")] {
    /// use hvlp::Client;
    /// use hvlp::packet::{Extensions, Status};
    ///
    /// # let broker = hvlp::Broker::builder().listen("127.0.0.1:0")?.spawn()?;
    /// # let address = broker.local_addr();
    /// let wanted = Extensions::ACK | Extensions::WILD;
    /// let mut client = Client::builder().address(address)?.extensions(wanted).connect()?;
    /// assert_eq!(client.subscribe_acked(["state/+", "a#"])?, [Status::Ok, Status::Malformed]);
    ///
    /// let mut other = Client::connect(address)?;
    /// other.publish("state/door", b"open")?;
    /// let message = client.receive(None)?.expect("no time limit");
    /// assert_eq!(message.topic(), "state/door");
    /// assert_eq!(client.barrier()?, 0, "no message was dropped");
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `NotGranted` without ACK; `Encode` if a topic is longer than 254 bytes, nothing is written
    /// then; otherwise the connection's fault, and nobody knows what has taken effect.
    pub fn subscribe_acked<T: AsRef<str>>(
        &mut self,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<Vec<Status>, ClientError> {
        self.require(Extensions::ACK)?;
        let topics: Vec<T> = topics.into_iter().collect();
        let topics: Vec<&str> = topics.iter().map(AsRef::as_ref).collect();
        let sent = self.sender.shared().subscribe(&topics, true);
        let statuses = self.statuses(sent)?;
        self.sender.shared().forget(&refused(&topics, &statuses));
        Ok(statuses)
    }

    /// Ends the subscriptions to all `topics` and waits until the broker has. Returns the status of
    /// each; topics that are not subscribed are no error.
    ///
    /// # Errors
    /// As [`subscribe_acked`](Self::subscribe_acked).
    pub fn unsubscribe_acked<T: AsRef<str>>(
        &mut self,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<Vec<Status>, ClientError> {
        self.require(Extensions::ACK)?;
        let topics: Vec<T> = topics.into_iter().collect();
        let topics: Vec<&str> = topics.iter().map(AsRef::as_ref).collect();
        let sent = self.sender.shared().unsubscribe(&topics, true);
        self.statuses(sent)
    }

    /// Waits until all that this client has sent is in effect everywhere: what it has published has
    /// been given to all who wanted it. Returns how many messages for this client the broker has
    /// dropped so far, because it did not read them in time.
    ///
    /// # Errors
    /// `NotGranted` without ACK; otherwise the connection's fault.
    pub fn barrier(&mut self) -> Result<u32, ClientError> {
        self.require(Extensions::ACK)?;
        let sent = self.sender.shared().request(&PING, true);
        sent.map_err(|error| self.receiver.explain(error))?;
        let answer = self.answer()?;
        pong_of(&answer).map_err(|astray| self.receiver.not_a_broker(astray))
    }

    fn require(&mut self, extension: Extensions) -> Result<(), ClientError> {
        self.receiver.begin_request();
        match self.extensions().contains(extension) {
            true => Ok(()),
            false => Err(ClientError::NotGranted {
                address: self.broker().clone(),
                missing: extension,
            }),
        }
    }

    /// The answers to these frames, one behind the other.
    fn statuses(&mut self, sent: Result<Vec<u8>, ClientError>) -> Result<Vec<Status>, ClientError> {
        let frames = sent.map_err(|error| self.receiver.explain(error))?;
        let (mut statuses, mut rest) = (Vec::new(), &frames[..]);
        while let Some((frame, behind)) = Frame::split_first(rest) {
            rest = behind;
            let given = statuses_of(frame, &self.answer()?);
            statuses.extend(given.map_err(|astray| self.receiver.not_a_broker(astray))?);
        }
        Ok(statuses)
    }

    fn answer(&mut self) -> Result<Bytes, ClientError> {
        let limit = self.sender.shared().settings().answer_timeout;
        let answer = self.receiver.answer(Instant::now() + limit)?;
        answer.ok_or_else(|| ClientError::TimedOut {
            address: self.broker().clone(),
            wait: Wait::Answer,
            limit,
        })
    }
}

/// The empty UNSUBSCRIBE.
pub(super) const PING: [u8; 2] = [id::UNSUBSCRIBE, 0];
