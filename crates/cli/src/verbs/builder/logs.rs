//! `machinist builder logs`

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::mem::MaybeUninit;
use std::path::Path;

use clap::Args;
use rustix::fs::inotify;

use super::find;
use crate::Outcome;
use crate::error::CliError;
use crate::exit::Exit;
use crate::ui;

/// Show what a builder's service did, or what its machine's console has shown
#[derive(Debug, Args)]
pub struct Logs {
    /// The builder
    name: String,
    /// The console of its machine since that was started last
    #[arg(short, long)]
    console: bool,
    /// Go on with what is added
    #[arg(short, long)]
    follow: bool,
}

impl Logs {
    /// Shows it.
    pub fn run(self) -> Outcome {
        let state = find(&self.name)?;
        let path = if self.console {
            state.console()
        } else {
            state.log()
        };
        if !path.exists() && !self.follow {
            ui::status(format_args!("{}: it has never run", self.name));
            return Ok(Exit::Passed);
        }
        let shown = show(&path, self.follow);
        shown.map_err(|error| {
            CliError::machinery(error).context(format!("cannot read {}", path.display()))
        })?;
        Ok(Exit::Passed)
    }
}

/// Shows a file; following, until Ctrl-C. One that is begun anew is shown from its beginning.
fn show(path: &Path, follow: bool) -> io::Result<()> {
    if !follow {
        return copy(&mut File::open(path)?);
    }
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC)?;
    // The directory: the file may come later, or be exchanged.
    let parent = path.parent().unwrap_or(Path::new("/"));
    let flags =
        inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&watch, parent, flags)?;
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut shown = 0;
    loop {
        match File::open(path) {
            Ok(mut file) => {
                let length = file.metadata()?.len();
                file.seek(SeekFrom::Start(if length < shown { 0 } else { shown }))?;
                copy(&mut file)?;
                shown = file.stream_position()?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => shown = 0,
            Err(error) => return Err(error),
        }
        inotify::Reader::new(&watch, &mut buffer).next()?;
    }
}

fn copy(file: &mut File) -> io::Result<()> {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        match file.read(&mut bytes)? {
            0 => return Ok(()),
            length => ui::raw_data(&bytes[..length]),
        }
    }
}
