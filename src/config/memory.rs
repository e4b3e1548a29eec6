//! What the process may take at most: a sum of the limits, so that no limit is promised twice.
//!
//! Kernel memory is not in it: a stalled reader costs its socket's buffers besides.

use std::fmt;

use bytesize::ByteSize;

use crate::config::{Config, KIB, Limits, MIB};
use crate::mesh::RING_BYTES_MAX;

/// Code, tables of fixed size, logs, the control plane.
const BASE: usize = 64 * MIB;
/// Of each reactor, beside what its turn reads and owes: spare arena segments (2 MiB), staging
/// (twice 256 KiB), spare chunks (256 KiB), the buffers of a ring (1 MiB), events.
const REACTOR: usize = 4 * MIB;
/// A stretch owed to a session.
const PIECE: usize = 16;
/// A session's slot, its entries in tables by slot, and a cut frame.
pub(crate) const SESSION: usize = 160 + 96 + 256;
/// A topic in its tables, its name apart.
pub(crate) const TOPIC: usize = 96;
/// A subscription, twice while its table grows.
pub(crate) const SUBSCRIPTION: usize = 2 * 48;

/// What the process may take at most, by what takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryBound {
    terms: Vec<Term>,
    max: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    name: &'static str,
    /// The key whose value decides it.
    key: &'static str,
    bytes: usize,
    /// Whether it is taken whoever comes.
    is_fixed: bool,
}

/// The limits that are lowered where memory is short, as long as they are the defaults.
const SHRINKING: [fn(&mut Limits) -> &mut usize; 8] = [
    |limits| &mut limits.outbound_total_max,
    |limits| &mut limits.held_total_max,
    |limits| &mut limits.topics_max,
    |limits| &mut limits.topic_bytes_max,
    |limits| &mut limits.subscriptions_max,
    |limits| &mut limits.sessions_max,
    |limits| &mut limits.last_value_topics_max,
    |limits| &mut limits.last_value_bytes_max,
];
/// They are lowered in steps of this part of the default, and never below one of them.
const SHRINKING_STEPS: usize = 64;

impl MemoryBound {
    /// Of a broker with these settings. `for_process`: with a reactor for what the process itself
    /// publishes and subscribes to, whose share of the totals comes on top.
    pub fn of(config: &Config, for_process: bool) -> Self {
        let limits = &config.limits;
        let reactors = config.reactors + usize::from(for_process);
        let shares = |total: usize| total.div_ceil(config.reactors).saturating_mul(reactors);
        let turn = limits.read_per_turn + limits.pieces_per_turn * PIECE;
        let pairs = reactors * (reactors - 1);
        let term = |name, key, bytes| Term {
            name,
            key,
            bytes,
            is_fixed: false,
        };
        let fixed = |name, key, bytes| Term {
            is_fixed: true,
            ..term(name, key, bytes)
        };
        let last_values = match config.last_value.is_empty() {
            true => 0,
            false => limits.last_value_bytes_max,
        };
        let terms = vec![
            fixed("code, fixed tables, logs", "reactors", BASE),
            fixed(
                "turns",
                "limits.pieces_per_turn",
                reactors.saturating_mul(REACTOR + turn),
            ),
            fixed(
                "between reactors",
                "limits.mesh_spill_max",
                pairs.saturating_mul(RING_BYTES_MAX + limits.mesh_spill_max),
            ),
            term(
                "sessions",
                "limits.sessions_max",
                limits.sessions_max.saturating_mul(SESSION),
            ),
            term(
                "backlogs",
                "limits.outbound_total_max",
                shares(limits.outbound_total_max),
            ),
            term(
                "held input",
                "limits.held_total_max",
                shares(limits.held_total_max),
            ),
            term(
                "topics",
                "limits.topics_max",
                shares(limits.topics_max).saturating_mul(TOPIC),
            ),
            term(
                "their names",
                "limits.topic_bytes_max",
                shares(limits.topic_bytes_max),
            ),
            term(
                "subscriptions",
                "limits.subscriptions_max",
                shares(limits.subscriptions_max).saturating_mul(SUBSCRIPTION),
            ),
            term("last values", "last_value_bytes_max", last_values),
        ];
        Self {
            terms,
            max: config.memory_max(),
        }
    }

    /// The sum, in bytes.
    pub fn total(&self) -> usize {
        sum(&self.terms, |_| true)
    }

    /// The part of the sum that is taken whoever comes, in bytes.
    pub fn fixed(&self) -> usize {
        sum(&self.terms, |term| term.is_fixed)
    }

    /// The sum, for people.
    pub fn in_all(&self) -> String {
        mebibytes(self.total())
    }

    /// What it must not exceed, in bytes.
    pub const fn max(&self) -> usize {
        self.max
    }

    /// Whether it does not.
    pub fn fits(&self) -> bool {
        self.total() <= self.max
    }
}

fn sum(terms: &[Term], counts: impl Fn(&Term) -> bool) -> usize {
    let bytes = terms.iter().filter(|term| counts(term)).map(|t| t.bytes);
    bytes.fold(0, usize::saturating_add)
}

/// The table, a line for each term.
impl fmt::Display for MemoryBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Term {
            name, key, bytes, ..
        } in &self.terms
        {
            writeln!(f, "{:>10}  {name} ({key})", mebibytes(*bytes))?;
        }
        write!(
            f,
            "{:>10}  in all, of {} (limits.memory_max)",
            mebibytes(self.total()),
            mebibytes(self.max)
        )
    }
}

fn mebibytes(bytes: usize) -> String {
    ByteSize::b(bytes as u64).display().iec().to_string()
}

impl Config {
    /// What the process may take: as set, or the control group's limit, or half of the host's.
    pub fn memory_max(&self) -> usize {
        self.limits.memory_max.unwrap_or_else(allowed)
    }

    /// Lowers the defaults, all alike, until everything fits into `memory_max`; what was set to
    /// something else is left as it is. A small host thus never keeps a broker from starting.
    ///
    /// # Errors
    /// It does not fit all the same: the table, in which all that can be is lowered.
    pub(crate) fn fit_memory(&mut self, for_process: bool) -> Result<MemoryBound, MemoryBound> {
        let mut defaults = Limits::default();
        let mut bound = MemoryBound::of(self, for_process);
        for steps in (1..=SHRINKING_STEPS).rev() {
            let mut fitted = self.clone();
            for limit in SHRINKING {
                let default = *limit(&mut defaults);
                let value = limit(&mut fitted.limits);
                if *value == default {
                    *value = default.saturating_mul(steps).div_ceil(SHRINKING_STEPS);
                }
            }
            bound = MemoryBound::of(&fitted, for_process);
            if bound.fits() {
                *self = fitted;
                return Ok(bound);
            }
        }
        Err(bound)
    }
}

/// The memory that there is: the control group's limit, else the host's.
pub(super) fn there_is() -> usize {
    // A host that tells neither gets the bounds of one with 4 GiB.
    let there = group_memory().into_iter().chain(host_memory()).min();
    there.unwrap_or(4096 * MIB)
}

/// What a process should take of it unless told otherwise: all that its control group may, half of
/// what the host has.
fn allowed() -> usize {
    let half = host_memory().map(|host| host / 2);
    let allowed = group_memory().into_iter().chain(half).min();
    allowed.unwrap_or(4096 * MIB)
}

fn group_memory() -> Option<usize> {
    let text = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok()?;
    text.trim().parse().ok()
}

fn host_memory() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let mut lines = text.lines();
    let total = lines.find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: usize = total.trim().trim_end_matches("kB").trim().parse().ok()?;
    kibibytes.checked_mul(KIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(settings: &[&str]) -> (Config, Result<MemoryBound, MemoryBound>) {
        let mut config = Config {
            reactors: 2,
            ..Config::default()
        };
        for setting in settings {
            config.set(setting).unwrap();
        }
        let bound = config.fit_memory(false);
        (config, bound)
    }

    #[test]
    fn the_bound_is_the_sum_of_what_the_limits_allow() {
        let settings = [
            "limits.memory_max=64GiB",
            "limits.outbound_total_max=1GiB",
            "limits.held_total_max=64MiB",
        ];
        let (config, bound) = fitted(&settings);
        let bound = bound.unwrap();
        let expected = 64 * MIB
            + 2 * (9 * MIB)
            + 16_384 * 512
            + 1024 * MIB
            + 64 * MIB
            + 1_000_000 * 96
            + 128 * MIB
            + 2_000_000 * 96
            + 2 * (RING_BYTES_MAX + 512 * 1024);
        assert_eq!(bound.total(), expected);
        assert_eq!(config.limits.topics_max, 1_000_000, "nothing was lowered");
        assert_eq!(bound.to_string().lines().count(), 11);
    }

    #[test]
    fn a_small_host_lowers_the_defaults_and_what_was_set_stays() {
        let settings = ["limits.memory_max=256MiB", "limits.topics_max=100_000"];
        let (config, bound) = fitted(&settings);
        let bound = bound.unwrap();
        assert!(
            bound.total() <= 256 * MIB && bound.total() > 200 * MIB,
            "{bound}"
        );
        assert_eq!(config.limits.topics_max, 100_000);
        assert!(config.limits.sessions_max < 16_384 && config.limits.sessions_max > 256);
    }

    #[test]
    fn what_was_set_and_does_not_fit_is_refused_with_the_table() {
        let settings = [
            "limits.memory_max=256MiB",
            "limits.outbound_total_max=512MiB",
        ];
        let (config, bound) = fitted(&settings);
        let table = bound.unwrap_err().to_string();
        assert!(
            table.contains("512.0 MiB  backlogs (limits.outbound_total_max)"),
            "{table}"
        );
        assert!(
            table.ends_with("of 256.0 MiB (limits.memory_max)"),
            "{table}"
        );
        assert_eq!(config.limits.topics_max, 1_000_000, "nothing was changed");
    }

    #[test]
    fn a_reactor_for_the_process_has_its_share_on_top() {
        let config = Config {
            reactors: 1,
            ..Config::default()
        };
        let [alone, shared] = [false, true].map(|more| MemoryBound::of(&config, more).total());
        assert!(shared > alone + config.limits.outbound_total_max);
    }
}
