//! Counts the instructions of the hot path with callgrind, and its allocations.
//!
//! The count for one answer is the difference between two runs that answer the same review N and
//! 2N times, divided by N, so that start-up cancels out. Callgrind emulates memory layout and CPU,
//! so two runs give the same number.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tokio::process::Command;

/// The longest run: work that grows with the square of its size would not end.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Copies of the programs in a fixed place: even the length of a program's path shifts memory and
/// changes a few instructions.
pub(crate) struct Counter {
    directory: TempDir,
    valgrind: String,
}

impl Counter {
    /// `programs` holds `hot-path` and `allocations`.
    pub(crate) fn new(programs: &Path) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        for name in ["hot-path", "allocations"] {
            let program = programs.join(name);
            std::fs::copy(&program, directory.path().join(name))
                .with_context(|| format!("cannot copy {}", program.display()))?;
        }
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let mut candidates = std::env::split_paths(&paths).map(|path| path.join("valgrind"));
        let valgrind = candidates.find(|path| path.is_file()).context("valgrind is missing")?;
        Ok(Self { directory, valgrind: valgrind.display().to_string() })
    }

    /// Writes a body to a file for the programs.
    pub(crate) fn put(&self, file: &str, body: &[u8]) -> Result<()> {
        Ok(std::fs::write(self.path(file), body)?)
    }

    /// Instructions of one answer.
    pub(crate) async fn per_answer(&self, file: &str, count: u64) -> Result<u64> {
        let (once, twice) = tokio::try_join!(
            self.instructions("answer", file, count),
            self.instructions("answer", file, 2 * count)
        )?;
        Ok((twice - once + count / 2) / count)
    }

    /// Instructions of a whole run that does `work` `count` times.
    pub(crate) async fn instructions(&self, work: &str, file: &str, count: u64) -> Result<u64> {
        let profile = format!("{work}-{file}-{count}.callgrind");
        let option = format!("--callgrind-out-file={profile}");
        let count = count.to_string();
        self.run(
            "valgrind",
            &["-q", "--tool=callgrind", &option, "./hot-path", work, file, &count],
        )
        .await?;
        let profile = std::fs::read_to_string(self.path(&profile))?;
        let total = profile.lines().find_map(|line| line.strip_prefix("totals: "));
        total.and_then(|total| total.trim().parse().ok()).context("callgrind wrote no total")
    }

    /// Allocations of one answer, and the most bytes allocated at one time.
    pub(crate) async fn allocations(&self, file: &str) -> Result<(u64, u64)> {
        let output = self.run("./allocations", &[file]).await?;
        let (count, peak) = output.trim().split_once(' ').context("two numbers")?;
        Ok((count.parse()?, peak.parse()?))
    }

    /// Milliseconds of one answer, on the real CPU.
    pub(crate) async fn milliseconds(&self, file: &str) -> Result<f64> {
        Ok(self.run("./hot-path", &["time", file]).await?.trim().parse()?)
    }

    /// The CPU that valgrind shows.
    pub(crate) async fn cpu(&self) -> Result<String> {
        let cpu = self.run(&self.valgrind, &["-q", "--tool=none", "./hot-path", "cpu"]).await?;
        Ok(cpu.trim().to_owned())
    }

    async fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.directory.path());
        // The environment is on the stack, where its size shifts all other memory.
        command.env_clear().stdin(Stdio::null()).kill_on_drop(true);
        let words = || format!("{program} {}", arguments.join(" "));
        let output = match tokio::time::timeout(TIMEOUT, command.output()).await {
            Ok(output) => output.with_context(|| format!("cannot run {}", words()))?,
            Err(_) => bail!("{} does not end: stopped after {TIMEOUT:?}", words()),
        };
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {}\n{errors}", words(), output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }
}
