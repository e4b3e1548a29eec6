//! The connection of an asynchronous client as it comes and goes, and what is under way on it.
//!
//! Everything that outlives a call is kept here and nothing of it in a future: whoever drops one
//! tears no frame and loses no message, and the next call goes on.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::Interest;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::socket::Socket;
use crate::client::batch::unsent;
use crate::client::decoder::{MessageDecoder, Misbehaved};
use crate::client::dialogue::{Dialogue, KEPT_MAX, Requests};
use crate::client::error::{ClientError, Wait};
use crate::client::memory::Memory;
use crate::client::message::Message;
use crate::client::reconnect::{Reconnect, Settings};
use crate::packet::id;

/// The empty SUBSCRIBE, which changes nothing with any broker.
const BEAT: [u8; 2] = [id::SUBSCRIBE, 0];

/// See the module.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) settings: Settings,
    pub(super) memory: Memory,
    pub(super) dialogue: Dialogue,
    pub(super) requests: Requests,
    socket: Option<Socket>,
    /// An attempt that is under way.
    connecting: Option<Connecting>,
    failures: u32,
    next_attempt: Instant,
    pub(super) reconnects: u64,
    /// Whole frames to be written, of which so many bytes have been.
    outgoing: Vec<u8>,
    written: usize,
    next_beat: Option<Instant>,
    pub(super) disconnected: bool,
}

struct Connecting(Pin<Box<dyn Future<Output = Result<Socket, ClientError>> + Send + Sync>>);

impl fmt::Debug for Connecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connecting")
    }
}

/// What a wait for the socket has brought.
enum Progress {
    Went,
    /// The broker has ended the stream.
    End,
    Late,
}

impl Link {
    /// Connects for the first time; nothing is sent yet.
    pub(super) async fn open(settings: Settings) -> Result<Self, ClientError> {
        let opened = Socket::open(settings.address.clone(), settings.connect_timeout);
        let socket = opened.await?;
        let mut requests = Requests::default();
        requests.set_answered(settings.wants_answers);
        let mut link = Self {
            memory: Memory::default(),
            dialogue: Dialogue::new(settings.asks),
            requests,
            socket: Some(socket),
            connecting: None,
            failures: 0,
            next_attempt: Instant::now(),
            reconnects: 0,
            outgoing: Vec::new(),
            written: 0,
            next_beat: None,
            disconnected: false,
            settings,
        };
        link.wind_beat();
        Ok(link)
    }

    pub(super) const fn socket(&self) -> Option<&Socket> {
        self.socket.as_ref()
    }

    // ---- send

    /// Sends whole frames, once everything before is written. If this is given up, they are either
    /// not sent or sent whole, with the next call at the latest.
    pub(super) async fn send(
        &mut self,
        frames: &[u8],
        is_awaited: bool,
    ) -> Result<(), ClientError> {
        self.flush().await?;
        let connection = self.reconnects;
        self.requests.note(frames, is_awaited);
        self.outgoing.extend_from_slice(frames);
        self.flush().await?;
        // On another connection nobody knows what was asked on this one.
        match is_awaited && connection != self.reconnects {
            true => Err(ClientError::Closed {
                address: self.settings.address.clone(),
            }),
            false => Ok(()),
        }
    }

    /// Writes all that is to be written, across a reconnection too.
    pub(super) async fn flush(&mut self) -> Result<(), ClientError> {
        let limit = self.settings.write_timeout;
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        loop {
            self.connected(deadline).await?;
            if self.outgoing.is_empty() {
                return Ok(());
            }
            match self.progress(Interest::WRITABLE, deadline).await {
                Ok(Progress::Late) => return Err(self.late(Wait::Send)),
                Ok(_) => {}
                Err(error) => self.lost(error)?,
            }
        }
    }

    fn write(&mut self) -> Result<(), ClientError> {
        let Some(socket) = &self.socket else {
            return Ok(());
        };
        let rest = self.outgoing.get(self.written..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(());
        }
        let done = socket.write(rest);
        let done = done.map_err(|source| ClientError::from_io(&self.settings.address, source));
        self.written += done?.unwrap_or(0);
        if self.written == self.outgoing.len() {
            self.outgoing.clear();
            self.written = 0;
        }
        Ok(())
    }

    // ---- receive

    /// The next of what is received.
    pub(super) async fn next<T>(
        &mut self,
        decode: fn(&mut MessageDecoder) -> Result<Option<T>, Misbehaved>,
    ) -> Result<T, ClientError> {
        loop {
            let decoded = decode(&mut self.dialogue.decoder);
            self.take_notes()?;
            if let Some(item) = decoded.map_err(|cause| self.not_a_broker(cause))? {
                return Ok(item);
            }
            self.connected(None).await?;
            match self.read(None).await {
                Ok(Progress::End) => {
                    let end = self.end()?;
                    self.lost(end)?;
                }
                Ok(_) => {}
                Err(error) => self.lost(error)?,
            }
        }
    }

    /// The next message.
    pub(super) async fn message(&mut self) -> Result<Message, ClientError> {
        match self.dialogue.take_kept() {
            Some(message) => Ok(message),
            None => self.next(MessageDecoder::decode).await,
        }
    }

    /// The next answer that is waited for.
    pub(super) async fn answer(&mut self) -> Result<Bytes, ClientError> {
        let limit = self.settings.answer_timeout;
        let deadline = Instant::now() + limit;
        let late = |link: &Self| ClientError::TimedOut {
            address: link.settings.address.clone(),
            wait: Wait::Answer,
            limit,
        };
        loop {
            let kept = self.dialogue.keep_messages();
            self.take_notes()?;
            let has_room = kept.map_err(|cause| self.not_a_broker(cause))?;
            if let Some(answer) = self.dialogue.take_answer() {
                return Ok(answer);
            }
            if !has_room {
                return Err(ClientError::TooManyMessages {
                    address: self.settings.address.clone(),
                    kept: KEPT_MAX,
                });
            }
            match self.read(Some(deadline)).await {
                Ok(Progress::Went) => {}
                Ok(Progress::Late) => return Err(late(self)),
                // Whoever answers on a new connection was not asked.
                Ok(Progress::End) => {
                    let end = self.end()?;
                    return Err(self.fail(end));
                }
                Err(error) => return Err(self.fail(error)),
            }
        }
    }

    /// Waits until the broker has answered CONNECT; false if it does not within `limit`.
    pub(super) async fn await_grant(&mut self, limit: Duration) -> Result<bool, ClientError> {
        let deadline = Instant::now() + limit;
        while self.dialogue.granted().is_none() {
            match self.read(Some(deadline)).await? {
                Progress::Went => {}
                Progress::End | Progress::Late => return Ok(false),
            }
            let kept = self.dialogue.keep_messages();
            self.take_notes()?;
            kept.map_err(|cause| self.not_a_broker(cause))?;
        }
        Ok(true)
    }

    /// Reads and discards until the broker closes, which it does when it has everything.
    pub(super) async fn drain(&mut self, limit: Duration) -> Result<(), ClientError> {
        let deadline = Instant::now() + limit;
        loop {
            while let Some(message) = self.decoded()? {
                drop(message);
            }
            match self.read(Some(deadline)).await? {
                Progress::Went => {}
                Progress::End => return self.end().map(drop),
                Progress::Late => {
                    return Err(ClientError::TimedOut {
                        address: self.settings.address.clone(),
                        wait: Wait::Close,
                        limit,
                    });
                }
            }
        }
    }

    fn decoded(&mut self) -> Result<Option<Message>, ClientError> {
        let decoded = self.dialogue.decoder.decode();
        decoded.map_err(|cause| self.not_a_broker(cause))
    }

    /// Waits for something to read, and writes what is left and what keeps a connection open.
    async fn read(&mut self, deadline: Option<Instant>) -> Result<Progress, ClientError> {
        let wake = deadline.into_iter().chain(self.next_beat).min();
        let interest = match self.outgoing.is_empty() {
            true => Interest::READABLE,
            false => Interest::READABLE | Interest::WRITABLE,
        };
        let progress = self.progress(interest, wake).await?;
        let is_time = self.next_beat.is_some_and(|beat| beat <= Instant::now());
        if is_time {
            self.wind_beat();
            if self.outgoing.is_empty() {
                self.requests.note(&BEAT, false);
                self.outgoing.extend_from_slice(&BEAT);
                self.write()?;
            }
        }
        Ok(match progress {
            Progress::Late if wake != deadline => Progress::Went,
            progress => progress,
        })
    }

    /// Waits until the socket is ready, and does what it is ready for.
    async fn progress(
        &mut self,
        interest: Interest,
        deadline: Option<Instant>,
    ) -> Result<Progress, ClientError> {
        let address = &self.settings.address;
        let Some(socket) = &self.socket else {
            return Err(ClientError::Closed {
                address: address.clone(),
            });
        };
        let io = |source| ClientError::from_io(address, source);
        let ready = match deadline {
            None => socket.ready(interest).await,
            Some(deadline) => match timeout_at(deadline, socket.ready(interest)).await {
                Ok(ready) => ready,
                Err(_) => return Ok(Progress::Late),
            },
        };
        let ready = ready.map_err(io)?;
        if ready.is_readable() {
            match socket.read(self.dialogue.decoder.space()).map_err(io)? {
                Some(0) => return Ok(Progress::End),
                Some(len) => self.dialogue.decoder.advance(len),
                None => {}
            }
        }
        if ready.is_writable() {
            self.write()?;
        }
        Ok(Progress::Went)
    }

    fn take_notes(&mut self) -> Result<(), ClientError> {
        if !self.dialogue.has_notes() {
            return Ok(());
        }
        let address = &self.settings.address;
        self.dialogue.take_notes(address, &mut self.requests)
    }

    fn wind_beat(&mut self) {
        // A byte each half of the keepalive, so that one can be late.
        let keepalive = self.settings.keepalive;
        self.next_beat = keepalive.map(|keepalive| Instant::now() + keepalive / 2);
    }

    // ---- come back

    /// Makes sure that there is a connection, if need be a new one on which everything is
    /// subscribed again.
    async fn connected(&mut self, deadline: Option<Instant>) -> Result<(), ClientError> {
        while self.socket.is_none() {
            if self.disconnected {
                return Err(ClientError::Disconnected);
            }
            let attempt = self.attempt();
            match deadline {
                None => attempt.await?,
                Some(deadline) => match timeout_at(deadline, attempt).await {
                    Ok(attempted) => attempted?,
                    Err(_) => return Err(self.late(Wait::Reconnect)),
                },
            }
        }
        Ok(())
    }

    /// Goes on with an attempt to connect, or makes one when it is time.
    async fn attempt(&mut self) -> Result<(), ClientError> {
        let reconnect = self.settings.reconnect.unwrap_or_default();
        if self.connecting.is_none() {
            sleep_until(self.next_attempt).await;
        }
        let (address, limit) = (self.settings.address.clone(), self.settings.connect_timeout);
        let connecting = self
            .connecting
            .get_or_insert_with(|| Connecting(Box::pin(Socket::open(address, limit))));
        let opened = connecting.0.as_mut().await;
        self.connecting = None;
        match opened {
            Ok(socket) => self.begin_again(socket),
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                self.next_attempt = Instant::now() + reconnect.wait(self.failures);
                if reconnect
                    .attempts_max
                    .is_some_and(|max| self.failures >= max)
                {
                    // The next call begins anew.
                    self.failures = 0;
                    return Err(error);
                }
                Ok(())
            }
        }
    }

    fn begin_again(&mut self, socket: Socket) -> Result<(), ClientError> {
        self.requests.set_answered(self.settings.wants_answers);
        let frames = self.memory.frames()?;
        self.requests.note(&frames, false);
        self.requests.note(&self.outgoing, false);
        self.outgoing.splice(..0, frames);
        self.dialogue.begin_again(self.settings.asks);
        self.socket = Some(socket);
        self.failures = 0;
        self.reconnects += 1;
        self.wind_beat();
        self.write()
    }

    /// The connection is lost: the cause as an error, if this client does not reconnect.
    pub(super) fn lost(&mut self, cause: ClientError) -> Result<(), ClientError> {
        if self.disconnected {
            return Err(ClientError::Disconnected);
        }
        let Some(reconnect) = self.settings.reconnect else {
            return Err(cause);
        };
        self.let_go(reconnect)
    }

    /// Whatever has come is kept, and what was not sent whole is sent on the next connection.
    fn let_go(&mut self, reconnect: Reconnect) -> Result<(), ClientError> {
        let kept = self.dialogue.keep_messages();
        self.take_notes()?;
        kept.map_err(|cause| self.not_a_broker(cause))?;
        self.socket = None;
        self.failures = 0;
        self.next_attempt = Instant::now() + reconnect.wait(0);
        // A frame that went out in part was never whole for the broker.
        let unsent = unsent(&self.outgoing, self.written).len();
        self.outgoing.drain(..self.outgoing.len() - unsent);
        self.written = 0;
        Ok(())
    }

    /// As `lost`, for a call that does not go on with another connection.
    fn fail(&mut self, cause: ClientError) -> ClientError {
        let let_go = match self.settings.reconnect {
            Some(reconnect) if !self.disconnected => self.let_go(reconnect),
            _ => Ok(()),
        };
        let_go.err().unwrap_or(cause)
    }

    /// Nothing is sent any more, and nobody comes back.
    pub(super) fn end_sending(&mut self) {
        self.settings.reconnect = None;
        self.settings.keepalive = None;
        self.next_beat = None;
    }

    fn end(&mut self) -> Result<ClientError, ClientError> {
        let end = self.dialogue.end(&self.settings.address);
        end.map_err(|cause| self.not_a_broker(cause))
    }

    pub(super) fn not_a_broker(&mut self, cause: Misbehaved) -> ClientError {
        self.socket = None;
        self.disconnected = true;
        ClientError::NotABroker {
            address: self.settings.address.clone(),
            cause,
        }
    }

    fn late(&self, wait: Wait) -> ClientError {
        ClientError::TimedOut {
            address: self.settings.address.clone(),
            wait,
            limit: self.settings.write_timeout.unwrap_or_default(),
        }
    }
}
