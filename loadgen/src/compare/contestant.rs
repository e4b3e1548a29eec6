//! A target that takes part in a comparison, and what it is held against.

use std::fmt;
use std::str::FromStr;

use hvlp::address::Address;

use crate::machine::Watched;
use crate::target::{Dialect, Target};

/// A target that takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contestant {
    /// What reports call it; the target itself if it has no name.
    pub name: Option<String>,
    /// Where it is.
    pub target: Target,
    /// Its process, whose CPU time is counted.
    pub pid: Option<i32>,
}

/// What a contestant is to the goals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// An HVLP broker over TCP: the first one is ours, which the others are held against.
    Own,
    /// An HVLP broker over a unix socket.
    Unix,
    /// An HVLP broker with two reactors, by its name.
    TwoReactors,
    /// An HVLP broker that polls before it sleeps, by its name.
    BusyPoll,
    /// An HVLP broker, with sessions that want answers.
    Acked,
    /// A server of another protocol.
    Rival(Dialect),
    /// The physical limit.
    Relay,
}

impl Standing {
    const NAMED: [Self; 2] = [Self::TwoReactors, Self::BusyPoll];

    /// For people, and on the command line for those that have to be named there.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Own => "own TCP",
            Self::Unix => "unix socket",
            Self::TwoReactors => "two-reactors",
            Self::BusyPoll => "busy-poll",
            Self::Acked => "with answers",
            Self::Rival(dialect) => dialect.name(),
            Self::Relay => "relay",
        }
    }
}

impl FromStr for Contestant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, text) = match text.split_once('=') {
            Some((name, rest)) if is_name(name) && is_unmistakable(rest) => (Some(name), rest),
            _ => (None, text),
        };
        let split = text
            .rsplit_once('=')
            .map(|(target, pid)| (target, pid.parse::<i32>()));
        let (target, pid) = match split {
            Some((target, Ok(pid))) if pid > 0 => (target, Some(pid)),
            _ => (text, None),
        };
        let target = target.parse()?;
        if target == Target::Relay && pid.is_some() {
            return Err("a relay is a thread of this process: write it without a pid".into());
        }
        let name = name.map(str::to_owned);
        Ok(Self { name, target, pid })
    }
}

/// `two-reactors`, but no part of an address.
fn is_name(text: &str) -> bool {
    let of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !text.is_empty() && text.bytes().all(of_a_name)
}

/// Whether a target says what it is: the host in `host=123` would else be a name, its pid a host.
fn is_unmistakable(text: &str) -> bool {
    let relay = text.split('=').next() == Some("relay");
    relay || text.starts_with("unix:") || text.contains("://")
}

impl Contestant {
    /// Whose CPU time is its own.
    pub fn watched(&self) -> Option<Watched> {
        self.pid.map(Watched::Process)
    }

    /// Its dialect; `None` for the relay, which has none.
    pub const fn dialect(&self) -> Option<Dialect> {
        match &self.target {
            Target::Broker(endpoint) => Some(endpoint.dialect),
            Target::Relay => None,
        }
    }

    /// What it is to the goals.
    pub fn standing(&self) -> Standing {
        let Target::Broker(endpoint) = &self.target else {
            return Standing::Relay;
        };
        match endpoint.dialect {
            Dialect::Hvlp => {}
            Dialect::Acked => return Standing::Acked,
            rival => return Standing::Rival(rival),
        }
        let is_it = |standing: &Standing| self.name.as_deref() == Some(standing.name());
        let otherwise = match endpoint.address {
            Address::Unix(_) => Standing::Unix,
            Address::Tcp { .. } => Standing::Own,
        };
        let mut named = Standing::NAMED.into_iter();
        named.find(is_it).unwrap_or(otherwise)
    }
}

/// Its name, or the target.
impl fmt::Display for Contestant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name),
            None => self.target.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contestant_is_a_target_with_or_without_name_and_process() {
        let parsed = |text: &str| {
            let contestant: Contestant = text.parse().unwrap();
            let target = contestant.target.to_string();
            (contestant.to_string(), target, contestant.pid)
        };
        let of = |name: &str, target: &str, pid| (name.into(), target.into(), pid);
        assert_eq!(parsed("relay"), of("relay", "relay", None));
        assert_eq!(
            parsed("nats://h:1=23"),
            of("nats://h:1", "nats://h:1", Some(23))
        );
        assert_eq!(
            parsed("unix:/a=b"),
            of("unix:/a=b", "unix:/a=b", None),
            "a path may contain the sign"
        );
        assert_eq!(
            parsed("h=7"),
            of("hvlp://h:65432", "hvlp://h:65432", Some(7))
        );
        assert_eq!(
            parsed("two-reactors=hvlp://h:1=23"),
            of("two-reactors", "hvlp://h:1", Some(23))
        );
        assert_eq!(parsed("u=unix:/a=23"), of("u", "unix:/a", Some(23)));
        assert_eq!(parsed("limit=relay"), of("limit", "relay", None));
        for wrong in ["relay=1", "limit=relay=1", "kafka://h=1", "a b=hvlp://h:1"] {
            assert!(wrong.parse::<Contestant>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn ours_is_whoever_speaks_hvlp_over_tcp_and_has_no_name_with_a_meaning() {
        for (text, standing) in [
            ("hvlp://h:1", Standing::Own),
            ("mine=hvlp://h:1", Standing::Own),
            ("unix:/a", Standing::Unix),
            ("mine=unix:/a", Standing::Unix),
            ("two-reactors=hvlp://h:1", Standing::TwoReactors),
            ("busy-poll=hvlp://h:1=2", Standing::BusyPoll),
            ("busy-poll=nats://h:1", Standing::Rival(Dialect::Nats)),
            ("hvlp+ack://h:1", Standing::Acked),
            ("relay", Standing::Relay),
        ] {
            let contestant: Contestant = text.parse().unwrap();
            assert_eq!(contestant.standing(), standing, "{text}");
        }
    }
}
