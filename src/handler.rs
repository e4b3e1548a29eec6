//! `SessionHandler`: the one place where behaviour is added to the broker.
//!
//! Authentication, rights and observation are implementations of it. It is chosen at build time, so
//! the default bodies compile to nothing on the path of a message.

use std::fmt;
use std::sync::Arc;

use crate::packet::{Hello, Packet};
use crate::session::{CloseReason, Peer, SessionKey};

/// What happens to a session, as hooks with default bodies that let everything pass.
///
/// Each reactor has a clone of its own and calls it on its own thread. A hook that waits makes
/// every session of that reactor wait, and one that panics ends the broker: whatever takes time
/// answers [`ConnectAnswer::Later`] and goes on elsewhere.
///
/// ```
/// use hvlp::handler::{SessionHandler, SessionView, Verdict};
///
/// /// Lets nobody publish below `system/`.
/// #[derive(Clone)]
/// struct Guard;
///
/// impl SessionHandler for Guard {
///     fn on_publish(&mut self, _: SessionView, topic: &str, _: &[u8]) -> Verdict {
///         if topic.starts_with("system/") { Verdict::Discard } else { Verdict::Allow }
///     }
/// }
/// # let view = SessionView { number: 1, peer: hvlp::session::Peer::Memory };
/// # assert_eq!(Guard.on_publish(view, "system/a", b""), Verdict::Discard);
/// ```
pub trait SessionHandler: Clone + Send + 'static {
    /// A CONNECT was read. Its payload is 0 to 255 bytes that the base protocol ignores, or what
    /// [`ConnectRequest::hello`] makes of them; a malformed one of these is refused before.
    #[inline]
    fn on_connect(&mut self, session: SessionView, request: ConnectRequest<'_>) -> ConnectAnswer {
        let _ = (session, request);
        ConnectAnswer::Accept
    }

    /// A well-formed packet of a connected session was read; called before the hook of its kind.
    #[inline]
    fn on_packet(&mut self, session: SessionView, packet: &Packet<'_>) -> Verdict {
        let _ = (session, packet);
        Verdict::Allow
    }

    /// A topic of a SUBSCRIBE is about to be added.
    #[inline]
    fn on_subscribe(&mut self, session: SessionView, topic: &str) -> Verdict {
        let _ = (session, topic);
        Verdict::Allow
    }

    /// A topic of an UNSUBSCRIBE is about to be removed.
    #[inline]
    fn on_unsubscribe(&mut self, session: SessionView, topic: &str) {
        let _ = (session, topic);
    }

    /// A PUBLISH is about to be forwarded. Its bytes cannot be changed.
    #[inline]
    fn on_publish(&mut self, session: SessionView, topic: &str, data: &[u8]) -> Verdict {
        let _ = (session, topic, data);
        Verdict::Allow
    }

    /// The session has ended.
    #[inline]
    fn on_close(&mut self, session: SessionView, reason: CloseReason) {
        let _ = (session, reason);
    }
}

/// Lets everything pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct Open;

impl SessionHandler for Open {}

/// What a hook may know of the session that it is called for.
#[derive(Clone, Copy, Debug)]
pub struct SessionView {
    /// A number that is never used again while the broker runs; logs show it.
    pub number: u64,
    /// Who is at the other end.
    pub peer: Peer,
}

/// Whether a packet, or one topic of it, takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Allow,
    /// It is discarded and counted, and the session lives on.
    Discard,
}

/// A CONNECT that waits for an answer.
#[derive(Debug)]
pub struct ConnectRequest<'a> {
    payload: &'a [u8],
    hello: Option<Hello<'a>>,
    key: SessionKey,
    resolver: &'a Resolver,
}

impl<'a> ConnectRequest<'a> {
    pub(crate) const fn new(
        payload: &'a [u8],
        hello: Option<Hello<'a>>,
        key: SessionKey,
        resolver: &'a Resolver,
    ) -> Self {
        Self {
            payload,
            hello,
            key,
            resolver,
        }
    }

    /// What the client sent along, 0 to 255 bytes.
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// What an extended CONNECT asks for, and who it says it comes from; `None` for one of the base
    /// protocol.
    pub const fn hello(&self) -> Option<Hello<'a>> {
        self.hello
    }

    /// Puts the answer off: any thread may give it through the ticket. Until then the session is
    /// read no further than one receive; after `connect_timeout` it is closed.
    pub fn later(self) -> (Ticket, ConnectAnswer) {
        let ticket = Ticket {
            key: self.key,
            resolver: Some(self.resolver.clone()),
        };
        (ticket, ConnectAnswer::Later(Deferred(())))
    }
}

/// The answer to a CONNECT.
#[derive(Debug)]
pub enum ConnectAnswer {
    /// The session is connected.
    Accept,
    /// The session is closed.
    Refuse(Refusal),
    /// A [`Ticket`] was taken, and will bring the answer.
    Later(Deferred),
}

/// Proof that a ticket was taken; made by [`ConnectRequest::later`].
#[derive(Debug)]
pub struct Deferred(());

/// Why a CONNECT is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The client may not.
    NotAuthorised,
    /// The client might, but not now.
    Limit,
}

impl Refusal {
    pub(crate) const fn close_reason(self) -> CloseReason {
        match self {
            Self::NotAuthorised => CloseReason::AuthFailed,
            Self::Limit => CloseReason::LimitConnect,
        }
    }
}

/// The right to answer one CONNECT, once, from any thread. Dropped unused, it refuses.
#[derive(Debug)]
pub struct Ticket {
    key: SessionKey,
    resolver: Option<Resolver>,
}

impl Ticket {
    /// Connects the session, unless it has ended meanwhile.
    pub fn accept(mut self) {
        self.answer(Ok(()));
    }

    /// Closes the session, unless it has ended meanwhile.
    pub fn refuse(mut self, refusal: Refusal) {
        self.answer(Err(refusal));
    }

    fn answer(&mut self, verdict: Result<(), Refusal>) {
        if let Some(resolver) = self.resolver.take() {
            (resolver.0)(Resolution {
                key: self.key,
                verdict,
            });
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.answer(Err(Refusal::NotAuthorised));
    }
}

/// A ticket's answer on its way to the shard that owns the session.
#[derive(Clone, Copy, Debug)]
pub struct Resolution {
    pub(crate) key: SessionKey,
    pub(crate) verdict: Result<(), Refusal>,
}

/// Where tickets send their answers: whoever drives the shard takes them from there and hands them
/// to `Shard::resolve`.
#[derive(Clone)]
pub struct Resolver(Arc<dyn Fn(Resolution) + Send + Sync>);

impl Resolver {
    /// Answers go through `send`, which is called on the thread that uses the ticket.
    pub fn new(send: impl Fn(Resolution) + Send + Sync + 'static) -> Self {
        Self(Arc::new(send))
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}
