//! A constant load of writes. Each must be admitted and get its overlap.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::cluster::{Cluster, eventually};
use devtools::certs;
use devtools::secrets::{Secrets, secret};

/// Writers that rotate one Secret each. Their client repeats a write that an API server cannot take
/// at the moment (429, 503, 504). A review without an answer is a 500 if the registration fails
/// closed, so it counts as rejected.
pub struct Load {
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<()>>,
}

struct Shared {
    cas: Vec<String>,
    stop: AtomicBool,
    writes: AtomicUsize,
    /// The errors of rejected writes.
    rejected: std::sync::Mutex<Vec<String>>,
    /// The number of writes that were stored without the previous CA.
    without: AtomicUsize,
}

/// The result of all writes.
#[derive(Debug)]
pub struct Total {
    pub writes: usize,
    pub rejected: Vec<String>,
    /// The number of writes that were stored without the previous CA.
    pub without: usize,
}

const WRITERS: usize = 4;
/// The pause after each write: about 200 writes a second in all.
const PAUSE: Duration = Duration::from_millis(15);

impl Load {
    pub async fn start(cluster: &Cluster, namespace: &str) -> Self {
        let secrets = cluster.namespace(namespace, &json!({})).await;
        let shared = Arc::new(Shared {
            cas: (0..4).map(|number| certs::ca_named(&format!("CA {number}")).pem).collect(),
            stop: AtomicBool::new(false),
            writes: AtomicUsize::new(0),
            rejected: std::sync::Mutex::default(),
            without: AtomicUsize::new(0),
        });
        let mut writers = Vec::new();
        for number in 0..WRITERS {
            let name = format!("load-{number}");
            secrets.create(&object(&name, &shared.cas[0])).await.ok();
            writers.push(tokio::spawn(write(secrets.clone(), name, Arc::clone(&shared))));
        }
        let load = Self { shared, writers };
        load.more(20).await;
        load
    }

    /// Waits for `count` more writes.
    pub async fn more(&self, count: usize) {
        let until = self.shared.writes.load(Ordering::Relaxed) + count;
        eventually("more writes", async || {
            (self.shared.writes.load(Ordering::Relaxed) >= until).then_some(())
        })
        .await;
    }

    /// How many writes were stored without the previous CA so far.
    pub fn without(&self) -> usize {
        self.shared.without.load(Ordering::Relaxed)
    }

    /// Stops the writers and returns the result.
    pub async fn end(self) -> Total {
        self.more(20).await;
        self.shared.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.await.unwrap();
        }
        Total {
            writes: self.shared.writes.load(Ordering::Relaxed),
            rejected: self.shared.rejected.lock().unwrap().clone(),
            without: self.shared.without.load(Ordering::Relaxed),
        }
    }
}

impl Total {
    /// Panics if a write was rejected.
    #[track_caller]
    pub fn none_rejected(&self) -> &Self {
        let mut text = String::new();
        for line in &self.rejected {
            writeln!(text, "  {line}").unwrap();
        }
        assert!(
            self.rejected.is_empty(),
            "{} of {} rejected:\n{text}",
            self.rejected.len(),
            self.writes
        );
        self
    }

    /// Panics if a write was rejected or stored without the previous CA.
    #[track_caller]
    pub fn all_overlap(&self) {
        self.none_rejected();
        assert_eq!(self.without, 0, "writes without the previous CA, of {}", self.writes);
    }
}

/// Writes the CAs in turn, so that the previous one is known.
async fn write(secrets: Secrets, name: String, shared: Arc<Shared>) {
    let count = shared.cas.len();
    let mut turn = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let next = (turn + 1) % count;
        let answer = secrets.put(&name, &object(&name, &shared.cas[next])).await;
        shared.writes.fetch_add(1, Ordering::Relaxed);
        if !answer.status.is_success() {
            let text = format!("{}: {}", answer.status, answer.body["message"]);
            shared.rejected.lock().unwrap().push(text);
            continue;
        }
        if answer.pem("ca.crt") != format!("{}{}", shared.cas[next], shared.cas[turn]) {
            shared.without.fetch_add(1, Ordering::Relaxed);
        }
        turn = next;
        sleep(PAUSE).await;
    }
}

fn object(name: &str, ca: &str) -> Value {
    secret(name, "Opaque", &[("ca.crt", ca.as_bytes())])
}
