//! The broker under test: a process of its own, which never outlives this one's wish.

use std::fs::{self, DirBuilder};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};

use crate::admin::Admin;
use crate::machine::{CpuTime, Watched};
use crate::target::{Dialect, Endpoint};

/// What a line says when something panicked, whichever thread it was.
const PANIC: &str = "panicked at";

/// One address to listen at, and what holds there.
#[derive(Clone, Debug)]
pub struct Listener {
    /// As `--listen` takes it.
    pub address: String,
    /// Settings of its own, joined by `&`; may be empty.
    pub settings: String,
}

/// How to start it.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The daemon.
    pub program: Program,
    /// Where it listens, one at least.
    pub listeners: Vec<Listener>,
}

/// The daemon, and the engine that it is told to take.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its file.
    pub path: PathBuf,
    /// As its option `--engine` takes it.
    pub engine: Option<String>,
}

/// A running broker; killed when this is dropped.
#[derive(Debug)]
pub struct BrokerProcess {
    child: Child,
    /// Where it listens, in the order of its listeners.
    pub endpoints: Vec<Endpoint>,
    /// Where it tells its counters.
    pub admin: Admin,
    /// What it says at its start that it takes at most, as far as a rounded figure tells.
    pub memory_max: Option<u64>,
    panics: Arc<AtomicU64>,
}

impl Listener {
    /// A free loopback port with these settings.
    pub fn loopback(settings: impl Into<String>) -> Self {
        Self {
            address: "127.0.0.1:0".into(),
            settings: settings.into(),
        }
    }

    fn option(&self) -> String {
        let Self { address, settings } = self;
        match settings.is_empty() {
            true => address.clone(),
            false => format!("{address}?{settings}"),
        }
    }
}

impl Setup {
    /// The same, at the addresses that a broker of this setup had.
    #[must_use]
    pub fn at(&self, endpoints: &[Endpoint]) -> Self {
        let mut setup = self.clone();
        for (listener, endpoint) in setup.listeners.iter_mut().zip(endpoints) {
            listener.address = endpoint.address.to_string();
        }
        setup
    }
}

impl BrokerProcess {
    /// Starts it; returns once it listens.
    ///
    /// # Errors
    /// There is no such program, or it does not start.
    pub fn start(setup: &Setup) -> Result<Self> {
        let mut command = Command::new(&setup.program.path);
        let variables = std::env::vars_os().map(|(name, _)| name);
        for name in variables.filter(|name| name.to_string_lossy().starts_with("HVLP_")) {
            command.env_remove(name);
        }
        command.args(["--admin", "127.0.0.1:0", "--log-level", "error"]);
        if let Some(engine) = &setup.program.engine {
            command.args(["--engine", engine]);
        }
        for listener in &setup.listeners {
            command.args(["--listen", &listener.option()]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| {
                format!(
                    "cannot start {}: build it (cargo build --release), or name it with --broker",
                    setup.program.path.display()
                )
            })?;
        let mut broker = Self {
            child,
            endpoints: Vec::new(),
            admin: Admin::at(String::new()),
            memory_max: None,
            panics: Arc::default(),
        };
        broker.await_greeting()?;
        ensure!(
            broker.endpoints.len() == setup.listeners.len(),
            "the broker listens at {} of {} addresses",
            broker.endpoints.len(),
            setup.listeners.len()
        );
        Ok(broker)
    }

    /// Reads where it listens; what it says later goes to our standard error.
    fn await_greeting(&mut self) -> Result<()> {
        let talk = self.child.stderr.take().context("it is piped")?;
        let mut talk = BufReader::new(talk);
        let mut said = String::new();
        let admin = loop {
            let from = said.len();
            if talk.read_line(&mut said)? == 0 {
                anyhow::bail!("the broker did not start: {}", said.trim_end());
            }
            let line = said[from..].trim();
            if let Some((_, addresses)) = line.split_once("listening on ") {
                let addresses = addresses.split(", ").map(|address| {
                    let dialect = Dialect::Hvlp;
                    let address = address.parse()?;
                    Ok(Endpoint { dialect, address })
                });
                self.endpoints = addresses.collect::<Result<_>>()?;
            }
            self.memory_max = self.memory_max.or_else(|| memory_max(line));
            let metrics = line.strip_prefix("metrics: http://");
            if let Some(admin) = metrics.and_then(|rest| rest.strip_suffix("/metrics")) {
                break admin.to_owned();
            }
        };
        ensure!(
            !self.endpoints.is_empty(),
            "it does not say where it listens: {said}"
        );
        self.admin = Admin::at(admin);
        let panics = Arc::clone(&self.panics);
        // Ends with the broker: its pipe has no other end then.
        std::thread::Builder::new()
            .name("broker's talk".into())
            .spawn(move || pass_on(talk, io::stderr(), &panics))?;
        Ok(())
    }

    /// Where it listens first.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoints[0]
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
        let resident = self.watched()?.resident_bytes().context(ended)?;
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.child.id())).context(ended)?;
        Ok((resident, descriptors.count()))
    }

    /// The most that was ever resident.
    ///
    /// # Errors
    /// It has ended.
    pub fn resident_peak(&self) -> Result<u64> {
        let peak = self.watched()?.resident_peak_bytes();
        peak.context("the broker has ended by itself")
    }

    /// CPU time so far.
    ///
    /// # Errors
    /// It has ended.
    pub fn cpu_time(&self) -> Result<CpuTime> {
        self.watched()?.cpu_time()
    }

    /// Panics that it has spoken of.
    pub fn panics(&self) -> u64 {
        // Relaxed: nothing is handed over with it.
        self.panics.load(Ordering::Relaxed)
    }

    fn watched(&self) -> Result<Watched> {
        Ok(Watched::Process(i32::try_from(self.child.id())?))
    }
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Passes lines on until there are no more, and counts those that tell of a panic.
fn pass_on(mut talk: impl BufRead, mut out: impl Write, panics: &AtomicU64) {
    const LINE_LEN_MAX: u64 = 64 << 10;
    let mut line = Vec::new();
    while let Ok(1..) = (&mut talk).take(LINE_LEN_MAX).read_until(b'\n', &mut line) {
        if String::from_utf8_lossy(&line).contains(PANIC) {
            // Relaxed: nothing is handed over with it.
            panics.fetch_add(1, Ordering::Relaxed);
        }
        // Who reads our talk may have left.
        let _ = out.write_all(&line);
        line.clear();
    }
}

/// The least that `1.7 GiB of memory at most` may stand for: it is rounded to a tenth.
fn memory_max(line: &str) -> Option<u64> {
    let (before, _) = line.split_once(" of memory at most")?;
    let mut words = before.rsplit(' ');
    let shift = match words.next()? {
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    let amount: f64 = words.next()?.parse().ok()?;
    let bytes = (amount - 0.05) * (1_u64 << shift) as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "what is not positive was ruled out, and half a byte is nobody's"
    )]
    (bytes > 0.0).then_some(bytes as u64)
}

/// The broker's program beside this one.
///
/// # Errors
/// The kernel does not say where this one is.
pub fn program() -> Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("hvlp-broker"))
}

/// A directory for a socket, of ours alone; removed when this is dropped.
#[derive(Debug)]
pub struct SocketDirectory(PathBuf);

impl SocketDirectory {
    /// Creates it.
    ///
    /// # Errors
    /// There is something of its name, or no room.
    pub fn create() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("hvlp-soak-{}", std::process::id()));
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }

    /// A listener in it.
    pub fn listener(&self) -> Listener {
        Listener {
            address: format!("unix:{}", self.socket().display()),
            settings: String::new(),
        }
    }

    fn socket(&self) -> PathBuf {
        let directory: &Path = &self.0;
        directory.join("broker")
    }
}

impl Drop for SocketDirectory {
    fn drop(&mut self) {
        // A broker that was killed leaves its socket behind, and a lock beside it.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_bound_is_taken_for_the_least_that_it_may_stand_for() {
        let line = "2 reactors; owed 8MiB is closed; 1.7 GiB of memory at most";
        let least = memory_max(line).unwrap();
        assert!(least > 1_771_000_000 && least < 1_772_000_000, "{least}");
        assert_eq!(
            memory_max("100.0 MiB of memory at most").map(|n| n >> 20),
            Some(99)
        );
        for mute in ["", "much of memory at most", "0.0 GiB of memory at most"] {
            assert_eq!(memory_max(mute), None, "{mute}");
        }
    }

    #[test]
    fn panics_are_counted_whoever_speaks_of_them() {
        let panics = AtomicU64::new(0);
        let talk = "fine\nthread 'reactor 0' panicked at src/x.rs:1:2:\nno\n";
        let mut passed_on = Vec::new();
        pass_on(talk.as_bytes(), &mut passed_on, &panics);
        assert_eq!((panics.into_inner(), &passed_on[..]), (1, talk.as_bytes()));
    }
}
