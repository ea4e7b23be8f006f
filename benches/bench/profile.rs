//! Attributes the instructions of a request to parts of the server, by callgrind and symbols.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::client::Connection;
use crate::pki::Serving;
use crate::report;
use crate::results::Results;
use crate::reviews::Review;
use crate::server::{Kind, Subject};
use crate::session::Session;

/// The requests to a server under callgrind.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub review: &'a Review,
    /// Each request on a connection of its own.
    pub again: bool,
}

/// The parts, each with prefixes of its functions. A function belongs to the first part with a
/// matching prefix. Inlined code counts for its caller.
const PARTS: [(&str, &[&str]); 10] = [
    (KEYS, &["curve25519", "ecp_", "__ecp", "sha3", "bn_", "bignum_", "mlkem", "Keccak"]),
    (TLS, &["rustls::", "tokio_rustls", "_aesni", "rs::", "gcm_", "sha256", "AWS_LC"]),
    ("reading and writing JSON", &["serde", "simdutf8", "core::marker::PhantomData"]),
    ("HTTP", &["hyper", "http::", "httparse", "http_body", "bytes::", "hashbrown"]),
    ("router", &["axum", "tower", "matchit", "F as axum", "futures"]),
    ("tokio, time", &["tokio", "std::sys::pal::unix::time", "std::time", "clock_gettime"]),
    (
        "memory: allocation, copies, comparison",
        &["malloc", "_int_", "free", "realloc", "calloc", "unlink_chunk", "__mem", "alloc::"],
    ),
    ("the line in the log", &["tracing", "ca_overlap::log"]),
    ("review, decision and patch", &["ca_overlap", "base64", "json_patch", "jiff", "memchr"]),
    ("anything else", &[""]),
];
const KEYS: &str = "key exchange and signature";
const TLS: &str = "the rest of TLS";

impl Session<'_> {
    /// A markdown table of the parts for our program and for the allow-all server.
    pub async fn profile(&mut self) -> Result<String> {
        const REQUESTS: u64 = 500;
        let asked = [
            ("nothing to do, 3 KB", Asked { review: &self.reviews.nothing_3k, again: false }),
            ("a new connection for each", Asked { review: &self.reviews.bundle_8k, again: true }),
        ];
        let mut columns = Vec::new();
        for (what, asked) in asked {
            for subject in self.subjects.iter().filter(|subject| subject.kind != Kind::Peer) {
                eprintln!("{}: {what}", subject.name);
                let mut parts = Vec::new();
                for requests in [REQUESTS, 2 * REQUESTS] {
                    let out = callgrind(subject, self.serving, asked, requests).await?;
                    parts.push(by_part(&annotated(&out)?));
                }
                let of = |run: usize, part: &str| parts[run].get(part).copied().unwrap_or(0);
                let each: Vec<u64> = PARTS
                    .iter()
                    .map(|(part, _)| of(1, part).saturating_sub(of(0, part)) / REQUESTS)
                    .collect();
                columns.push((format!("{what}: {}", subject.name), each));
            }
        }
        Ok(table(&columns))
    }
}

fn table(columns: &[(String, Vec<u64>)]) -> String {
    let header: Vec<_> =
        ["part"].into_iter().chain(columns.iter().map(|(name, _)| name.as_str())).collect();
    let row = |name: &str, value: &dyn Fn(&[u64]) -> u64| {
        let values = columns.iter().map(|(_, each)| value(each).to_string());
        [name.to_owned()].into_iter().chain(values).collect()
    };
    let parts = PARTS.iter().enumerate().map(|(at, (part, _))| row(part, &|each| each[at]));
    let all = row("all", &|each| each.iter().sum());
    report::table(&header, parts.chain([all]))
}

/// Runs a server under callgrind for so many requests, and gives the profile.
pub async fn callgrind(
    subject: &Subject,
    serving: &Serving,
    asked: Asked<'_>,
    requests: u64,
) -> Result<PathBuf> {
    let out = serving.path().join("callgrind.out");
    let file = format!("--callgrind-out-file={}", out.display());
    let wrapper = ["taskset", "-c", "0", "valgrind", "--tool=callgrind", &file];
    let mut server = subject.start_under(serving, &wrapper)?;
    let mut connection = server.dial().await?;
    for _ in 0..requests {
        if asked.again {
            connection = Connection::dial(&server.target).await?;
        }
        connection.call(&server.target, asked.review).await?;
    }
    drop(connection);
    // The product drains at the first signal and ends at the second.
    server.signal("TERM")?;
    if !server.ended(Duration::from_secs(2)).await? {
        server.signal("TERM")?;
    }
    ensure!(server.ended(Duration::from_secs(60)).await?, "valgrind does not end");
    Ok(out)
}

/// Whether valgrind is installed. If not, notes it in the results.
pub fn has_valgrind(results: &mut Results) -> bool {
    let is_installed = Command::new("valgrind").arg("--version").output().is_ok();
    if !is_installed {
        results.not_measured.push("instructions: valgrind is missing".into());
    }
    is_installed
}

/// The instructions of each function, by name.
fn annotated(out: &Path) -> Result<Vec<(String, u64)>> {
    let output = Command::new("callgrind_annotate").arg("--threshold=100").arg(out).output()?;
    ensure!(output.status.success(), "callgrind_annotate: {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(function).collect())
}

/// `1,234 (5.67%)  FILE:FUNCTION [OBJECT]`; files are `???` or a path, and have no space.
fn function(line: &str) -> Option<(String, u64)> {
    let (count, rest) = line.trim_start().split_once(" (")?;
    let (_, place) = rest.split_once("%)")?;
    let (_, name) = place.trim_start().split_once(':')?;
    Some((name.to_owned(), count.replace(',', "").parse().ok()?))
}

fn by_part(functions: &[(String, u64)]) -> BTreeMap<&'static str, u64> {
    let mut parts = BTreeMap::new();
    for (name, count) in functions {
        *parts.entry(part(name)).or_default() += count;
    }
    parts
}

fn part(name: &str) -> &'static str {
    let name = name.trim_start_matches(['<', '&', '*']).trim_start_matches("mut ");
    // C functions of aws-lc have the library's version before their name.
    let in_c = name.strip_prefix("aws_lc_").map(|name| name.trim_start_matches(is_version));
    let name = in_c.unwrap_or(name);
    let has = |beginnings: &[&str]| beginnings.iter().any(|b| name.starts_with(b));
    let found = PARTS.iter().find(|(_, beginnings)| has(beginnings)).map(|(part, _)| *part);
    if in_c.is_some() && found != Some(KEYS) { TLS } else { found.unwrap_or_default() }
}

fn is_version(c: char) -> bool {
    c.is_ascii_digit() || c == '_'
}

/// The total of a profile.
pub fn collected(file: &Path) -> Result<u64> {
    let text = std::fs::read_to_string(file)?;
    let total = |line: &str| {
        let total = line.strip_prefix("summary: ").or_else(|| line.strip_prefix("totals: "))?;
        total.trim().parse().ok()
    };
    text.lines().find_map(total).with_context(|| format!("{}: no totals", file.display()))
}
