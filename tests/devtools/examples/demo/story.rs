//! What happens, what must come out of it, and what is said about it.

use devtools::control_plane::serving;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

use crate::view::{Tone, View};
use crate::world::{HMAC_SECRET, Holding, World};
use devtools::handshake::{Files, Tally, meet};

const WITHOUT: &str = "demo-without";
const WITH: &str = "demo-with";

/// One run of the generator and what must hold after it.
struct Step {
    title: &'static str,
    /// The generator's flag; empty makes a new generation.
    action: &'static str,
    /// What every TLS Secret must hold; `*` marks a carried CA.
    holds: &'static str,
    /// Peers that read the new files meet leaf certificates from before.
    old_leaf: Promise,
    /// Peers that still have the files from before meet the new leaf certificates.
    new_leaf: Promise,
    /// Whether the Secrets are written at all.
    writes: bool,
    /// Said below the handshakes.
    remark: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// There is no "before" yet.
    NoPeers,
    AllSucceed,
    AllFail,
}

const FIRST: Step = Step {
    title: "The generator runs for the first time",
    action: "",
    holds: "CA1",
    old_leaf: Promise::NoPeers,
    new_leaf: Promise::NoPeers,
    writes: true,
    remark: "",
};

const ALONE: [Step; 2] = [
    FIRST,
    Step {
        title: "Rotation: the generator overwrites the Secrets with CA2 and new leaf certificates",
        holds: "CA2",
        old_leaf: Promise::AllFail,
        new_leaf: Promise::AllFail,
        remark: "The outage: until every pod has the new files, peers refuse each other both ways.",
        ..FIRST
    },
];

/// The second direction stays closed until the files sync: that is the limit of bundling.
const ROTATION: Step = Step {
    old_leaf: Promise::AllSucceed,
    new_leaf: Promise::AllFail,
    remark: "A peer yet to sync refuses the new leaf until its files arrive (60-90 s): bundling \
             cannot\n    change that; staged mode does.",
    ..FIRST
};

const TOGETHER: [Step; 6] = [
    FIRST,
    Step { title: "Rotation 1: CA2, by the same generator", holds: "CA2, CA1*", ..ROTATION },
    Step { title: "Rotation 2: CA3", holds: "CA3, CA2*", remark: "", ..ROTATION },
    Step { title: "Rotation 3: CA4", holds: "CA4, CA3*", remark: "", ..ROTATION },
    Step {
        title: "Re-run: the generator writes the same generation again",
        action: "--again",
        holds: "CA4, CA3*",
        old_leaf: Promise::AllSucceed,
        new_leaf: Promise::AllSucceed,
        writes: false,
        remark: "The mutated write equals what is stored, so the API server drops it.",
    },
    Step {
        title: "Rollback: the generator writes the generation of CA3 again",
        action: "--rollback",
        holds: "CA3, CA4*",
        old_leaf: Promise::AllSucceed,
        new_leaf: Promise::AllSucceed,
        writes: true,
        remark: "Leaf certificates of CA4 are alive, so CA4 stays trusted. Nobody is refused.",
    },
];

/// Sums over the rotations of one part.
#[derive(Default)]
struct Totals {
    old_leaf: Tally,
    new_leaf: Tally,
    held: Vec<&'static str>,
}

/// Plays both parts, and counts what was not as promised.
pub(super) async fn tell(world: &mut World, view: View) -> anyhow::Result<usize> {
    let mut differences = 0;
    view.head("Part 1. Without ca-overlap");
    let alone = part(world, view, WITHOUT, &ALONE, &mut differences).await?;
    view.head("Part 2. With ca-overlap");
    view.line("");
    world.install(view).await?;
    let together = part(world, view, WITH, &TOGETHER, &mut differences).await?;
    differences += control(world, view).await?;
    summary(view, &alone, &together, differences);
    Ok(differences)
}

async fn part(
    world: &World,
    view: View,
    namespace: &str,
    steps: &[Step],
    differences: &mut usize,
) -> anyhow::Result<Totals> {
    world.settle(namespace).await?;
    let mut numbers: Vec<CertificateDer<'static>> = Vec::new();
    let mut before: Option<Vec<Holding>> = None;
    let mut totals = Totals::default();
    for step in steps {
        world.generate(namespace, step.action).await?;
        let now = world.holdings(namespace).await?;
        if let Some(first) = now[0].cas.first().filter(|ca| !numbers.contains(ca)) {
            numbers.push(first.clone());
        }
        view.head(step.title);
        *differences += show_secrets(view, step, before.as_deref(), &now, &numbers);
        if let Some(before) = &before {
            let (old_leaf, new_leaf) = both_ways(before, &now).await?;
            let texts = [
                (" a synced peer meets an old leaf", old_leaf, step.old_leaf),
                (" a peer yet to sync meets a new leaf", new_leaf, step.new_leaf),
            ];
            for (text, tally, promise) in texts {
                *differences += usize::from(!show_handshakes(view, text, tally, promise));
            }
            if step.action.is_empty() {
                add(&mut totals.old_leaf, old_leaf);
                add(&mut totals.new_leaf, new_leaf);
                totals.held.push(step.holds);
            }
        }
        if !step.remark.is_empty() {
            view.line(&view.paint(Tone::Dim, &format!("    {}", step.remark)));
        }
        before = Some(now);
    }
    Ok(totals)
}

/// Each service's old files against each service's new ones.
async fn both_ways(before: &[Holding], now: &[Holding]) -> anyhow::Result<(Tally, Tally)> {
    let (old, new) = (files(before), files(now));
    let old_leaf = meet(&new, &old).await?;
    let new_leaf = meet(&old, &new).await?;
    Ok((old_leaf, new_leaf))
}

/// The trial that must fail, or the others would prove nothing: peers who trust a stranger's CA.
async fn control(world: &World, view: View) -> anyhow::Result<usize> {
    let peers = files(&world.holdings(WITH).await?);
    let ca = serving(&[])?.ca.into_bytes();
    let strangers: Vec<_> = peers.iter().map(|f| Files { ca: ca.clone(), ..f.clone() }).collect();
    let tally = meet(&strangers, &peers).await?;
    view.head("Control: peers that trust a stranger's CA must refuse everybody");
    let kept = show_handshakes(view, " a stranger meets a leaf", tally, Promise::AllFail);
    Ok(usize::from(!kept))
}

/// The table of a step; gives how many Secrets are not as promised.
fn show_secrets(
    view: View,
    step: &Step,
    before: Option<&[Holding]>,
    now: &[Holding],
    numbers: &[CertificateDer<'static>],
) -> usize {
    let mut differences = 0;
    let row = |cells: [&str; 5]| {
        let [name, holds, leaf, version, verdict] = cells;
        format!("    {name:<16}  {holds:<23}  {leaf:<7}  {version:<15}  {verdict}")
    };
    let head = row(["Secret", "ca.crt", "leaf by", "resourceVersion", ""]);
    view.line(&view.paint(Tone::Dim, head.trim_end()));
    for (index, holding) in now.iter().enumerate() {
        let previous = before.map(|before| &before[index]);
        let moved = previous.is_none_or(|p| p.resource_version != holding.resource_version);
        let (holds, leaf, expected, good) = if holding.name == HMAC_SECRET {
            let same = previous.is_none_or(|p| p.opaque == holding.opaque);
            let text = match previous {
                None => "no ca.crt",
                Some(_) if same => "no ca.crt: same bytes",
                Some(_) => "no ca.crt: bytes CHANGED",
            };
            let untouched = same && (previous.is_none() || !moved);
            let good = holding.opaque.is_some() && untouched && !holding.is_marked();
            (text.to_owned(), String::new(), "the same object", good)
        } else {
            let holds = in_words(holding, numbers);
            let good = holds == step.holds && moved == step.writes;
            (holds, leaf_issuer(holding, numbers), step.holds, good)
        };
        let version = match previous {
            Some(previous) if moved => {
                format!("{} → {}", previous.resource_version, holding.resource_version)
            }
            Some(_) => format!("{} unmoved", holding.resource_version),
            None => holding.resource_version.clone(),
        };
        let verdict = if good { String::new() } else { format!("✗ expected {expected}") };
        differences += usize::from(!good);
        view.line(row([holding.name, &holds, &leaf, &version, &verdict]).trim_end());
    }
    differences
}

/// A line about one direction; gives whether it is as promised.
fn show_handshakes(view: View, text: &str, tally: Tally, promise: Promise) -> bool {
    let kept = match promise {
        Promise::NoPeers => return true,
        Promise::AllSucceed => tally.all(),
        Promise::AllFail => tally.none(),
    };
    let (mark, tone) = if tally.all() { ("✓", Tone::Good) } else { ("✗", Tone::Bad) };
    let count = format!("{mark} {} of {} handshakes", tally.succeeded, tally.tried);
    let surprise = if kept { "" } else { "  (NOT as promised)" };
    view.line(&format!("   {text:<40}{}{surprise}", view.paint(tone, &count)));
    kept
}

fn summary(view: View, alone: &Totals, together: &Totals, differences: usize) {
    let cell = |tally: Tally| {
        let mark = if tally.all() { "✓" } else { "✗" };
        format!("{mark} {} of {} handshakes", tally.succeeded, tally.tried)
    };
    let row =
        |what: &str, without: &str, with: &str| format!("    {what:<37}  {without:<20}  {with}");
    view.head("In short: after a rotation …");
    view.line(&view.paint(Tone::Dim, &row("", "without ca-overlap", "with ca-overlap")));
    view.line(&row("… Secrets hold", &held(alone), &held(together)));
    let (without, with) = (cell(alone.old_leaf), cell(together.old_leaf));
    view.line(&row("… a synced peer meets an old leaf", &without, &with));
    let (without, with) = (cell(alone.new_leaf), cell(together.new_leaf));
    let with = format!("{with} until it syncs");
    view.line(&row("… a peer yet to sync meets a new leaf", &without, &with));
    view.line(
        "    * is carried by ca-overlap. A re-run writes nothing, a rollback refuses nobody,",
    );
    view.line("    a Secret without ca.crt is left alone.");
    view.line("");
    if differences == 0 {
        view.line(&view.paint(Tone::Good, "✓ Everything shown is what the design promises."));
    } else {
        let text = format!("✗ {differences} of the things shown are NOT what the design promises.");
        view.line(&view.paint(Tone::Bad, &text));
    }
}

/// As in `[CA2, CA1*]  [CA3, CA2*]`.
fn held(totals: &Totals) -> String {
    let all: Vec<_> = totals.held.iter().map(|cas| format!("[{cas}]")).collect();
    all.join(" ")
}

/// As in `CA2, CA1*`.
fn in_words(holding: &Holding, numbers: &[CertificateDer<'static>]) -> String {
    let words: Vec<_> = holding
        .cas
        .iter()
        .map(|ca| {
            let star = if holding.is_carried(ca) { "*" } else { "" };
            format!("{}{star}", number(ca, numbers))
        })
        .collect();
    words.join(", ")
}

fn number(ca: &CertificateDer<'_>, numbers: &[CertificateDer<'static>]) -> String {
    numbers
        .iter()
        .position(|known| known == ca)
        .map_or_else(|| "CA?".into(), |index| format!("CA{}", index + 1))
}

/// The CA whose key signed the leaf, by key id (all have the same name).
fn leaf_issuer(holding: &Holding, numbers: &[CertificateDer<'static>]) -> String {
    let issuer = holding.leaf().and_then(|leaf| key_ids(&leaf).1);
    numbers
        .iter()
        .find(|ca| issuer.is_some() && key_ids(ca).0 == issuer)
        .map_or_else(|| "CA?".into(), |ca| number(ca, numbers))
}

/// Subject and authority key id (RFC 5280 §4.2.1.1–2).
fn key_ids(der: &[u8]) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let (mut subject, mut authority) = (None, None);
    if let Ok((_, certificate)) = X509Certificate::from_der(der) {
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => subject = Some(id.0.to_vec()),
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    authority = id.key_identifier.as_ref().map(|id| id.0.to_vec());
                }
                _ => {}
            }
        }
    }
    (subject, authority)
}

fn files(holdings: &[Holding]) -> Vec<Files> {
    holdings.iter().filter_map(|holding| holding.files.clone()).collect()
}

fn add(total: &mut Tally, tally: Tally) {
    total.succeeded += tally.succeeded;
    total.tried += tally.tried;
}
