//! A strict reader of the OpenMetrics text format (version 1.0), for the kinds that Convene serves:
//! whatever the specification forbids is refused, so that a scraper has nothing to be lenient about.

use std::collections::{BTreeMap, BTreeSet};

/// What kind a family is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A figure that goes up and down.
    Gauge,
    /// A count since the process began; its samples end in `_total`.
    Counter,
}

/// An exposition that was read.
#[derive(Debug, Default, PartialEq)]
pub struct Exposition {
    /// The families by name, each with its kind.
    pub families: BTreeMap<String, Kind>,
    /// The values by name and labels, as they were written: `name{label="value"}`.
    pub samples: BTreeMap<String, f64>,
}

impl Exposition {
    /// Reads an exposition.
    ///
    /// # Errors
    /// The line that breaks a rule, and which.
    pub fn read(text: &str) -> Result<Self, String> {
        let Some(lines) = text.strip_suffix("# EOF\n") else {
            return Err("it does not end with # EOF and a line feed".to_owned());
        };
        let mut read = Self::default();
        let mut helped = BTreeSet::new();
        let mut current = String::new();
        for line in lines.split_terminator('\n') {
            let failed = |why: &str| Err(format!("{line:?}: {why}"));
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let Some((name, kind)) = rest.split_once(' ') else { return failed("no kind") };
                let kind = match kind {
                    "gauge" => Kind::Gauge,
                    "counter" => Kind::Counter,
                    _ => return failed("a kind that is not served"),
                };
                if !is_name(name, true) {
                    return failed("not a name");
                }
                if kind == Kind::Counter && name.ends_with("_total") {
                    return failed("a counter's family is named without _total");
                }
                if helped.contains(name) && name != current {
                    return failed("its help stands in another family");
                }
                name.clone_into(&mut current);
                if read.families.insert(name.to_owned(), kind).is_some() {
                    return failed("the family stands there twice");
                }
            } else if let Some(rest) = line.strip_prefix("# HELP ") {
                let Some((name, help)) = rest.split_once(' ') else { return failed("no help") };
                if help.is_empty() || unescaped(help).is_none() {
                    return failed("the help is empty or wrongly escaped");
                }
                if name != current && read.families.contains_key(name) {
                    return failed("its family was left before");
                }
                name.clone_into(&mut current);
                if !helped.insert(name.to_owned()) {
                    return failed("the family is explained twice");
                }
            } else if line.starts_with('#') {
                return failed("a comment that the format does not know");
            } else {
                read.sample(&current, line).map_err(|why| format!("{line:?}: {why}"))?;
            }
        }
        if let Some(name) = read.families.keys().find(|name| !helped.contains(*name)) {
            return Err(format!("{name} is not explained"));
        }
        Ok(read)
    }

    fn sample(&mut self, family: &str, line: &str) -> Result<(), &'static str> {
        let (key, value) = line.rsplit_once(' ').ok_or("no value")?;
        let kind = *self.families.get(family).ok_or("no family before it")?;
        let (name, labels) = match key.split_once('{') {
            Some((name, labels)) => {
                (name, labels.strip_suffix('}').ok_or("the labels do not end")?)
            }
            None => (key, ""),
        };
        let expected = match kind {
            Kind::Gauge => name == family,
            Kind::Counter => name.strip_suffix("_total") == Some(family),
        };
        if !expected {
            return Err("not a sample of the family before it");
        }
        labels_of(labels)?;
        let value: f64 = value.parse().map_err(|_| "the value is no number")?;
        if kind == Kind::Counter && !(value.is_finite() && value >= 0.0) {
            return Err("a counter is finite and not negative");
        }
        if self.samples.insert(key.to_owned(), value).is_some() {
            return Err("the sample stands there twice");
        }
        Ok(())
    }
}

/// That labels are names with quoted values, no name twice.
fn labels_of(mut text: &str) -> Result<(), &'static str> {
    let mut names = BTreeSet::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"").ok_or("a label without a quoted value")?;
        if !is_name(name, false) || !names.insert(name) {
            return Err("a label's name is none, or is there twice");
        }
        let mut escaped = false;
        let end = rest.find(|char| {
            let ends = char == '"' && !escaped;
            escaped = char == '\\' && !escaped;
            ends
        });
        let end = end.ok_or("a label's value does not end")?;
        unescaped(&rest[..end]).ok_or("a label's value is wrongly escaped")?;
        text = &rest[end + 1..];
        if !text.is_empty() {
            text = text.strip_prefix(',').filter(|rest| !rest.is_empty()).ok_or("no comma")?;
        }
    }
    Ok(())
}

fn unescaped(text: &str) -> Option<String> {
    let mut chars = text.chars();
    let mut plain = String::new();
    while let Some(char) = chars.next() {
        plain.push(match char {
            '\\' => match chars.next()? {
                'n' => '\n',
                escaped @ ('\\' | '"') => escaped,
                _ => return None,
            },
            other => other,
        });
    }
    Some(plain)
}

fn is_name(name: &str, of_metric: bool) -> bool {
    let first = |char: char| char.is_ascii_alphabetic() || char == '_' || of_metric && char == ':';
    name.starts_with(first) && name.chars().all(|char| first(char) || char.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# HELP queue What waits.\n# TYPE queue gauge\n\
        queue{queue=\"a\",why=\"\\\"b\\\\\"} 3\nqueue 1.5\n\
        # HELP asked Requests.\n# TYPE asked counter\nasked_total 7\n# EOF\n";

    #[test]
    fn what_the_format_allows_is_read() {
        let read = Exposition::read(GOOD).unwrap();
        assert_eq!(read.families["queue"], Kind::Gauge);
        assert_eq!(read.families["asked"], Kind::Counter);
        assert_eq!(read.samples["queue{queue=\"a\",why=\"\\\"b\\\\\"}"], 3.0);
        assert_eq!(read.samples["asked_total"], 7.0);
    }

    #[test]
    fn what_the_format_forbids_is_refused() {
        for (from, to) in [
            ("# EOF\n", ""),
            ("# EOF\n", "# EOF"),
            ("# EOF\n", "# EOF\nqueue 2\n# EOF\n"),
            ("queue 1.5", "queue one"),
            ("queue 1.5", "queue{queue=\"a\",why=\"\\\"b\\\\\"} 3"),
            ("queue 1.5", "other 1.5"),
            ("queue 1.5", ""),
            ("queue 1.5", "# a comment"),
            ("queue 1.5", "queue{a=\"1\",a=\"2\"} 1"),
            ("queue 1.5", "queue{a=\"1\"b=\"2\"} 1"),
            ("queue 1.5", "queue{a=\"\\x\"} 1"),
            ("queue 1.5", "queue{1a=\"x\"} 1"),
            ("queue 1.5", "queue{a=\"x} 1"),
            ("asked_total 7", "asked 7"),
            ("asked_total 7", "asked_total -7"),
            ("TYPE asked counter", "TYPE asked_total counter"),
            ("TYPE asked counter", "TYPE asked histogram"),
            ("# HELP asked Requests.\n", ""),
            (
                "# HELP asked Requests.\n# TYPE asked counter",
                "# HELP queue More.\n# TYPE asked gauge",
            ),
            ("asked_total 7", "asked_total 7\n# HELP queue More.\n# TYPE queue gauge"),
        ] {
            let bad = GOOD.replacen(from, to, 1);
            assert_ne!(bad, GOOD);
            assert!(Exposition::read(&bad).is_err(), "{from:?} -> {to:?}");
        }
    }
}
