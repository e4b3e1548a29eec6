//! One line on a terminal's standard error; nothing where there is none.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::report::rate;
use crate::run::Second;

/// What the run is doing. It is drawn by the generator's own thread, once a second, so that no
/// second thread competes for its CPU.
#[derive(Debug)]
pub struct Progress {
    line: ProgressBar,
    title: String,
}

impl Progress {
    /// A line that begins with `title`.
    pub fn new(title: String) -> Self {
        let line = ProgressBar::new_spinner();
        line.set_style(ProgressStyle::with_template("{msg}").expect("a valid template"));
        Self { line, title }
    }

    /// The next phase has begun.
    pub fn phase(&self, phase: &str) {
        self.draw(format!("{}: {phase}", self.title));
    }

    /// A second of the measurement is over.
    pub fn second(&self, second: &Second, length: Duration) {
        let per_s = second.delivered as f64 / length.as_secs_f64().max(f64::MIN_POSITIVE);
        let seconds = second.elapsed.as_secs();
        self.draw(format!(
            "{}: measuring, {seconds} s, {} deliveries/s",
            self.title,
            rate(per_s)
        ));
    }

    fn draw(&self, text: String) {
        self.line.set_message(text);
        self.line.tick();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.line.finish_and_clear();
    }
}
