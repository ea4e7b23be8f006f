//! Counts the instructions of the hot path: `make instructions`, `make instructions-accept` and
//! `make linear`. docs/performance.md explains the output.

mod admit;
mod baseline;
mod callgrind;
mod cases;
#[allow(unreachable_pub, reason = "the admission tests use it too")]
#[allow(clippy::too_many_lines, clippy::format_collect, reason = "a table, and texts made once")]
mod hostile;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};

use baseline::{Baseline, Environment, Figures};
use callgrind::Counter;
use cases::Case;

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.json");

const USAGE: &str = "usage: instructions compare|accept|linear DIRECTORY
DIRECTORY holds the programs hot-path and allocations, such as target/release";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["compare", programs] => compare(Path::new(programs)).await,
        ["accept", programs] => accept(Path::new(programs)).await,
        ["linear", programs] => linear(Path::new(programs)).await,
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(64);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("instructions: {e:#}");
            ExitCode::FAILURE
        }
    }
}

async fn compare(programs: &Path) -> Result<()> {
    let text = std::fs::read_to_string(BASELINE).context(BASELINE)?;
    let baseline: Baseline = serde_json::from_str(&text).context(BASELINE)?;
    let counter = Counter::new(programs)?;
    let environment = environment(&counter).await?;
    let measured = measure(&counter, Some(&baseline)).await?;
    let findings = baseline.compare(&environment, &measured);
    for note in &findings.notes {
        println!("NOTE {note}");
    }
    for failure in &findings.failures {
        println!("FAILED {failure}");
    }
    ensure!(
        findings.failures.is_empty(),
        "{} differences from the baseline; if they are meant: make instructions-accept",
        findings.failures.len()
    );
    println!("{} cases, all as in the baseline", measured.len());
    Ok(())
}

async fn accept(programs: &Path) -> Result<()> {
    let counter = Counter::new(programs)?;
    let environment = environment(&counter).await?;
    let measured = measure(&counter, None).await?;
    std::fs::write(BASELINE, Baseline::to_text(&environment, &measured)).context(BASELINE)?;
    println!("written: benches/instructions.json");
    Ok(())
}

async fn measure(
    counter: &Counter,
    baseline: Option<&Baseline>,
) -> Result<Vec<(&'static str, Figures)>> {
    println!(
        "{:<18}{:>9} {:>14} {:>9} {:>13} {:>11}",
        "case", "bytes", "instructions", "change", "allocations", "peak bytes"
    );
    let mut measured = Vec::new();
    for case in cases::cases() {
        check(&case)?;
        counter.put(case.name, &case.body)?;
        let instructions = counter.per_answer(case.name, repetitions(case.body.len())).await?;
        let (allocations, peak_bytes) = counter.allocations(case.name).await?;
        let accepted = baseline.and_then(|baseline| baseline.cases.get(case.name));
        let change = accepted.map_or_else(String::new, |accepted| {
            format!("{:+.2} %", baseline::change(accepted.instructions, instructions))
        });
        println!(
            "{:<18}{:>9} {instructions:>14} {change:>9} {allocations:>13} {peak_bytes:>11}",
            case.name,
            case.body.len()
        );
        measured.push((case.name, Figures { instructions, allocations, peak_bytes }));
    }
    Ok(measured)
}

/// Enough for the allocator to reach a steady state.
fn repetitions(bytes: usize) -> u64 {
    if bytes < 100_000 { 20 } else { 5 }
}

/// Fails if a case does not take its path.
fn check(case: &Case) -> Result<()> {
    let answer = admit::admit(&case.body).ok();
    let answer = answer.map(|answer| String::from_utf8_lossy(&answer).into_owned());
    let decision = case.decision.map(|decision| format!("\"decision\":\"{decision}\""));
    let fits = match (&answer, &decision) {
        (Some(answer), Some(decision)) => {
            answer.contains(decision) && answer.contains("\"patch\"") == case.patches
        }
        (None, None) => true,
        _ => false,
    };
    ensure!(fits, "{}: expected {decision:?}, answered {answer:?}", case.name);
    Ok(())
}

async fn environment(counter: &Counter) -> Result<Environment> {
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let rustc = std::process::Command::new(compiler).arg("--version").output().context("rustc")?;
    let libc = std::process::Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
    Ok(Environment {
        rustc: text(rustc.stdout),
        libc: text(libc.context("getconf")?.stdout),
        cpu: counter.cpu().await?,
    })
}

/// The smaller of the two sizes that are compared.
const SIZE: usize = 256 * 1024;
/// The API server sends nothing larger; the webhook's limit is 8 MiB.
const FULL_SIZE: usize = 7 * 1024 * 1024;
/// The size for the negative control.
const CONTROL_SIZE: usize = 64 * 1024;
/// The most that twice the size may cost. It is above 2 because bodies have not exactly the
/// requested size.
const MAX_RATIO: f64 = 2.4;

/// Checks that a hostile body of twice the size costs at most about twice as much.
async fn linear(programs: &Path) -> Result<()> {
    let counter = Counter::new(programs)?;
    counter.put("empty", b"")?;
    let start_up = counter.instructions("answer", "empty", 0).await?;
    control(&counter, start_up).await?;
    println!(
        "{:<36} {:>14} {:>14} {:>6} {:>9}",
        "hostile body", "instructions", "twice the size", "ratio", "7 MiB"
    );
    let mut too_fast = Vec::new();
    for (name, generate) in hostile::cases() {
        let (smaller, larger) = (generate(SIZE), generate(2 * SIZE));
        let costs = ratio(&counter, start_up, "answer", &smaller, &larger).await;
        let (once, twice, ratio) = costs.with_context(|| name.to_owned())?;
        counter.put("full", &generate(FULL_SIZE))?;
        let milliseconds = counter.milliseconds("full").await?;
        println!("{name:<36} {once:>14} {twice:>14} {ratio:>6.2} {milliseconds:>6.1} ms");
        if ratio > MAX_RATIO {
            too_fast.push(name);
        }
    }
    ensure!(
        too_fast.is_empty(),
        "more than {MAX_RATIO} times the instructions for twice the size: {}",
        too_fast.join("; ")
    );
    println!("all at most {MAX_RATIO}: linear (the times are informative)");
    Ok(())
}

/// The negative control: quadratic work must be detected, or the check is void.
async fn control(counter: &Counter, start_up: u64) -> Result<()> {
    let (smaller, larger) = (vec![b'x'; CONTROL_SIZE], vec![b'x'; 2 * CONTROL_SIZE]);
    let (.., ratio) = ratio(counter, start_up, "quadratic", &smaller, &larger).await?;
    if ratio <= MAX_RATIO {
        bail!("the negative control costs {ratio:.2} times as much for twice the size: void");
    }
    println!("negative control: quadratic work is found, ratio {ratio:.2}");
    Ok(())
}

/// The instructions for each body, and their ratio, scaled to exactly twice the size.
#[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
async fn ratio(
    counter: &Counter,
    start_up: u64,
    work: &str,
    smaller: &[u8],
    larger: &[u8],
) -> Result<(u64, u64, f64)> {
    let growth = larger.len() as f64 / smaller.len() as f64;
    ensure!((1.5..=2.5).contains(&growth), "the size grows {growth:.2} times, not about twice");
    counter.put("once", smaller)?;
    counter.put("twice", larger)?;
    let (once, twice) = tokio::try_join!(
        counter.instructions(work, "once", 1),
        counter.instructions(work, "twice", 1)
    )?;
    let (once, twice) = (once.saturating_sub(start_up), twice.saturating_sub(start_up));
    Ok((once, twice, twice as f64 / once.max(1) as f64 / growth * 2.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_takes_its_path() {
        for case in cases::cases() {
            check(&case).unwrap();
        }
    }
}
