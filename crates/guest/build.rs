//! Builds the agent, so that the library can carry it: a static program for Linux, whatever this
//! build is for. `MACHINIST_AGENT_BINARY` names one that is built already.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=MACHINIST_AGENT_BINARY");
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("machinist-agent");
    let built = match env::var_os("MACHINIST_AGENT_BINARY") {
        Some(path) => {
            println!("cargo:rerun-if-changed={}", Path::new(&path).display());
            Some(PathBuf::from(path))
        }
        None => build(&out),
    };
    match built {
        Some(built) => {
            std::fs::copy(&built, &out).expect("the agent can be copied");
        }
        None => std::fs::write(&out, []).expect("the build directory can be written"),
    }
}

/// Runs cargo once more. None where this host cannot make a program for Linux.
fn build(out: &Path) -> Option<PathBuf> {
    let var = |name: &str| env::var(name).expect("cargo sets it");
    let workspace = Path::new(&var("CARGO_MANIFEST_DIR")).join("../..");
    for path in ["agent", "wire", "tree", "sys"] {
        println!(
            "cargo:rerun-if-changed={}",
            workspace.join("crates").join(path).display()
        );
    }
    println!(
        "cargo:rerun-if-changed={}",
        workspace.join("Cargo.lock").display()
    );
    let target = format!("{}-unknown-linux-gnu", var("CARGO_CFG_TARGET_ARCH"));
    if !var("HOST").ends_with("-linux-gnu") {
        println!("cargo:warning=no agent inside: set MACHINIST_AGENT_BINARY to one built on Linux");
        return None;
    }
    // One directory for all profiles of the outer build, beside them: target/agent.
    let profile = out
        .ancestors()
        .find(|path| path.ends_with("build"))?
        .parent()?;
    let directory = profile.parent()?.join("agent");
    let mut cargo = Command::new(var("CARGO"));
    // What the outer build was told (clippy, flags, another target) is not meant for this one.
    let inherited = [
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
    ];
    for name in inherited {
        cargo.env_remove(name);
    }
    let status = cargo
        .current_dir(&workspace)
        .args([
            "build",
            "--quiet",
            "--profile",
            "agent",
            "--package",
            "machinist-agent",
        ])
        .args(["--target", &target, "--target-dir"])
        .arg(&directory)
        .env(
            "RUSTFLAGS",
            "-C target-feature=+crt-static -C relocation-model=static",
        )
        .status()
        .expect("cargo runs");
    assert!(status.success(), "building the agent failed");
    Some(directory.join(target).join("agent/machinist-agent"))
}
