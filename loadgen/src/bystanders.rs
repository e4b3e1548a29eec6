//! Connections that subscribe and then hear nothing: they hold topics and sessions beside a load.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use socket2::Socket;

use crate::target::{Delivery, Dialect, Endpoint, connect, topic_name};
use crate::workload::TOPICS_MAX;

/// How long a target may take for one bystander's subscriptions.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a call is waited for.
const CALL_INTERVAL: Duration = Duration::from_millis(10);
/// More than what a target says to somebody whom nobody publishes to.
const SAID_LEN_MAX: usize = 4096;

/// The connections, each with topics of its own that no workload has.
#[derive(Debug)]
pub struct Bystanders {
    dialect: Dialect,
    sockets: Vec<Socket>,
}

impl Bystanders {
    /// Deals `topics` out, so many to each connection, and returns when the target has taken the
    /// last of them.
    ///
    /// # Errors
    /// Nobody answers, or a connection's last topic does not reach it.
    pub fn connect(endpoint: &Endpoint, topics: usize, per_connection: usize) -> Result<Self> {
        let mut bystanders = Self {
            dialect: endpoint.dialect,
            sockets: Vec::with_capacity(topics.div_ceil(per_connection)),
        };
        if topics == 0 {
            return Ok(bystanders);
        }
        let herald = open(endpoint)?;
        write_whole(&herald, &endpoint.dialect.greeting())?;
        // All of them first: the calls then find them ready, and none has to wait for its turn.
        let mut last_topics = Vec::with_capacity(bystanders.sockets.capacity());
        for first in (0..topics).step_by(per_connection) {
            let taken = first..topics.min(first + per_connection);
            let taken = TOPICS_MAX + taken.start..TOPICS_MAX + taken.end;
            last_topics.push(taken.end - 1);
            bystanders.sockets.push(subscribe(endpoint, taken)?);
        }
        for (number, (socket, topic)) in bystanders.sockets.iter().zip(last_topics).enumerate() {
            await_call(socket, endpoint.dialect, topic, &herald)
                .with_context(|| format!("bystander {number} of {endpoint}"))?;
        }
        Ok(bystanders)
    }

    /// So many connections that subscribe to nothing.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn idle(endpoint: &Endpoint, connections: usize) -> Result<Self> {
        let greeting = endpoint.dialect.greeting();
        let sockets = (0..connections).map(|number| {
            let socket = open(endpoint).with_context(|| format!("idle connection {number}"))?;
            write_whole(&socket, &greeting)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        Ok(Self {
            dialect: endpoint.dialect,
            sockets: sockets.collect::<Result<_>>()?,
        })
    }

    /// Closes the first of every `step` connections, in the order in which they were opened, and
    /// returns when the target has closed them too.
    ///
    /// # Errors
    /// It does not.
    pub fn close_every(&mut self, step: usize) -> Result<()> {
        let mut number = 0;
        let closing = self.sockets.extract_if(.., |_| {
            number += 1;
            (number - 1) % step == 0
        });
        let closing: Vec<_> = closing.collect();
        for socket in &closing {
            socket.shutdown(Shutdown::Write)?;
        }
        for mut socket in &closing {
            socket.set_nonblocking(false)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            let len = socket.read(&mut [0; SAID_LEN_MAX]);
            let len = len.context("the target does not close what we closed")?;
            ensure!(len == 0, "an idle connection heard something");
        }
        Ok(())
    }

    /// What went wrong meanwhile: one of them was hung up on or heard something.
    pub fn disturbed(&self) -> Option<String> {
        let mut said = [0; SAID_LEN_MAX];
        let sockets = self.sockets.iter().enumerate();
        sockets.into_iter().find_map(|(number, mut socket)| {
            let mut rest = match socket.read(&mut said) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Ok(len @ 1..) => &said[..len],
                _ => return Some(format!("the target hung up on bystander {number}")),
            };
            while let Some((delivery, len)) = self.dialect.split(rest) {
                // The herald may have called more than once, and says nothing but the topic.
                let expected = matches!(
                    delivery,
                    Delivery::Answer | Delivery::Ping | Delivery::Message { payload: b"", .. }
                );
                if !expected {
                    return Some(format!("bystander {number} heard what it did not ask for"));
                }
                rest = &rest[len..];
            }
            None
        })
    }
}

/// Subscribes one bystander.
fn subscribe(endpoint: &Endpoint, topics: Range<usize>) -> Result<Socket> {
    let socket = open(endpoint)?;
    let mut hello = endpoint.dialect.greeting();
    hello.extend(endpoint.dialect.subscribe(topics));
    write_whole(&socket, &hello)?;
    Ok(socket)
}

/// Lets `herald` call until the bystander hears it. A target takes a connection's topics in order,
/// so that all of them are registered once something reaches the last.
fn await_call(socket: &Socket, dialect: Dialect, topic: usize, herald: &Socket) -> Result<()> {
    let call = dialect.publish(topic, 0).bytes;
    let deadline = Instant::now() + PATIENCE;
    let mut said = Vec::new();
    while Instant::now() < deadline {
        write_whole(herald, &call)?;
        if hears(socket, dialect, topic, &mut said)? {
            socket.set_nonblocking(true)?;
            return Ok(());
        }
    }
    bail!(
        "its last topic did not reach it within {} s: does the target allow so many \
         (limits.topics_max, limits.subscriptions_max)?",
        PATIENCE.as_secs()
    )
}

/// A connection that waits, but not for ever.
fn open(endpoint: &Endpoint) -> Result<Socket> {
    let socket = connect(&endpoint.address)
        .with_context(|| format!("nobody answers at {endpoint}: start a broker there"))?;
    socket.set_nonblocking(false)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.set_read_timeout(Some(CALL_INTERVAL))?;
    Ok(socket)
}

fn write_whole(mut socket: &Socket, bytes: &[u8]) -> Result<()> {
    socket.write_all(bytes).context("the target does not read")
}

/// Reads until a message of `topic` has come; `false` if it has not within [`CALL_INTERVAL`].
fn hears(mut socket: &Socket, dialect: Dialect, topic: usize, said: &mut Vec<u8>) -> Result<bool> {
    loop {
        let mut buffer = [0; SAID_LEN_MAX];
        match socket.read(&mut buffer) {
            Ok(len @ 1..) => said.extend_from_slice(&buffer[..len]),
            Ok(0) => bail!("the target hung up"),
            Err(error) if is_timeout(&error) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let mut rest = &said[..];
        while let Some((delivery, len)) = dialect.split(rest) {
            match delivery {
                Delivery::Message { topic: name, .. } => {
                    let own = topic_name(topic);
                    ensure!(name == own.as_bytes(), "it heard a foreign topic");
                    return Ok(true);
                }
                Delivery::Ping => write_whole(socket, dialect.pong())?,
                Delivery::Answer => {}
                Delivery::Complaint(text) => bail!("it was told: {}", text.escape_ascii()),
                Delivery::Other => bail!("it heard what it did not ask for"),
            }
            rest = &rest[len..];
        }
        *said = rest.to_vec();
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
