//! The records that peers write, and how to count them.

use std::collections::BTreeMap;

use serde::Deserialize;
use x509_parser::extensions::ParsedExtension;
use x509_parser::pem::Pem;

/// One record of a peer: see `tests/cluster/peer/records.go`.
#[derive(Clone, Debug, Deserialize)]
pub struct Record {
    pub time: jiff::Timestamp,
    pub pod: String,
    pub kind: String,
    #[serde(default)]
    pub from: String,
    #[serde(default)]
    pub to: String,
    #[serde(default)]
    pub verdict: String,
    /// Whether the shown certificate was accepted, even if the other side then refused.
    #[serde(default)]
    pub accepted: bool,
    #[serde(default)]
    pub error: String,
    /// The key id of the CA that issued the shown certificate.
    #[serde(default)]
    pub issuer: String,
    /// The key ids of the CAs that the writer of the record trusts.
    #[serde(default)]
    pub trust: Vec<String>,
}

impl Record {
    pub fn parse(line: &str) -> Self {
        serde_json::from_str(line).unwrap()
    }

    /// Describes a failure in one line.
    pub fn failure(&self) -> String {
        let Self { time, from, to, kind, verdict, error, issuer, trust, .. } = self;
        format!(
            "{time} {kind} {from} → {to}: {verdict}: {error} (issuer {issuer}, trust {trust:?})"
        )
    }

    pub fn is_dial(&self) -> bool {
        self.kind == "dial"
    }

    pub fn trusts(&self, ca: &str) -> bool {
        self.trust.iter().any(|id| id == ca)
    }
}

/// The key ids of the CAs before and after a rotation.
#[derive(Clone, Debug)]
pub struct Rotation {
    pub old: String,
    pub new: String,
}

/// The failures and successes of a phase.
#[derive(Clone, Debug, Default)]
pub struct Count {
    /// Dials with a complete mutual handshake, and dials without.
    pub complete: usize,
    pub failed: usize,
    /// The direction that a bundle covers: a leaf of the old CA is shown to a peer with new files.
    pub old_leaf_accepted: usize,
    pub old_leaf_refused: usize,
    /// The other direction: a leaf of the new CA is shown to a peer with old files.
    pub new_leaf_refused: usize,
    /// The number of other refusals.
    pub otherwise_refused: usize,
    /// The number of missing or broken connections.
    pub unreachable: usize,
}

impl Count {
    pub fn of(records: &[Record], rotation: &Rotation) -> Self {
        let mut count = Self::default();
        for record in records {
            if record.is_dial() && record.verdict == "ok" {
                count.complete += 1;
            } else if record.is_dial() {
                count.failed += 1;
            }
            let is_old = record.issuer == rotation.old;
            let has_new_files = record.trusts(&rotation.new);
            let is_covered = is_old && has_new_files;
            if record.accepted && is_covered {
                count.old_leaf_accepted += 1;
            }
            match record.verdict.as_str() {
                "refuses" if is_covered => count.old_leaf_refused += 1,
                "refuses" if record.issuer == rotation.new && !has_new_files => {
                    count.new_leaf_refused += 1;
                }
                "refuses" => count.otherwise_refused += 1,
                "unreachable" | "broken" => count.unreachable += 1,
                _ => {}
            }
        }
        count
    }

    /// The heading of [`Self::row`].
    pub const HEADING: &str = "handshakes  failed | old leaf, new files: accepted  refused | \
                               new leaf, old files: refused | other  unreachable";

    pub fn row(&self) -> String {
        format!(
            "{:>10}  {:>6} | {:>30}  {:>7} | {:>28} | {:>5}  {:>11}",
            self.complete + self.failed,
            self.failed,
            self.old_leaf_accepted,
            self.old_leaf_refused,
            self.new_leaf_refused,
            self.otherwise_refused,
            self.unreachable
        )
    }
}

/// The number of successful handshakes in a row of each pair, at the end of these records.
pub fn streaks(records: &[Record]) -> BTreeMap<(String, String), usize> {
    let mut streaks = BTreeMap::new();
    for record in records.iter().filter(|record| record.is_dial()) {
        let streak = streaks.entry((record.from.clone(), record.to.clone())).or_default();
        *streak = if record.verdict == "ok" { *streak + 1 } else { 0 };
    }
    streaks
}

/// The number of dials of each pair.
pub fn dials(records: &[Record]) -> BTreeMap<(String, String), usize> {
    let mut dials = BTreeMap::new();
    for record in records.iter().filter(|record| record.is_dial()) {
        *dials.entry((record.from.clone(), record.to.clone())).or_default() += 1;
    }
    dials
}

/// The pods that have a CA in their files, with the time of the first such record.
pub fn arrivals(records: &[Record], ca: &str) -> BTreeMap<String, jiff::Timestamp> {
    let mut arrivals = BTreeMap::new();
    for record in records.iter().filter(|record| record.kind == "files" && record.trusts(ca)) {
        arrivals.entry(record.pod.clone()).or_insert(record.time);
    }
    arrivals
}

/// The subject key ids of the CAs in `pem`, in order.
pub fn key_ids(pem: &str) -> Vec<String> {
    let ids = Pem::iter_from_buffer(pem.as_bytes()).map(|block| {
        let block = block.unwrap();
        let certificate = block.parse_x509().unwrap();
        let id = certificate.extensions().iter().find_map(|one| match one.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(hex(id.0)),
            _ => None,
        });
        id.expect("a CA with a key id")
    });
    ids.collect()
}

/// The authority key id of the first certificate in `pem`.
pub fn issuer_id(pem: &str) -> String {
    let block = Pem::iter_from_buffer(pem.as_bytes()).next().unwrap().unwrap();
    let certificate = block.parse_x509().unwrap();
    let id = certificate.extensions().iter().find_map(|one| match one.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => {
            Some(hex(id.key_identifier.as_ref().expect("an authority key id").0))
        }
        _ => None,
    });
    id.expect("a leaf with an authority key id")
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
