//! The laws of the decision, over random histories of writes and announcements.

use devtools::certs::{self, CA, Identity, Spec};
use std::sync::LazyLock;

use ca_overlap::overlap::announcement::{Announcement, Announcing};
use ca_overlap::overlap::record::{Announcer, Entry, Record};
use ca_overlap::overlap::settings::{Defaults, RawSettings, Settings};
use ca_overlap::overlap::{Case, Contents, Decision, RecordAfter, Write, decide};
use ca_overlap::x509::certs::{Bundle, Certificate, Fingerprint};
use ca_overlap::x509::issuer::Issuers;
use jiff::{SignedDuration, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::property::config;

/// Six roots of one subject, two of which expire within a history, and a chain.
static POOL: LazyLock<Vec<Identity>> = LazyLock::new(|| {
    let mut pool: Vec<_> = (0..4).map(|_| certs::ca()).collect();
    for year in [2026, 2027] {
        pool.push(Spec { not_after: (year, 3, 2), ..CA }.self_signed());
    }
    let root = Spec { subject: "root", ..CA }.self_signed();
    pool.push(Spec { subject: "intermediate", ..CA }.signed_by(&root));
    pool.push(root);
    pool
});

static LEAVES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    POOL.iter().map(|ca| certs::leaf(ca, true).pem.clone().into_bytes()).collect()
});

#[derive(Clone, Debug)]
struct Step {
    bundle: Vec<usize>,
    style: u8,
    leaf: Option<usize>,
    keep: u8,
    window_hours: Option<u8>,
    distrust: Option<usize>,
    hours_later: i64,
    /// What the annotation announces, with hours until its end.
    announce: Vec<(usize, Option<u8>)>,
    /// What the keeper then asks to announce.
    ask: Option<Vec<usize>>,
}

fn step() -> impl Strategy<Value = Step> {
    let certificate = 0..POOL.len();
    (
        vec(certificate.clone(), 0..4),
        0..5_u8,
        proptest::option::of(certificate.clone()),
        prop_oneof![3 => Just(1_u8), 1 => 0..4_u8],
        proptest::option::weighted(0.3, 1..72_u8),
        proptest::option::weighted(0.2, certificate.clone()),
        prop_oneof![3 => Just(0_i64), 1 => -5..100_i64],
        announcements(),
        proptest::option::weighted(0.3, vec(certificate, 0..3)),
    )
        .prop_map(
            |(bundle, style, leaf, keep, window_hours, distrust, hours_later, announce, ask)| {
                Step {
                    bundle,
                    style,
                    leaf,
                    keep,
                    window_hours,
                    distrust,
                    hours_later,
                    announce,
                    ask,
                }
            },
        )
}

fn announcements() -> impl Strategy<Value = Vec<(usize, Option<u8>)>> {
    let one = (0..POOL.len(), proptest::option::weighted(0.5, 1..72_u8));
    prop_oneof![2 => Just(Vec::new()), 1 => vec(one, 0..3)]
}

fn announcement(ca: usize, until: Option<Timestamp>) -> Announcement {
    Announcement { der: POOL[ca].der.to_vec(), until }
}

impl Step {
    /// The bundle in one of several formats.
    fn text(&self) -> Vec<u8> {
        let write = |ca: &usize| match self.style {
            1 => POOL[*ca].pem_wrapped(76, "\r\n"),
            2 => format!("# {ca}\n{}", POOL[*ca].pem),
            _ => POOL[*ca].pem.clone(),
        };
        let text: String = self.bundle.iter().map(write).collect();
        if self.style == 3 { text.trim_end().into() } else { text.into() }
    }

    fn settings(&self) -> Settings {
        let keep = self.keep.to_string();
        let window = self.window_hours.map_or("none".to_owned(), |hours| format!("{hours}h"));
        let distrust = self.distrust.map(|ca| POOL[ca].sha256());
        let until = |hours: u8| certs::now() + SignedDuration::from_hours(hours.into());
        let announce: Vec<_> = self
            .announce
            .iter()
            .map(|&(ca, hours)| announcement(ca, hours.map(until)).to_string())
            .collect();
        let raw = RawSettings {
            keep: Some(&keep),
            window: Some(&window),
            distrust: distrust.as_deref(),
            mode: None,
            announce: Some(&announce.join(",")),
            trust: None,
        };
        Settings::read(raw, &Defaults::default())
    }
}

#[derive(Clone, Default)]
struct Stored {
    ca_crt: Option<Vec<u8>>,
    tls_crt: Option<Vec<u8>>,
    record: Option<Record>,
}

impl Stored {
    fn decide(
        &self,
        text: &[u8],
        leaf: Option<&[u8]>,
        now: Timestamp,
        settings: &Settings,
    ) -> Decision {
        self.decide_with(text, leaf, now, settings, None)
    }

    fn decide_with(
        &self,
        text: &[u8],
        leaf: Option<&[u8]>,
        now: Timestamp,
        settings: &Settings,
        announce: Option<&[Announcement]>,
    ) -> Decision {
        decide(&Write {
            now,
            stored: Contents { ca_crt: self.ca_crt.as_deref(), tls_crt: self.tls_crt.as_deref() },
            incoming: Contents { ca_crt: Some(text), tls_crt: leaf },
            record: self.record.as_ref(),
            settings,
            may_change_data: true,
            room: usize::MAX,
            repair: &[],
            issuers: &Issuers::default(),
            announcing: announce.map_or(Announcing::AsBefore, Announcing::Asked),
        })
    }

    /// What it announces for the keeper. Where `ca.crt` is not readable it announces nothing any
    /// more, and the keeper has to ask again.
    fn asked(&self) -> Vec<Fingerprint> {
        let stored = bundle(self.ca_crt.as_deref().unwrap_or_default());
        let stored: Vec<_> =
            stored.certificates().iter().skip(1).map(Certificate::fingerprint).collect();
        let entries = self.record.iter().flat_map(Record::entries);
        let by_keeper = entries.filter(|entry| entry.announced == Some(Announcer::Keeper));
        by_keeper.map(|entry| entry.sha256).filter(|sha256| stored.contains(sha256)).collect()
    }

    fn after(&self, decision: &Decision, text: &[u8], leaf: Option<&[u8]>) -> Self {
        Self {
            ca_crt: Some(decision.ca_crt.clone().unwrap_or_else(|| text.to_vec())),
            tls_crt: leaf.map(<[u8]>::to_vec),
            record: match &decision.record {
                RecordAfter::AsStored => self.record.clone(),
                RecordAfter::Gone => None,
                RecordAfter::Set(record) => Some(record.clone()),
            },
        }
    }
}

fn bundle(text: &[u8]) -> Bundle {
    Bundle::parse(text, 1000).unwrap()
}

proptest! {
    #![proptest_config(config(3_000))]

    #[test]
    fn the_laws_of_the_decision_hold_in_every_history(steps in vec(step(), 1..7)) {
        let mut stored = Stored::default();
        let mut now = certs::now();
        for step in steps {
            now += SignedDuration::from_hours(step.hours_later);
            let settings = step.settings();
            let text = step.text();
            let leaf = step.leaf.map(|ca| LEAVES[ca].as_slice());
            let decision = stored.decide(&text, leaf, now, &settings);
            let after = stored.after(&decision, &text, leaf);
            let result = after.ca_crt.as_deref().unwrap();

            if decision.case != Case::Unchanged {
                prop_assert!(result.starts_with(&text), "the output starts with the incoming bytes");
                let asked = stored.asked();
                appended_is_harmless(&text, result, now, &settings, &asked)?;
            }
            overlap_is_kept(&stored, &text, result, now, &settings)?;
            record_is_true(&after)?;
            // Writing a certificate that was just cut makes it the generator's own.
            if decision.cut == 0 {
                deciding_again_changes_nothing(&after, &text, leaf, now, &settings)?;
            }
            announced_is_wanted(&after, &stored, &text, now, &settings, None)?;
            stored = after;
            if let Some(ask) = &step.ask {
                let list: Vec<_> = ask.iter().map(|&ca| announcement(ca, None)).collect();
                let text = stored.ca_crt.clone().unwrap();
                let decision = stored.decide_with(&text, leaf, now, &settings, Some(&list));
                let after = stored.after(&decision, &text, leaf);
                record_is_true(&after)?;
                announced_is_wanted(&after, &stored, &text, now, &settings, Some(&list))?;
                let text = after.ca_crt.clone().unwrap();
                let again = after.decide_with(&text, leaf, now, &settings, Some(&list));
                let twice = after.after(&again, &text, leaf);
                prop_assert_eq!(&twice.ca_crt, &after.ca_crt, "the same ask twice changes nothing");
                prop_assert_eq!(&twice.record, &after.record);
                stored = after;
            }
        }
    }
}

fn appended_is_harmless(
    text: &[u8],
    result: &[u8],
    now: Timestamp,
    settings: &Settings,
    asked: &[Fingerprint],
) -> Result<(), TestCaseError> {
    let incoming = bundle(text);
    let outgoing = bundle(result);
    for certificate in incoming.certificates() {
        prop_assert!(
            outgoing.certificates().contains(certificate),
            "every incoming certificate survives"
        );
    }
    let appended: Vec<_> =
        outgoing.certificates().iter().filter(|c| !incoming.certificates().contains(c)).collect();
    // The only chain of the pool has two certificates.
    let is_chain = appended.iter().any(|c| !ca_overlap::x509::issuer::is_root(c));
    let allowed = settings.keep.count() + usize::from(is_chain);
    let is_announced = |c: &&&Certificate| {
        settings.announce.iter().any(|one| one.der == c.der()) || asked.contains(&c.fingerprint())
    };
    let previous = appended.iter().filter(|c| !is_announced(c)).count();
    prop_assert!(previous <= allowed, "at most `keep` chains are appended");
    for certificate in appended {
        prop_assert!(!certificate.is_expired(now), "nothing expired is appended");
        prop_assert!(!settings.distrust.contains(&certificate.fingerprint()));
    }
    let tail = String::from_utf8(result[text.len()..].to_vec()).unwrap();
    let canonical: String = bundle(tail.as_bytes())
        .certificates()
        .iter()
        .map(|c| certs::pem_of(c.der(), 64, "\n"))
        .collect();
    prop_assert_eq!(tail.trim_start_matches('\n'), canonical, "only canonical blocks are appended");
    Ok(())
}

/// Where a write drops all certificates of its generator, readers of the stored bundle still trust
/// something.
fn overlap_is_kept(
    before: &Stored,
    text: &[u8],
    result: &[u8],
    now: Timestamp,
    settings: &Settings,
) -> Result<(), TestCaseError> {
    let Some(stored) = before.ca_crt.as_deref().filter(|_| settings.keep.count() > 0) else {
        return Ok(());
    };
    let (stored, incoming) = (bundle(stored), bundle(text));
    let is_carried = |at: usize, c: &Certificate| {
        at > 0
            && before.record.as_ref().is_some_and(|record| record.entry(c.fingerprint()).is_some())
    };
    let own = stored.certificates().iter().enumerate().filter(|(at, c)| !is_carried(*at, c));
    let own: Vec<_> = own.map(|(_, certificate)| certificate).collect();
    let is_dropped = own.iter().all(|c| !incoming.contains(c));
    let is_usable =
        |c: &&Certificate| !c.is_expired(now) && !settings.distrust.contains(&c.fingerprint());
    if is_dropped && !incoming.is_empty() && own.iter().copied().any(|c| is_usable(&c)) {
        let outgoing = bundle(result);
        let added = outgoing.certificates().iter().filter(|c| !incoming.contains(c)).count();
        prop_assert!(added > 0, "a reader of the stored bundle loses all that it trusts");
    }
    Ok(())
}

/// Whatever is announced and usable is trusted, whoever writes. Nothing else is announced, save what
/// the writer of `text` wrote back.
fn announced_is_wanted(
    after: &Stored,
    before: &Stored,
    text: &[u8],
    now: Timestamp,
    settings: &Settings,
    ask: Option<&[Announcement]>,
) -> Result<(), TestCaseError> {
    let result = bundle(after.ca_crt.as_deref().unwrap_or_default());
    if result.is_empty() {
        return Ok(());
    }
    let asked: Vec<_> = match ask {
        Some(list) => list.iter().map(|one| Fingerprint::of(&one.der)).collect(),
        None => before.asked(),
    };
    let lives = |one: &&Announcement| one.until.is_none_or(|until| until > now);
    let by_person = settings.announce.iter().filter(lives).map(|one| Fingerprint::of(&one.der));
    let wanted: Vec<_> = by_person.chain(asked).collect();
    for ca in POOL.iter() {
        let fingerprint = Fingerprint::of(&ca.der);
        let certificate = Bundle::parse(ca.pem.as_bytes(), 1).unwrap().certificates()[0].clone();
        let is_usable = !certificate.is_expired(now) && !settings.distrust.contains(&fingerprint);
        if wanted.contains(&fingerprint) && is_usable {
            prop_assert!(result.contains(&certificate), "what is announced is trusted");
        }
    }
    let is_echo = before.ca_crt.as_deref() != Some(text);
    let written: Vec<_> =
        bundle(text).certificates().iter().map(Certificate::fingerprint).collect();
    let entries = after.record.iter().flat_map(Record::entries);
    for entry in entries.filter(|entry| entry.announced.is_some()) {
        let is_written_back = is_echo && written.contains(&entry.sha256);
        let has_ended = entry.until.is_some_and(|until| until <= now)
            || settings.distrust.contains(&entry.sha256);
        prop_assert!(is_written_back || (wanted.contains(&entry.sha256) && !has_ended));
    }
    Ok(())
}

/// Each entry names a stored certificate that is not the first.
fn record_is_true(after: &Stored) -> Result<(), TestCaseError> {
    let Some(record) = &after.record else { return Ok(()) };
    let stored = bundle(after.ca_crt.as_deref().unwrap_or_default());
    if stored.is_empty() {
        return Ok(());
    }
    for entry in record.entries() {
        let place = stored.certificates().iter().position(|c| c.fingerprint() == entry.sha256);
        prop_assert!(place.is_some_and(|place| place > 0));
    }
    Ok(())
}

fn deciding_again_changes_nothing(
    after: &Stored,
    text: &[u8],
    leaf: Option<&[u8]>,
    now: Timestamp,
    settings: &Settings,
) -> Result<(), TestCaseError> {
    // An echo that has ended stays as written and is cut by the next write that leaves ca.crt alone:
    // only there the same write has two outcomes.
    let window = settings.window.length();
    let stored = bundle(after.ca_crt.as_deref().unwrap());
    let listed = |entry: &Entry| {
        let by_person =
            settings.announce.iter().any(|one| Fingerprint::of(&one.der) == entry.sha256);
        by_person || entry.announced == Some(Announcer::Keeper)
    };
    let over = after.record.iter().flat_map(Record::entries).any(|entry| {
        let certificate = stored.certificates().iter().find(|c| c.fingerprint() == entry.sha256);
        (entry.announced.is_some() && !listed(entry))
            || entry.is_past_deadline(now, window)
            || settings.distrust.contains(&entry.sha256)
            || certificate.is_some_and(|c| c.is_expired(now))
    });
    if over || after.record.is_none() {
        return Ok(());
    }
    let own_output = after.ca_crt.clone().unwrap();
    for again in [text, own_output.as_slice()] {
        let second = after.decide(again, leaf, now, settings);
        let twice = after.after(&second, again, leaf);
        prop_assert_eq!(&twice.ca_crt, &after.ca_crt, "deciding again changes nothing");
        prop_assert_eq!(&twice.record, &after.record);
    }
    Ok(())
}
