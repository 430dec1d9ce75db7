//! A program in a pseudo-terminal, and what a person would see of it.

use std::{
    io::{Read, Write},
    path::Path,
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

use crate::client::PATIENCE;

/// A program that believes to have a terminal.
pub struct Terminal {
    master: Box<dyn MasterPty + Send>,
    keys: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
    seen: Arc<Mutex<Seen>>,
    reader: Option<JoinHandle<()>>,
}

/// What came out of the program.
struct Seen {
    parser: vt100::Parser,
    raw: Vec<u8>,
    ended: bool,
}

impl Terminal {
    /// Starts a program in a terminal of so many rows and columns, with an environment of its own.
    ///
    /// # Panics
    /// When there is no pseudo-terminal or the program does not start.
    #[must_use]
    pub fn start(
        program: &Path,
        args: &[&str],
        env: &[(&str, &str)],
        (rows, columns): (u16, u16),
    ) -> Self {
        let size = PtySize { rows, cols: columns, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).expect("a pseudo-terminal");
        let mut command = CommandBuilder::new(program);
        command.args(args);
        command.env_clear();
        for (name, value) in
            [("TERM", "xterm-256color"), ("PATH", "/usr/bin:/bin"), ("TZ", "UTC")].iter().chain(env)
        {
            command.env(name, value);
        }
        let child = pair.slave.spawn_command(command).expect("the program starts");
        drop(pair.slave);
        let keys = pair.master.take_writer().expect("a way in");
        let mut output = pair.master.try_clone_reader().expect("a way out");
        let parser = vt100::Parser::new(rows, columns, 0);
        let seen = Arc::new(Mutex::new(Seen { parser, raw: Vec::new(), ended: false }));
        let shared = Arc::clone(&seen);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = output.read(&mut buffer) {
                let mut seen = shared.lock().expect("nobody panics with it");
                seen.parser.process(&buffer[..len]);
                seen.raw.extend_from_slice(&buffer[..len]);
            }
            shared.lock().expect("nobody panics with it").ended = true;
        });
        Self { master: pair.master, keys, child, seen, reader: Some(reader) }
    }

    /// Types.
    ///
    /// # Panics
    /// When the program is gone.
    pub fn send(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("the program reads");
        self.keys.flush().expect("the program reads");
    }

    /// Makes the terminal another size.
    ///
    /// # Panics
    /// When it cannot be.
    pub fn resize(&mut self, (rows, columns): (u16, u16)) {
        let size = PtySize { rows, cols: columns, pixel_width: 0, pixel_height: 0 };
        self.seen
            .lock()
            .expect("nobody panics with it")
            .parser
            .screen_mut()
            .set_size(rows, columns);
        self.master.resize(size).expect("a terminal can be resized");
    }

    /// What is on the screen, line by line, without spaces at their ends.
    #[must_use]
    pub fn screen(&self) -> String {
        let seen = self.seen.lock().expect("nobody panics with it");
        let lines: Vec<_> =
            seen.parser.screen().contents().lines().map(|l| l.trim_end().to_owned()).collect();
        lines.join("\n")
    }

    /// All bytes that the program ever wrote.
    #[must_use]
    pub fn raw(&self) -> Vec<u8> {
        self.seen.lock().expect("nobody panics with it").raw.clone()
    }

    /// Whether the program has the alternate screen, as full-screen programs do.
    #[must_use]
    pub fn is_full_screen(&self) -> bool {
        self.seen.lock().expect("nobody panics with it").parser.screen().alternate_screen()
    }

    /// Waits until the screen satisfies `wanted`.
    ///
    /// # Panics
    /// With the screen, when it does not come to that.
    pub fn until(&self, wanted: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let screen = self.screen();
            if wanted(&screen) {
                return screen;
            }
            let ended = self.seen.lock().expect("nobody panics with it").ended;
            assert!(
                start.elapsed() < PATIENCE && !(ended && start.elapsed() > Duration::from_secs(1)),
                "it never stood on the screen:\n{screen}\n-----"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the screen shows a text.
    ///
    /// # Panics
    /// With the screen, when it does not.
    pub fn shows(&self, text: &str) -> String {
        self.until(|screen| screen.contains(text))
    }

    /// The id of the program's process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.process_id()
    }

    /// Waits for the end, and returns whether it was a success.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn ends(&mut self) -> bool {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("its status can be read") {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "it goes on:\n{}", self.screen());
            std::thread::sleep(Duration::from_millis(10));
        };
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        status.success()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}
