//! Small sums in plain text: `12 * (3 + 4)`, `17% of 300`, `6 times 7`.

/// The expression in a text and its value; `None` where there is none, the value `None` where the
/// sum has none (a division by zero).
pub(crate) fn find(text: &str) -> Option<(String, Option<f64>)> {
    let text = normalise(text);
    let mut best: Option<(String, Option<f64>)> = None;
    for run in text.split(|c: char| !is_part(c)) {
        let run = run.trim().trim_end_matches(['.', ',']).trim();
        let operators = run.trim_start_matches('-').contains(['+', '-', '*', '/', '^', '%']);
        if !operators || run.len() > MAX_CHARS || is_date(run) {
            continue;
        }
        if let Some(value) = parse(run)
            && best.as_ref().is_none_or(|(longest, _)| longest.len() < run.len())
        {
            best = Some((run.split_whitespace().collect::<Vec<_>>().join(" "), value));
        }
    }
    best
}

/// The value of a text that is one expression; `None` where it is none, the value `None` where the
/// sum has none.
pub(crate) fn evaluate(text: &str) -> Option<Option<f64>> {
    if text.len() > MAX_CHARS {
        return None;
    }
    parse(&normalise(text))
}

/// A number as people write it: at most ten significant digits, no trailing zeros.
pub(crate) fn show(value: f64) -> String {
    if value.abs() >= 1e15 || (value != 0.0 && value.abs() < 1e-9) {
        return format!("{value:e}");
    }
    let text = format!("{value:.9}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

const MAX_CHARS: usize = 200;
const MAX_DEPTH: usize = 32;

/// Whether a run is a day as `2027-01-15`.
fn is_date(run: &str) -> bool {
    let lengths: Vec<_> = run.split('-').map(str::len).collect();
    lengths == [4, 2, 2] && run.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
}

/// Spells operators that people write as words or other signs.
fn normalise(text: &str) -> String {
    let words: Vec<_> = text
        .split_whitespace()
        .map(|word| match word.to_lowercase().as_str() {
            "plus" => "+".to_owned(),
            "minus" => "-".to_owned(),
            "times" | "x" => "*".to_owned(),
            "over" => "/".to_owned(),
            "divided" => "/".to_owned(),
            "by" => String::new(),
            "of" => "*".to_owned(),
            _ => word.replace(['×', '·'], "*").replace('÷', "/").replace('−', "-"),
        })
        .collect();
    words.join(" ")
}

fn is_part(c: char) -> bool {
    c.is_ascii_digit() || " +-*/^%().,".contains(c)
}

/// The value of a whole expression; `None` when it is none.
fn parse(text: &str) -> Option<Option<f64>> {
    let chars: Vec<char> = text.chars().filter(|c| !c.is_whitespace() && *c != ',').collect();
    let mut parser = Parser { chars, at: 0 };
    let value = parser.sum(0)?;
    (parser.at == parser.chars.len()).then(|| value.is_finite().then_some(value))
}

struct Parser {
    chars: Vec<char>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn eat(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        self.at += usize::from(found);
        found
    }

    fn sum(&mut self, depth: usize) -> Option<f64> {
        let mut value = self.product(depth)?;
        loop {
            if self.eat('+') {
                value += self.product(depth)?;
            } else if self.eat('-') {
                value -= self.product(depth)?;
            } else {
                return Some(value);
            }
        }
    }

    fn product(&mut self, depth: usize) -> Option<f64> {
        let mut value = self.power(depth)?;
        loop {
            if self.eat('*') {
                value *= self.power(depth)?;
            } else if self.eat('/') {
                value /= self.power(depth)?;
            } else {
                return Some(value);
            }
        }
    }

    fn power(&mut self, depth: usize) -> Option<f64> {
        if depth > MAX_DEPTH {
            return None;
        }
        if self.eat('-') {
            return Some(-self.power(depth + 1)?);
        }
        let base = self.atom(depth)?;
        if self.eat('^') { Some(base.powf(self.power(depth + 1)?)) } else { Some(base) }
    }

    fn atom(&mut self, depth: usize) -> Option<f64> {
        let mut value = if self.eat('(') {
            let value = self.sum(depth + 1)?;
            self.eat(')').then_some(value)?
        } else {
            let start = self.at;
            while self.peek().is_some_and(|c| c.is_ascii_digit() || c == '.') {
                self.at += 1;
            }
            self.chars[start..self.at].iter().collect::<String>().parse().ok()?
        };
        if self.eat('%') {
            value /= 100.0;
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn solve(text: &str) -> Option<String> {
        find(text).map(|(_, value)| value.map_or("none".to_owned(), show))
    }

    #[test]
    fn sums_are_found_in_sentences() {
        for (text, value) in [
            ("what is 12 * (3 + 4)?", "84"),
            ("6 times 7", "42"),
            ("17% of 300, please", "51"),
            ("2^10", "1024"),
            ("1,000 + 0.5.", "1000.5"),
            ("10 divided by 4", "2.5"),
            ("-3 - -4", "1"),
            ("0.1+0.2", "0.3"),
            ("7 ÷ 2 × 4", "14"),
            ("1 - 1", "0"),
        ] {
            assert_eq!(solve(text).as_deref(), Some(value), "{text}");
        }
    }

    #[test]
    fn a_sum_without_a_value_is_still_a_sum() {
        assert_eq!(solve("1 / 0").as_deref(), Some("none"));
        assert_eq!(solve("9^9^9^9").as_deref(), Some("none"));
    }

    #[test]
    fn other_texts_are_not_sums() {
        for text in [
            "hello",
            "I am 12",
            "12 + ",
            "a - b",
            "()",
            "3 4",
            "on 2024",
            "on 2027-01-15",
            "10:30",
            "...",
            "50/50%%",
        ] {
            assert_eq!(solve(text), None, "{text}");
        }
        assert_eq!(solve(&format!("{}1{} + 1", "(".repeat(90), ")".repeat(90))), None);
    }
}
