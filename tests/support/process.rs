//! The daemon as a process of its own: signals, limits, exit codes, what it says.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use hvlp::address::Address;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

use super::{DEADLINE, engine, rest, wait_until};

/// Killed when it is dropped, whatever became of the test.
pub(crate) struct Process {
    child: Child,
    stderr: Arc<Mutex<Vec<String>>>,
    /// Ends with the last line.
    collector: Option<JoinHandle<()>>,
    address: Address,
}

/// A command for the daemon that inherits no setting but the engine from whoever runs the tests. It
/// has no admin endpoint unless one is typed: the default port is one for the whole host.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hvlp-broker"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HVLP_") {
            command.env_remove(name);
        }
    }
    command
        .args(args)
        .env("HVLP_ADMIN", "off")
        .env("HVLP_ENGINE", engine::name())
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

impl Process {
    /// A daemon on a port of its own; returns once it says that it listens.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::spawn(command(&["--listen", "127.0.0.1:0"]).args(args))
    }

    pub(crate) fn spawn(command: &mut Command) -> Self {
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut process = Self::collect(child);
        let mut address = None;
        wait_until("the daemon listens", || {
            assert_eq!(
                process.child.try_wait().unwrap(),
                None,
                "{:?}",
                process.lines()
            );
            address = process.lines().iter().find_map(|line| {
                let behind = line.split_once("listening on ")?.1;
                behind.split(',').next()?.trim().parse().ok()
            });
            address.is_some()
        });
        process.address = address.expect("it was just found");
        process
    }

    /// A daemon that does not start: its exit code and what it says.
    pub(crate) fn fail(args: &[&str]) -> (Option<i32>, Vec<String>) {
        let child = command(args).stderr(Stdio::piped()).spawn().unwrap();
        let mut process = Self::collect(child);
        let code = process.wait().code();
        (code, process.lines())
    }

    /// A program that may end at once; `None` if it is not there at all.
    pub(crate) fn try_spawn(command: &mut Command) -> Option<Self> {
        command
            .stderr(Stdio::piped())
            .spawn()
            .ok()
            .map(Self::collect)
    }

    fn collect(mut child: Child) -> Self {
        let stderr = child.stderr.take().expect("it is piped");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let collected = Arc::clone(&lines);
        let collector = thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                collected.lock().unwrap().push(line);
            }
        });
        Self {
            child,
            stderr: lines,
            collector: Some(collector),
            address: Address::default(),
        }
    }

    pub(crate) const fn address(&self) -> &Address {
        &self.address
    }

    /// What it has said so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.stderr.lock().unwrap().clone()
    }

    pub(crate) fn count_lines(&self, with: &str) -> usize {
        self.lines()
            .iter()
            .filter(|line| line.contains(with))
            .count()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// The descriptors that it has open, by number.
    pub(crate) fn descriptors(&self) -> Vec<u64> {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        let number = |entry: std::io::Result<fs::DirEntry>| {
            entry
                .unwrap()
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
        };
        let mut numbers: Vec<u64> = entries.filter_map(number).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Permits `limit` descriptors from now on. The hard limit stays: this one can be raised again.
    pub(crate) fn limit_descriptors(&self, limit: u64) {
        let limit = Rlimit {
            current: Some(limit),
            maximum: getrlimit(Resource::Nofile).maximum,
        };
        prlimit(Some(self.pid()), Resource::Nofile, limit).unwrap();
    }

    /// Permits `more` bytes of address space than it has now, from now on.
    pub(crate) fn limit_address_space(&self, more: u64) {
        let limit = Rlimit {
            current: Some(self.bytes("VmSize") + more),
            maximum: getrlimit(Resource::As).maximum,
        };
        prlimit(Some(self.pid()), Resource::As, limit).unwrap();
    }

    /// Ticks of CPU that it has used, a hundred to the second.
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let behind_name = stat.rsplit_once(')').expect("the name is in brackets").1;
        let field = |n: usize| {
            behind_name
                .split_whitespace()
                .nth(n)
                .unwrap()
                .parse::<u64>()
        };
        field(11).unwrap() + field(12).unwrap()
    }

    /// A line of `/proc/PID/status`.
    pub(crate) fn status(&self, name: &str) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.expect("a line of that name")
            .trim_start_matches(':')
            .trim()
            .into()
    }

    /// Bytes of memory that it has.
    pub(crate) fn resident(&self) -> u64 {
        self.bytes("VmRSS")
    }

    fn bytes(&self, name: &str) -> u64 {
        let value = self.status(name);
        let kibibytes: u64 = value.trim_end_matches("kB").trim().parse().unwrap();
        kibibytes * 1024
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end; all that it said is there then.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                if let Some(collector) = self.collector.take() {
                    collector.join().unwrap();
                }
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "it ends; it said {:?}",
                self.lines()
            );
            rest();
        }
    }

    /// SIGTERM, and everything that it owes is settled: exit code 0.
    pub(crate) fn stop(mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.wait().code(), Some(0), "{:?}", self.lines());
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
