//! The stages of one rotation, the handshakes of each, and the table.

use std::cmp::Ordering;
use std::time::Instant;

use devtools::certs::sha256;
use devtools::handshake::{Files, Tally, Tls, meet};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::printer::{Printer, Tone};
use crate::setup::{SETTLE, Setup, Snapshot, WINDOW};

/// One of the three parts.
struct Part {
    title: &'static str,
    namespace: &'static str,
    /// What is installed; empty is nothing.
    manifests: &'static str,
    is_full: bool,
}

const PARTS: [Part; 3] = [
    Part {
        title: "PART 1 OF 3: without ca-overlap",
        namespace: "demo-without",
        manifests: "",
        is_full: false,
    },
    Part {
        title: "PART 2 OF 3: with the webhook alone (manifests/base)",
        namespace: "demo-webhook",
        manifests: "base",
        is_full: false,
    },
    Part {
        title: "PART 3 OF 3: webhook and keeper (manifests/overlays/full), nothing annotated",
        namespace: "demo-full",
        manifests: "overlays/full",
        is_full: true,
    },
];

/// The moments whose files a peer may hold.
const BEFORE: usize = 0;
const ROTATED: usize = 1;
const PROMOTED: usize = 2;
const RETIRED: usize = 3;

const STAGES: [&str; 7] = [
    "Before the rotation",
    "Just rotated: some peers have the new files, others still the old ones",
    "All peers have the new files",
    "New leaves in service: some peers have them, others still the old ones",
    "All peers have the new leaves",
    "The old CA is retired: some peers do not trust it any more, others still do",
    "After the rotation",
];

/// A row of the table: clients with the files of one moment call servers with those of another.
struct Row {
    stage: usize,
    tls: Tls,
    client: usize,
    server: usize,
}

const fn row(stage: usize, tls: Tls, client: usize, server: usize) -> Row {
    Row { stage, tls, client, server }
}

const ROWS: [Row; 12] = [
    row(0, Tls::Mutual, BEFORE, BEFORE),
    row(1, Tls::Mutual, ROTATED, BEFORE),
    row(1, Tls::Mutual, BEFORE, ROTATED),
    row(1, Tls::OneWay, ROTATED, BEFORE),
    row(1, Tls::OneWay, BEFORE, ROTATED),
    row(2, Tls::Mutual, ROTATED, ROTATED),
    row(3, Tls::Mutual, PROMOTED, ROTATED),
    row(3, Tls::Mutual, ROTATED, PROMOTED),
    row(4, Tls::Mutual, PROMOTED, PROMOTED),
    row(5, Tls::Mutual, RETIRED, PROMOTED),
    row(5, Tls::Mutual, PROMOTED, RETIRED),
    row(6, Tls::Mutual, RETIRED, RETIRED),
];

const LEGEND: &str = "
Each of three clients calls each of three servers. In mutual TLS both peers show
a certificate, in one-way TLS the server alone. With the webhook alone, a peer
with old files still rejects a new leaf; staged mode holds the new leaf back.
–: no file changed, because the new leaf came with the new CA, or because no CA
is retired.
The third column holds for peers that get new files within --settle and reload
them; docs/modes.md says what the others need.
";

/// `None`: the stage does not exist, because no file changed in it.
type Column = Vec<Option<Tally>>;

/// Plays all parts, prints the table, and tells whether the promise was kept.
pub(super) async fn play_all(
    setup: &mut Setup,
    printer: Printer,
    has_keeper: bool,
) -> anyhow::Result<bool> {
    let mut columns = Vec::new();
    for part in &PARTS {
        columns.push(play(setup, printer, part, has_keeper).await?);
    }
    print_table(printer, &columns);
    let fails = |column: &Column| column.iter().flatten().any(|tally| !tally.all());
    let is_kept = columns[2].iter().all(|cell| cell.is_some_and(Tally::all));
    let is_shown = columns[..2].iter().all(fails);
    let (tone, verdict) = match (is_kept, is_shown) {
        (true, true) => {
            (Tone::Good, "✓ With webhook and keeper, nothing annotated, no handshake failed.")
        }
        (true, false) => (Tone::Bad, "✗ Nothing failed without them either: this shows nothing."),
        (false, _) => (Tone::Bad, "✗ The third column is not all ✓: the promise is NOT kept."),
    };
    printer.line(&printer.paint(tone, verdict));
    if !is_kept {
        printer.line(&setup.logs());
    }
    Ok(is_kept && is_shown)
}

/// One rotation from its beginning to its end.
async fn play(
    setup: &mut Setup,
    printer: Printer,
    part: &Part,
    has_keeper: bool,
) -> anyhow::Result<Column> {
    let Part { title, namespace, manifests, is_full } = *part;
    let has_keeper = is_full && has_keeper;
    printer.line("");
    printer.head(title);
    if is_full {
        printer.line(&format!(
            "--settle is {SETTLE} here to save time; in a cluster, where files take longer, 300s.\n\
             --window is {WINDOW}, to show the end; without it the old CA stays until the next\n\
             rotation."
        ));
        if !has_keeper {
            printer.line("NO keeper runs (--no-keeper).");
        }
    }
    if !manifests.is_empty() {
        printer.line("Applying the manifests, starting each program with its ServiceAccount ...");
        setup.install(manifests, is_full, has_keeper).await?;
    }
    setup.namespace(namespace).await?;
    let mut rotation =
        Rotation { printer, moments: Vec::new(), cas: Vec::new(), column: Vec::new() };

    setup.generate(namespace).await?;
    let held = rotation.next_moment(&setup.secrets(namespace).await?);
    rotation.stage(0, "The generator writes three TLS Secrets. Each holds", &held).await?;
    if has_keeper {
        setup.staging_in_force(namespace).await?;
    }

    setup.generate(namespace).await?;
    let rotated = Instant::now();
    let secrets = setup.secrets(namespace).await?;
    let held = rotation.next_moment(&secrets);
    rotation
        .stage(1, "The generator writes a new CA and new leaves. Each Secret holds", &held)
        .await?;
    rotation.stage(2, "In a cluster this takes a minute or two.", &[]).await?;
    let is_held_back = secrets.iter().any(|secret| secret.waiting.is_some());
    if is_held_back {
        printer.line("  The keeper waits for --settle, so that the files arrive everywhere ...");
        setup.all_promoted(namespace).await?;
    }
    let held = rotation.next_moment(&setup.secrets(namespace).await?);
    let seconds = rotated.elapsed().as_secs();
    let text = format!("After {seconds} s the keeper promotes the new leaves. Each Secret holds");
    rotation.stage(3, &text, &held).await?;
    let then = |is_so: bool, text: &'static str| if is_so { text } else { "" };
    rotation.stage(4, then(is_held_back, "The keeper waits for --window ..."), &[]).await?;
    if is_held_back {
        setup.all_retired(namespace).await?;
    }
    let held = rotation.next_moment(&setup.secrets(namespace).await?);
    let seconds = rotated.elapsed().as_secs();
    let text = format!("After {seconds} s the keeper retires the old CA. Each Secret holds");
    rotation.stage(5, &text, &held).await?;
    rotation.stage(6, then(is_held_back, "Nothing of it is left."), &[]).await?;
    Ok(rotation.column)
}

/// One rotation, as far as it has come.
struct Rotation {
    printer: Printer,
    /// What a peer may have read, a Secret each.
    moments: Vec<Vec<Files>>,
    /// In the order in which they came up: CA1, CA2.
    cas: Vec<CertificateDer<'static>>,
    column: Column,
}

impl Rotation {
    /// Adds what peers can read from now on, and describes it: once if all Secrets are alike.
    fn next_moment(&mut self, secrets: &[Snapshot]) -> Vec<String> {
        let mut lines: Vec<_> = secrets.iter().map(|secret| self.describe(secret)).collect();
        lines.dedup();
        self.moments.push(secrets.iter().map(|secret| secret.files.clone()).collect());
        lines
    }

    fn describe(&mut self, secret: &Snapshot) -> String {
        let cas: Vec<_> = CertificateDer::pem_slice_iter(&secret.files.ca).flatten().collect();
        self.cas.extend(cas.iter().find(|ca| !self.cas.contains(ca)).cloned());
        let number = |ca| self.cas.iter().position(|known| known == ca).unwrap_or_default() + 1;
        let cas = cas.iter().map(|ca| {
            let kept = if secret.carried.contains(&sha256(ca)) { " (kept)" } else { "" };
            format!("CA{}{kept}", number(ca))
        });
        let leaf = |pem: &[u8]| {
            let issuer = self.cas.iter().find(|ca| has_issued(ca, pem));
            issuer.map_or("unknown".into(), |ca| format!("leaf by CA{}", number(ca)))
        };
        let waiting = secret.waiting.as_deref();
        format!(
            "    ca.crt: {}  tls.crt: {}{}",
            cas.collect::<Vec<_>>().join(", "),
            leaf(&secret.files.certificate),
            waiting.map(|pem| format!("  pending.tls.crt: {}", leaf(pem))).unwrap_or_default(),
        )
    }

    /// Makes the handshakes of a stage, and prints them unless there is nothing to say.
    async fn stage(&mut self, stage: usize, what: &str, held: &[String]) -> anyhow::Result<()> {
        let mut lines = Vec::new();
        for row in ROWS.iter().filter(|row| row.stage == stage) {
            let (clients, servers) = (&self.moments[row.client], &self.moments[row.server]);
            let exists = row.client == row.server || clients != servers;
            let cell = if exists { Some(meet(row.tls, clients, servers).await?) } else { None };
            if cell.is_some() {
                lines.push(format!("  {} {}", self.printer.paint_cell(cell, 9), row.text()));
            }
            self.column.push(cell);
        }
        if !lines.is_empty() && !what.is_empty() {
            self.printer.head(STAGES[stage]);
            self.printer.line(&format!("  {what}"));
            held.iter().chain(&lines).for_each(|line| self.printer.line(line));
        }
        Ok(())
    }
}

impl Row {
    fn text(&self) -> String {
        let tls = match self.tls {
            Tls::Mutual => "mutual TLS",
            Tls::OneWay => "one-way TLS",
        };
        match self.client.cmp(&self.server) {
            Ordering::Equal => format!("{tls}: all peers call each other"),
            Ordering::Greater => format!("{tls}: client new, server old"),
            Ordering::Less => format!("{tls}: client old, server new"),
        }
    }
}

/// By its signature: the CAs have the same name.
fn has_issued(ca: &CertificateDer<'_>, leaf: &[u8]) -> bool {
    let leaf = CertificateDer::pem_slice_iter(leaf).next().and_then(Result::ok);
    let leaf = leaf.as_ref().and_then(|leaf| X509Certificate::from_der(leaf).ok());
    let ca = X509Certificate::from_der(ca).ok();
    leaf.zip(ca)
        .is_some_and(|((_, leaf), (_, ca))| leaf.verify_signature(Some(ca.public_key())).is_ok())
}

fn print_table(printer: Printer, columns: &[Column]) {
    let line = |text: &str, cells: [&str; 3]| {
        let [without, webhook, full] = cells;
        format!("{text:<40}{without:<12}{webhook:<12}{full}")
    };
    printer.line("");
    printer.head(&line("HANDSHAKES THAT SUCCEED", ["without", "webhook", "webhook, keeper,"]));
    printer.line(&printer.paint(Tone::Bold, &line("", ["ca-overlap", "alone", "no annotation"])));
    let mut stage = None;
    for (index, row) in ROWS.iter().enumerate() {
        if stage.replace(row.stage) != Some(row.stage) {
            printer.line(STAGES[row.stage]);
        }
        let cells = columns.iter().zip([12, 12, 0]);
        let cells: String =
            cells.map(|(column, width)| printer.paint_cell(column[index], width)).collect();
        printer.line(&format!("  {:<38}{cells}", row.text()));
    }
    printer.line(LEGEND);
}
