//! A bar for each running test, by indicatif on a writer that is given to us.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use crate::paint::cut;

/// The writer as a terminal that understands the usual escape sequences.
struct Screen<W> {
    out: Arc<Mutex<W>>,
    width: u16,
}

impl<W> std::fmt::Debug for Screen<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen")
            .field("width", &self.width)
            .finish_non_exhaustive()
    }
}

impl<W: Write> Screen<W> {
    fn put(&self, text: &str) -> io::Result<()> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.write_all(text.as_bytes())
    }

    fn moved(&self, n: usize, letter: char) -> io::Result<()> {
        if n == 0 {
            return Ok(());
        }
        self.put(&format!("\x1b[{n}{letter}"))
    }
}

impl<W: Write + Send + 'static> TermLike for Screen<W> {
    fn width(&self) -> u16 {
        self.width
    }
    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'A')
    }
    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'B')
    }
    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'C')
    }
    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'D')
    }
    fn write_line(&self, text: &str) -> io::Result<()> {
        self.put(text)?;
        self.put("\r\n")
    }
    fn write_str(&self, text: &str) -> io::Result<()> {
        self.put(text)
    }
    fn clear_line(&self) -> io::Result<()> {
        self.put("\r\x1b[2K")
    }
    fn flush(&self) -> io::Result<()> {
        self.out
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .flush()
    }
}

/// The bars at the bottom of the screen.
pub(crate) struct Bars {
    multi: MultiProgress,
    bars: BTreeMap<String, ProgressBar>,
    width: usize,
    colour: bool,
}

impl Bars {
    pub(crate) fn new<W: Write + Send + 'static>(
        out: Arc<Mutex<W>>,
        width: u16,
        colour: bool,
    ) -> Self {
        let width = if width == 0 { 80 } else { width };
        let screen = Screen { out, width };
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(screen), 12);
        Self {
            multi: MultiProgress::with_draw_target(target),
            bars: BTreeMap::new(),
            width: usize::from(width),
            colour,
        }
    }

    /// A line above the bars.
    pub(crate) fn print(&self, line: &str) -> io::Result<()> {
        self.multi.println(line)
    }

    /// Says of `name` what it is busy with; begins its bar if it has none.
    pub(crate) fn show(&mut self, name: &str, text: &str) {
        let bar = self.bars.entry(name.to_owned()).or_insert_with(|| {
            let spinner = if self.colour {
                "{spinner:.cyan}"
            } else {
                "{spinner}"
            };
            let style = ProgressStyle::with_template(&format!("{spinner} {{elapsed:>5}} {{msg}}"))
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            self.multi.add(ProgressBar::new_spinner().with_style(style))
        });
        // A line that wraps would break the drawing.
        let room = self.width.saturating_sub(10);
        let line = if name.is_empty() {
            text.to_owned()
        } else {
            format!("{name}  {text}")
        };
        bar.set_message(cut(&line, room));
    }

    pub(crate) fn remove(&mut self, name: &str) {
        if let Some(bar) = self.bars.remove(name) {
            bar.finish_and_clear();
            self.multi.remove(&bar);
        }
    }

    /// Lets time pass.
    pub(crate) fn tick(&self) {
        for bar in self.bars.values() {
            bar.tick();
        }
    }

    pub(crate) fn clear(&mut self) -> io::Result<()> {
        let names: Vec<String> = self.bars.keys().cloned().collect();
        for name in names {
            self.remove(&name);
        }
        self.multi.clear()
    }
}
