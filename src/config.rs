//! Every setting: key, unit, default and reason, in one table.
//!
//! Units are part of a value (`"10s"`, `"8MiB"`), so keys need none. 0 is neither "unlimited" nor
//! "off": leave the key out instead.

use std::str::FromStr;
use std::time::Duration;

use crate::address::Address;
use crate::outbound::{Bound, SlowConsumer};
use crate::packet::Extensions;
use crate::register::last_values::Prefixes;

mod engine;
mod keys;
mod memory;

pub use engine::EngineKind;
pub use keys::{ConfigError, KEYS, Key, Unit};
pub use memory::MemoryBound;
pub(crate) use memory::{SESSION, SUBSCRIPTION, TOPIC};

#[cfg(feature = "control")]
mod admin;

#[cfg(feature = "control")]
pub use admin::Admin;

/// A broker's settings. `Config::default()` serves this host alone, on the default port.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; `127.0.0.1:65432` if empty.
    pub listen: Vec<Listen>,
    /// Permits addresses that other hosts can reach although nobody has to log in.
    pub insecure_anonymous: bool,
    /// Where metrics, health and status are served over HTTP.
    #[cfg(feature = "control")]
    pub admin: Admin,
    /// `reactors`
    pub reactors: usize,
    /// `engine`
    pub engine: EngineKind,
    /// `pin`
    pub pin: bool,
    /// `busy_poll`
    pub busy_poll: Option<Duration>,
    /// `drain_timeout`
    pub drain_timeout: Duration,
    /// `extensions`
    pub extensions: Extensions,
    /// `last_value`
    pub last_value: Prefixes,
    /// The settings of every listener, where it has none of its own.
    pub listener: ListenerConfig,
    /// The bounds of the process.
    pub limits: Limits,
}

/// An address, and what holds there alone: `127.0.0.1:7000?slow_consumer=conflate`, with the keys
/// of `listener.` behind the question mark, joined by `&`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listen {
    /// Where.
    pub address: Address,
    /// `key=value`, each without `listener.`
    pub settings: Vec<String>,
}

impl From<Address> for Listen {
    fn from(address: Address) -> Self {
        let settings = Vec::new();
        Self { address, settings }
    }
}

impl FromStr for Listen {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let (address, settings) = text.split_once('?').unwrap_or((text, ""));
        let listen = Self {
            address: address.parse()?,
            settings: settings
                .split('&')
                .filter(|setting| !setting.is_empty())
                .map(String::from)
                .collect(),
        };
        listen.config(&Config::default()).map(|_| listen)
    }
}

impl Listen {
    /// The settings in force: those of every listener, and its own over them.
    ///
    /// # Errors
    /// As [`Config::set`].
    pub fn config(&self, config: &Config) -> Result<ListenerConfig, ConfigError> {
        let mut config = config.clone();
        for setting in &self.settings {
            config.set(&format!("listener.{setting}"))?;
        }
        Ok(config.listener)
    }
}

/// What holds for the sessions of a listener.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// `listener.backlog`
    pub backlog: usize,
    /// `listener.connect_timeout`
    pub connect_timeout: Duration,
    /// `listener.frame_timeout`
    pub frame_timeout: Duration,
    /// `listener.tcp_keepalive`
    pub tcp_keepalive: Duration,
    /// `listener.tcp_keepalive_interval`
    pub tcp_keepalive_interval: Duration,
    /// `listener.tcp_user_timeout`
    pub tcp_user_timeout: Duration,
    /// `listener.notsent_lowat`
    pub notsent_lowat: usize,
    /// `listener.sndbuf`
    pub sndbuf: Option<usize>,
    /// `listener.slow_consumer`
    pub slow_consumer: SlowConsumer,
    /// `listener.outbound_max`
    pub outbound_max: usize,
    /// `listener.answers_max`
    pub answers_max: usize,
    /// `listener.progress_timeout`
    pub progress_timeout: Duration,
    /// `listener.pause_max`
    pub pause_max: Duration,
}

impl ListenerConfig {
    /// What one of its sessions may be owed.
    pub const fn bound(&self) -> Bound {
        Bound {
            bytes_max: self.outbound_max,
            policy: self.slow_consumer,
        }
    }
}

/// The bounds of the process and of a turn.
#[derive(Clone, Debug)]
pub struct Limits {
    /// `limits.sessions_max`
    pub sessions_max: usize,
    /// `limits.sessions_per_address_max`
    pub sessions_per_address_max: usize,
    /// `limits.count_this_host`
    pub count_this_host: bool,
    /// `limits.memory_max`
    pub memory_max: Option<usize>,
    /// `limits.outbound_total_max`
    pub outbound_total_max: usize,
    /// `limits.held_total_max`
    pub held_total_max: usize,
    /// `limits.subscriptions_per_session_max`
    pub subscriptions_per_session_max: usize,
    /// `limits.subscriptions_max`
    pub subscriptions_max: usize,
    /// `limits.topics_max`
    pub topics_max: usize,
    /// `limits.filter_shapes_max`
    pub filter_shapes_max: usize,
    /// `limits.topic_bytes_max`
    pub topic_bytes_max: usize,
    /// `last_value_topics_max`
    pub last_value_topics_max: usize,
    /// `last_value_bytes_max`
    pub last_value_bytes_max: usize,
    /// `limits.error_budget`
    pub error_budget: usize,
    /// `limits.error_window`
    pub error_window: Duration,
    /// `limits.accepts_per_second`
    pub accepts_per_second: usize,
    /// `limits.accept_per_turn`
    pub accept_per_turn: usize,
    /// `limits.read_per_session`
    pub read_per_session: usize,
    /// `limits.read_per_turn`
    pub read_per_turn: usize,
    /// `limits.frames_per_turn`
    pub frames_per_turn: usize,
    /// `limits.deliver_per_turn`
    pub deliver_per_turn: usize,
    /// `limits.pieces_per_turn`
    pub pieces_per_turn: usize,
    /// `limits.mesh_spill_max`
    pub mesh_spill_max: usize,
    /// `limits.lag_warn`
    pub lag_warn: Duration,
}

impl Config {
    /// The settings by [`ListenerId`](crate::session::ListenerId): the common ones, and each
    /// listener's. A setting of a listener that cannot be is refused where it is bound.
    pub(crate) fn listeners(&self) -> Vec<ListenerConfig> {
        let own = self.listen.iter().map(|listen| listen.config(self));
        let own = own.map(|config| config.unwrap_or_else(|_| self.listener.clone()));
        std::iter::once(self.listener.clone()).chain(own).collect()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            insecure_anonymous: false,
            #[cfg(feature = "control")]
            admin: Admin::Off,
            reactors: std::thread::available_parallelism()
                .map_or(1, usize::from)
                .min(REACTORS_MAX),
            engine: EngineKind::Mio,
            pin: false,
            busy_poll: None,
            drain_timeout: Duration::from_secs(10),
            extensions: Extensions::ALL,
            last_value: Prefixes::default(),
            listener: ListenerConfig::default(),
            limits: Limits::default(),
        }
    }
}

impl Default for ListenerConfig {
    fn default() -> Self {
        Self {
            backlog: 1024,
            connect_timeout: Duration::from_secs(30),
            frame_timeout: Duration::from_secs(10),
            tcp_keepalive: Duration::from_secs(60),
            tcp_keepalive_interval: Duration::from_secs(15),
            tcp_user_timeout: Duration::from_secs(120),
            // No less than one session's read budget: what one turn sends then fits, so a reader
            // that keeps up never sees a send cut short (with 128 KiB: 12 % of them, and 1.2x the
            // CPU).
            notsent_lowat: 256 * KIB,
            sndbuf: None,
            slow_consumer: SlowConsumer::Disconnect,
            outbound_max: 8 * MIB,
            // A thousand requests of 60 topics each, sent at once.
            answers_max: 64 * KIB,
            progress_timeout: Duration::from_secs(10),
            pause_max: Duration::from_secs(30),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let memory = memory::there_is();
        Self {
            sessions_max: 16_384,
            sessions_per_address_max: 8_192,
            count_this_host: false,
            memory_max: None,
            outbound_total_max: (1024 * MIB).min(memory / 4),
            held_total_max: (64 * MIB).min(memory / 16),
            subscriptions_per_session_max: 65_536,
            subscriptions_max: 2_000_000,
            topics_max: 1_000_000,
            // What people write has some tens; a topic that nobody has published for a while is
            // looked up once for each, 0.1 µs a time.
            filter_shapes_max: 1024,
            // A million of more than 130 bytes each: names in telemetry have 20 to 60.
            topic_bytes_max: 128 * MIB,
            // With frames of 230 bytes one comes to its end as soon as the other.
            last_value_topics_max: 100_000,
            last_value_bytes_max: 32 * MIB,
            error_budget: 64,
            error_window: Duration::from_secs(10),
            // Above what a herd of clients comes to that reconnect: with 10,000 a second their SYNs
            // overflow the backlog, are sent again later, and 10,000 take 3.5 s instead of 1.3.
            accepts_per_second: 50_000,
            accept_per_turn: 64,
            read_per_session: 256 * KIB,
            read_per_turn: MIB,
            frames_per_turn: 65_536,
            // With 64 MiB a thousand subscribers get 64 KiB at a time, and each delivery costs a
            // tenth more CPU than with 128; 10,000 of them hold a turn some 10 ms less of 50.
            deliver_per_turn: 128 * MIB,
            pieces_per_turn: 262_144,
            mesh_spill_max: 512 * KIB,
            lag_warn: Duration::from_millis(100),
        }
    }
}

/// The directory has a bit for each in one word, and one to spare.
const REACTORS_MAX: usize = 63;
const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
