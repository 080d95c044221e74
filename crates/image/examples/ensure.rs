//! Makes an image and says where it is: `ensure debian:bookworm curl nginx --vm`.
//!
//! For developers who need an image before there is a CLI, and for this crate's own tests.
//! Options: `--vm`, `--shared-folders`, `--cache DIR`, `--mirror URL`, `--agent FILE`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use std::path::PathBuf;
use std::process::ExitCode;

use machinist_image::{ImageError, ImageSpec, Source, Store, Want};

struct Arguments {
    spec: ImageSpec,
    want: Want,
    cache: PathBuf,
    mirror: Option<String>,
    agent: Vec<u8>,
}

fn arguments() -> Option<Arguments> {
    let mut words = Vec::new();
    let (mut vm, mut shared_folders, mut mirror) = (false, false, None);
    let mut agent = b"#!/bin/sh\n".to_vec();
    let mut cache = PathBuf::from("/tmp/machinist-dev-cache");
    let mut args = std::env::args().skip(1);
    while let Some(word) = args.next() {
        match word.as_str() {
            "--vm" => vm = true,
            "--shared-folders" => shared_folders = true,
            "--cache" => cache = args.next()?.into(),
            "--mirror" => mirror = Some(args.next()?),
            "--agent" => agent = std::fs::read(args.next()?).ok()?,
            _ => words.push(word),
        }
    }
    let (image, packages) = words.split_first()?;
    let source = match image.split_once(':') {
        Some(("debian", suite)) => Source::Debian {
            suite: suite.to_owned(),
            packages: packages.to_vec(),
        },
        Some(("dir", path)) => Source::Dir(path.into()),
        Some(("tar", path)) => Source::Tar(path.into()),
        None if image == "host" => Source::Host,
        _ => return None,
    };
    let want = if vm {
        Want::Vm { shared_folders }
    } else {
        Want::Container
    };
    Some(Arguments {
        spec: ImageSpec {
            source,
            files: Vec::new(),
        },
        want,
        cache,
        mirror,
        agent,
    })
}

fn ensure(arguments: Arguments) -> Result<(), ImageError> {
    // It is needed until the end of the process anyway.
    let agent = Box::leak(arguments.agent.into_boxed_slice());
    let store = Store::open(&arguments.cache, agent)?.with_mirror(arguments.mirror);
    let image = store.ensure(&arguments.spec, arguments.want, &|step| eprintln!("{step}"))?;
    println!("{image:#?}");
    Ok(())
}

fn main() -> ExitCode {
    let Some(arguments) = arguments() else {
        eprintln!("usage: ensure debian:SUITE|host|dir:PATH|tar:PATH [PACKAGE...] [--vm] ...");
        return ExitCode::from(2);
    };
    match ensure(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let hint = error.hint();
            let mut cause: Option<&dyn std::error::Error> = Some(&error);
            while let Some(error) = cause {
                eprintln!("error: {error}");
                cause = error.source();
            }
            if let Some(hint) = hint {
                eprintln!("hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}
