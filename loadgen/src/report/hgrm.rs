//! The usual HdrHistogram text: value, percentile, total count, 1 / (1 - percentile).

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use hdrhistogram::Histogram;

/// Lines for each halving of the distance to 100 %.
const TICKS_PER_HALF_DISTANCE: u32 = 5;

/// Writes `histogram` of nanoseconds, in microseconds.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, histogram: &Histogram<u64>) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    write_to(&mut out, histogram)?;
    out.flush()
}

fn write_to(out: &mut impl Write, histogram: &Histogram<u64>) -> io::Result<()> {
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    let mut total = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        total += step.count_since_last_iteration();
        let value = step.value_iterated_to() as f64 / 1e3;
        let quantile = step.quantile_iterated_to();
        write!(out, "{value:>12.3} {quantile:>14.12} {total:>10}")?;
        // The last line has no distance to 100 % left.
        if quantile < 1.0 {
            writeln!(out, " {:>14.2}", 1.0 / (1.0 - quantile))?;
        } else {
            writeln!(out)?;
        }
    }
    let (mean, deviation) = (histogram.mean() / 1e3, histogram.stdev() / 1e3);
    writeln!(
        out,
        "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]"
    )?;
    let max = histogram.max() as f64 / 1e3;
    writeln!(
        out,
        "#[Max     = {max:>12.3}, Total count    = {:>12}]",
        histogram.len()
    )?;
    writeln!(
        out,
        "#[Buckets = {:>12}, SubBuckets     = {:>12}]",
        histogram.buckets(),
        2048
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_holds_everything_and_the_header_is_the_usual_one() {
        let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        (1..=1000).for_each(|n| histogram.record(n * 1_000).unwrap());
        let mut out = Vec::new();
        write_to(&mut out, &histogram).unwrap();
        let text = String::from_utf8(out).unwrap();
        let header = text
            .lines()
            .next()
            .unwrap()
            .split_whitespace()
            .collect::<Vec<_>>();
        assert_eq!(
            header,
            ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
        );
        let rows: Vec<Vec<_>> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rows.last().unwrap()[1..], ["1.000000000000", "1000"]);
        assert!(
            rows.iter()
                .any(|row| row[1] == "0.500000000000" && row[3] == "2.00")
        );
        assert!(text.contains("Total count    =         1000"));
    }
}
