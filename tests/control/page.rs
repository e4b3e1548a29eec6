//! `docs/metrics.md` is what the tables in `metrics.rs` say.

use std::fs;
use std::path::Path;

use hvlp::metrics::{METRICS, Metric, PROCESS, REACTOR};

#[test]
fn the_page_of_metrics_is_the_table_in_the_source() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = page();
    if std::env::var_os("HVLP_WRITE_DOCS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/metrics.md differs from src/metrics.rs: write it anew with \
         HVLP_WRITE_DOCS=1 cargo test --test control page"
    );
}

fn page() -> String {
    let rows = |metrics: &[Metric]| metrics.iter().map(row).collect::<String>();
    format!(
        "# Metrics\n\n\
         What `GET /metrics` of the admin endpoint serves, in the text format of Prometheus. This \
         page is\ngenerated from `src/metrics.rs`. No label ever holds a topic, an address or a \
         client: each has the\nvalues that are listed here, and reactors are numbered from 0 \
         (`process` serves the broker's own\nprocess, in programs that embed it).\n\n\
         Always: frames read = packets accepted + frames discarded, and deliveries matched = \
         written +\ndropped + owed; `conserved` of `/v1/snapshot` says so.\n\n\
         ## What reactors count\n\n{HEADER}{}\n\
         ## What the process has\n\n{HEADER}{}",
        rows(METRICS),
        rows(PROCESS),
    )
}

const HEADER: &str = "| metric | kind | label | what |\n|---|---|---|---|\n";

fn row(metric: &Metric) -> String {
    let label = match (metric.label, metric.values) {
        ("", _) => String::new(),
        (REACTOR, _) => "`reactor`".into(),
        (label, []) => label
            .split(", ")
            .map(|one| format!("`{one}`"))
            .collect::<Vec<_>>()
            .join(", "),
        (label, values) => format!("`{label}`: {}", values.join(", ")),
    };
    let (name, kind, help) = (metric.name, metric.kind.name(), metric.help);
    format!("| `hvlp_{name}` | {kind} | {label} | {help} |\n")
}
