//! The choice of an engine: made once, when the broker starts.

use std::io;
use std::sync::Arc;

use crate::config::EngineKind;
use crate::handler::SessionHandler;
use crate::metrics::Counters;
use crate::reactor::turn::Reactor;
#[cfg(all(feature = "uring", target_os = "linux"))]
use crate::reactor::uring;
use crate::reactor::{Mailbox, mio};

/// What a reactor waits with, made before the reactor, because its peers need its mailbox.
#[derive(Debug)]
pub(crate) enum Engine {
    Mio(mio::Engine),
    #[cfg(all(feature = "uring", target_os = "linux"))]
    Uring(Box<uring::Engine>),
}

impl Engine {
    /// One of this kind, and where other threads leave commands for its reactor.
    pub(crate) fn new(kind: Chosen) -> io::Result<(Self, Arc<Mailbox>)> {
        let (engine, waker) = match kind {
            Chosen::Mio => {
                let (engine, waker) = mio::Engine::new()?;
                (Self::Mio(engine), waker)
            }
            #[cfg(all(feature = "uring", target_os = "linux"))]
            Chosen::Uring => {
                let (engine, waker) = uring::Engine::new()?;
                (Self::Uring(Box::new(engine)), waker)
            }
        };
        Ok((engine, Mailbox::new(waker)))
    }

    /// Serves until the reactor is stopped and every session has ended; returns what was counted.
    pub(crate) fn run<H: SessionHandler>(self, reactor: Reactor<H>) -> io::Result<Counters> {
        match self {
            Self::Mio(engine) => engine.run(reactor),
            #[cfg(all(feature = "uring", target_os = "linux"))]
            Self::Uring(engine) => engine.run(reactor),
        }
    }
}

/// What was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chosen {
    Mio,
    #[cfg(all(feature = "uring", target_os = "linux"))]
    Uring,
}

impl Chosen {
    /// The engine that is asked for, and why it is that one if that was left open.
    ///
    /// # Errors
    /// It cannot be had: the reason, and what would help.
    pub(crate) fn of(kind: EngineKind) -> Result<(Self, Option<&'static str>), String> {
        match kind {
            EngineKind::Mio => Ok((Self::Mio, None)),
            EngineKind::Uring => Self::uring().map(|chosen| (chosen, None)),
            EngineKind::Auto => Ok((Self::Mio, Some("no measurement shows uring ahead by 5 %"))),
        }
    }

    /// As it is named in settings and logs.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Mio => "mio",
            #[cfg(all(feature = "uring", target_os = "linux"))]
            Self::Uring => "uring",
        }
    }

    #[cfg(all(feature = "uring", target_os = "linux"))]
    fn uring() -> Result<Self, String> {
        uring::probe().map(|()| Self::Uring)
    }

    #[cfg(not(all(feature = "uring", target_os = "linux")))]
    fn uring() -> Result<Self, String> {
        Err("this program was built without it: it needs Linux and the feature uring".into())
    }
}
