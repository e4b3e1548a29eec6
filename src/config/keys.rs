//! The table of keys: how each setting is named, read, shown and bounded.

use std::time::Duration;

use bytesize::ByteSize;

use crate::address::AddressError;
use crate::config::{Config, EngineKind, KIB, REACTORS_MAX};
use crate::outbound::SlowConsumer;
use crate::packet::Extensions;
use crate::register::last_values::Prefixes;

/// One row of the table of keys.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// How `--set` names it.
    pub name: &'static str,
    /// What its value counts.
    pub unit: Unit,
    /// Why it exists, and why its default is what it is.
    pub reason: &'static str,
    /// The smallest value.
    least: u64,
    /// The largest value.
    most: u64,
    access: Access,
}

/// How a value is read and written.
#[derive(Clone, Copy, Debug)]
enum Access {
    Number {
        get: fn(&Config) -> Option<u64>,
        set: fn(&mut Config, u64),
    },
    Prefixes {
        get: fn(&Config) -> &Prefixes,
        set: fn(&mut Config, Prefixes),
    },
}

/// What a value counts, and so how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number of things: `64`.
    Count,
    /// Bytes: `8MiB`.
    Size,
    /// Time: `10s`, `250ms`.
    Duration,
    /// `true` or `false`.
    Flag,
    /// A [`SlowConsumer`] by its name.
    Policy,
    /// An [`EngineKind`] by its name.
    Engine,
    /// [`Extensions`] by their names, joined by `+`; `none`.
    Extensions,
    /// [`Prefixes`], joined by commas; `none`, `all`.
    Prefixes,
}

/// Declares [`KEYS`]. Durations are held in nanoseconds while they are checked.
macro_rules! keys {
    ($(
        $name:literal $unit:ident $($field:ident).+ $how:ident [$least:expr, $most:expr]
            $reason:literal,
    )*) => {
        /// Every key, in the order of the reference.
        pub const KEYS: &[Key] = &[$(Key {
            name: $name,
            unit: Unit::$unit,
            reason: $reason,
            least: $least,
            most: $most,
            access: $how!($($field).+),
        },)*];
    };
}

macro_rules! number {
    ($($f:ident).+) => { access!(c v, Some(c.$($f).+ as u64), c.$($f).+ = to_usize(v)) };
}
macro_rules! optional_number {
    ($($f:ident).+) => {
        access!(c v, c.$($f).+.map(|v| v as u64), c.$($f).+ = Some(to_usize(v)))
    };
}
macro_rules! flag {
    ($($f:ident).+) => { access!(c v, Some(u64::from(c.$($f).+)), c.$($f).+ = v == 1) };
}
macro_rules! engine {
    ($($f:ident).+) => {
        access!(c v, Some(c.$($f).+ as u64), c.$($f).+ = EngineKind::ALL[to_usize(v)])
    };
}
macro_rules! extensions {
    ($($f:ident).+) => {
        access!(c v, Some(u64::from(c.$($f).+.bits())), c.$($f).+ = to_extensions(v))
    };
}
macro_rules! policy {
    ($($f:ident).+) => {
        access!(c v, Some(c.$($f).+ as u64), c.$($f).+ = SlowConsumer::ALL[to_usize(v)])
    };
}
macro_rules! time {
    ($($f:ident).+) => {
        access!(c v, Some(nanos(c.$($f).+)), c.$($f).+ = Duration::from_nanos(v))
    };
}
macro_rules! optional_time {
    ($($f:ident).+) => {
        access!(c v, c.$($f).+.map(nanos), c.$($f).+ = Some(Duration::from_nanos(v)))
    };
}
macro_rules! prefixes {
    ($($f:ident).+) => {
        Access::Prefixes { get: |c| &c.$($f).+, set: |c, v| c.$($f).+ = v }
    };
}
/// A value that is held as a number.
macro_rules! access {
    ($config:ident $value:ident, $get:expr, $set:expr) => {
        Access::Number {
            get: |$config| $get,
            set: |$config, $value| $set,
        }
    };
}

fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn to_extensions(bits: u64) -> Extensions {
    Extensions::from_bits(u8::try_from(bits).unwrap_or(0))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

const MICROSECOND: u64 = 1_000;
const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400 * SECOND;
/// The kernel takes no more seconds.
const KEEPALIVE_MAX: u64 = 32_767 * SECOND;
const ANY: u64 = u32::MAX as u64;
const K: u64 = KIB as u64;
const TIB: u64 = 1 << 40;

keys! {
    "reactors" Count reactors number [1, REACTORS_MAX as u64]
        "threads that serve, each with its own sessions; by default the CPUs this process may use",
    "engine" Engine engine engine [0, EngineKind::ALL.len() as u64 - 1]
        "what reactors wait with: mio, uring (Linux 6.1 or later), or auto, whichever was measured faster",
    "pin" Flag pin flag [0, 1]
        "keep reactor k on the k-th CPU that this process may use",
    "busy_poll" Duration busy_poll optional_time [MICROSECOND, SECOND]
        "look for events this long before sleeping: saves the wake-up, burns the core",
    "drain_timeout" Duration drain_timeout time [MICROSECOND, DAY]
        "how long a stop may take to write what sessions are owed",
    "extensions" Extensions extensions extensions [0, Extensions::ALL.bits() as u64]
        "what CONNECT may ask for beyond the base protocol; who does not ask never notices",
    "last_value" Prefixes last_value prefixes [0, 0]
        "who subscribes gets the newest message first of topics with these prefixes: state/,alarm/",
    "last_value_topics_max" Count limits.last_value_topics_max number [1, ANY]
        "topics whose newest message is kept; beyond it the one that was silent longest goes",
    "last_value_bytes_max" Size limits.last_value_bytes_max number [4 * K, TIB]
        "what they take, overhead included",
    "listener.backlog" Count listener.backlog number [1, 65_535]
        "connections that wait in the kernel to be accepted",
    "listener.connect_timeout" Duration listener.connect_timeout time [MICROSECOND, DAY]
        "from accept to CONNECT; until then a peer has proved nothing",
    "listener.frame_timeout" Duration listener.frame_timeout time [MICROSECOND, DAY]
        "from the first byte of a frame to its last; a slow trickle holds no slot for ever",
    "listener.tcp_keepalive" Duration listener.tcp_keepalive time [SECOND, KEEPALIVE_MAX]
        "silence after which the kernel asks if the peer is there; half of it for some, to spread them",
    "listener.tcp_keepalive_interval" Duration listener.tcp_keepalive_interval time [SECOND, KEEPALIVE_MAX]
        "time between two such questions",
    "listener.tcp_user_timeout" Duration listener.tcp_user_timeout time [SECOND, DAY]
        "unanswered for this long, a peer is gone; also ends one whose window stays closed",
    "listener.notsent_lowat" Size listener.notsent_lowat number [4 * K, ANY]
        "bytes that the kernel holds unsent per session: a stalled reader costs that, not 3.9 MB",
    "listener.sndbuf" Size listener.sndbuf optional_number [4 * K, ANY]
        "a fixed send buffer; absent, the kernel tunes TCP's, and a unix socket has 1MiB",
    "listener.slow_consumer" Policy
        listener.slow_consumer policy [0, SlowConsumer::ALL.len() as u64 - 1]
        "at outbound_max: disconnect, drop_newest, drop_oldest, conflate (each topic's newest) or pause",
    "listener.outbound_max" Size listener.outbound_max number [64 * K, TIB]
        "what one session may be owed, overhead included; at it slow_consumer applies",
    "listener.answers_max" Size listener.answers_max number [4 * K, 1 << 30]
        "answers that one session has not read, for who asked for any; at it the session is closed",
    "listener.progress_timeout" Duration listener.progress_timeout time [MICROSECOND, DAY]
        "a backlog of which the kernel takes nothing for this long closes the session",
    "listener.pause_max" Duration listener.pause_max time [MICROSECOND, DAY]
        "how long a subscriber may hold its publishers under pause; progress_timeout is off there",
    "limits.sessions_max" Count limits.sessions_max number [1, 1 << 24]
        "sessions at a time; fitted to the descriptors that the process may have",
    "limits.sessions_per_address_max" Count limits.sessions_per_address_max number [1, 1 << 24]
        "sessions of one address, of IPv6 of a /64: whoever opens all it can leaves room for others",
    "limits.count_this_host" Flag limits.count_this_host flag [0, 1]
        "whether that holds for loopback and unix sockets too, all of them as one address",
    "limits.memory_max" Size limits.memory_max optional_number [64 * K * K, 1 << 50]
        "what this broker may take; absent, what the control group may or half of the host, which \
         all brokers of the process without one share",
    "limits.outbound_total_max" Size limits.outbound_total_max number [64 * K, TIB]
        "all backlogs together; the largest is closed first",
    "limits.held_total_max" Size limits.held_total_max number [64 * K, TIB]
        "input that came and waits to be parsed, all sessions together",
    "limits.subscriptions_per_session_max" Count
        limits.subscriptions_per_session_max number [1, ANY]
        "topics of one session",
    "limits.subscriptions_max" Count limits.subscriptions_max number [1, ANY]
        "subscriptions of all sessions; one costs up to 96 bytes",
    "limits.topics_max" Count limits.topics_max number [1, ANY]
        "distinct topics; one costs up to 96 bytes and its name",
    "limits.filter_shapes_max" Count limits.filter_shapes_max number [1, 65_536]
        "kinds of filters, told apart by where their wildcards stand: a new topic is looked up for each",
    "limits.topic_bytes_max" Size limits.topic_bytes_max number [64 * K, TIB]
        "the names of all of them together",
    "limits.error_budget" Count limits.error_budget number [1, 65_536]
        "discarded frames within error_window that close a session",
    "limits.error_window" Duration limits.error_window time [MICROSECOND, DAY]
        "how long a discarded frame counts",
    "limits.accepts_per_second" Count limits.accepts_per_second number [1, 1_000_000]
        "connections accepted in all; more wait in the kernel for their turn",
    "limits.accept_per_turn" Count limits.accept_per_turn number [1, 65_536]
        "connections accepted before sessions have their turn",
    "limits.read_per_session" Size limits.read_per_session number [4 * K, 256 * K]
        "bytes read from one session before the others are: larger reads stall the loop, smaller ones cost sends",
    "limits.read_per_turn" Size limits.read_per_turn number [4 * K, 16 * 1024 * K]
        "bytes read from all sessions before what they published is flushed",
    "limits.frames_per_turn" Count limits.frames_per_turn number [1, 1 << 24]
        "frames, and topics of lists, taken before everyone has their turn: small ones cost time too",
    "limits.deliver_per_turn" Size limits.deliver_per_turn number [4 * K, TIB]
        "bytes given to subscribers before everyone has their turn; one frame to all is never cut",
    "limits.pieces_per_turn" Count limits.pieces_per_turn number [1, 1 << 24]
        "stretches owed before everyone has their turn; 16 bytes of memory each",
    "limits.mesh_spill_max" Size limits.mesh_spill_max number [64 * K, ANY]
        "what may wait for one full reactor before no session of this one is read",
    "limits.lag_warn" Duration limits.lag_warn time [MICROSECOND, DAY]
        "a turn that takes longer, or begins so much later than it should, is counted as a lag",
}

impl Key {
    /// The value in force, as `--set` takes it; `absent` where there is none.
    pub fn show(&self, config: &Config) -> String {
        match self.access {
            Access::Number { get, .. } => {
                let value = get(config);
                value.map_or_else(|| "absent".into(), |value| self.unit.show(value))
            }
            Access::Prefixes { get, .. } => get(config).to_string(),
        }
    }

    /// Reads a value as `--set` takes it, and puts it in force.
    fn set(&self, config: &mut Config, text: &str) -> Result<(), ConfigError> {
        let unreadable = || ConfigError::Unreadable {
            key: self.name,
            value: text.into(),
            expected: self.unit.example(),
        };
        match self.access {
            Access::Prefixes { set, .. } => {
                set(config, text.parse().map_err(|()| unreadable())?);
            }
            Access::Number { set, .. } => {
                let value = self.unit.parse(text).ok_or_else(unreadable)?;
                if value < self.least || value > self.most {
                    return Err(ConfigError::OutOfRange {
                        key: self.name,
                        value: text.into(),
                        least: self.unit.show(self.least),
                        most: self.unit.show(self.most),
                        default: self.default(),
                    });
                }
                set(config, value);
            }
        }
        Ok(())
    }

    /// The value that holds unless set.
    pub fn default(&self) -> String {
        self.show(&Config::default())
    }
}

impl Unit {
    fn show(self, value: u64) -> String {
        match self {
            Self::Count | Self::Prefixes => value.to_string(),
            Self::Flag => (value == 1).to_string(),
            Self::Policy => SlowConsumer::NAMES[to_usize(value)].into(),
            Self::Engine => EngineKind::NAMES[to_usize(value)].into(),
            Self::Extensions => to_extensions(value).to_string(),
            Self::Size => match value {
                _ if value.is_multiple_of(1 << 30) => format!("{}GiB", value >> 30),
                _ if value.is_multiple_of(1 << 20) => format!("{}MiB", value >> 20),
                _ if value.is_multiple_of(1 << 10) => format!("{}KiB", value >> 10),
                _ => format!("{value}B"),
            },
            Self::Duration => humantime::format_duration(Duration::from_nanos(value))
                .to_string()
                .replace(' ', ""),
        }
    }

    fn parse(self, text: &str) -> Option<u64> {
        let has_unit = !text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.');
        match self {
            Self::Count => text.replace('_', "").parse().ok(),
            Self::Flag => text.parse::<bool>().ok().map(u64::from),
            Self::Policy => position(&SlowConsumer::NAMES, text),
            Self::Engine => position(&EngineKind::NAMES, text),
            Self::Extensions => {
                let sets = (0..=Extensions::ALL.bits()).map(Extensions::from_bits);
                let mut named = sets.filter(|set| set.to_string() == text);
                named.next().map(|set| u64::from(set.bits()))
            }
            Self::Size if has_unit => text.parse::<ByteSize>().ok().map(|size| size.as_u64()),
            Self::Duration if has_unit => humantime::parse_duration(text).ok().map(nanos),
            Self::Size | Self::Duration | Self::Prefixes => None,
        }
    }

    const fn example(self) -> &'static str {
        match self {
            Self::Count => "a number such as 64",
            Self::Flag => "true or false",
            Self::Policy => "disconnect, drop_newest, drop_oldest, conflate or pause",
            Self::Engine => "auto, mio or uring",
            Self::Extensions => "some of ack+echo+wild, or none",
            Self::Prefixes => "beginnings of topics, joined by commas, such as state/; all; none",
            Self::Size => "bytes with their unit, such as 64KiB or 8MiB",
            Self::Duration => "a time with its unit, such as 10s or 250ms",
        }
    }
}

/// Where `text` stands among `names`.
fn position(names: &[&str], text: &str) -> Option<u64> {
    let index = names.iter().position(|name| *name == text);
    index.map(|index| index as u64)
}

impl Config {
    /// The value of the key `name`, as `--set` takes it; `None` if there is no such key.
    pub fn show(&self, name: &str) -> Option<String> {
        find_key(name).ok().map(|key| key.show(self))
    }

    /// Sets one key from `KEY=VALUE`.
    ///
    /// # Errors
    /// Names the key, what is wrong with the value, and what would be right.
    pub fn set(&mut self, assignment: &str) -> Result<(), ConfigError> {
        let (name, text) = assignment
            .split_once('=')
            .ok_or_else(|| ConfigError::NoValue {
                assignment: assignment.into(),
            })?;
        let (name, text) = (name.trim(), text.trim().trim_matches('"'));
        find_key(name)?.set(self, text)
    }
}

fn find_key(name: &str) -> Result<&'static Key, ConfigError> {
    KEYS.iter().find(|key| key.name == name).ok_or_else(|| {
        let distance = |key: &&Key| strsim::levenshtein(key.name, name);
        let nearest = KEYS.iter().min_by_key(distance).map_or("", |key| key.name);
        ConfigError::UnknownKey {
            key: name.into(),
            nearest,
        }
    })
}

/// A setting that cannot be used. It is the operator's to mend; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A text that is no address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// There is no such key.
    #[error("unknown key {key:?}; did you mean {nearest:?}? hvlp-broker --set help lists all")]
    UnknownKey {
        /// As it was written.
        key: String,
        /// The key whose name is most like it.
        nearest: &'static str,
    },
    /// Not `KEY=VALUE`.
    #[error("{assignment:?} sets nothing; write KEY=VALUE, limits.sessions_max=5000 for example")]
    NoValue {
        /// As it was written.
        assignment: String,
    },
    /// Not a value of the key's unit.
    #[error("{key} = {value:?} cannot be read; write {expected}")]
    Unreadable {
        /// The key.
        key: &'static str,
        /// As it was written.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// Not an address of an admin endpoint.
    #[error(
        "admin = {address:?} is no address: write host:port, 127.0.0.1:9644 for example, or off"
    )]
    Admin {
        /// As it was written.
        address: String,
    },
    /// Too small or too large.
    #[error(
        "{key} = {value:?} is out of range: from {least} to {most}, {default} by default; 0 is neither \"unlimited\" nor \"off\""
    )]
    OutOfRange {
        /// The key.
        key: &'static str,
        /// As it was written.
        value: String,
        /// The smallest value.
        least: String,
        /// The largest value.
        most: String,
        /// The value that holds unless set.
        default: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_shows_its_default_and_takes_what_it_shows() {
        for key in KEYS {
            assert!(!key.reason.is_empty());
            if key.default() != "absent" {
                let mut config = Config::default();
                config
                    .set(&format!("{}={}", key.name, key.default()))
                    .unwrap();
                assert_eq!(key.show(&config), key.default());
            }
        }
    }

    #[test]
    fn a_value_that_is_set_is_in_force() {
        let mut config = Config::default();
        config.set("listener.outbound_max=64KiB").unwrap();
        config.set("listener.frame_timeout = \"250ms\"").unwrap();
        config.set("limits.sessions_max=5_000").unwrap();
        config.set("busy_poll=50us").unwrap();
        assert_eq!(config.listener.outbound_max, 65_536);
        assert_eq!(config.listener.frame_timeout, Duration::from_millis(250));
        assert_eq!(config.limits.sessions_max, 5_000);
        assert_eq!(config.busy_poll, Some(Duration::from_micros(50)));
    }

    #[test]
    fn g6_misspelt_unitless_zero_and_absurd_values_are_errors_that_teach() {
        for (assignment, lesson) in [
            (
                "listener.outbund_max=8MiB",
                "did you mean \"listener.outbound_max\"?",
            ),
            ("listener.outbound_max", "write KEY=VALUE"),
            ("listener.outbound_max=8", "8MiB"),
            (
                "listener.outbound_max=0B",
                "neither \"unlimited\" nor \"off\"",
            ),
            ("listener.outbound_max=1KiB", "from 64KiB"),
            ("listener.frame_timeout=10", "10s or 250ms"),
            ("listener.frame_timeout=0s", "10s by default"),
            ("listener.frame_timeout=-1s", "cannot be read"),
            ("limits.sessions_max=0", "from 1"),
            ("limits.sessions_max=NaN", "a number"),
            ("limits.sessions_max=99999999999", "16384 by default"),
        ] {
            let mut config = Config::default();
            let error = config.set(assignment).unwrap_err().to_string();
            assert!(error.contains(lesson), "{assignment}: {error}");
        }
    }
}
