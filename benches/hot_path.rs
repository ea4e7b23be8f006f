//! The hot path alone, to be counted: `make instructions`. It depends on nothing but its
//! arguments: no randomness, no configuration, and a clock only where it is asked for the time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement that cannot go on says why"
)]

mod admit;

use std::hint::black_box;
use std::time::Instant;

use admit::admit;

const USAGE: &str = "usage:
  hot-path answer FILE COUNT     answer the review in FILE so often
  hot-path quadratic FILE COUNT  the same with work that grows with the square of its size
  hot-path time FILE             milliseconds that one answer takes, the best of five
  hot-path cpu                   what this program sees of the CPU";

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

/// The negative control: for every hundredth byte, how many before it are not larger.
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

/// The architecture, and the extensions by which libraries choose between their implementations.
/// Under valgrind it is the CPU that valgrind shows.
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
