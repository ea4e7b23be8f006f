//! What is to be done about one Secret, and when (DESIGN §8).
//!
//! Pure: no clock, no I/O. Whether something goes is asked of [`overlap::decide()`], the very function
//! that the webhook acts by, so that the two cannot disagree.

mod problem;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

pub use self::problem::Problem;
use crate::names;
use crate::overlap::leave::{self, Marks};
use crate::overlap::policy::{Defaults, Raw, Settings};
use crate::overlap::record::{Entry, Record};
use crate::overlap::staged::Stage;
use crate::overlap::workload;
use crate::overlap::write::{carried_entries, chain};
use crate::overlap::{self, Contents, MAX_STORED_BLOCKS, Write};
use crate::x509::certs::{Bundle, Certificate, Fingerprint};
use crate::x509::issuer::Issuers;

/// One Secret, as far as it is looked at: public values only.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// `metadata.name`
    pub name: &'a str,
    /// `metadata.labels`
    pub labels: &'a BTreeMap<String, String>,
    /// `metadata.annotations`
    pub annotations: &'a BTreeMap<String, String>,
    /// `data["ca.crt"]`, decoded.
    pub ca_crt: Option<&'a [u8]>,
    /// `data["tls.crt"]`, decoded.
    pub tls_crt: Option<&'a [u8]>,
    /// `data["pending.tls.crt"]`, decoded.
    pub pending_tls_crt: Option<&'a [u8]>,
    /// Those of the data keys that tell whose data is left alone ([`leave::WATCHED_KEYS`]).
    pub keys: &'a [&'static str],
    /// Data of an immutable Secret never changes.
    pub is_immutable: bool,
    /// The webhook does not look at tokens of `ServiceAccounts`.
    pub is_token: bool,
    /// When anybody but the keeper last wrote it, if that is known.
    pub written: Option<Timestamp>,
}

impl<'a> View<'a> {
    /// The value of an annotation.
    pub(crate) fn annotation(&self, key: &str) -> Option<&'a str> {
        self.annotations.get(key).map(String::as_str)
    }

    /// The group that it is in.
    pub(crate) fn group(&self) -> Option<&'a str> {
        self.annotation(names::GROUP).filter(|name| !name.is_empty())
    }
}

impl Marks for View<'_> {
    fn has_key(&self, key: &str) -> bool {
        if key == names::TLS_CRT { self.tls_crt.is_some() } else { self.keys.contains(&key) }
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }
}

/// Whether the webhook would change data of this Secret at all. Where it would not nothing is asked.
pub(crate) fn may_change_data(view: &View<'_>, settings: &Settings) -> bool {
    let left = || leave::leave_data(view, settings, view.ca_crt, view.tls_crt);
    !view.is_immutable && !view.is_token && left().is_none()
}

/// What counts for every Secret.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// `--default-mode`, `--keep` and `--window`, as the webhook has them.
    pub defaults: Defaults,
    /// `--settle`: how long files take to reach every reader.
    pub settle: Duration,
}

/// What is known of a Secret at one moment.
#[derive(Debug)]
pub struct Outlook {
    /// What counts for it.
    pub settings: Settings,
    /// The certificates of `ca.crt`, in order; none where it is no bundle that can be read.
    pub certificates: Vec<Known>,
    /// The leaf that is served.
    pub leaf: Option<Leaf>,
    /// The staged rotation.
    pub stage: Option<Staged>,
    /// What to do now.
    pub due: Option<Due>,
    /// What comes next, if it depends on the clock alone.
    pub next: Option<Next>,
    /// When the clock alone may bring another problem.
    pub check: Option<Timestamp>,
    /// What a person should know.
    pub problems: Vec<Problem>,
}

/// A certificate of `ca.crt`.
#[derive(Debug)]
pub struct Known {
    /// The certificate.
    pub certificate: Certificate,
    /// Its entry in the record, if it is carried; else it is the generator's own.
    pub carried: Option<Entry>,
    /// When a carried one is over by the clock: its deadline or its expiry, whichever is first.
    pub ends: Option<Timestamp>,
    /// Whether it issued a certificate of the leaf's chain.
    pub issued_leaf: bool,
}

/// The first certificate of `tls.crt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Which.
    pub fingerprint: Fingerprint,
    /// When it expires; `None` beyond the year 9999.
    pub not_after: Option<Timestamp>,
}

/// A staged rotation.
#[derive(Clone, Debug)]
pub struct Staged {
    /// The state that the webhook keeps.
    pub stage: Stage,
    /// The CAs in this `ca.crt` that issued the pending chain: what peers must trust first.
    pub anchors: Vec<Fingerprint>,
    /// From when on it may be promoted, as far as this Secret alone tells.
    pub ready: Timestamp,
    /// When it has to be promoted, whatever the peers trust.
    pub latest: Timestamp,
}

/// What to ask, or to take back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// The stage has settled, for all that this Secret alone tells: promote this `pending.tls.crt`.
    Promote(Fingerprint),
    /// These carried certificates are over.
    Retire(Vec<Fingerprint>),
    /// An ask stands on the Secret, and nothing is to be asked any more.
    Withdraw,
}

/// Something to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: Planned,
}

/// What comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planned {
    /// The waiting pair goes into service.
    Promote,
    /// A carried certificate goes.
    Retire,
}

/// Looks at one Secret at one moment.
pub fn outlook(view: &View<'_>, rules: &Rules, now: Timestamp) -> Outlook {
    let reading = Reading::of(view, rules);
    let going = reading.going(now);
    let mut problems = reading.problems(&going, now);
    let stage = reading.staged(rules);
    if stage.as_ref().is_some_and(|staged| staged.is_overdue(rules, now)) {
        problems.push(Problem::StageOverdue);
    }
    let due = due(&going, stage.as_ref(), view, now);
    if view.annotations.contains_key(names::ASK) && due != Some(Due::Withdraw) {
        problems.push(Problem::AskNotSeen);
    }
    let next = reading.next(stage.as_ref(), now);
    let check = reading.check(stage.as_ref(), rules, now);
    let Reading { settings, known: certificates, leaf, .. } = reading;
    Outlook { settings, certificates, leaf, stage, due, next, check, problems }
}

/// What counts for a Secret.
pub(crate) fn settings(view: &View<'_>, rules: &Rules) -> Settings {
    let raw = Raw {
        mode: view.labels.get(names::MODE).map(String::as_str),
        keep: view.annotation(names::KEEP),
        window: view.annotation(names::WINDOW),
        distrust: view.annotation(names::DISTRUST),
    };
    Settings::read(raw, &rules.defaults)
}

fn due(
    going: &[Fingerprint],
    stage: Option<&Staged>,
    view: &View<'_>,
    now: Timestamp,
) -> Option<Due> {
    if !going.is_empty() {
        return Some(Due::Retire(going.to_vec()));
    }
    if let Some(staged) = stage.filter(|staged| staged.ready.min(staged.latest) <= now) {
        return Some(Due::Promote(staged.stage.pending));
    }
    view.annotations.contains_key(names::ASK).then_some(Due::Withdraw)
}

impl Staged {
    fn is_overdue(&self, rules: &Rules, now: Timestamp) -> bool {
        self.overdue(rules) <= now
    }

    fn overdue(&self, rules: &Rules) -> Timestamp {
        later(self.stage.since, OVERDUE.max(rules.settle * 10))
    }

    /// When it may be promoted if the last Secret of its group was written at `written`.
    pub fn ready_after(&self, written: Timestamp, rules: &Rules) -> Timestamp {
        self.ready.max(later(written, rules.settle)).min(self.latest)
    }
}

/// A stage that takes longer, or ten times `--settle`, needs a person.
const OVERDUE: Duration = Duration::from_secs(3600);
/// Before the served leaf expires a stage ends for at least this long, or five times `--settle`.
const RESERVE: Duration = Duration::from_secs(12 * 3600);
/// A certificate expires soon within this time, or within a fifth of its life if that is shorter.
const SOON: i64 = 7 * 86_400;

/// What does not depend on the time.
struct Reading<'a> {
    view: &'a View<'a>,
    settings: Settings,
    record: Option<Record>,
    record_is_unreadable: bool,
    known: Vec<Known>,
    leaf: Option<Leaf>,
    leaf_certificate: Option<Certificate>,
    may_change_data: bool,
}

impl<'a> Reading<'a> {
    fn of(view: &'a View<'a>, rules: &Rules) -> Self {
        let settings = settings(view, rules);
        let parsed = view.annotation(names::CARRIED).map(Record::parse);
        let record_is_unreadable = matches!(parsed, Some(Err(_)));
        let record = parsed.and_then(Result::ok);
        let bundle = view.ca_crt.and_then(|text| Bundle::parse(text, MAX_STORED_BLOCKS).ok());
        let bundle = bundle.unwrap_or_default();
        let chain = chain(view.tls_crt);
        let leaf_certificate = chain.certificates().first().cloned();
        let known = known(&bundle, record.as_ref(), &chain, &settings);
        Self {
            view,
            may_change_data: may_change_data(view, &settings),
            settings,
            record,
            record_is_unreadable,
            known,
            leaf: leaf_certificate.as_ref().map(|certificate| Leaf {
                fingerprint: certificate.fingerprint(),
                not_after: expiry(certificate),
            }),
            leaf_certificate,
        }
    }

    /// The carried certificates that the webhook would cut out now.
    fn going(&self, now: Timestamp) -> Vec<Fingerprint> {
        if !self.known.iter().any(|known| self.is_over(known, now)) || !self.may_change_data {
            return Vec::new();
        }
        let contents = Contents { ca_crt: self.view.ca_crt, tls_crt: self.view.tls_crt };
        let decision = overlap::decide(&Write {
            now,
            stored: contents,
            incoming: contents,
            record: self.record.as_ref(),
            settings: &self.settings,
            may_change_data: true,
            room: 0,
            repair: &[],
        });
        let Some(left) = decision.ca_crt else { return Vec::new() };
        let left = Bundle::parse(&left, MAX_STORED_BLOCKS).unwrap_or_default();
        let gone = self.known.iter().filter(|known| !left.contains(&known.certificate));
        gone.map(|known| known.certificate.fingerprint()).collect()
    }

    fn is_over(&self, known: &Known, now: Timestamp) -> bool {
        known.carried.is_some()
            && (known.ends.is_some_and(|ends| ends <= now) || self.is_distrusted(known))
    }

    fn is_distrusted(&self, known: &Known) -> bool {
        let distrust = &self.settings.distrust;
        !distrust.is_empty() && distrust.contains(&known.certificate.fingerprint())
    }

    fn problems(&self, going: &[Fingerprint], now: Timestamp) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.record_is_unreadable {
            problems.push(Problem::RecordUnreadable);
        }
        problems.extend(self.settings.warnings.iter().map(|w| Problem::SettingUnreadable(*w)));
        let unreadable = self.view.annotation(names::RESTART).map_or(0, |t| workload::list(t).1);
        if unreadable > 0 {
            problems.push(Problem::RestartUnreadable(unreadable));
        }
        for known in &self.known {
            let fingerprint = known.certificate.fingerprint();
            if known.carried.is_some() {
                let stays = self.is_over(known, now) && !going.contains(&fingerprint);
                if stays && self.may_change_data {
                    problems.push(Problem::RetireBlocked(fingerprint));
                }
                continue;
            }
            if self.is_distrusted(known) {
                problems.push(Problem::OwnDistrusted(fingerprint));
            }
            if let Some(not_after) = expires_soon(&known.certificate, now) {
                problems.push(Problem::OwnExpiring(fingerprint, not_after));
            }
        }
        let leaf = self.leaf_certificate.as_ref();
        problems.extend(leaf.and_then(|l| expires_soon(l, now)).map(Problem::LeafExpiring));
        let staged = self.view.annotation(names::STAGED);
        if staged.is_some_and(|text| Stage::parse(text).is_err()) {
            problems.push(Problem::StageUnreadable);
        }
        problems
    }

    fn staged(&self, rules: &Rules) -> Option<Staged> {
        let stage = Stage::parse(self.view.annotation(names::STAGED)?).ok()?;
        let pending = chain(self.view.pending_tls_crt);
        let certificates: Vec<Certificate> =
            self.known.iter().map(|known| known.certificate.clone()).collect();
        let issuers = Issuers::default();
        let anchors = issuers.of_chain(&pending, &certificates, &std::iter::empty());
        let ready = later(stage.since, rules.settle);
        let reserve = SignedDuration::try_from(RESERVE.max(rules.settle * 5));
        let not_after = self.leaf.and_then(|leaf| leaf.not_after);
        let latest = not_after.zip(reserve.ok()).map(|(end, reserve)| end.checked_sub(reserve));
        Some(Staged {
            stage,
            anchors: anchors.iter().map(|&index| certificates[index].fingerprint()).collect(),
            ready,
            latest: latest.and_then(Result::ok).unwrap_or(Timestamp::MAX),
        })
    }

    fn check(&self, stage: Option<&Staged>, rules: &Rules, now: Timestamp) -> Option<Timestamp> {
        let own = self.known.iter().filter(|known| known.carried.is_none());
        let own = own.map(|known| &known.certificate);
        let soon = own.chain(&self.leaf_certificate).filter_map(soon);
        let overdue = stage.map(|staged| staged.overdue(rules));
        soon.chain(overdue).filter(|at| *at > now).min()
    }

    fn next(&self, stage: Option<&Staged>, now: Timestamp) -> Option<Next> {
        let ends = self.known.iter().filter(|known| known.carried.is_some());
        let ends = ends.filter_map(|known| known.ends);
        let retire = ends.map(|at| Next { at, what: Planned::Retire });
        let promote = stage
            .map(|staged| Next { at: staged.ready.min(staged.latest), what: Planned::Promote });
        retire
            .chain(promote)
            .filter(|next| self.may_change_data && next.at > now)
            .min_by_key(|next| next.at)
    }
}

fn known(
    bundle: &Bundle,
    record: Option<&Record>,
    chain: &Bundle,
    settings: &Settings,
) -> Vec<Known> {
    let certificates = bundle.certificates();
    let issued = Issuers::default().of_chain(chain, certificates, &std::iter::empty());
    let entries = carried_entries(bundle, record);
    let window = settings.window.length();
    let known = |(index, (certificate, carried)): (usize, (&Certificate, Option<Entry>))| {
        let deadline = carried.and_then(|entry| entry.deadline(window));
        let expiry = carried.and_then(|_| expiry(certificate));
        Known {
            certificate: certificate.clone(),
            carried,
            ends: [deadline, expiry].into_iter().flatten().min(),
            issued_leaf: issued.contains(&index),
        }
    };
    certificates.iter().zip(entries).enumerate().map(known).collect()
}

/// When a certificate expires; `None` beyond the year 9999, which is never.
fn expiry(certificate: &Certificate) -> Option<Timestamp> {
    Timestamp::from_second(certificate.not_after()).ok()
}

fn expires_soon(certificate: &Certificate, now: Timestamp) -> Option<Timestamp> {
    let left = certificate.not_after().saturating_sub(now.as_second());
    // Read in full only here: the start of its life is not among the fields that are kept.
    let is_soon = left <= SOON && soon(certificate)? <= now;
    is_soon.then(|| expiry(certificate)).flatten()
}

/// From when on a certificate expires soon.
fn soon(certificate: &Certificate) -> Option<Timestamp> {
    let begin = certificate.parsed()?.validity().not_before.timestamp();
    let end = certificate.not_after();
    let fifth = end.saturating_sub(begin) / 5;
    Timestamp::from_second(end.saturating_sub(fifth.min(SOON))).ok()
}

/// `start + length`; the end of time where that is out of range.
fn later(start: Timestamp, length: Duration) -> Timestamp {
    let length = SignedDuration::try_from(length);
    length.ok().and_then(|length| start.checked_add(length).ok()).unwrap_or(Timestamp::MAX)
}
