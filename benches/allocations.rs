//! Counts the allocations of the hot path: `make instructions`. It is a program of its own, because
//! a counting allocator costs instructions.

#![allow(clippy::expect_used, reason = "a failed measurement panics with its reason")]

mod admit;

use std::hint::black_box;

use admit::admit;

fn main() {
    let Some(file) = std::env::args_os().nth(1) else {
        eprintln!("usage: allocations FILE");
        std::process::exit(64);
    };
    let body = std::fs::read(file).expect("FILE can be read");
    // The first answer makes what is made once.
    drop(black_box(admit(&body)));
    let counted = allocation_counter::measure(|| drop(black_box(admit(black_box(&body)))));
    println!("{} {}", counted.count_total, counted.bytes_max);
}
