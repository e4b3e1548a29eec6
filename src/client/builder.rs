//! How a client connects.

use std::time::Duration;

use super::Client;
use super::error::ClientError;
use super::reconnect::{Reconnect, Settings, Shared};
use crate::address::Address;

/// Settings of a [`Client`], and the two ways to begin.
///
/// ```no_run
/// use hvlp::client::{Client, Reconnect};
///
/// let mut client = Client::builder()
///     .address("192.0.2.7:65432")?
///     .payload(b"s3cret")
///     .reconnect(Reconnect::default())
///     .connect()?;
/// client.subscribe(["state/door", "state/lamp"])?;
/// # Ok::<(), hvlp::client::ClientError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    settings: Settings,
    payload: Vec<u8>,
}

impl ClientBuilder {
    pub(super) fn new() -> Self {
        Self {
            settings: Settings {
                address: Address::default(),
                connect_timeout: CONNECT_TIMEOUT,
                write_timeout: Some(WRITE_TIMEOUT),
                reconnect: None,
            },
            payload: Vec::new(),
        }
    }

    /// Where the broker is; `127.0.0.1:65432` unless told.
    ///
    /// # Errors
    /// The text is no address.
    pub fn address<A: TryInto<Address>>(mut self, address: A) -> Result<Self, ClientError>
    where
        ClientError: From<A::Error>,
    {
        self.settings.address = address.try_into()?;
        Ok(self)
    }

    /// What CONNECT carries, a token for example; nothing unless told.
    #[must_use]
    pub fn payload(mut self, payload: impl AsRef<[u8]>) -> Self {
        self.payload = payload.as_ref().into();
        self
    }

    /// How long each address of the broker may take to answer; 5 s unless told.
    #[must_use]
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = timeout;
        self
    }

    /// How long sending waits while the broker takes nothing, or is away and reconnecting goes on;
    /// 60 s unless told, which is above the 30 s for which a broker may pause a publisher. `None`
    /// waits for ever.
    #[must_use]
    pub fn write_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.write_timeout = timeout.into();
        self
    }

    /// Come back when the connection is lost, and subscribe again before anything else goes on.
    /// Messages of the time between are lost. The first connection is tried once.
    #[must_use]
    pub const fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.settings.reconnect = Some(reconnect);
        self
    }

    /// Connects and sends CONNECT, which begins the session.
    ///
    /// # Errors
    /// Nobody is there, or not in time; or the payload is longer than 255 bytes.
    pub fn connect(self) -> Result<Client, ClientError> {
        let payload = self.payload.clone();
        // First: what does not fit must not leave a connection behind at the broker.
        crate::packet::FrameBuf::connect(&payload)?;
        let mut client = self.open()?;
        client.send_connect(&payload)?;
        Ok(client)
    }

    /// Connects and sends nothing, so that [`Sender::send_connect`] or raw bytes come first.
    ///
    /// [`Sender::send_connect`]: super::Sender::send_connect
    ///
    /// # Errors
    /// Nobody is there, or not in time.
    pub fn open(self) -> Result<Client, ClientError> {
        let (shared, connection) = Shared::open(self.settings)?;
        Ok(Client::new(&shared, &connection))
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
