//! What the hot path takes from the allocator: `make instructions`. A program of its own, because
//! an allocator that counts costs instructions.

#![allow(clippy::expect_used, reason = "a measurement that cannot go on says why")]

mod admit;

use std::hint::black_box;

use admit::admit;

fn main() {
    let Some(file) = std::env::args_os().nth(1) else {
        eprintln!("usage: allocations FILE");
        std::process::exit(64);
    };
    let body = std::fs::read(file).expect("FILE can be read");
    // What is made once and stays.
    drop(black_box(admit(&body)));
    let counted = allocation_counter::measure(|| drop(black_box(admit(black_box(&body)))));
    println!("{} {}", counted.count_total, counted.bytes_max);
}
