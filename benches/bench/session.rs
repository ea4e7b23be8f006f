//! The phases of a session.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::client::Connection;
use crate::load::{Load, Until};
use crate::pki::Serving;
use crate::results::{Cell, MemoryOf, OURS, Program, Results, Scenario, Starts};
use crate::reviews::{Review, Reviews};
use crate::server::{Kind, Memory, Server, Subject};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub rounds: usize,
    /// One program in one round of one scenario.
    pub cell: Duration,
    /// One open loop.
    pub open: Duration,
    /// One rate of the search for the knee.
    pub step: Duration,
    pub starts: usize,
    /// The numbers of calls after which our program's memory is read.
    pub flat: &'static [u64],
    /// All scenarios, not only the main ones.
    pub all: bool,
}

/// The state of all phases.
pub struct Session<'a> {
    pub plan: Plan,
    pub subjects: &'a [Subject],
    pub serving: &'a Serving,
    pub reviews: &'a Reviews,
    pub results: Results,
}

/// One row of the comparison.
struct Case<'a> {
    id: &'static str,
    title: &'static str,
    review: &'a Review,
    connections: usize,
    /// A new connection for each request.
    churn: bool,
    /// Measured in a short session too.
    main: bool,
}

/// How many requests count as the first of a process.
const FIRST_REQUESTS: u64 = 100;
/// The API server keeps 25 connections.
pub const POOL: usize = 25;
/// The number of connections for reviews of megabytes.
const FEW: usize = 4;

fn cases(reviews: &Reviews) -> Vec<Case<'_>> {
    let case = |id, title, review, connections| Case {
        id,
        title,
        review,
        connections,
        churn: false,
        main: ["bundle-3k", "bundle-8k", "nothing-8k", "bundle-2m8"].contains(&id),
    };
    let r = reviews;
    vec![
        case("bundle-3k", "bundling, 3 KB", &r.bundle_3k, POOL),
        case("bundle-8k", "bundling, 8 KB", &r.bundle_8k, POOL),
        case("signature-8k", "bundling, 8 KB, signature check", &r.bundle_8k_signature, POOL),
        case("nothing-3k", "nothing to do, 3 KB", &r.nothing_3k, POOL),
        case("nothing-8k", "nothing to do, 8 KB", &r.nothing_8k, POOL),
        case("store-538k", "trust store of 342 CAs changes", &r.store_538k, FEW),
        case("nothing-538k", "trust store of 342 CAs, nothing to do", &r.nothing_538k, FEW),
        case("bundle-2m8", "bundling, 2.8 MB", &r.bundle_2m8, FEW),
        case("nothing-2m8", "nothing to do, 2.8 MB", &r.nothing_2m8, FEW),
        case("bundle-8k-500", "bundling, 8 KB, 500 connections", &r.bundle_8k, 500),
        Case {
            churn: true,
            main: true,
            ..case("churn-8k", "bundling, 8 KB, a new connection for each", &r.bundle_8k, 8)
        },
    ]
}

impl<'a> Session<'a> {
    /// CPU per request of every program in every scenario, after a check that all agree.
    pub async fn compare(&mut self) -> Result<()> {
        let mut servers = Vec::new();
        for subject in self.subjects {
            let mut server = subject.ready(self.serving).await.context(subject.name)?;
            let tls = self.agree(&mut server).await.context(subject.name)?;
            let (name, bytes) = (subject.name.to_owned(), subject.binary_size()?);
            self.results.programs.push(Program { name, bytes, tls });
            servers.push((subject.name, server));
        }
        let cases: Vec<_> =
            cases(self.reviews).into_iter().filter(|case| case.main || self.plan.all).collect();
        self.results.scenarios = cases.iter().map(Case::scenario).collect();
        for round in 0..self.plan.rounds {
            let began = Instant::now();
            for case in &cases {
                // The order alternates, so that drift affects all programs alike.
                let mut order: Vec<_> = servers.iter().collect();
                if round % 2 == 1 {
                    order.reverse();
                }
                for (name, server) in order {
                    let cell = case.measure(server, self.plan.cell).await;
                    let measured = cell.with_context(|| format!("{name}: {}", case.title))?;
                    self.results.cells.push(case.cell(name, round, measured)?);
                }
            }
            let (of, took) = (self.plan.rounds, began.elapsed().as_secs());
            eprintln!("round {} of {of} took {took} s", round + 1);
        }
        Ok(())
    }

    /// Sends every review once and checks the answer in full. Gives what TLS negotiated.
    async fn agree(&self, server: &mut Server) -> Result<String> {
        let mut connection = server.dial().await?;
        for review in self.reviews.all() {
            connection
                .call(&server.target, review)
                .await
                .with_context(|| format!("review {} of {} bytes", review.index, review.size))?;
        }
        Ok(connection.negotiated())
    }

    /// The cost of our program's log line of level info.
    pub async fn log_line(&mut self) -> Result<()> {
        let Some(ours) = self.subjects.iter().find(|subject| subject.name == OURS) else {
            return Ok(());
        };
        let quiet = Subject { kind: Kind::QuietProduct, ..ours.clone() };
        let mut servers = Vec::new();
        for (name, subject) in [("warn", &quiet), ("info", ours)] {
            servers.push((name, subject.ready(self.serving).await?));
        }
        let case = Case { id: "log", ..cases(self.reviews).swap_remove(1) };
        for round in 0..self.plan.rounds.min(6) {
            for at in [round % 2, 1 - round % 2] {
                let (name, server) = &servers[at];
                let measured = case.measure(server, self.plan.cell).await?;
                self.results.cells.push(case.cell(name, round, measured)?);
            }
        }
        Ok(())
    }

    /// Memory of fresh processes.
    pub async fn memory(&mut self) -> Result<()> {
        for subject in self.distinct() {
            let mut server = subject.ready(self.serving).await?;
            let first_requests = first_requests(&mut server, &self.reviews.bundle_8k).await?;
            let load =
                Load { target: &server.target, review: &self.reviews.bundle_8k, connections: 500 };
            let mut connections = load.dial().await?;
            let until = Until { duration: Duration::ZERO, requests: 2_000 };
            load.closed(&mut connections, until).await?;
            let with_500_connections = server.memory()?;
            let program = subject.name.to_owned();
            self.results.memory.push(MemoryOf { program, first_requests, with_500_connections });
        }
        Ok(())
    }

    /// Our program's memory after more and more calls.
    pub async fn flat(&mut self) -> Result<()> {
        let Some(ours) = self.subjects.iter().find(|subject| subject.name == OURS) else {
            return Ok(());
        };
        let server = ours.ready(self.serving).await?;
        let review = &self.reviews.bundle_8k;
        let load = Load { target: &server.target, review, connections: POOL };
        let mut connections = load.dial().await?;
        let mut done = 0;
        for &calls in self.plan.flat {
            let until = Until { duration: Duration::ZERO, requests: calls - done };
            done += load.closed(&mut connections, until).await?;
            self.results.flat.push((done, server.memory()?));
        }
        Ok(())
    }

    /// From `exec` to the first checked answer.
    pub async fn starts(&mut self) -> Result<()> {
        for subject in self.distinct() {
            let mut millis = Vec::new();
            for _ in 0..self.plan.starts {
                let began = Instant::now();
                let mut server = subject.start(self.serving)?;
                let mut connection = server.dial().await?;
                connection.call(&server.target, &self.reviews.bundle_8k).await?;
                millis.push(began.elapsed().as_secs_f64() * 1e3);
            }
            millis.sort_unstable_by(f64::total_cmp);
            self.results.starts.push(Starts { program: subject.name.into(), millis });
        }
        Ok(())
    }

    /// Each program once.
    pub fn distinct(&self) -> impl Iterator<Item = &'a Subject> + use<'a> {
        self.subjects.iter().filter(|subject| subject.name != crate::results::AGAIN)
    }
}

/// Requests, CPU and time.
type Measured = (u64, Duration, Duration);

impl Case<'_> {
    fn scenario(&self) -> Scenario {
        Scenario {
            id: self.id.into(),
            title: self.title.into(),
            size: self.review.size,
            connections: self.connections,
        }
    }

    fn cell(&self, program: &str, round: usize, measured: Measured) -> Result<Cell> {
        let (requests, cpu, elapsed) = measured;
        Ok(Cell {
            scenario: self.id.into(),
            program: program.into(),
            round,
            requests,
            cpu_ms: u64::try_from(cpu.as_millis())?,
            elapsed_ms: elapsed.as_secs_f64() * 1e3,
        })
    }

    /// Measures one cell, which contains all the work of its requests and no other work.
    async fn measure(&self, server: &Server, cell: Duration) -> Result<Measured> {
        let (review, connections) = (self.review, self.connections);
        let load = Load { target: &server.target, review, connections };
        let warm_up = Until { duration: cell / 10, requests: 0 };
        let until = Until { duration: cell, requests: 0 };
        if self.churn {
            load.churn(warm_up).await?;
            let (before, began) = (server.cpu()?, Instant::now());
            let requests = load.churn(until).await?;
            return Ok((requests, server.cpu()?.saturating_sub(before), began.elapsed()));
        }
        let mut connections: Vec<Connection> = load.dial().await?;
        load.closed(&mut connections, warm_up).await?;
        let (before, began) = (server.cpu()?, Instant::now());
        let requests = load.closed(&mut connections, until).await?;
        Ok((requests, server.cpu()?.saturating_sub(before), began.elapsed()))
    }
}

/// Sends the first requests over one connection, and gives the memory after them.
pub async fn first_requests(server: &mut Server, review: &Review) -> Result<Memory> {
    let mut connection = server.dial().await?;
    for _ in 0..FIRST_REQUESTS {
        connection.call(&server.target, review).await?;
    }
    server.memory()
}
