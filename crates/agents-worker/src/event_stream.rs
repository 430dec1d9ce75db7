//! Server-sent events out of the bytes of an answer, as providers and MCP servers send them.
//!
//! Pure. Lines end with LF, CR or both; comments are skipped. What an event may be in size is
//! bounded, so that an answer without an end costs no memory.

/// Bytes of one event at most.
pub(crate) const MAX_EVENT_BYTES: usize = 4 * 1024 * 1024;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Event {
    /// Its type, where one is named.
    pub(crate) name: Option<String>,
    /// Its data, the lines joined.
    pub(crate) data: String,
}

/// The answer is no stream of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// What was read and is no whole event yet.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    buffer: Vec<u8>,
    /// Where the next line begins.
    start: usize,
    /// How far the buffer was searched for the end of a line.
    searched: usize,
    /// Whether the last line ended with CR, so that an LF at once belongs to that end.
    after_return: bool,
    name: Option<String>,
    data: Option<String>,
}

impl Decoder {
    /// Adds bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.searched -= self.start;
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole event, if there is one.
    ///
    /// # Errors
    /// [`Malformed`] when it is no text or too long.
    pub(crate) fn next(&mut self) -> Result<Option<Event>, Malformed> {
        while let Some((from, to)) = self.line() {
            let line = std::str::from_utf8(&self.buffer[from..to]).map_err(|_| Malformed)?;
            let line = line.strip_prefix('\u{feff}').unwrap_or(line).to_owned();
            if line.is_empty() {
                if let Some(event) = self.dispatch() {
                    return Ok(Some(event));
                }
            } else {
                self.field(&line)?;
            }
        }
        if self.buffer.len() - self.start > MAX_EVENT_BYTES {
            return Err(Malformed);
        }
        Ok(None)
    }

    /// The last event, when the answer ended without the blank line behind it.
    ///
    /// # Errors
    /// [`Malformed`] as [`Decoder::next`].
    pub(crate) fn finish(&mut self) -> Result<Option<Event>, Malformed> {
        self.push(b"\n\n");
        self.next()
    }

    /// Where the next whole line is.
    fn line(&mut self) -> Option<(usize, usize)> {
        if self.after_return && self.start < self.buffer.len() {
            self.after_return = false;
            if self.buffer[self.start] == b'\n' {
                self.start += 1;
                self.searched = self.searched.max(self.start);
            }
        }
        let end =
            self.buffer[self.searched..].iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let Some(end) = end.map(|at| self.searched + at) else {
            self.searched = self.buffer.len();
            return None;
        };
        let line = (self.start, end);
        self.after_return = self.buffer[end] == b'\r';
        self.start = end + 1;
        self.searched = self.start;
        Some(line)
    }

    fn field(&mut self, line: &str) -> Result<(), Malformed> {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.name = Some(value.to_owned()),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            _ => {}
        }
        if self.data.as_ref().is_some_and(|data| data.len() > MAX_EVENT_BYTES) {
            return Err(Malformed);
        }
        Ok(())
    }

    fn dispatch(&mut self) -> Option<Event> {
        let name = self.name.take();
        self.data.take().map(|data| Event { name, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: Option<&str>, data: &str) -> Event {
        Event { name: name.map(str::to_owned), data: data.to_owned() }
    }

    #[test]
    fn events_are_found_however_the_bytes_are_cut_and_the_lines_end() {
        let text = ": hi\n\nevent: x\ndata: one\ndata:two\n\nid: 7\n\ndata: Grü\n\n";
        let expected = [event(Some("x"), "one\ntwo"), event(None, "Grü")];
        for text in [text.to_owned(), text.replace('\n', "\r\n"), text.replace('\n', "\r")] {
            for size in 1..text.len() {
                let mut decoder = Decoder::default();
                let mut found = Vec::new();
                for chunk in text.as_bytes().chunks(size) {
                    decoder.push(chunk);
                    while let Some(event) = decoder.next().unwrap() {
                        found.push(event);
                    }
                }
                assert_eq!(found, expected, "in chunks of {size}: {text:?}");
            }
        }
    }

    #[test]
    fn an_event_without_the_blank_line_behind_it_is_there_at_the_end_of_the_answer() {
        let mut decoder = Decoder::default();
        decoder.push(b"data: last");
        assert_eq!(decoder.next(), Ok(None));
        assert_eq!(decoder.finish(), Ok(Some(event(None, "last"))));
        assert_eq!(decoder.finish(), Ok(None));
    }

    #[test]
    fn an_event_may_be_as_long_as_the_limit_and_no_longer() {
        let mut decoder = Decoder::default();
        decoder.push(&vec![b'x'; MAX_EVENT_BYTES]);
        assert_eq!(decoder.next(), Ok(None));
        decoder.push(b"x");
        assert_eq!(decoder.next(), Err(Malformed));
        let mut decoder = Decoder::default();
        let line = format!("data: {}\n", "x".repeat(1023));
        decoder.push(line.repeat(MAX_EVENT_BYTES / 1024).as_bytes());
        assert_eq!(decoder.next(), Ok(None));
        decoder.push(line.repeat(2).as_bytes());
        assert_eq!(decoder.next(), Err(Malformed));
    }

    #[test]
    fn bytes_that_are_no_text_are_malformed() {
        let mut decoder = Decoder::default();
        decoder.push(b"data: \xff\n\n");
        assert_eq!(decoder.next(), Err(Malformed));
    }
}
