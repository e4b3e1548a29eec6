//! The control plane: metrics, health and status over HTTP, on a thread of its own.
//!
//! It asks the reactors by their mailboxes, at most one question each at a time, and shares nothing
//! else with them: whatever happens here, delivery goes on.
//!
//! ```text
//! server ─one task per connection, bounded→ http ─path→ sampler ─question→ every reactor
//!                                                       text, snapshot ←─counters─┘
//! ```

use std::any::Any;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use tokio::runtime;
use tokio::sync::watch;

use crate::address::Address;
use crate::config::{Config, MemoryBound};
use crate::control::counts::Counts;
use crate::reactor::Peers;

mod connections;
mod counts;
mod descriptors;
mod host;
mod http;
mod sampler;
mod server;
mod snapshot;
mod text;

/// Between a panic and the next start, so that one that comes at once does not burn a core.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// The bound socket of the admin endpoint.
#[derive(Debug)]
pub(crate) struct Endpoint {
    listener: TcpListener,
    address: SocketAddr,
}

impl Endpoint {
    /// Binds `address`, a host and a port.
    pub(crate) fn bind(address: &Address) -> io::Result<Self> {
        let listener = TcpListener::bind(&address.resolve()?[..])?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Where it listens, with the port that the kernel chose.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
}

/// What does not change while a broker runs.
#[derive(Debug)]
pub(crate) struct Facts {
    listen: Vec<String>,
    admin: SocketAddr,
    started: Instant,
    /// Since 1970.
    start_time: Duration,
    backlog_limit_bytes: u64,
    memory: MemoryBound,
    engine: &'static str,
}

impl Facts {
    /// Of a broker that starts now.
    pub(crate) fn new(
        listen: &[Address],
        admin: SocketAddr,
        config: &Config,
        memory: MemoryBound,
        engine: &'static str,
    ) -> Self {
        Self {
            listen: listen.iter().map(ToString::to_string).collect(),
            admin,
            started: Instant::now(),
            start_time: SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default(),
            backlog_limit_bytes: config.limits.outbound_total_max as u64,
            memory,
            engine,
        }
    }
}

/// The thread of the control plane. Dropping it ends the thread, once what is being answered is
/// answered or a second has passed.
#[derive(Debug)]
pub(crate) struct Control {
    address: SocketAddr,
    /// Dropped first, which tells the thread to end.
    stop: Option<watch::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Serves `endpoint`.
    pub(crate) fn start(endpoint: Endpoint, facts: Facts, peers: Arc<Peers>) -> io::Result<Self> {
        let address = endpoint.address();
        let (stop, stopped) = watch::channel(());
        let plane = Plane {
            listener: endpoint.listener,
            facts: Arc::new(facts),
            peers,
            counts: Arc::default(),
            stopped,
        };
        let builder = thread::Builder::new().name("hvlp-control".into());
        Ok(Self {
            address,
            stop: Some(stop),
            thread: Some(builder.spawn(move || plane.run())?),
        })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It catches its own panics.
            let _ = thread.join();
        }
    }
}

/// What outlives a panic of the control plane.
struct Plane {
    listener: TcpListener,
    facts: Arc<Facts>,
    peers: Arc<Peers>,
    counts: Arc<Counts>,
    stopped: watch::Receiver<()>,
}

impl Plane {
    /// Serves until it is stopped, and starts again after whatever else ends it. What a panic has
    /// left is thrown away with its runtime: nothing of it can be trusted.
    fn run(self) {
        loop {
            match panic::catch_unwind(AssertUnwindSafe(|| self.serve())) {
                Ok(Ok(())) => return,
                Ok(Err(error)) => {
                    tracing::error!("the control plane cannot serve and tries again: {error}");
                }
                Err(panic) => {
                    self.counts.panicked();
                    let text = text_of(panic.as_ref());
                    tracing::error!("the control plane panicked and starts again: {text}");
                }
            }
            thread::sleep(RESTART_PAUSE);
        }
    }

    fn serve(&self) -> io::Result<()> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = self.listener.try_clone()?;
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let facts = Arc::clone(&self.facts);
            let state = http::State::new(facts, Arc::clone(&self.peers), Arc::clone(&self.counts));
            server::serve(&listener, &Arc::new(state), self.stopped.clone()).await;
            Ok(())
        })
    }
}

/// What a panic says.
fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("for no stated reason")
}
