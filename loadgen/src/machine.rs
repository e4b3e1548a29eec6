//! What the operating system says and does: CPU clocks, memory, pinning, limits, the host's name.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// A thread of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadId(i32);

impl ThreadId {
    /// The calling thread.
    pub fn current() -> Self {
        Self(rustix::thread::gettid().as_raw_nonzero().get())
    }
}

/// Whose CPU time and memory are the target's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// A whole process: the broker.
    Process(i32),
    /// A thread of ours: the relay. Its memory cannot be told from ours.
    Thread(ThreadId),
}

/// What the scheduler has accounted for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// On a CPU, user and system.
    pub used: Duration,
    /// Ready to run while something else held the CPU: how much the machine was disturbed.
    pub waited: Duration,
}

impl CpuTime {
    /// What has come on top since `before`.
    pub const fn since(&self, before: &Self) -> Self {
        Self {
            used: self.used.saturating_sub(before.used),
            waited: self.waited.saturating_sub(before.waited),
        }
    }
}

impl Watched {
    /// CPU time so far, from the scheduler's own account (nanoseconds, where `stat` counts ticks
    /// of 10 ms).
    ///
    /// # Errors
    /// There is no such process.
    pub fn cpu_time(self) -> Result<CpuTime> {
        match self {
            Self::Thread(ThreadId(id)) => thread_cpu_time(&format!("/proc/self/task/{id}")),
            Self::Process(pid) => {
                let tasks = fs::read_dir(format!("/proc/{pid}/task"))
                    .with_context(|| format!("there is no process {pid}: check --pid"))?;
                let mut total = CpuTime::default();
                // A thread that ends between listing and reading has nothing more to tell.
                let times = tasks
                    .flatten()
                    .flat_map(|task| thread_cpu_time(&task.path().to_string_lossy()));
                for time in times {
                    total.used += time.used;
                    total.waited += time.waited;
                }
                Ok(total)
            }
        }
    }

    /// Resident memory in bytes, where it can be told.
    pub fn resident_bytes(self) -> Option<u64> {
        let Self::Process(pid) = self else {
            return None;
        };
        let pages = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        let pages: u64 = pages.split(' ').nth(1)?.parse().ok()?;
        Some(pages * u64::try_from(rustix::param::page_size()).ok()?)
    }

    /// The most memory that was ever resident, where it can be told.
    pub fn resident_peak_bytes(self) -> Option<u64> {
        let Self::Process(pid) = self else {
            return None;
        };
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes: u64 = peak?.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kibibytes << 10)
    }

    /// The CPUs that it may run on.
    pub fn cpus(self) -> Vec<usize> {
        let (Self::Process(id) | Self::Thread(ThreadId(id))) = self;
        let set = Pid::from_raw(id).and_then(|pid| sched_getaffinity(Some(pid)).ok());
        set.map(|set| listed(&set)).unwrap_or_default()
    }
}

fn thread_cpu_time(directory: &str) -> Result<CpuTime> {
    let text = fs::read_to_string(format!("{directory}/schedstat"))?;
    let mut fields = text
        .split(' ')
        .map(|field| field.parse().map(Duration::from_nanos));
    match (fields.next(), fields.next()) {
        (Some(Ok(used)), Some(Ok(waited))) => Ok(CpuTime { used, waited }),
        _ => Err(anyhow!("{directory}/schedstat is not understood: {text:?}")),
    }
}

/// The CPUs that the calling thread may run on.
pub fn own_cpus() -> Vec<usize> {
    sched_getaffinity(None)
        .map(|set| listed(&set))
        .unwrap_or_default()
}

/// Ties the calling thread to one CPU.
///
/// # Errors
/// There is no such CPU, or this process may not use it.
pub fn pin_thread(cpu: usize) -> Result<()> {
    let no_such = || format!("cannot run on CPU {cpu}: this machine has {}", cpu_count());
    if cpu >= CpuSet::MAX_CPU {
        return Err(anyhow!(no_such()));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(no_such)
}

fn listed(set: &CpuSet) -> Vec<usize> {
    (0..CpuSet::MAX_CPU)
        .filter(|&cpu| set.is_set(cpu))
        .collect()
}

/// CPUs of the machine, at least one.
pub fn cpu_count() -> usize {
    fs::read_dir("/sys/devices/system/cpu")
        .map(|entries| {
            entries
                .flatten()
                .filter(|entry| is_cpu(&entry.file_name()))
                .count()
        })
        .unwrap_or(0)
        .max(1)
}

fn is_cpu(name: &std::ffi::OsStr) -> bool {
    let digits = name.to_str().and_then(|name| name.strip_prefix("cpu"));
    digits.is_some_and(|digits| digits.parse::<usize>().is_ok())
}

/// Standard streams, epoll, a listener, `/proc` files.
const OTHERS: usize = 32;

/// Raises the soft limit of descriptors to the hard one, and says whether `needed` more fit.
///
/// # Errors
/// They do not.
pub fn reserve_descriptors(needed: usize) -> Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: maximum,
                maximum,
            },
        )?;
    }
    let needed = u64::try_from(needed.saturating_add(OTHERS))?;
    match maximum {
        Some(maximum) if needed > maximum => Err(anyhow!(
            "{needed} descriptors are needed and {maximum} allowed: use fewer connections, or \
             raise the limit (ulimit -Hn)"
        )),
        _ => Ok(()),
    }
}

/// How many connections this process may have, once they are reserved.
pub fn descriptors_max() -> usize {
    let maximum = getrlimit(Resource::Nofile).current;
    let maximum = maximum.and_then(|maximum| usize::try_from(maximum).ok());
    maximum.unwrap_or(usize::MAX).saturating_sub(OTHERS)
}

/// Lets every other thread go before the calling one, and at once. A mere niceness would not do:
/// the scheduler lets whoever runs finish its slice, which is milliseconds.
///
/// # Errors
/// The kernel refuses.
pub fn yield_to_others() -> Result<()> {
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle)
        .map_err(|error| anyhow!("a thread cannot be made to yield to others: {error:?}"))
}

/// The machine, for the report.
#[derive(Clone, Debug, Serialize)]
pub struct Environment {
    /// Host name.
    pub host: String,
    /// Kernel release.
    pub kernel: String,
    /// CPU model.
    pub cpu: String,
    /// CPUs of the machine.
    pub cores: usize,
    /// Frequency governor, where there is one.
    pub governor: Option<String>,
    /// This program's version.
    pub version: &'static str,
}

impl Environment {
    /// Reads it.
    pub fn read() -> Self {
        let names = rustix::system::uname();
        let cpu_info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu_info.lines().find_map(|line| {
            line.strip_prefix("model name")?
                .split_once(':')
                .map(|(_, model)| model.trim())
        });
        let governor = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";
        Self {
            host: names.nodename().to_string_lossy().into_owned(),
            kernel: names.release().to_string_lossy().into_owned(),
            cpu: model.unwrap_or_default().into(),
            cores: cpu_count(),
            governor: fs::read_to_string(governor)
                .ok()
                .map(|text| text.trim().into()),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_works_is_seen_to_use_cpu_time() {
        let watched = [
            Watched::Thread(ThreadId::current()),
            Watched::Process(std::process::id().try_into().unwrap()),
        ];
        for watched in watched {
            let before = watched.cpu_time().unwrap();
            // The scheduler brings its account up to date at every tick.
            while watched.cpu_time().unwrap().since(&before).used < Duration::from_millis(20) {
                std::hint::black_box(before);
            }
        }
    }

    #[test]
    fn our_own_memory_and_cpus_are_known() {
        let watched = Watched::Process(std::process::id().try_into().unwrap());
        let resident = watched.resident_bytes().unwrap();
        assert!(resident > 100_000);
        // What is resident may have been counted a little later than the peak.
        assert!(watched.resident_peak_bytes().unwrap() > resident / 2);
        assert!(!watched.cpus().is_empty());
    }

    #[test]
    fn an_unknown_process_is_reported_with_the_option() {
        let error = Watched::Process(i32::MAX).cpu_time().unwrap_err();
        assert!(error.to_string().contains("--pid"), "{error}");
    }

    #[test]
    fn more_descriptors_than_allowed_are_refused() {
        let error = reserve_descriptors(usize::MAX / 2).unwrap_err();
        assert!(error.to_string().contains("ulimit"), "{error}");
    }
}
