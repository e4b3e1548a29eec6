//! How a client connects.

use std::fmt;
use std::time::Duration;

use super::Client;
use super::error::ClientError;
use super::reconnect::{Reconnect, Settings, Shared};
use crate::address::Address;
use crate::packet::{Extensions, FrameBuf, Hello};

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
    payload: Payload,
    want: Option<Extensions>,
    keepalive: u8,
    login: Option<Login>,
}

/// What CONNECT carries: a token perhaps, so it is shown to nobody either.
#[derive(Clone)]
struct Payload(Vec<u8>);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Who connects; the secret is shown to nobody.
#[derive(Clone)]
struct Login {
    user: String,
    secret: Vec<u8>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Login").field(&self.user).finish()
    }
}

impl ClientBuilder {
    pub(super) fn new() -> Self {
        Self {
            settings: Settings {
                address: Address::default(),
                connect_timeout: CONNECT_TIMEOUT,
                write_timeout: Some(WRITE_TIMEOUT),
                answer_timeout: ANSWER_TIMEOUT,
                reconnect: None,
                asks: false,
                wants_answers: false,
                keepalive: None,
            },
            payload: Payload(Vec::new()),
            want: None,
            keepalive: 0,
            login: None,
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
        self.payload = Payload(payload.as_ref().into());
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

    /// How long the answer to a request may take; 60 s unless told, for the same reason. Messages
    /// that come before it are kept, and received afterwards.
    #[must_use]
    pub const fn answer_timeout(mut self, timeout: Duration) -> Self {
        self.settings.answer_timeout = timeout;
        self
    }

    /// Come back when the connection is lost, and subscribe again before anything else goes on.
    /// Messages of the time between are lost. The first connection is tried once.
    #[must_use]
    pub const fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.settings.reconnect = Some(reconnect);
        self
    }

    /// Asks the broker for extensions; [`Client::extensions`] says what it has granted. A broker of
    /// the base protocol grants nothing: it is given a second to answer, and the client connects
    /// again without asking. The [payload](Self::payload) is sent only then.
    #[must_use]
    pub fn extensions(mut self, want: Extensions) -> Self {
        self.want = Some(self.want.unwrap_or_default() | want);
        self
    }

    /// Lets the broker close the connection when it has heard nothing for one and a half times so
    /// long, in whole seconds up to 255. While this client waits in [`Receiver::receive`] it sends
    /// what is needed; a program that does neither is given up.
    ///
    /// [`Receiver::receive`]: super::Receiver::receive
    #[must_use]
    pub fn keepalive(mut self, time: Duration) -> Self {
        self.want = Some(self.want.unwrap_or_default());
        self.keepalive = u8::try_from(time.as_secs().max(1)).unwrap_or(u8::MAX);
        self
    }

    /// Logs in. Neither is sent to a broker again that does not answer.
    #[must_use]
    pub fn login(mut self, user: impl Into<String>, secret: impl Into<Vec<u8>>) -> Self {
        self.want = Some(self.want.unwrap_or_default());
        let (user, secret) = (user.into(), secret.into());
        self.login = Some(Login { user, secret });
        self
    }

    /// Connects and sends CONNECT, which begins the session.
    ///
    /// # Errors
    /// Nobody is there, or not in time; the payload, or user and secret, do not fit into a frame;
    /// `Refused` if the broker says no, and `NoLogin` if it does not say anything.
    pub fn connect(mut self) -> Result<Client, ClientError> {
        if let Some(hello) = self.ask()? {
            let mut client = self.clone().open()?;
            client.sender.shared().send_connect(hello)?;
            let granted = client.receiver.await_grant(GRANT_TIMEOUT);
            if self.is_granted(granted, client.broker())? {
                return Ok(client);
            }
            self.ask_for_nothing();
        }
        // First: what does not fit must not leave a connection behind at the broker.
        let connect = self.connect_frame()?;
        let client = self.open()?;
        client.sender.shared().send_connect(connect)?;
        Ok(client)
    }

    /// The CONNECT that asks for what is wanted, if anything is.
    pub(super) fn ask(&mut self) -> Result<Option<FrameBuf>, ClientError> {
        let Some(want) = self.want else {
            return Ok(None);
        };
        let hello = Hello {
            want,
            keepalive: self.keepalive,
            user: self.login.as_ref().map(|login| login.user.as_str()),
            secret: self.login.as_ref().map(|login| login.secret.as_slice()),
        };
        let frame = hello.to_frame()?;
        let keepalive = Duration::from_secs(self.keepalive.into());
        self.settings.asks = true;
        self.settings.wants_answers = want.contains(Extensions::ACK);
        self.settings.keepalive = (self.keepalive > 0).then_some(keepalive);
        Ok(Some(frame))
    }

    /// What became of it: whether the broker at `address` has granted something. Without an answer
    /// the client connects again and asks for nothing, unless it has sent a secret.
    pub(super) fn is_granted(
        &self,
        granted: Result<bool, ClientError>,
        address: &Address,
    ) -> Result<bool, ClientError> {
        match granted {
            Ok(true) => Ok(true),
            Ok(false) | Err(ClientError::Closed { .. } | ClientError::Reset { .. }) => {
                match self.login {
                    None => Ok(false),
                    Some(_) => Err(ClientError::NoLogin {
                        address: address.clone(),
                    }),
                }
            }
            Err(error) => Err(error),
        }
    }

    pub(super) const fn ask_for_nothing(&mut self) {
        self.settings.asks = false;
        self.settings.wants_answers = false;
        self.settings.keepalive = None;
    }

    /// The CONNECT of the base protocol.
    pub(super) fn connect_frame(&self) -> Result<FrameBuf, ClientError> {
        Ok(FrameBuf::connect(&self.payload.0)?)
    }

    #[cfg(feature = "tokio")]
    pub(super) const fn settings(&self) -> &Settings {
        &self.settings
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

/// As long a broker may take to answer an extended CONNECT, before it counts as one of the base
/// protocol.
pub(super) const GRANT_TIMEOUT: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
