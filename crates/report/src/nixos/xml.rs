//! The XML log: `<logfile>`, in it `<line>` and `<nest>`, which begins with a `<head>`.
//!
//! After each entry the file is whole XML: what closes it is written behind it, and written over by
//! the next entry. So it is whole wherever the run is killed.

use std::io::{self, Seek, SeekFrom, Write};

use machinist_events::plain;
use quick_xml::escape::escape;

use super::Entry;
use super::lines::finished;

const END: &str = "</logfile>\n";
const END_OF_NEST: &str = "</nest>";

/// Writes entries as XML.
#[derive(Debug)]
pub(crate) struct XmlLog<W> {
    file: W,
    /// Where the next entry goes; none if the file cannot be sought in.
    at: Option<u64>,
    /// What is open, outermost first, and whether it is to be closed as soon as what is in it is.
    open: Vec<(u64, bool)>,
    ended: bool,
    /// Why nothing is written any more.
    failed: Option<io::Error>,
}

impl<W: Write + Seek> XmlLog<W> {
    /// Begins the document.
    pub(crate) fn begin(mut file: W) -> io::Result<Self> {
        let at = file.stream_position().ok();
        let mut log = Self {
            file,
            at,
            open: Vec::new(),
            ended: false,
            failed: None,
        };
        log.put("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<logfile>")?;
        Ok(log)
    }

    /// Writes entries. What cannot be written is told at the end, and does not disturb the test.
    pub(crate) fn tell(&mut self, entries: &[Entry]) {
        let mut text = String::new();
        for entry in entries {
            self.entry(entry, &mut text);
        }
        if text.is_empty() || self.ended || self.failed.is_some() {
            return;
        }
        self.failed = self.put(&text).err();
    }

    /// Ends the document.
    ///
    /// # Errors
    /// Not all of it could be written.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if !self.ended && self.at.is_none() {
            let end = self.closing();
            self.file.write_all(end.as_bytes())?;
        }
        self.ended = true;
        self.file.flush()
    }

    fn entry(&mut self, entry: &Entry, text: &mut String) {
        match entry {
            Entry::Line {
                machine,
                text: line,
                ..
            } => element(text, "line", machine.as_deref(), false, line),
            Entry::Serial {
                machine,
                text: line,
            } => element(text, "line", Some(machine), true, line),
            Entry::Wrong { text: line } => element(text, "line", None, false, line),
            // What a script prints itself is on the terminal alone.
            Entry::Printed { .. } => {}
            Entry::Open {
                number,
                machine,
                title,
            } => {
                text.push_str("<nest>");
                element(text, "head", machine.as_deref(), false, title);
                self.open.push((*number, false));
            }
            Entry::Close {
                number,
                title,
                seconds,
                ok,
                ..
            } => {
                if *ok {
                    element(text, "line", None, false, &finished(title, *seconds));
                }
                if let Some(open) = self.open.iter_mut().find(|(open, _)| open == number) {
                    open.1 = true;
                }
                // Things that run side by side end in any order; elements cannot.
                while self.open.pop_if(|(_, closed)| *closed).is_some() {
                    text.push_str(END_OF_NEST);
                }
            }
        }
    }

    fn put(&mut self, text: &str) -> io::Result<()> {
        let Some(at) = self.at else {
            return self.file.write_all(text.as_bytes());
        };
        self.file.seek(SeekFrom::Start(at))?;
        // It is never shorter than what it is written over.
        self.file
            .write_all(format!("{text}{}", self.closing()).as_bytes())?;
        self.at = Some(at + text.len() as u64);
        Ok(())
    }

    fn closing(&self) -> String {
        format!("{}{END}", END_OF_NEST.repeat(self.open.len()))
    }
}

fn element(out: &mut String, name: &str, machine: Option<&str>, serial: bool, text: &str) {
    out.push('<');
    out.push_str(name);
    if let Some(machine) = machine {
        out.push_str(&format!(" machine=\"{}\"", safe(machine)));
    }
    if serial {
        out.push_str(" type=\"serial\"");
    }
    out.push('>');
    out.push_str(&safe(text));
    out.push_str(&format!("</{name}>"));
}

/// Without what XML cannot say, and with what it means otherwise written so that it does not.
fn safe(text: &str) -> String {
    escape(plain(text)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with room for so many bytes.
    struct Disk(usize);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self
                .0
                .checked_sub(bytes.len())
                .ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Seek for Disk {
        fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
            Ok(0)
        }
    }

    #[test]
    fn a_full_disk_is_told_at_the_end() {
        let line = [Entry::Wrong {
            text: "x".repeat(90),
        }];
        let mut log = XmlLog::begin(Disk(200)).unwrap();
        for _ in 0..3 {
            log.tell(&line);
        }
        assert_eq!(log.end().unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(XmlLog::begin(Disk(2)).is_err());
    }
}
