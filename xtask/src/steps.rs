//! Named steps: each prints its name and its time, and a summary closes the run.

use crate::process::{Failure, Result};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// The steps of one run, in the order in which they ran.
#[derive(Default)]
pub(crate) struct Steps {
    done: Vec<(&'static str, Duration)>,
}

impl Steps {
    /// Runs a step; its failure carries the step's name and ends the run.
    pub(crate) fn step<T>(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        eprintln!("\n=== {name}");
        let start = Instant::now();
        let outcome = work();
        let took = start.elapsed();
        match outcome {
            Ok(value) => {
                eprintln!("=== {name}: ok, {}", seconds(took));
                self.done.push((name, took));
                Ok(value)
            }
            Err(failure) => {
                Err(Failure::new(format!("step `{name}` after {}: {failure}", seconds(took))))
            }
        }
    }

    /// Prints what ran and how long each step took.
    pub(crate) fn summary(&self) {
        let total = self.done.iter().map(|(_, took)| *took).sum();
        let mut text = String::from("\n");
        for (name, took) in self.done.iter().chain([&("total", total)]) {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:<32}{:>10}", seconds(*took));
        }
        eprint!("{text}");
    }
}

fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}
