//! The broker as a program uses it: built, spawned, asked, stopped.
//!
//! ```
//! let broker = hvlp::Broker::builder().listen("127.0.0.1:0")?.spawn()?;
//! println!("serving on {}", broker.local_addr());
//! broker.stop();
//! let counters = broker.join()?;
//! assert!(counters.is_conserved());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::address::Address;
use crate::config::{Config, ConfigError, Listen, MemoryBound};
use crate::handler::{Open, SessionHandler};
use crate::mesh::Mesh;
use crate::metrics::Counters;
use crate::reactor::{Chosen, Engine, Listener, Mailbox, Peers, Reactor};
use crate::shard::{Accounts, Shard};

#[cfg(feature = "control")]
mod admin;
mod cpus;
mod descriptors;
mod handle;
mod process;
mod signals;

use handle::Reactors;
pub use handle::{BrokerHandle, RegisterSnapshot};
pub use process::{Delivery, ProcessError, Subscription};

/// Where brokers come from: `Broker::builder()`.
#[derive(Debug)]
pub struct Broker(());

impl Broker {
    /// A broker with default settings and no listener yet.
    pub fn builder() -> Builder<Open> {
        Builder {
            config: Config::default(),
            handler: Open,
        }
    }
}

/// A broker that does not run yet.
#[derive(Clone, Debug)]
pub struct Builder<H> {
    config: Config,
    handler: H,
}

impl<H: SessionHandler> Builder<H> {
    /// Adds an address to listen on; without any it is `127.0.0.1:65432`. Port 0 lets the kernel
    /// choose.
    ///
    /// # Errors
    /// The text is no address, or names a setting that cannot be.
    pub fn listen(mut self, address: &str) -> Result<Self, BrokerError> {
        self.config.listen.push(address.parse()?);
        Ok(self)
    }

    /// Sets one key of [`KEYS`](crate::config::KEYS), from `KEY=VALUE`.
    ///
    /// # Errors
    /// Names the key, what is wrong, and what would be right.
    pub fn set(mut self, assignment: &str) -> Result<Self, BrokerError> {
        self.config.set(assignment)?;
        Ok(self)
    }

    /// Replaces all settings.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Permits addresses that other hosts can reach, although nobody has to log in.
    #[must_use]
    pub const fn insecure_anonymous(mut self) -> Self {
        self.config.insecure_anonymous = true;
        self
    }

    /// Serves metrics, health and status over HTTP here, on a thread of its own; port 0 lets the
    /// kernel choose, and [`BrokerHandle::admin_addr`] tells. Without it, or with `off`, nothing is
    /// served.
    ///
    /// `GET /metrics` is Prometheus text, `/healthz` asks every reactor, `/v1/snapshot` is JSON
    /// (not on an address that other hosts can reach).
    ///
    /// # Errors
    /// The text is neither `off` nor a host and a port.
    #[cfg(feature = "control")]
    pub fn admin(mut self, address: &str) -> Result<Self, BrokerError> {
        self.config.admin = address.parse()?;
        Ok(self)
    }

    /// Adds behaviour; each reactor gets a clone.
    pub fn handler<N: SessionHandler>(self, handler: N) -> Builder<N> {
        Builder {
            config: self.config,
            handler,
        }
    }

    /// Binds every address and serves, each reactor on a thread of its own; one thread more serves
    /// what the process itself publishes and subscribes to.
    ///
    /// # Errors
    /// An address cannot be bound, or must not be; nothing is served then.
    pub fn spawn(self) -> Result<BrokerHandle, BrokerError> {
        self.start(true)
    }

    /// `for_process`: whether the process itself is going to publish and to subscribe.
    fn start(mut self, for_process: bool) -> Result<BrokerHandle, BrokerError> {
        if self.config.listen.is_empty() {
            self.config.listen.push(Listen::default());
        }
        self.config
            .fit_memory(for_process)
            .map_err(BrokerError::Memory)?;
        descriptors::fit_sessions(&mut self.config.limits);
        let memory = MemoryBound::of(&self.config, for_process);
        let listeners = self.config.listen.iter().map(|address| self.bind(address));
        let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
        let addresses = listeners
            .iter()
            .map(Listener::address)
            .collect::<Result<_, _>>();
        let addresses = addresses.map_err(BrokerError::Start)?;
        // Behind the listeners: a port that both want is theirs.
        #[cfg(feature = "control")]
        let endpoint = admin::bind(&self.config.admin)?;
        let (engine, reason) = Chosen::of(self.config.engine).map_err(BrokerError::Engine)?;
        if let Some(reason) = reason {
            tracing::info!(engine = engine.name(), reason, "auto");
        }
        let reactors = self.reactors(engine, listeners, &memory, for_process);
        let reactors = reactors.map_err(BrokerError::Start)?;
        #[cfg_attr(
            not(feature = "control"),
            expect(unused_mut, reason = "nothing is added")
        )]
        let mut handle = BrokerHandle::start(reactors, addresses, memory)?;
        #[cfg(feature = "control")]
        if let Some(endpoint) = endpoint {
            handle.start_control(endpoint, &self.config)?;
        }
        Ok(handle)
    }

    /// One reactor per thread to be, the first of them with the listeners.
    fn reactors(
        &self,
        engine: Chosen,
        listeners: Vec<Listener>,
        memory: &MemoryBound,
        for_process: bool,
    ) -> io::Result<Reactors<H>> {
        let config = share(&self.config);
        let count = config.reactors + usize::from(for_process);
        // The process's own has no socket, and nothing to gain from a ring.
        let kind = |id| {
            if id < config.reactors {
                engine
            } else {
                Chosen::Mio
            }
        };
        let engines = (0..count).map(|id| Engine::new(kind(id)));
        let engines = engines.collect::<Result<Vec<_>, _>>()?;
        let mailboxes = engines.iter().map(|(_, mailbox)| Arc::clone(mailbox));
        let mailboxes = mailboxes.collect();
        let accounts = Accounts::new(memory, config.limits.memory_max.is_none());
        let peers = Peers::new(mailboxes, config.reactors, &config, accounts);
        let mut seats = Seat::between(engines, &peers).into_iter();

        let mut listeners = Some(listeners);
        let serving = seats.by_ref().take(config.reactors);
        let reactors = serving.map(|seat| {
            let listeners = listeners.take().unwrap_or_default();
            seat.reactor(&config, self.handler.clone(), listeners)
        });
        let reactors = reactors.collect();
        let idle_config = Config {
            busy_poll: None,
            ..config.clone()
        };
        let process = seats.next();
        let process = process.map(|seat| seat.reactor(&idle_config, Open, Vec::new()));
        Ok(Reactors {
            reactors,
            process,
            peers,
            engine: engine.name(),
            pin: config.pin,
        })
    }

    /// Nobody has to log in yet, so only this host may reach the broker, unless the risk is taken.
    fn bind(&self, listen: &Listen) -> Result<Listener, BrokerError> {
        let config = listen.config(&self.config)?;
        let address = &listen.address;
        let failed = |source| BrokerError::bind(address, source);
        // Once: what was looked at is what is bound.
        let resolved = address.resolve().map_err(failed)?;
        let is_local = |socket: &SocketAddr| socket.ip().is_loopback();
        if !self.config.insecure_anonymous && !resolved.iter().all(is_local) {
            return Err(BrokerError::OpenBind {
                address: address.clone(),
            });
        }
        Listener::bind(address, &resolved, config.backlog).map_err(failed)
    }

    /// Serves until SIGTERM or SIGINT, which drain, or a second one, which ends at once. `ready` is
    /// called once it serves, and told the bound addresses by the handle.
    ///
    /// # Errors
    /// As `spawn`, and whatever ended the broker while it ran.
    pub fn run(self, ready: impl FnOnce(&BrokerHandle)) -> Result<Counters, BrokerError> {
        descriptors::raise_limit();
        let handle = self.start(false)?;
        let signals = signals::stop_on_signal(handle.stopper()).map_err(BrokerError::Start)?;
        ready(&handle);
        let ended = handle.join();
        signals.end();
        ended
    }
}

/// What a reactor is built on, and its place among its peers.
struct Seat {
    id: u8,
    engine: Engine,
    mailbox: Arc<Mailbox>,
    /// None if there is one reactor.
    mesh: Option<Mesh>,
    peers: Arc<Peers>,
}

impl Seat {
    /// One for each engine, in their order.
    fn between(engines: Vec<(Engine, Arc<Mailbox>)>, peers: &Arc<Peers>) -> Vec<Self> {
        let ends = match engines.len() {
            1 => Vec::new(),
            _ => Mesh::between(&peers.doorbells),
        };
        let mut ends = ends.into_iter();
        let seat = |(id, (engine, mailbox))| Self {
            id,
            engine,
            mailbox,
            mesh: ends.next(),
            peers: Arc::clone(peers),
        };
        (0..).zip(engines).map(seat).collect()
    }

    fn reactor<N: SessionHandler>(
        self,
        config: &Config,
        handler: N,
        listeners: Vec<Listener>,
    ) -> (Engine, Reactor<N>) {
        let Self {
            id,
            engine,
            mailbox,
            mesh,
            peers,
        } = self;
        let count = u8::try_from(peers.mailboxes.len()).expect("at most 64");
        let directory = Arc::clone(&peers.directory);
        let accounts = Arc::clone(&peers.accounts);
        let last_values = peers.last_values.clone();
        let shard = |resolver| {
            let shard = Shard::new(id, count, config, handler, resolver)
                .with_accounts(accounts)
                .with_last_values(last_values);
            match mesh {
                Some(mesh) => shard.with_peers(directory, mesh),
                None => shard,
            }
        };
        let reactor = Reactor::new(id, mailbox, peers, shard, config, listeners);
        (engine, reactor)
    }
}

/// What one reactor may have of the process's bounds: an equal share, rounded up. The reactor of
/// the process itself has such a share beside them, so that sockets have the same bounds with and
/// without it.
fn share(config: &Config) -> Config {
    let mut config = config.clone();
    let limits = &mut config.limits;
    for bound in [
        &mut limits.outbound_total_max,
        &mut limits.held_total_max,
        &mut limits.subscriptions_max,
        &mut limits.topics_max,
        &mut limits.topic_bytes_max,
    ] {
        *bound = bound.div_ceil(config.reactors);
    }
    config
}

/// Why a broker does not run.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// A setting that cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Other hosts could reach an address, and nobody would have to log in.
    #[error(
        "refusing to listen on {address}: everyone could read and write. Either listen on \
         127.0.0.1, [::1] or a unix: path; or accept the risk: --insecure-anonymous"
    )]
    OpenBind {
        /// The address.
        address: Address,
    },
    /// The limits together allow more memory than the process may take.
    #[error("the limits allow more memory than limits.memory_max; lower one, or raise that:\n{0}")]
    Memory(MemoryBound),
    /// The address is taken.
    #[error(
        "{address} is in use, perhaps by another hvlp-broker: stop it (ss -ltnp shows it), or \
         choose another address with --listen"
    )]
    AddressInUse {
        /// The address.
        address: Address,
    },
    /// The address cannot be bound for another reason.
    #[error("cannot listen on {address}: {source}; choose another address with --listen")]
    Bind {
        /// The address.
        address: Address,
        /// What the kernel or the resolver said.
        source: io::Error,
    },
    /// The admin endpoint cannot be bound.
    #[error(
        "cannot serve metrics on {address}: {source}; choose another address with --admin, or \
         none with --no-admin"
    )]
    Admin {
        /// The address.
        address: Address,
        /// What the kernel or the resolver said.
        source: io::Error,
    },
    /// The engine that was asked for cannot be had.
    #[error("cannot start with --engine uring: {0}. --engine mio needs none of that")]
    Engine(String),
    /// The kernel refused something that every broker needs.
    #[error("cannot start: {0}")]
    Start(#[source] io::Error),
    /// The loop failed.
    #[error("the reactor failed: {0}")]
    Reactor(#[source] io::Error),
    /// The loop panicked: what it shared cannot be trusted any more.
    #[error("the reactor panicked: {0}")]
    Panicked(String),
}

impl BrokerError {
    fn bind(address: &Address, source: io::Error) -> Self {
        let address = address.clone();
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::AddressInUse { address },
            _ => Self::Bind { address, source },
        }
    }
}
