//! The broker under test: a process of its own, which never outlives this one's wish.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::admin::Admin;
use crate::machine::Watched;
use crate::target::{Dialect, Endpoint};

/// A backlog that a stalled reader fills within seconds.
const SETTINGS: [&str; 1] = ["listener.outbound_max=256KiB"];

/// A running broker; killed when this is dropped.
#[derive(Debug)]
pub struct BrokerProcess {
    child: Child,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Where it tells its counters.
    pub admin: Admin,
}

impl BrokerProcess {
    /// Starts it at `listen`; returns once it listens.
    ///
    /// # Errors
    /// There is no such program, or it does not start.
    pub fn start(program: &Path, listen: &str) -> Result<Self> {
        let mut command = Command::new(program);
        let variables = std::env::vars_os().map(|(name, _)| name);
        for name in variables.filter(|name| name.to_string_lossy().starts_with("HVLP_")) {
            command.env_remove(name);
        }
        command.args(["--listen", listen, "--admin", "127.0.0.1:0"]);
        command.args(["--log-level", "error"]);
        for setting in SETTINGS {
            command.args(["--set", setting]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| {
                format!(
                    "cannot start {}: build it (cargo build --release), or name it with --broker",
                    program.display()
                )
            })?;
        let mut broker = Self {
            child,
            endpoint: Endpoint::default(),
            admin: Admin::at(String::new()),
        };
        broker.await_greeting()?;
        Ok(broker)
    }

    /// Reads where it listens; what it says later goes to our standard error.
    fn await_greeting(&mut self) -> Result<()> {
        let talk = self.child.stderr.take().context("it is piped")?;
        let mut talk = BufReader::new(talk);
        let (mut said, mut address) = (String::new(), None);
        let admin = loop {
            let from = said.len();
            if talk.read_line(&mut said)? == 0 {
                anyhow::bail!("the broker did not start: {}", said.trim_end());
            }
            let line = said[from..].trim();
            let listening = line.split_once("listening on ").map(|(_, rest)| rest);
            address = address.or_else(|| listening?.parse().ok());
            let metrics = line.strip_prefix("metrics: http://");
            if let Some(admin) = metrics.and_then(|rest| rest.strip_suffix("/metrics")) {
                break admin.to_owned();
            }
        };
        self.admin = Admin::at(admin);
        self.endpoint = Endpoint {
            dialect: Dialect::Hvlp,
            address: address
                .with_context(|| format!("it does not say where it listens: {said}"))?,
        };
        // Ends with the broker: its pipe has no other end then.
        std::thread::Builder::new()
            .name("broker's talk".into())
            .spawn(move || io::copy(&mut talk, &mut io::stderr()))?;
        Ok(())
    }

    /// kill -9.
    ///
    /// # Errors
    /// It has ended before.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            anyhow::bail!("the broker has ended by itself: {status}");
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Resident memory and open descriptors.
    ///
    /// # Errors
    /// It has ended.
    pub fn footprint(&self) -> Result<(u64, usize)> {
        let ended = "the broker has ended by itself";
        let pid = i32::try_from(self.child.id())?;
        let resident = Watched::Process(pid).resident_bytes().context(ended)?;
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).context(ended)?;
        Ok((resident, descriptors.count()))
    }
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The broker's program beside this one.
///
/// # Errors
/// The kernel does not say where this one is.
pub fn program() -> Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("hvlp-broker"))
}
