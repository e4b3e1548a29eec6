//! A broker's own counters, asked of its admin endpoint: one bounded HTTP request by hand.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

/// How long connecting, and each wait for more of the answer, may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// A snapshot is some kilobytes for each reactor, of which there are 63 at most.
const ANSWER_LEN_MAX: u64 = 4 << 20;
/// How long a broker may take to notice that everybody has left.
const SETTLING_MAX: Duration = Duration::from_secs(5);
/// A broker asks its reactors ten times a second at most, and answers from memory in between.
const SETTLING_INTERVAL: Duration = Duration::from_millis(110);

/// Where a broker's admin endpoint is: `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// `host:port`.
    authority: String,
}

/// What `/v1/snapshot` says, as far as deliveries and leaks are concerned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Another number is another process.
    pub start_time: f64,
    /// The broker's own word: its counters add up.
    pub is_conserved: bool,
    /// Sessions that are there, in any state.
    pub sessions: u64,
    /// Topics that somebody is subscribed to.
    pub topics: u64,
    /// Pairs of a session and a topic.
    pub subscriptions: u64,
    /// What all that is there takes, by the broker's account.
    pub accounted_bytes: u64,
    /// SUBSCRIBE packets that took effect.
    pub subscribed: u64,
    /// PUBLISH packets that took effect.
    pub published: u64,
    /// Pairs of an accepted PUBLISH and a session.
    pub matched: u64,
    /// Deliveries whose last byte the kernel took.
    pub written: u64,
    /// Neither written nor dropped yet.
    pub owed: u64,
    /// Deliveries dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Sessions that ended, by reason.
    pub closed: BTreeMap<String, u64>,
    /// Panics of its control plane.
    pub panics: u64,
}

impl Admin {
    /// The endpoint at `host:port`.
    pub fn at(authority: String) -> Self {
        Self { authority }
    }

    /// What the broker counts at this moment.
    ///
    /// # Errors
    /// Nobody answers, or with something that is no snapshot.
    pub fn counts(&self) -> Result<Counts> {
        let asked = self.get("/v1/snapshot");
        let body = asked.with_context(|| {
            format!("cannot read {self}/v1/snapshot: is it the broker's --admin address?")
        })?;
        let document: Value = serde_json::from_str(&body)
            .with_context(|| format!("{self}/v1/snapshot is no JSON"))?;
        Counts::read(&document).with_context(|| format!("{self}/v1/snapshot is not understood"))
    }

    /// What it counts once nobody is connected and nothing is owed any more.
    ///
    /// # Errors
    /// As [`counts`](Self::counts); or somebody is still there.
    pub fn counts_when_alone(&self) -> Result<Counts> {
        let deadline = Instant::now() + SETTLING_MAX;
        loop {
            // First: an answer may be as old as that.
            std::thread::sleep(SETTLING_INTERVAL);
            let counts = self.counts()?;
            if counts.sessions == 0 && counts.owed == 0 {
                return Ok(counts);
            }
            if Instant::now() >= deadline {
                bail!(
                    "{} sessions are connected to the broker of {self} that are not this \
                     generator's, and {} deliveries owed: counters can only be reconciled by who \
                     is alone, so stop the others or leave --admin out",
                    counts.sessions,
                    counts.owed
                );
            }
        }
    }

    /// The body of a successful answer.
    fn get(&self, path: &str) -> Result<String> {
        let mut socket = self.connect()?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let Self { authority } = self;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        socket.take(ANSWER_LEN_MAX).read_to_end(&mut answer)?;
        let answer = String::from_utf8(answer).context("the answer is no text")?;
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .context("the answer is no HTTP, or not whole")?;
        let status = head.lines().next().unwrap_or_default();
        ensure!(
            status.split(' ').nth(1) == Some("200"),
            "it answers {status:?}: {}",
            body.trim_end()
        );
        Ok(body.to_owned())
    }

    fn connect(&self) -> Result<TcpStream> {
        let mut outcome = Err(anyhow!("the name stands for no address"));
        for address in self.authority.to_socket_addrs()? {
            outcome = TcpStream::connect_timeout(&address, PATIENCE).map_err(Into::into);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }
}

impl Counts {
    fn read(document: &Value) -> Result<Self> {
        let reactors = document["reactors"].as_array().context("reactors")?;
        let absent = reactors.iter().find(|one| one["standing"] != "answers");
        if let Some(reactor) = absent {
            let (name, standing) = (&reactor["reactor"], &reactor["standing"]);
            bail!("reactor {name} does not answer, its standing is {standing}");
        }
        let counters = &document["counters"];
        let number = |name: &str| {
            let number = counters[name].as_u64();
            number.with_context(|| format!("counters.{name} is missing"))
        };
        let family = |name: &str| -> Result<BTreeMap<String, u64>> {
            let family = counters[name].as_object();
            let family = family.with_context(|| format!("counters.{name} is missing"))?;
            let numbers = family.iter().map(|(label, number)| {
                let number = number.as_u64().context("a counter is no number");
                Ok((label.clone(), number?))
            });
            numbers.collect()
        };
        let accepted = family("packets_accepted_total")?;
        Ok(Self {
            start_time: document["start_time_seconds"]
                .as_f64()
                .context("start_time_seconds")?,
            is_conserved: document["conserved"].as_bool().context("conserved")?,
            sessions: family("sessions")?.values().sum(),
            topics: number("topics")?,
            subscriptions: number("subscriptions")?,
            accounted_bytes: number("accounted_bytes")?,
            subscribed: *accepted.get("subscribe").context("no count of SUBSCRIBE")?,
            published: *accepted.get("publish").context("no count of PUBLISH")?,
            matched: number("deliveries_matched_total")?,
            written: number("deliveries_written_total")?,
            owed: number("deliveries_owed")?,
            dropped: family("deliveries_dropped_total")?,
            closed: family("sessions_closed_total")?,
            panics: document["control"]["panics"]
                .as_u64()
                .context("control.panics")?,
        })
    }
}

impl FromStr for Admin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let authority = text.strip_prefix("http://");
        let authority = authority.map(|rest| rest.strip_suffix('/').unwrap_or(rest));
        let is_whole = |authority: &&str| {
            let (host, port) = authority.rsplit_once(':').unwrap_or_default();
            !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok()
        };
        match authority.filter(is_whole) {
            Some(authority) => Ok(Self::at(authority.into())),
            None => Err(format!(
                "{text:?} is no admin endpoint: write http://host:port, as the broker's --admin"
            )),
        }
    }
}

impl fmt::Display for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_url_of_a_host_and_a_port() {
        for (text, printed) in [
            ("http://127.0.0.1:9644", "http://127.0.0.1:9644"),
            ("http://[::1]:9644/", "http://[::1]:9644"),
        ] {
            assert_eq!(text.parse::<Admin>().unwrap().to_string(), printed);
        }
        for wrong in ["127.0.0.1:9644", "http://h", "http://:1", "http://h:1/x"] {
            let refusal = wrong.parse::<Admin>().unwrap_err();
            assert!(refusal.contains("http://host:port"), "{refusal}");
        }
    }

    #[test]
    fn a_reactor_that_does_not_answer_or_a_counter_that_is_missing_is_no_snapshot() {
        let late = serde_json::json!({"reactors": [{"reactor": "0", "standing": "late"}]});
        assert!(
            Counts::read(&late)
                .unwrap_err()
                .to_string()
                .contains("late")
        );
        let empty = serde_json::json!({"reactors": [], "counters": {}});
        assert!(Counts::read(&empty).is_err());
    }
}
