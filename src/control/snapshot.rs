//! `/v1/snapshot`: the same numbers as `/metrics`, as JSON for programs.
//!
//! ```json
//! {
//!   "version": "0.1.0", "engine": "mio",
//!   "start_time_seconds": 1795680000.123,        since 1970
//!   "uptime_seconds": 12.5,
//!   "age_seconds": 0.01,                         since the counters were read, at most 1
//!   "listen": ["127.0.0.1:65432"], "admin": "127.0.0.1:9644",
//!   "memory_bound_bytes": 1782579200,            the sum of all limits
//!   "conserved": true,                           every frame and delivery is accounted for
//!   "counters": {                                of all reactors; names as in docs/metrics.md
//!     "frames_read_total": 7,
//!     "packets_accepted_total": {"connect": 2, "publish": 5}, ...
//!   },
//!   "reactors": [{
//!     "reactor": "0",                            a number, or "process"
//!     "standing": "answers",                     or "ended", "late", "failed"
//!     "conserved": true,
//!     "counters": {...}
//!   }],
//!   "control": {"panics": 0, "requests": 1, "refused": {"connections_max": 0, ...}}
//! }
//! ```
//!
//! Names stay; new ones may come. Numbers are whole unless their name ends in `seconds`.

use serde_json::{Map, Value, json};

use crate::control::Facts;
use crate::control::counts::Counts;
use crate::control::sampler::{ReactorSample, Sample};
use crate::metrics::Counters;

/// The whole document.
pub(super) fn snapshot(facts: &Facts, counts: &Counts, sample: &Sample) -> Value {
    let reactors: Vec<_> = sample.reactors.iter().map(reactor).collect();
    let refused: Map<_, _> = counts
        .refusals()
        .map(|(reason, count)| (reason.into(), count.into()))
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "engine": facts.engine,
        "start_time_seconds": facts.start_time.as_secs_f64(),
        "uptime_seconds": facts.started.elapsed().as_secs_f64(),
        "age_seconds": sample.taken.elapsed().as_secs_f64(),
        "listen": facts.listen,
        "admin": facts.admin.to_string(),
        "memory_bound_bytes": facts.memory.total(),
        "conserved": sample.sum.is_conserved(),
        "counters": counters(&sample.sum),
        "reactors": reactors,
        "control": {
            "panics": counts.panics(),
            "requests": counts.requests(),
            "refused": refused,
        },
    })
}

fn reactor(sample: &ReactorSample) -> Value {
    json!({
        "reactor": sample.name,
        "standing": sample.standing.name(),
        "conserved": sample.counters.is_conserved(),
        "counters": counters(&sample.counters),
    })
}

/// Numbers by name; where there is a label, numbers by its value.
fn counters(counters: &Counters) -> Map<String, Value> {
    let mut all = Map::new();
    for (name, label, number) in counters.samples() {
        if label.is_empty() {
            all.insert(name.into(), number.into());
            continue;
        }
        let family = all.entry(name).or_insert_with(|| Map::new().into());
        if let Some(family) = family.as_object_mut() {
            family.insert(label.into(), number.into());
        }
    }
    all
}
