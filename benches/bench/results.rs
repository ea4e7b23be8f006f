//! The results of a session as in the JSON file, and the figures computed from them.

use serde::{Deserialize, Serialize};

use crate::server::Memory;

/// The names of the programs in tables.
pub const OURS: &str = "ca-overlap";
pub const AGAIN: &str = "ca-overlap again";
pub const ALLOW_ALL: &str = "allow-all";
pub const STDLIB: &str = "Go standard library";
pub const CONTROLLER_RUNTIME: &str = "controller-runtime";

/// One session.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Results {
    /// `full`, `quick` or `measure`.
    pub mode: String,
    pub machine: Machine,
    /// The measured programs, in the order of the even rounds.
    pub programs: Vec<Program>,
    pub scenarios: Vec<Scenario>,
    /// Every measurement of CPU.
    pub cells: Vec<Cell>,
    pub memory: Vec<MemoryOf>,
    /// Our program's memory after more and more calls.
    pub flat: Vec<(u64, Memory)>,
    pub starts: Vec<Starts>,
    pub knees: Vec<Knee>,
    pub latencies: Vec<Latency>,
    pub hostile: Vec<Hostile>,
    pub instructions: Vec<Instructions>,
    /// What could not be measured, and why.
    pub not_measured: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub kernel: String,
    pub commit: String,
    pub date: String,
    /// Load averages over a minute, before and after.
    pub load: (f64, f64),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Program {
    pub name: String,
    pub bytes: u64,
    pub tls: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scenario {
    pub id: String,
    pub title: String,
    /// Bytes of the review.
    pub size: usize,
    pub connections: usize,
}

/// One program in one round of one scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    pub scenario: String,
    pub program: String,
    pub round: usize,
    pub requests: u64,
    pub cpu_ms: u64,
    pub elapsed_ms: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemoryOf {
    pub program: String,
    pub first_requests: Memory,
    pub with_500_connections: Memory,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Starts {
    pub program: String,
    /// Sorted.
    pub millis: Vec<f64>,
}

/// The greatest rate at which 97 % are achieved with p99 within 5 ms.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Knee {
    pub program: String,
    pub saturation: f64,
    pub rate: f64,
    /// Each rate that was tried: achieved, p99 in microseconds.
    pub tried: Vec<(f64, f64, u32)>,
}

/// An open loop; times in microseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Latency {
    pub program: String,
    pub what: String,
    pub connections: usize,
    pub rate: f64,
    pub achieved: f64,
    pub p50: u32,
    pub p99: u32,
    pub p999: u32,
    pub max: u32,
    /// How late the client was at the 99th percentile.
    pub client_p99: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hostile {
    pub what: String,
    pub bytes: usize,
    pub status: u16,
    /// CPU per request.
    pub millis: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Instructions {
    pub program: String,
    pub what: String,
    pub per_request: u64,
}

/// A median with its spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Cell {
    /// CPU microseconds per request.
    pub fn micros(&self) -> f64 {
        self.cpu_ms as f64 * 1e3 / self.requests as f64
    }
}

impl Spread {
    /// The median with its 95 % interval by order statistics (binomial, exact for any distribution).
    /// For fewer than 6 values there is none, and the least and the greatest are given.
    pub fn of(values: Vec<f64>) -> Option<Self> {
        Self::with_tail(values, 0.025)
    }

    /// The same with this probability for the median to lie below the interval, and above it.
    fn with_tail(mut values: Vec<f64>, limit: f64) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        let count = values.len();
        let last = count.checked_sub(1)?;
        let median = f64::midpoint(values[last / 2], values[count / 2]);
        let mut cut = 0;
        let (mut tail, mut term) = (0.0, 0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX)));
        // Probability that the median lies below the `cut + 1`st least value, in one tail.
        while tail + term <= limit && cut < last / 2 {
            tail += term;
            term *= (count - cut) as f64 / (cut + 1) as f64;
            cut += 1;
        }
        let cut = cut.saturating_sub(1);
        Some(Self { median, low: values[cut], high: values[last - cut] })
    }

    pub fn includes(&self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }
}

impl Results {
    /// CPU microseconds per request.
    pub fn micros(&self, scenario: &str, program: &str) -> Option<Spread> {
        let cells = self.cells.iter().filter(|c| c.scenario == scenario && c.program == program);
        Spread::of(cells.map(Cell::micros).collect())
    }

    /// The ratio of CPU per request, round by round.
    pub fn ratio(&self, scenario: &str, program: &str, to: &str) -> Option<Spread> {
        Spread::of(self.ratios(scenario, program, to))
    }

    fn ratios(&self, scenario: &str, program: &str, to: &str) -> Vec<f64> {
        let of = |program: &str, round| {
            let mut cells = self.cells.iter();
            cells.find(|c| c.scenario == scenario && c.program == program && c.round == round)
        };
        let rounds = self.cells.iter().map(|cell| cell.round + 1).max().unwrap_or(0);
        (0..rounds)
            .filter_map(|round| Some(of(program, round)?.micros() / of(to, round)?.micros()))
            .collect()
    }

    /// Why this session is void, if it is: the same program differs from itself. The 5 % are for all
    /// scenarios together, because one of eleven is outside its own 95 % by chance in a third of all
    /// sessions.
    pub fn void(&self) -> Vec<String> {
        let tail = 0.025 / self.scenarios.len().max(1) as f64;
        self.scenarios
            .iter()
            .filter_map(|scenario| {
                let spread = Spread::with_tail(self.ratios(&scenario.id, AGAIN, OURS), tail)?;
                (!spread.includes(1.0)).then(|| {
                    format!(
                        "{}: the same program against itself gave {:.2} ({:.2} to {:.2})",
                        scenario.title, spread.median, spread.low, spread.high
                    )
                })
            })
            .collect()
    }

    pub fn latency(&self, program: &str, what: &str) -> Option<&Latency> {
        self.latencies.iter().find(|l| l.program == program && l.what == what)
    }

    pub fn instructions_of(&self, program: &str, what: &str) -> Option<u64> {
        let mut found = self.instructions.iter();
        Some(found.find(|i| i.program == program && i.what == what)?.per_request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_twelve_is_from_the_third_to_the_tenth() {
        let spread = Spread::of((1..=12).rev().map(f64::from).collect());
        assert_eq!(spread, Some(Spread { median: 6.5, low: 3.0, high: 10.0 }));
    }

    #[test]
    fn a_program_that_differs_from_itself_voids_the_session() {
        let cell = |program: &str, round, cpu_ms| Cell {
            scenario: "s".into(),
            program: program.into(),
            round,
            requests: 1_000,
            cpu_ms,
            elapsed_ms: 1.0,
        };
        let scenario =
            Scenario { id: "s".into(), title: "a scenario".into(), size: 1, connections: 1 };
        let session = |again: [u64; 12]| Results {
            scenarios: vec![scenario.clone()],
            cells: (0..12)
                .flat_map(|round| [cell(OURS, round, 100), cell(AGAIN, round, again[round])])
                .collect(),
            ..Results::default()
        };
        assert_eq!(session([90, 91, 92, 93, 94, 95, 105, 106, 107, 108, 109, 110]).void().len(), 0);
        assert_eq!(
            session([101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111, 112]).void().len(),
            1
        );
    }

    #[test]
    fn few_values_give_the_least_and_the_greatest() {
        let spread = Spread::of(vec![3.0, 1.0, 2.0]);
        assert_eq!(spread, Some(Spread { median: 2.0, low: 1.0, high: 3.0 }));
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
