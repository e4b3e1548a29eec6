//! One line of the verdict: what is wanted, what was measured, and whether that will do.

use std::io::{self, Write};

use serde_json::{Value, json};

/// Whether a figure is what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is.
    Held,
    /// It is not.
    Missed,
    /// The run cannot tell.
    Unjudged,
}

/// What a miss means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stake {
    /// Something was lost, is left, or broke.
    Loss,
    /// Everything is accounted for, but something was late or large.
    Pace,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Of what.
    pub name: &'static str,
    /// What is wanted, with its unit.
    pub wanted: String,
    /// What was measured, with its unit.
    pub measured: String,
    /// The judgement.
    pub standing: Standing,
    /// What it would mean otherwise.
    pub stake: Stake,
}

impl Standing {
    const fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Missed => "MISSED",
            Self::Unjudged => "not judged",
        }
    }

    /// Of a figure that is right or wrong.
    pub const fn of(holds: bool) -> Self {
        match holds {
            true => Self::Held,
            false => Self::Missed,
        }
    }
}

impl Figure {
    /// Something of which there must be nothing.
    pub fn none(name: &'static str, count: u64) -> Self {
        Self {
            name,
            wanted: "0".into(),
            measured: count.to_string(),
            standing: Standing::of(count == 0),
            stake: Stake::Loss,
        }
    }

    /// Something that may be late or large up to a limit; nobody can tell what was not measured.
    pub fn at_most(name: &'static str, max: f64, measured: Option<f64>, unit: &str) -> Self {
        let standing = measured.map(|measured| Standing::of(measured <= max));
        Self {
            name,
            wanted: format!("<= {}", amount(max, unit)),
            measured: measured.map_or_else(|| "-".into(), |it| amount(it, unit)),
            standing: standing.unwrap_or(Standing::Unjudged),
            stake: Stake::Pace,
        }
    }

    /// Something that must reach a number.
    pub fn at_least(name: &'static str, min: f64, measured: f64, unit: &str) -> Self {
        Self {
            name,
            wanted: format!(">= {}", amount(min, unit)),
            measured: amount(measured, unit),
            standing: Standing::of(measured >= min),
            stake: Stake::Pace,
        }
    }

    /// Something that there is no limit to hold against.
    pub fn unjudged(name: &'static str, wanted: &str, measured: f64, unit: &str) -> Self {
        Self {
            name,
            wanted: wanted.into(),
            measured: amount(measured, unit),
            standing: Standing::Unjudged,
            stake: Stake::Pace,
        }
    }

    /// Whether it is not what it should be, and what that would mean.
    pub fn is_missed(&self, stake: Stake) -> bool {
        self.standing == Standing::Missed && self.stake == stake
    }

    /// `canary max 120.3 ms (wanted <= 100 ms)`.
    pub fn sentence(&self) -> String {
        format!("{} {} (wanted {})", self.name, self.measured, self.wanted)
    }

    /// For the report in JSON.
    pub fn object(&self, part: &str) -> Value {
        json!({
            "part": part,
            "figure": self.name,
            "wanted": self.wanted,
            "measured": self.measured,
            "verdict": self.standing.name().to_lowercase(),
            "loss": self.stake == Stake::Loss,
        })
    }
}

/// Whole numbers as they are, others with a digit.
fn amount(number: f64, unit: &str) -> String {
    let digits = usize::from(number.fract() != 0.0);
    format!("{number:.digits$} {unit}").trim_end().to_owned()
}

/// Writes all of them as a table.
///
/// # Errors
/// Those of `out`.
pub fn write_table(out: &mut impl Write, figures: &[(&str, Figure)]) -> io::Result<()> {
    let head = ["part", "figure", "wanted", "measured"].map(String::from);
    let rows = figures.iter().map(|(part, figure)| {
        let texts = [*part, figure.name, &figure.wanted, &figure.measured];
        (texts.map(String::from), figure.standing.name())
    });
    let rows: Vec<_> = std::iter::once((head, "verdict")).chain(rows).collect();
    let width = |column: usize| {
        let lengths = rows.iter().map(|(texts, _)| texts[column].chars().count());
        lengths.max().unwrap_or_default()
    };
    let widths = [width(0), width(1), width(2), width(3)];
    for (texts, verdict) in &rows {
        for (text, width) in texts.iter().zip(widths) {
            write!(out, "{text:width$}  ")?;
        }
        writeln!(out, "{verdict}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_held_up_to_its_limit_and_missed_beyond_it() {
        let p99 = |measured| Figure::at_most("p99", 20.0, measured, "ms").standing;
        assert_eq!(p99(Some(20.0)), Standing::Held);
        assert_eq!(p99(Some(20.1)), Standing::Missed);
        assert_eq!(p99(None), Standing::Unjudged);
        assert_eq!(Figure::none("lost", 0).standing, Standing::Held);
        assert!(Figure::none("lost", 1).is_missed(Stake::Loss));
        assert!(Figure::at_least("rate", 5_000.0, 4_999.0, "/s").is_missed(Stake::Pace));
    }

    #[test]
    fn a_table_says_what_was_wanted_measured_and_made_of_it() {
        let figures = [
            (
                "first life",
                Figure::at_most("canary p99", 20.0, Some(120.25), "ms"),
            ),
            ("flood", Figure::none("panics", 0)),
        ];
        let mut out = Vec::new();
        write_table(&mut out, &figures).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "part        figure      wanted    measured  verdict\n\
             first life  canary p99  <= 20 ms  120.2 ms  MISSED\n\
             flood       panics      0         0         held\n"
        );
        assert_eq!(
            figures[0].1.sentence(),
            "canary p99 120.2 ms (wanted <= 20 ms)"
        );
    }
}
