//! The images of a session: each built once, whoever of its machines needs it first.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use machinist_events::What;
use machinist_image::{self as image, Image, ImageError, ImageSpec, Step, Store, Want};
use machinist_lab::{self as lab, FileContents};
use tokio::sync::{OnceCell, watch};

use crate::chain;
use crate::log::Log;
use crate::path_error::{At, PathError};
use crate::protocol::Fault;

/// By what the lab says of them, in full.
type Cells = HashMap<String, Arc<OnceCell<Image>>>;

/// The image cache, which is opened when it is first needed: a session whose machines come from
/// start scripts works where there is no place for one.
#[derive(Debug, Clone)]
pub(crate) struct LazyStore(Arc<Lazy>);

#[derive(Debug)]
struct Lazy {
    directory: PathBuf,
    /// Directories with images that others made.
    sources: Vec<PathBuf>,
    store: OnceLock<Store>,
}

impl LazyStore {
    /// The cache at `directory`, which also finds what is in `sources`.
    pub(crate) fn new(directory: &Path, sources: Vec<PathBuf>) -> Self {
        Self(Arc::new(Lazy {
            directory: directory.to_owned(),
            sources,
            store: OnceLock::new(),
        }))
    }

    fn get(&self) -> Result<Store, ImageError> {
        let lazy = &*self.0;
        if let Some(store) = lazy.store.get() {
            return Ok(store.clone());
        }
        let mut opened = Store::open(&lazy.directory, machinist_guest::AGENT)?;
        for source in &lazy.sources {
            opened = opened.with_source(source);
        }
        Ok(lazy.store.get_or_init(|| opened).clone())
    }
}

/// The images of a session.
pub(crate) struct Images {
    store: LazyStore,
    cancel: image::Cancel,
    base: PathBuf,
    log: Arc<Log>,
    cells: Mutex<Cells>,
    /// How many builds run.
    running: watch::Sender<usize>,
}

/// A build that runs. It may go on for a while after everybody has stopped waiting for it.
struct Build(watch::Sender<usize>);

impl Build {
    fn begin(running: &watch::Sender<usize>) -> Self {
        running.send_modify(|count| *count += 1);
        Self(running.clone())
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Images {
    /// Images from `store`, whose relative paths are relative to `base`.
    pub(crate) fn new(store: LazyStore, base: &Path, log: Arc<Log>) -> Self {
        Self {
            store,
            cancel: image::Cancel::new(),
            base: base.to_owned(),
            log,
            cells: Mutex::new(HashMap::new()),
            running: watch::Sender::new(0),
        }
    }

    /// Stops all builds. They need a moment to clean up: see [`Images::stopped`].
    pub(crate) fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Waits until no build runs.
    pub(crate) async fn stopped(&self) {
        // It cannot close: we hold it.
        drop(self.running.subscribe().wait_for(|count| *count == 0).await);
    }

    /// An image, built now if it is not there.
    pub(crate) async fn get(&self, wanted: &lab::Image, want: Want) -> Result<Image, Fault> {
        let key = format!("{wanted:?} {want:?}");
        let cell = {
            let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(cells.entry(key).or_default())
        };
        let image = cell.get_or_try_init(|| self.build(wanted.clone(), want));
        image.await.cloned()
    }

    async fn build(&self, wanted: lab::Image, want: Want) -> Result<Image, Fault> {
        let (store, cancel) = (self.store.clone(), self.cancel.clone());
        let base = self.base.clone();
        let log = Arc::clone(&self.log);
        let build = Build::begin(&self.running);
        let built = tokio::task::spawn_blocking(move || {
            let _build = build;
            let spec =
                resolve(&wanted, &base).map_err(|error| Fault::usage(chain::text(&error)))?;
            let tell = |step| tell(&log, step);
            let made = store
                .get()
                .and_then(|store| store.with_cancel(cancel).ensure(&spec, want, &tell));
            made.map_err(|error| {
                let hint = error.hint().map(|hint| format!("\nhint: {hint}"));
                Fault::machinery(format!(
                    "cannot make the image {}: {}{}",
                    wanted.name,
                    chain::text(&error),
                    hint.unwrap_or_default()
                ))
            })
        });
        built.await.map_err(Fault::machinery)?
    }
}

fn tell(log: &Log, step: Step) {
    let what = match step {
        Step::Started { what } => What::ImageStarted { image: what },
        Step::Doing { what, doing } => What::ImageStep {
            image: what,
            step: doing,
        },
        Step::Finished { what, took } => What::ImageFinished {
            image: what,
            seconds: took.as_secs_f64(),
        },
        Step::Waiting { ref what, .. } => What::ImageStep {
            image: what.clone(),
            step: "waiting for another machinist that builds it".to_owned(),
        },
        _ => return,
    };
    log.emit(what);
}

/// From what a lab says of an image to what a store can make: reads the files to add.
fn resolve(wanted: &lab::Image, base: &Path) -> Result<ImageSpec, PathError> {
    let source = match &wanted.source {
        lab::Source::Debian { suite } => image::Source::Debian {
            suite: suite.clone(),
            packages: wanted.packages.clone(),
        },
        lab::Source::Host => image::Source::Host,
        lab::Source::Dir(path) => image::Source::Dir(base.join(path)),
        lab::Source::Tar(path) => image::Source::Tar(base.join(path)),
    };
    let mut files = Vec::new();
    for (path, file) in &wanted.files {
        let (contents, own_mode) = match &file.contents {
            FileContents::Text(text) => (text.clone().into_bytes(), 0o644),
            FileContents::Host(source) => {
                let source = base.join(source);
                let mode = std::fs::metadata(&source)
                    .at("read", &source)?
                    .permissions()
                    .mode();
                (std::fs::read(&source).at("read", &source)?, mode)
            }
        };
        files.push(image::AddedFile {
            path: path.into(),
            mode: file.mode.unwrap_or(own_mode) & 0o7777,
            contents,
        });
    }
    Ok(ImageSpec { source, files })
}
