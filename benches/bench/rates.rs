//! Open loops: the highest rate that a program keeps up with, and the latencies below it.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::load::{Latencies, Load, Until};
use crate::results::{Knee, Latency};
use crate::session::{POOL, Session};

/// A program keeps up with a rate if it achieves this share of it, with this p99 in microseconds.
const ACHIEVED: f64 = 0.97;
const WITHIN: u32 = 5_000;
/// Halvings of the range in which the knee lies.
const HALVINGS: usize = 6;

impl Session<'_> {
    /// Saturation in a closed loop, then the knee by halving; 25 connections, bundling, 8 KB.
    pub async fn knees(&mut self) -> Result<()> {
        for subject in self.distinct() {
            let server = subject.ready(self.serving).await?;
            let review = &self.reviews.bundle_8k;
            let load = Load { target: &server.target, review, connections: POOL };
            let mut connections = load.dial().await?;
            let until = Until { duration: self.plan.step, requests: 0 };
            load.closed(&mut connections, until).await?;
            let requests = load.closed(&mut connections, until).await?;
            let saturation = requests as f64 / until.duration.as_secs_f64();
            let (mut low, mut high) = (0.0, saturation * 1.1);
            let mut tried = Vec::new();
            for _ in 0..HALVINGS {
                let rate = f64::midpoint(low, high);
                let mut keeps_up = false;
                // A failure is repeated once, because other load on the machine may have caused it.
                for _ in 0..2 {
                    let open = load.open(&mut connections, rate, self.plan.step).await?;
                    let p99 = quantile(&open.micros, 0.99);
                    tried.push((rate, open.achieved, p99));
                    keeps_up = open.achieved >= ACHIEVED * rate && p99 <= WITHIN;
                    if keeps_up {
                        break;
                    }
                }
                *(if keeps_up { &mut low } else { &mut high }) = rate;
            }
            let program = subject.name.to_owned();
            self.results.knees.push(Knee { program, saturation, rate: low, tried });
        }
        Ok(())
    }

    /// Latencies at fixed rates, and at parts of each program's own knee.
    pub async fn latencies(&mut self) -> Result<()> {
        for subject in self.distinct() {
            let knee = self.results.knees.iter().find(|knee| knee.program == subject.name);
            let knee = knee.map(|knee| knee.rate).filter(|rate| *rate >= 1.0);
            let server = subject.ready(self.serving).await?;
            let mut runs = vec![("300/s", POOL, 300.0), ("1,000/s", POOL, 1_000.0)];
            if let Some(knee) = knee {
                runs.push(("50 % of its knee", POOL, knee * 0.5));
                runs.push(("80 % of its knee", POOL, knee * 0.8));
                runs.push(("95 % of its knee", POOL, knee * 0.95));
            }
            runs.push(("500 connections", 500, 1_000.0));
            for (what, connections, rate) in runs {
                let review = &self.reviews.bundle_8k;
                let load = Load { target: &server.target, review, connections };
                let mut connections = load.dial().await?;
                // Each connection is used before the schedule begins.
                let until = Until { duration: Duration::ZERO, requests: 1_000 };
                load.closed(&mut connections, until).await?;
                let open = load.open(&mut connections, rate, self.plan.open).await;
                let open = open.with_context(|| format!("{}: {what}", subject.name))?;
                let latency = latency(subject.name, what, load.connections, rate, &open);
                self.results.latencies.push(latency);
            }
        }
        Ok(())
    }
}

fn latency(program: &str, what: &str, connections: usize, rate: f64, open: &Latencies) -> Latency {
    let quantile = |part| quantile(&open.micros, part);
    Latency {
        program: program.into(),
        what: what.into(),
        connections,
        rate,
        achieved: open.achieved,
        p50: quantile(0.5),
        p99: quantile(0.99),
        p999: quantile(0.999),
        max: quantile(1.0),
        client_p99: self::quantile(&open.lateness, 0.99),
    }
}

/// The value that this part of all sorted values does not exceed.
fn quantile(sorted: &[u32], part: f64) -> u32 {
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(u32::MAX)
}
