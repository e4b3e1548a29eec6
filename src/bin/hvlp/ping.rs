//! `hvlp ping`: how long the broker takes to answer.
//!
//! A broker that grants ACK answers a ping when all of its reactors have done what was sent before.
//! The base protocol has no answer to measure: there one connection publishes to a topic that
//! nobody else knows, and a second one, subscribed to it, receives.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use hvlp::address::Address;
use hvlp::client::{Client, ClientError, Wait};
use hvlp::packet::Extensions;

use super::exit::{Exit, Failure};
use super::interruption::Interruption;
use super::server::{Server, duration};

/// Measure round trips through the broker
#[derive(Debug, clap::Args)]
pub(crate) struct Ping {
    /// Stop after so many [default: when interrupted]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Time from one to the next
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    interval: Duration,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

impl Ping {
    pub(crate) fn run(&self, server: &Server) -> Result<Exit, Failure> {
        let mut path = Path::open(server)?;
        let interruption = Interruption::closing(path.listener().sender())?;
        let mut out = io::stdout().lock();
        if !server.quiet && !self.json {
            writeln!(out, "ping {}, by {}", path.broker(), path.means())?;
        }
        let mut trips = Trips::new()?;
        let measured = self.measure(server.quiet, &mut path, &mut trips, &mut out);
        // What was measured before the broker has gone is worth a summary, too.
        let summary = if self.json {
            trips.json()
        } else {
            trips.text()
        };
        writeln!(out, "{summary}")?;
        // An interruption has ended the connection.
        if !interruption.came() {
            measured?;
            path.disconnect()?;
        }
        Ok(if trips.took.is_empty() {
            Exit::Failed
        } else {
            Exit::Done
        })
    }

    fn measure(
        &self,
        quiet: bool,
        path: &mut Path,
        trips: &mut Trips,
        out: &mut impl Write,
    ) -> Result<(), Failure> {
        let mut due = Instant::now();
        for number in 1..=self.count.unwrap_or(u64::MAX) {
            let trip = path.round_trip(number)?;
            trips.add(trip);
            if self.json {
                print_json(out, number, trip)?;
            } else if !quiet {
                print_text(out, number, trip)?;
            }
            due += self.interval;
            if Some(number) != self.count {
                path.wait_until(due)?;
            }
        }
        Ok(())
    }
}

/// The way there and back.
enum Path {
    /// A connection whose pings are answered.
    Answered(Box<Client>),
    /// What stands in for pings elsewhere.
    Published(Box<Pair>),
}

impl Path {
    fn open(server: &Server) -> Result<Self, Failure> {
        let builder = server.builder()?.extensions(Extensions::ACK);
        let client = builder.answer_timeout(LOST_AFTER).connect()?;
        server.announce(&client);
        match client.extensions().contains(Extensions::ACK) {
            true => Ok(Self::Answered(Box::new(client))),
            false => Ok(Self::Published(Box::new(Pair::open(server, client)?))),
        }
    }

    fn broker(&self) -> &Address {
        self.listener().broker()
    }

    const fn means(&self) -> &'static str {
        match self {
            Self::Answered(_) => "its pings",
            Self::Published(_) => "messages through it: it has no pings",
        }
    }

    /// There and back; `None` if nothing comes in time.
    fn round_trip(&mut self, number: u64) -> Result<Option<Duration>, Failure> {
        let client = match self {
            Self::Answered(client) => client,
            Self::Published(pair) => return pair.round_trip(number),
        };
        let sent = Instant::now();
        match client.barrier() {
            Ok(_) => Ok(Some(sent.elapsed())),
            Err(ClientError::TimedOut {
                wait: Wait::Answer, ..
            }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits on the socket, so that a connection that ends is noticed at once.
    fn wait_until(&mut self, due: Instant) -> Result<(), Failure> {
        let listener = match self {
            Self::Answered(client) => client,
            Self::Published(pair) => &mut pair.subscriber,
        };
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            listener.receive(left)?;
        }
    }

    fn disconnect(self) -> Result<(), Failure> {
        match self {
            Self::Answered(client) => client.disconnect()?,
            Self::Published(pair) => {
                pair.publisher.disconnect()?;
                pair.subscriber.disconnect()?;
            }
        }
        Ok(())
    }

    const fn listener(&self) -> &Client {
        match self {
            Self::Answered(client) => client,
            Self::Published(pair) => &pair.subscriber,
        }
    }
}

/// Two connections and the topic between them.
struct Pair {
    publisher: Client,
    subscriber: Client,
    topic: String,
}

impl Pair {
    /// Waits until the broker has taken the subscription: until a message comes.
    fn open(server: &Server, publisher: Client) -> Result<Self, Failure> {
        let mut path = Self {
            publisher,
            subscriber: server.connect()?,
            topic: format!("hvlp/ping/{:016x}", RandomState::new().hash_one(0)),
        };
        path.subscriber.subscribe([&path.topic])?;
        let end = Instant::now() + LOST_AFTER;
        while Instant::now() < end {
            path.publisher.publish(&path.topic, &PROBE)?;
            if path.subscriber.receive(PROBE_INTERVAL)?.is_some() {
                return Ok(path);
            }
        }
        Err(Failure::Silent(path.publisher.broker().clone()))
    }

    /// One message there and back; `None` if it does not come in time.
    fn round_trip(&mut self, number: u64) -> Result<Option<Duration>, Failure> {
        let stamp = number.to_be_bytes();
        let sent = Instant::now();
        self.publisher.publish(&self.topic, &stamp)?;
        loop {
            let left = LOST_AFTER.saturating_sub(sent.elapsed());
            // Anything else is a probe or a late one that was given up.
            match self.subscriber.receive(left)? {
                None => return Ok(None),
                Some(message) if message.data() == stamp => return Ok(Some(sent.elapsed())),
                Some(_) => {}
            }
        }
    }
}

/// Who has not answered for so long is given up, as `ping` does.
const LOST_AFTER: Duration = Duration::from_secs(5);
const PROBE_INTERVAL: Duration = Duration::from_millis(20);
/// The number of no round trip.
const PROBE: [u8; 8] = [0; 8];

/// What was measured, in nanoseconds.
struct Trips {
    took: Histogram<u64>,
    sent: u64,
}

impl Trips {
    fn new() -> Result<Self, Failure> {
        let longest = u64::try_from(LOST_AFTER.as_nanos()).unwrap_or(u64::MAX);
        let took = Histogram::new_with_max(longest.saturating_mul(2), 3);
        let took = took.map_err(|error| Failure::Other(error.to_string()))?;
        Ok(Self { took, sent: 0 })
    }

    fn add(&mut self, trip: Option<Duration>) {
        self.sent += 1;
        if let Some(trip) = trip {
            self.took
                .saturating_record(u64::try_from(trip.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.took.len())
    }

    /// min, avg, p50, p99 and max, in microseconds.
    fn figures(&self) -> [(&'static str, f64); 5] {
        let quantile = |quantile| self.took.value_at_quantile(quantile);
        [
            ("min", micros(self.took.min())),
            ("avg", self.took.mean() / 1000.0),
            ("p50", micros(quantile(0.5))),
            ("p99", micros(quantile(0.99))),
            ("max", micros(self.took.max())),
        ]
    }

    fn text(&self) -> String {
        let mut text = format!("{} sent, {} lost", self.sent, self.lost());
        if !self.took.is_empty() {
            for (name, micros) in self.figures() {
                text.push_str(&format!(", {name} {micros:.1} us"));
            }
        }
        text
    }

    fn json(&self) -> String {
        let mut json = format!("{{\"sent\":{},\"lost\":{}", self.sent, self.lost());
        if !self.took.is_empty() {
            for (name, micros) in self.figures() {
                json.push_str(&format!(",\"{name}_us\":{micros:.1}"));
            }
        }
        json.push('}');
        json
    }
}

fn micros(nanos: u64) -> f64 {
    Duration::from_nanos(nanos).as_secs_f64() * 1e6
}

fn print_text(out: &mut impl Write, number: u64, trip: Option<Duration>) -> io::Result<()> {
    match trip {
        Some(trip) => writeln!(out, "{number}: {:.1} us", trip.as_secs_f64() * 1e6),
        None => writeln!(out, "{number}: lost"),
    }
}

fn print_json(out: &mut impl Write, number: u64, trip: Option<Duration>) -> io::Result<()> {
    match trip {
        Some(trip) => {
            let micros = trip.as_secs_f64() * 1e6;
            writeln!(out, "{{\"n\":{number},\"us\":{micros:.1}}}")
        }
        None => writeln!(out, "{{\"n\":{number},\"us\":null}}"),
    }
}
