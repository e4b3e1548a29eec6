//! A relay as a process of its own: its connections' other ends then count against another limit of
//! descriptors than ours.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use super::{Dialect, Endpoint};
use crate::machine::Watched;

/// What a relay says before its address once it listens.
pub const READY: &str = "relay listening on ";

/// A relay that runs until this is dropped.
#[derive(Debug)]
pub struct RelayProcess {
    child: Child,
    /// Where it listens, and what it half understands.
    pub endpoint: Endpoint,
}

impl RelayProcess {
    /// Starts it on `cpu`, or wherever the scheduler likes.
    ///
    /// # Errors
    /// This program cannot be started once more, or not on that CPU.
    pub fn spawn(cpu: Option<usize>) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["relay", "--listen", "127.0.0.1:0"]);
        if let Some(cpu) = cpu {
            command.args(["--pin-relay", &cpu.to_string()]);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start the relay's process")?;
        let mut said = String::new();
        if let Some(talk) = child.stderr.take() {
            BufReader::new(talk).read_line(&mut said)?;
        }
        let mut relay = Self {
            child,
            endpoint: Endpoint::default(),
        };
        let said = said.trim_end();
        let address = said.strip_prefix(READY).and_then(|text| text.parse().ok());
        relay.endpoint = Endpoint {
            dialect: Dialect::Hvlp,
            address: address.with_context(|| format!("the relay did not start: {said}"))?,
        };
        Ok(relay)
    }

    /// Whose CPU time is the relay's.
    ///
    /// # Panics
    /// The kernel's process numbers are no `pid_t`.
    pub fn watched(&self) -> Watched {
        Watched::Process(self.child.id().try_into().expect("a process number"))
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
