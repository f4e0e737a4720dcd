//! Progress on standard error: a live line in a terminal, plain lines elsewhere.

use crate::stop;
use flm_train::Event;
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Time between plain lines.
const PLAIN_LINES_APART: Duration = Duration::from_secs(10);

/// The progress of one stage.
pub(crate) struct Progress {
    label: String,
    total: u64,
    bar: Option<ProgressBar>,
    /// Whether nothing is printed.
    silent: bool,
    started: Instant,
    last_line: Mutex<Instant>,
}

impl Progress {
    /// Starts a stage of `total` units; 0 means that the number is unknown.
    pub(crate) fn new(label: &str, total: u64) -> Self {
        // The space separates a long label from the text that follows.
        let label = format!("{label} ");
        let bar = std::io::stderr().is_terminal().then(|| {
            let template = if total > 0 {
                "{prefix:11}{bar:24} {pos}/{len}  {msg}"
            } else {
                "{prefix:11}{spinner} {msg}"
            };
            let style = ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(total).with_style(style.progress_chars("██░"));
            bar.set_prefix(label.clone());
            bar
        });
        let now = Instant::now();
        Self {
            label,
            total,
            bar,
            silent: false,
            started: now,
            last_line: Mutex::new(now),
        }
    }

    /// Updates the progress, and returns whether work should continue.
    pub(crate) fn goes_on(&self, done: u64, message: &str) -> bool {
        self.update(done, message);
        !stop::asked()
    }

    /// Returns a progress that prints nothing.
    pub(crate) fn silent() -> Self {
        let now = Instant::now();
        Self {
            label: String::new(),
            total: 0,
            bar: None,
            silent: true,
            started: now,
            last_line: Mutex::new(now),
        }
    }

    /// Shows that `done` units are done.
    pub(crate) fn update(&self, done: u64, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(message.to_owned());
        } else if self.line_is_due() {
            self.line(&self.counted(done), message);
        }
    }

    /// Shows a training event. `tokens` is the number of tokens per step.
    pub(crate) fn training(&self, event: &Event<'_>, tokens: u64) {
        match event {
            Event::Step(line) => {
                let left = (line.steps - line.step) as f64 * tokens as f64 / line.tokens_per_second;
                let left =
                    HumanDuration(Duration::try_from_secs_f64(left.round()).unwrap_or_default());
                let speed = thousands(line.tokens_per_second);
                self.update(
                    line.step,
                    &format!("loss {:.3}  {speed} tok/s  {left:#} left", line.loss),
                );
            }
            Event::Validation(evaluation) => {
                self.note(&format!(
                    "step {}  validation loss {:.4}",
                    evaluation.step, evaluation.loss
                ));
            }
            Event::Checkpoint(_) => {}
        }
    }

    /// Prints a line that stays.
    pub(crate) fn note(&self, message: &str) {
        match &self.bar {
            Some(bar) => bar.println(format!("{:11}{message}", self.label)),
            None => self.line("", message),
        }
    }

    /// Ends the stage: replaces the live line by one that stays.
    pub(crate) fn finish(self, message: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let seconds = self.started.elapsed().as_secs();
        let time = format!("{}m{:02}s", seconds / 60, seconds % 60);
        self.line("", &format!("{message}  {time}"));
    }

    fn counted(&self, done: u64) -> String {
        if self.total > 0 {
            format!("{done}/{}  ", self.total)
        } else {
            format!("{done}  ")
        }
    }

    fn line_is_due(&self) -> bool {
        let Ok(mut last) = self.last_line.lock() else {
            return false;
        };
        let due = last.elapsed() >= PLAIN_LINES_APART;
        if due {
            *last = Instant::now();
        }
        due
    }

    fn line(&self, counted: &str, message: &str) {
        if !self.silent {
            eprintln!("{:11}{counted}{message}", self.label);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Formats 41 000 as "41 k".
pub(crate) fn thousands(number: f64) -> String {
    if number >= 1e6 {
        format!("{:.1} M", number / 1e6)
    } else if number >= 1e3 {
        format!("{:.0} k", number / 1e3)
    } else {
        format!("{number:.0}")
    }
}
