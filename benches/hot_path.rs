//! The hot path as a program whose instructions are counted: `make instructions`. It depends only on
//! its arguments. Only `time` reads the clock.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed measurement panics with its reason"
)]

mod admit;

use std::hint::black_box;
use std::time::Instant;

use admit::admit;

const USAGE: &str = "usage:
  hot-path answer FILE COUNT     answer the review in FILE COUNT times
  hot-path quadratic FILE COUNT  do work that grows with the square of the size of FILE
  hot-path time FILE             print the milliseconds of one answer, the best of five
  hot-path cpu                   print the CPU that this program sees";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["answer", file, count] => repeat(file, count, |body| drop(black_box(admit(body)))),
        ["quadratic", file, count] => repeat(file, count, |body| {
            black_box(quadratic(body));
        }),
        ["time", file] => println!("{:.3}", milliseconds(&read(file))),
        ["cpu"] => println!("{}", cpu()),
        _ => {
            eprintln!("{USAGE}");
            std::process::exit(64);
        }
    }
}

fn repeat(file: &str, count: &str, work: impl Fn(&[u8])) {
    let body = read(file);
    for _ in 0..count.parse().expect("COUNT is a number") {
        work(black_box(&body));
    }
}

fn read(file: &str) -> Vec<u8> {
    std::fs::read(file).expect("FILE can be read")
}

/// The negative control: compares every hundredth byte with all bytes before it.
fn quadratic(body: &[u8]) -> usize {
    let not_larger = |end: usize| body[..end].iter().filter(|byte| **byte <= body[end]).count();
    (0..body.len()).step_by(100).map(not_larger).sum()
}

fn milliseconds(body: &[u8]) -> f64 {
    let once = || {
        let began = Instant::now();
        drop(black_box(admit(black_box(body))));
        began.elapsed().as_secs_f64() * 1e3
    };
    (0..5).map(|_| once()).fold(f64::INFINITY, f64::min)
}

/// The architecture, and the extensions by which libraries choose their implementation. Under
/// valgrind it is the emulated CPU.
#[cfg(target_arch = "x86_64")]
fn cpu() -> String {
    let known = [
        ("adx", is_x86_feature_detected!("adx")),
        ("aes", is_x86_feature_detected!("aes")),
        ("avx", is_x86_feature_detected!("avx")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("bmi1", is_x86_feature_detected!("bmi1")),
        ("bmi2", is_x86_feature_detected!("bmi2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
        ("sha", is_x86_feature_detected!("sha")),
        ("sse4.2", is_x86_feature_detected!("sse4.2")),
        ("ssse3", is_x86_feature_detected!("ssse3")),
    ];
    let has: Vec<_> = known.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect();
    format!("x86_64 {}", has.join(" "))
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu() -> String {
    std::env::consts::ARCH.to_owned()
}
