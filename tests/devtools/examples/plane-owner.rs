//! Owns a control plane until it is killed or told to exit. The tests in
//! `tests/it/control_plane.rs` check what its end leaves behind.

#![allow(clippy::unwrap_used, reason = "part of a test")]

use devtools::control_plane::{Assets, ControlPlane, Options};

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let assets = Assets::find(None).unwrap();
    let plane = runtime.block_on(ControlPlane::start(Options::new(assets))).unwrap();
    let [one, two] = plane.pids();
    println!("helper {one} {two} {}", plane.scratch().path().display());
    // Never dropped, like a static.
    std::mem::forget(plane);
    std::io::stdin().read_line(&mut String::new()).unwrap();
    std::process::exit(0);
}
