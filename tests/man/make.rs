//! Writes the man pages into a directory: `make man`.
#![allow(clippy::expect_used, reason = "a build step fails by panicking")]

mod pages;

fn main() {
    let directory = std::env::args_os().nth(1).expect("usage: man-pages DIRECTORY");
    let written = pages::write(directory.as_ref()).expect("cannot write the man pages");
    for path in written {
        println!("{}", path.display());
    }
}
