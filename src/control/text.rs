//! `/metrics`: the text exposition format of Prometheus, version 0.0.4.
//!
//! Everything here is a name of our own, a number or a version: nothing has to be escaped.

use std::fmt::Write;

use crate::control::Facts;
use crate::control::counts::Counts;
use crate::control::descriptors;
use crate::control::sampler::{ReactorSample, Sample};
use crate::metrics::{Counters, METRICS, Metric, PROCESS, REACTOR};

/// What the answer is, as its header says.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A few hundred lines; grown once if labels become more.
const TEXT_LEN: usize = 32 * 1024;

/// The whole page.
pub(super) fn metrics(facts: &Facts, counts: &Counts, sample: &Sample) -> String {
    let mut page = Page(String::with_capacity(TEXT_LEN));
    for metric in PROCESS {
        page.describe(metric);
        page.process(metric, facts, counts, sample);
    }
    let sum = sample.sum.samples();
    for metric in METRICS {
        page.describe(metric);
        if metric.label == REACTOR {
            for reactor in &sample.reactors {
                let value = value_of(&reactor.counters, metric.name);
                page.sample(metric, &reactor.name, value);
            }
            continue;
        }
        for (_, label, value) in sum.iter().filter(|(name, ..)| *name == metric.name) {
            page.sample(metric, label, *value);
        }
    }
    page.0
}

/// The one number of a metric without values of a label.
fn value_of(counters: &Counters, name: &str) -> u64 {
    let samples = counters.samples().into_iter();
    let mut values = samples.filter(|(sample, ..)| *sample == name);
    values.next().map_or(0, |(.., value)| value)
}

struct Page(String);

impl Page {
    fn describe(&mut self, metric: &Metric) {
        let Metric {
            name, kind, help, ..
        } = metric;
        let kind = kind.name();
        // Writing to a string cannot fail.
        let _ = write!(
            self.0,
            "# HELP hvlp_{name} {help}\n# TYPE hvlp_{name} {kind}\n"
        );
    }

    fn sample(&mut self, metric: &Metric, value_of_label: &str, number: u64) {
        let Metric { name, label, .. } = metric;
        // As above.
        let _ = match label.is_empty() {
            true => writeln!(self.0, "hvlp_{name} {number}"),
            false => writeln!(
                self.0,
                "hvlp_{name}{{{label}=\"{value_of_label}\"}} {number}"
            ),
        };
    }

    fn process(&mut self, metric: &Metric, facts: &Facts, counts: &Counts, sample: &Sample) {
        let is_well = |reactor: &ReactorSample| u64::from(reactor.standing.is_well());
        match metric.name {
            "build_info" => {
                let (version, engine) = (env!("CARGO_PKG_VERSION"), facts.engine);
                // As above.
                let _ = writeln!(
                    self.0,
                    "hvlp_build_info{{version=\"{version}\",engine=\"{engine}\"}} 1"
                );
            }
            "start_time_seconds" => {
                let start = facts.start_time.as_secs_f64();
                // As above.
                let _ = writeln!(self.0, "hvlp_start_time_seconds {start:.3}");
            }
            "reactor_answers" => {
                for reactor in &sample.reactors {
                    self.sample(metric, &reactor.name, is_well(reactor));
                }
            }
            "memory_limit_bytes" => {
                let numbers = [facts.memory.total(), facts.memory.max()];
                for (kind, number) in metric.values.iter().zip(numbers) {
                    self.sample(metric, kind, number as u64);
                }
            }
            "backlog_limit_bytes" => self.sample(metric, "", facts.backlog_limit_bytes),
            "descriptors" => {
                let numbers = [descriptors::used(), descriptors::limit()];
                for (kind, number) in metric.values.iter().zip(numbers) {
                    // What nobody knows, or is without limit, is left out.
                    if let Some(number) = number {
                        self.sample(metric, kind, number);
                    }
                }
            }
            "control_panics_total" => self.sample(metric, "", counts.panics()),
            "admin_requests_total" => self.sample(metric, "", counts.requests()),
            "admin_refused_total" => {
                for (reason, number) in counts.refusals() {
                    self.sample(metric, reason, number);
                }
            }
            name => debug_assert!(false, "{name} is in the table and has no value"),
        }
    }
}
