//! For each rule a Secret that triggers it, and a similar one that does not.

use ca_overlap::tools::inspect::Rule;
use serde_json::Value;

use super::keystores;
use super::secrets::{CA, LEAF, annotated, ca, carrying, secret, tls};
use crate::readers::odd;
use devtools::certs::sha256;
use devtools::certs::{Identity, Spec};

pub struct Example {
    pub rule: Rule,
    /// This rule and those of `also` fire, and no other.
    pub fires: Value,
    pub also: &'static [Rule],
    /// No rule fires.
    pub sound: Value,
}

pub fn all() -> Vec<Example> {
    [leaf(), chain(), bundle(), blocks(), flaws(), whole(), state(), staged()]
        .into_iter()
        .flatten()
        .collect()
}

fn example(rule: Rule, fires: Value, also: &'static [Rule], sound: Value) -> Example {
    Example { rule, fires, also, sound }
}

/// `ca.crt` with one CA, and a leaf of it.
fn with_leaf(spec: &Spec<'_>) -> Value {
    let ca = ca("Root");
    tls(&[&ca], &[&spec.signed_by(&ca)])
}

fn leaf() -> Vec<Example> {
    let (one, two) = (ca("Root 1"), ca("Root 2"));
    let brief = Spec { not_after: (2026, 6, 1), ..CA }.self_signed();
    vec![
        example(
            Rule::LeafNotChained,
            tls(&[&two], &[&LEAF.signed_by(&one)]),
            &[],
            tls(&[&one], &[&LEAF.signed_by(&one)]),
        ),
        example(
            Rule::LeafNeedsCarriedCa,
            carrying(tls(&[&two, &one], &[&LEAF.signed_by(&one)]), &one, None),
            &[Rule::ActiveCaNotFirst],
            carrying(tls(&[&two, &one], &[&LEAF.signed_by(&two)]), &one, None),
        ),
        example(
            Rule::LeafOutlivesCa,
            tls(&[&brief], &[&LEAF.signed_by(&brief)]),
            &[],
            tls(&[&brief], &[&Spec { not_after: (2026, 6, 1), ..LEAF }.signed_by(&brief)]),
        ),
        example(
            Rule::LeafExpired,
            with_leaf(&Spec { not_after: (2026, 3, 1), ..LEAF }),
            &[],
            with_leaf(&Spec { not_after: (2026, 4, 1), ..LEAF }),
        ),
        example(
            Rule::LeafExpiring,
            with_leaf(&Spec { not_after: (2026, 3, 3), ..LEAF }),
            &[],
            with_leaf(&Spec { not_after: (2026, 3, 10), ..LEAF }),
        ),
        example(
            Rule::LeafNotYetValid,
            with_leaf(&Spec { not_before: (2026, 3, 2), ..LEAF }),
            &[],
            with_leaf(&Spec { not_before: (2026, 3, 1), ..LEAF }),
        ),
        example(
            Rule::LeafWithoutNames,
            with_leaf(&Spec { names: &[], ..LEAF }),
            &[],
            with_leaf(&LEAF),
        ),
    ]
}

fn chain() -> Vec<Example> {
    let (one, other) = (ca("Root 1"), ca("Other"));
    let renewed = Spec { subject: "Root 1", ..CA }.self_signed_with(&one.key);
    vec![
        example(
            Rule::RootInChainDiffers,
            tls(&[&one], &[&LEAF.signed_by(&one), &renewed]),
            &[],
            tls(&[&one, &renewed], &[&LEAF.signed_by(&one), &renewed]),
        ),
        example(
            Rule::ActiveCaNotFirst,
            tls(&[&other, &one], &[&LEAF.signed_by(&one)]),
            &[],
            tls(&[&one, &other], &[&LEAF.signed_by(&one)]),
        ),
    ]
}

fn bundle() -> Vec<Example> {
    let one = ca("Root 1");
    let leaf = LEAF.signed_by(&one);
    let with = |spec: &Spec<'_>| tls(&[&one, &spec.self_signed()], &[&leaf]);
    let other = Spec { subject: "Root 2", ..CA };
    let serial = |serial| Some(serial);
    let intermediate = Spec { subject: "Int", serial: serial(7), ..CA }.signed_by(&one);
    let numbered = |number| Spec { serial: serial(number), ..LEAF }.signed_by(&one);
    let renewed = Spec { subject: "Root 1", ..CA }.self_signed_with(&one.key);
    vec![
        example(
            Rule::CaExpired,
            with(&Spec { not_after: (2026, 3, 1), ..other }),
            &[],
            with(&Spec { not_after: (2026, 4, 1), ..other }),
        ),
        example(
            Rule::CaExpiring,
            with(&Spec { not_after: (2026, 3, 4), ..other }),
            &[],
            with(&Spec { not_after: (2026, 3, 10), ..other }),
        ),
        example(
            Rule::CaNotYetValid,
            with(&Spec { not_before: (2026, 3, 2), ..other }),
            &[],
            with(&Spec { not_before: (2026, 3, 1), ..other }),
        ),
        example(Rule::NotACa, with(&Spec { is_ca: false, ..other }), &[], with(&other)),
        example(
            Rule::SameSubject,
            with(&Spec { subject: "Root 1", ..CA }),
            &[],
            tls(&[&one, &renewed], &[&leaf]),
        ),
        example(
            Rule::SameSubjectWithoutKeyIds,
            secret(&[("ca.crt", (odd::pem("no-key-ids") + &odd::pem("no-extensions")).as_bytes())]),
            &[Rule::SameSubject, Rule::ReusedSerial, Rule::NotACa],
            secret(&[("ca.crt", odd::pem("no-key-ids").as_bytes())]),
        ),
        example(
            Rule::ReusedSerial,
            tls(&[&one, &intermediate], &[&numbered(7)]),
            &[],
            tls(&[&one, &intermediate], &[&numbered(8)]),
        ),
    ]
}

fn flaws() -> Vec<Example> {
    let flaw = |rule, name| {
        let with = |name| secret(&[("ca.crt", odd::pem(name).as_bytes())]);
        example(rule, with(name), &[], with("p256"))
    };
    vec![
        flaw(Rule::NotDer, "padded-serial"),
        flaw(Rule::InvalidText, "latin-1-in-utf8"),
        flaw(Rule::NegativeSerial, "negative-serial"),
        flaw(Rule::DuplicateExtension, "duplicate-extension"),
        flaw(Rule::InvalidDate, "30-february"),
        flaw(Rule::UnreadableKey, "secp256k1"),
    ]
}

fn blocks() -> Vec<Example> {
    let one = ca("Root 1");
    let with = |more: &str| secret(&[("ca.crt", format!("{}{more}", one.pem).as_bytes())]);
    let block = |label: &str, body: &str| {
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    };
    let headers = one.pem.replacen('\n', "\nProc-Type: 4,CLEAR\n\n", 1);
    let renamed = one.pem.replace("CERTIFICATE", "TRUSTED CERTIFICATE");
    let cut = &one.pem[..one.pem.len() / 2];
    let marked = format!("\u{feff}{}", ca("Root 2").pem);
    let hidden = format!("# a note\n{marked}");
    let mut examples = vec![example(
        Rule::PrivateKeyInBundle,
        with(&block("EC PRIVATE KEY", super::CANARY)),
        &[],
        with("a comment\n"),
    )];
    for bad in
        [&block("CERTIFICATE", "AAAA"), &headers, &renamed, &cut.to_owned(), &marked, &hidden]
    {
        let sound = with(&one.pem.replace('\n', "\r\n"));
        examples.push(example(Rule::UnreadableBlock, with(bad), &[], sound));
    }
    let no_block = secret(&[("ca.crt", b"CANARY: no PEM at all")]);
    examples.push(example(Rule::UnreadableBlock, no_block, &[], with("")));
    examples
}

fn whole() -> Vec<Example> {
    let (one, two) = (ca("Root 1"), ca("Root 2"));
    let pem = |all: &[&Identity]| all.iter().map(|made| made.pem.as_str()).collect::<String>();
    let signer = |all: &[&Identity]| secret(&[("ca.crt", pem(all).as_bytes()), ("ca.key", b"x")]);
    let sized = |size: usize| {
        secret(&[("ca.crt", one.pem.as_bytes()), ("blob", "A".repeat(size).as_bytes())])
    };
    let mut examples = vec![
        example(Rule::BundleInSigner, signer(&[&one, &two]), &[], signer(&[&one])),
        example(Rule::NearSizeLimit, sized(945_000), &[], sized(900_000)),
    ];
    let stale = |(fires, sound)| example(Rule::StaleTruststore, fires, &[], sound);
    examples.extend(keystores::pairs().into_iter().map(stale));
    examples
}

fn state() -> Vec<Example> {
    let (one, two) = (ca("Root 1"), ca("Root 2"));
    let plain = || tls(&[&two], &[&LEAF.signed_by(&two)]);
    let overlap = |leaf: &Identity| tls(&[&two, &one], &[leaf]);
    let over = Some("2026-02-28T00:00:00Z");
    let lasting = Some("2026-03-02T00:00:00Z");
    let asked = |secret| annotated(secret, "ask", "retire");
    vec![
        example(
            Rule::DistrustedCa,
            annotated(plain(), "distrust", &two.sha256()),
            &[],
            annotated(plain(), "distrust", &one.sha256()),
        ),
        example(
            Rule::RetireBlocked,
            carrying(overlap(&LEAF.signed_by(&one)), &one, over),
            &[Rule::LeafNeedsCarriedCa, Rule::ActiveCaNotFirst],
            carrying(overlap(&LEAF.signed_by(&two)), &one, lasting),
        ),
        example(
            Rule::RecordUnreadable,
            annotated(plain(), "carried", "junk"),
            &[],
            annotated(plain(), "carried", "[]"),
        ),
        example(
            Rule::SettingUnreadable,
            annotated(plain(), "keep", "many"),
            &[],
            annotated(plain(), "keep", "2"),
        ),
        example(
            Rule::SettingUnreadable,
            annotated(plain(), "restart", "envoy"),
            &[],
            annotated(plain(), "restart", "deployment/envoy"),
        ),
        example(
            Rule::AskNotSeen,
            asked(carrying(overlap(&LEAF.signed_by(&two)), &one, over)),
            &[],
            asked(carrying(overlap(&LEAF.signed_by(&two)), &one, lasting)),
        ),
    ]
}

fn staged() -> Vec<Example> {
    let (one, two) = (ca("Root 1"), ca("Root 2"));
    let (held, pending) = (LEAF.signed_by(&one), LEAF.signed_by(&two));
    let pem = |all: &[&Identity]| all.iter().map(|made| made.pem.as_str()).collect::<String>();
    let object = secret(&[
        ("ca.crt", pem(&[&two, &one]).as_bytes()),
        ("tls.crt", held.pem.as_bytes()),
        ("pending.tls.crt", pending.pem.as_bytes()),
    ]);
    let object = carrying(object, &one, None);
    let stage = |since: &str| {
        let (held, pending) = (sha256(held.pem.as_bytes()), sha256(pending.pem.as_bytes()));
        let stage =
            serde_json::json!({"since": since, "held": held, "pending": pending, "moved": 0});
        annotated(object.clone(), "staged", &stage.to_string())
    };
    let plain = tls(&[&two], &[&pending]);
    vec![
        example(Rule::StageOverdue, stage("2026-03-01T08:00:00Z"), &[], plain.clone()),
        example(Rule::StageUnreadable, annotated(plain.clone(), "staged", "junk"), &[], plain),
    ]
}

/// A stage that is not overdue.
pub fn in_time() -> Value {
    let mut overdue = staged().remove(0).fires;
    let annotation = &mut overdue["metadata"]["annotations"]["ca-overlap.dev/staged"];
    *annotation = annotation.as_str().unwrap().replace("T08:00", "T09:59").into();
    overdue
}
