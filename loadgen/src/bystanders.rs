//! Connections that subscribe and then hear nothing: they hold topics and sessions beside a load.

use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use socket2::Socket;

use crate::target::{Delivery, Dialect, Endpoint, connect, topic_name};
use crate::workload::TOPICS_MAX;

/// How long a target may take for one bystander's subscriptions.
const PATIENCE: Duration = Duration::from_secs(30);
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
        let dialect = endpoint.dialect;
        ensure!(
            dialect != Dialect::Redis || topics == 0,
            "a subscriber of redis may not publish, so that it cannot be known when it is ready"
        );
        let mut bystanders = Self {
            dialect,
            sockets: Vec::with_capacity(topics.div_ceil(per_connection)),
        };
        for first in (0..topics).step_by(per_connection) {
            let taken = first..topics.min(first + per_connection);
            let number = bystanders.sockets.len();
            let socket = subscribe(endpoint, TOPICS_MAX + taken.start..TOPICS_MAX + taken.end)
                .with_context(|| format!("bystander {number} of {endpoint}"))?;
            bystanders.sockets.push(socket);
        }
        Ok(bystanders)
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
                if !matches!(delivery, Delivery::Answer | Delivery::Ping) {
                    return Some(format!("bystander {number} heard what it did not ask for"));
                }
                rest = &rest[len..];
            }
            None
        })
    }
}

/// One bystander. Its last frame publishes to its last topic: what a connection says is taken in
/// order, so that once this comes back all its topics are registered.
fn subscribe(endpoint: &Endpoint, topics: std::ops::Range<usize>) -> Result<Socket> {
    let dialect = endpoint.dialect;
    let last = topics.end - 1;
    let socket = connect(&endpoint.address).context("nobody answers")?;
    socket.set_nonblocking(false)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let mut hello = dialect.greeting();
    hello.extend(dialect.subscribe(topics));
    hello.extend(dialect.publish(last, 0).bytes);
    (&socket).write_all(&hello).context("cannot subscribe")?;
    await_message(&socket, dialect, last)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Reads until a message of `topic` has come.
fn await_message(mut socket: &Socket, dialect: Dialect, topic: usize) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut said = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let mut buffer = [0; SAID_LEN_MAX];
        match socket.read(&mut buffer) {
            Ok(len @ 1..) => said.extend_from_slice(&buffer[..len]),
            Ok(0) => bail!("the target hung up"),
            Err(error) if is_timeout(&error) => bail!(
                "its last topic did not reach it within {} s: does the target allow so many \
                 (limits.topics_max, limits.subscriptions_max)?",
                PATIENCE.as_secs()
            ),
            Err(error) => return Err(error.into()),
        }
        let mut rest = &said[..];
        while let Some((delivery, len)) = dialect.split(rest) {
            match delivery {
                Delivery::Message { topic: name, .. } => {
                    ensure!(
                        name == topic_name(topic).as_bytes(),
                        "it heard a foreign topic"
                    );
                    return Ok(());
                }
                Delivery::Ping => socket.write_all(dialect.pong())?,
                Delivery::Answer => {}
                Delivery::Complaint(text) => bail!("it was told: {}", text.escape_ascii()),
                Delivery::Other => bail!("it heard what it did not ask for"),
            }
            rest = &rest[len..];
        }
        said = rest.to_vec();
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
