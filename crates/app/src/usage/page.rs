//! The page of a workspace's usage.

use askama::Template;
use convene_model::usage::{Month, OrgUsage, UsageFigures};

use crate::ui::{money, pages, runs::grouped, timeline::month_name, view::Shell};

/// The page as HTML, read in the month `now`.
pub(super) fn render(shell: &Shell, usage: &OrgUsage, now: Month) -> String {
    pages::html(&Page {
        csrf: &shell.csrf,
        shell,
        current: None,
        settings: true,
        tab: "usage",
        usage,
        before: usage.month.before(),
        after: Some(usage.month.next()).filter(|month| *month < now),
        is_now: usage.month == now,
    })
}

#[derive(Template)]
#[template(path = "settings_usage.html")]
struct Page<'a> {
    csrf: &'a str,
    shell: &'a Shell,
    current: Option<String>,
    settings: bool,
    tab: &'static str,
    usage: &'a OrgUsage,
    before: Option<Month>,
    /// The month after it, if that is over as well.
    after: Option<Month>,
    is_now: bool,
}

/// A month by its name.
fn named(month: &Month) -> String {
    let (year, nth) = (month.number() / 100, month.number() % 100);
    format!("{} {year}", month_name(nth as usize))
}

/// A number with its thousands apart.
fn number(number: &u64) -> String {
    grouped(*number)
}

/// Bytes in the largest unit that leaves a whole number.
fn bytes(bytes: &u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let (mut whole, mut tenths, mut unit) = (*bytes, 0, 0);
    while whole >= 1_000 && unit + 1 < UNITS.len() {
        tenths = whole % 1_000 / 100;
        whole /= 1_000;
        unit += 1;
    }
    if unit == 0 || whole >= 100 {
        format!("{} {}", number(&whole), UNITS[unit])
    } else {
        format!("{whole}.{tenths} {}", UNITS[unit])
    }
}

/// A time in hours, or in minutes where it is short.
fn time(secs: &u64) -> String {
    let minutes = secs.div_ceil(60);
    if minutes < 120 { format!("{minutes} min") } else { format!("{} h", number(&(minutes / 60))) }
}

fn cost(figures: &UsageFigures) -> String {
    money::sum(&figures.cost_micro_usd, &figures.cost_unknown)
}

fn tokens(figures: &UsageFigures) -> String {
    number(&(figures.input_tokens + figures.output_tokens))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_go_by_their_names() {
        let name = |number| named(&Month::from_number(number).unwrap());
        assert_eq!(name(202_601), "January 2026");
        assert_eq!(name(202_612), "December 2026");
    }

    #[test]
    fn figures_are_told_in_the_unit_that_suits_them() {
        for (given, told) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (99_950, "99.9 kB"),
            (100_000, "100 kB"),
            (1_560_000, "1.5 MB"),
            (7_200_000_000_000_000, "7,200 TB"),
        ] {
            assert_eq!(bytes(&given), told);
        }
        for (given, told) in [(0, "0 min"), (61, "2 min"), (7_140, "119 min"), (7_200, "2 h")] {
            assert_eq!(time(&given), told);
        }
    }
}
