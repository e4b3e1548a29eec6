//! Whether memory grows: a straight line through the later samples, and how sure it is.
//!
//! Resident memory goes up and down with what sessions are owed, so that the slope of a short run
//! says little. The line's own standard error says how little: only a slope that is further than
//! that from the limit is judged.

use std::time::Duration;

use super::figure::{Figure, Stake, Standing};

/// What it may grow by in an hour, in mebibytes.
const SLOPE_MAX: f64 = 1.0;
/// A line through less says nothing about an hour, however well it fits.
const TIME_MIN: Duration = Duration::from_mins(10);
/// Within so many standard errors the slope lies almost surely.
const ERRORS: f64 = 2.0;

/// Mebibytes an hour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slope {
    /// The slope of the line.
    pub slope: f64,
    /// Its standard error, if one sample has nothing to do with the next.
    pub error: f64,
    /// From the first to the last sample that it goes through.
    pub time: Duration,
}

impl Slope {
    /// By least squares over the second half of `samples`: when, and how many bytes. Before, caches
    /// and tables fill up.
    pub fn of(samples: &[(Duration, u64)]) -> Option<Self> {
        let samples = &samples[samples.len() / 2..];
        let (first, last) = (samples.first()?, samples.last()?);
        let points = || {
            let point = |&(at, bytes): &(Duration, u64)| {
                let mebibytes = bytes as f64 / f64::from(1 << 20);
                (at.as_secs_f64() / 3600.0, mebibytes)
            };
            samples.iter().map(point)
        };
        let count = samples.len() as f64;
        let mean_x = points().map(|(x, _)| x).sum::<f64>() / count;
        let mean_y = points().map(|(_, y)| y).sum::<f64>() / count;
        let covariance: f64 = points().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
        let variance: f64 = points().map(|(x, _)| (x - mean_x).powi(2)).sum();
        if samples.len() < 3 || variance <= 0.0 {
            return None;
        }
        let slope = covariance / variance;
        let beside = |(x, y): (f64, f64)| (y - mean_y - slope * (x - mean_x)).powi(2);
        let rest: f64 = points().map(beside).sum();
        Some(Self {
            slope,
            error: (rest / (count - 2.0) / variance).sqrt(),
            time: last.0 - first.0,
        })
    }

    fn standing(&self) -> Standing {
        let unsure = ERRORS * self.error;
        if self.time < TIME_MIN {
            Standing::Unjudged
        } else if self.slope + unsure <= SLOPE_MAX {
            Standing::Held
        } else if self.slope - unsure > SLOPE_MAX {
            Standing::Missed
        } else {
            Standing::Unjudged
        }
    }
}

/// The line of the verdict.
pub fn figure(slope: Option<Slope>) -> Figure {
    let measured = slope.map_or_else(
        || "too few samples".into(),
        |slope| {
            let (minutes, unsure) = (slope.time.as_secs_f64() / 60.0, ERRORS * slope.error);
            format!("{:.1} ± {unsure:.1} over {minutes:.0} min", slope.slope)
        },
    );
    Figure {
        name: "RSS slope",
        wanted: format!("<= {SLOPE_MAX} MiB/h"),
        measured,
        standing: slope.map_or(Standing::Unjudged, |slope| slope.standing()),
        stake: Stake::Pace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples every 10 s: a first half that rises steeply, then `per_hour` bytes an hour, and
    /// every other sample `noise` bytes above.
    fn samples(minutes: u64, per_hour: u64, noise: u64) -> Vec<(Duration, u64)> {
        let count = minutes * 6 * 2;
        let sample = |number: u64| {
            let warm_up = number.min(count / 2) * (1 << 20);
            let growth = number * per_hour / 360;
            let bytes = warm_up + growth + number % 2 * noise;
            (Duration::from_secs(number * 10), bytes)
        };
        (0..count).map(sample).collect()
    }

    fn standing(minutes: u64, per_hour: u64, noise: u64) -> Standing {
        let slope = Slope::of(&samples(minutes, per_hour, noise)).unwrap();
        slope.standing()
    }

    #[test]
    fn growth_is_told_from_what_goes_up_and_down() {
        const MIB: u64 = 1 << 20;
        let slope = Slope::of(&samples(60, 2 * MIB, 0)).unwrap();
        assert!((slope.slope - 2.0).abs() < 0.01, "{slope:?}");
        assert_eq!(standing(60, 2 * MIB, 0), Standing::Missed);
        assert_eq!(standing(60, 0, MIB / 8), Standing::Held);
        assert_eq!(standing(60, 0, 64 * MIB), Standing::Unjudged);
    }

    #[test]
    fn a_short_run_is_not_judged() {
        assert_eq!(standing(5, 0, 0), Standing::Unjudged);
        assert_eq!(Slope::of(&samples(60, 0, 0)[..4]), None);
        assert_eq!(Slope::of(&[]), None);
        assert_eq!(figure(None).standing, Standing::Unjudged);
    }
}
