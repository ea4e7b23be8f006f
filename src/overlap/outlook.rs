//! The outlook of one Secret: what is due, and when (docs/design.md, "The keeper").
//!
//! This module is pure: it uses no clock and no I/O. [`overlap::decide()`] says whether a carried
//! certificate goes. The webhook calls the same function, so keeper and webhook cannot disagree.

mod problem;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

pub use self::problem::Problem;
use crate::names;
use crate::overlap::announcement::{Announcement, Announcing};
use crate::overlap::exempt::{self, Markers, OwnerGroups};
use crate::overlap::record::{Entry, Record};
use crate::overlap::settings::{Defaults, RawSettings, Settings};
use crate::overlap::staged::Stage;
use crate::overlap::workload;
use crate::overlap::write::{carried_entries, chain};
use crate::overlap::{self, Contents, Decision, MAX_STORED_BLOCKS, RecordAfter, Write};
use crate::x509::certs::{Bundle, Certificate, Fingerprint};
use crate::x509::issuer::Issuers;

/// The public values of one Secret: no private key.
#[derive(Clone, Copy)]
pub struct PublicSecret<'a> {
    /// `metadata.name`
    pub name: &'a str,
    /// `metadata.uid`; `None` if not known. State that names another uid is not believed.
    pub uid: Option<&'a str>,
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
    /// Which of [`exempt::WATCHED_KEYS`] it has, and `pending.tls.key`.
    pub keys: &'a [&'static str],
    /// The owners by which a Secret is exempt.
    pub owners: &'a OwnerGroups,
    /// `immutable`: the API server rejects any change of its data.
    pub is_immutable: bool,
    /// Whether it is a `ServiceAccount` token ([`exempt::is_token`]).
    pub is_token: bool,
    /// When a client other than the keeper last wrote the Secret, if known.
    pub written: Option<Timestamp>,
    /// What the keeper saw of `ca.crt`.
    pub seen: Option<Sighting>,
}

/// What the keeper saw of the present bytes of a `ca.crt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// Other bytes were there before. It first saw these at this time.
    Changed(Timestamp),
    /// They were there when it first saw the Secret, at this time.
    Found(Timestamp),
}

impl<'a> PublicSecret<'a> {
    /// The value of an annotation.
    pub(crate) fn annotation(&self, key: &str) -> Option<&'a str> {
        self.annotations.get(key).map(String::as_str)
    }

    /// Whether something is under `pending.*`, whatever labels and annotations say.
    pub fn waits(&self) -> bool {
        self.pending_tls_crt.is_some() || self.keys.contains(&names::PENDING_TLS_KEY)
    }

    /// Whether a pair waits that no stage tells of, or that no label leads the keeper to.
    pub fn is_left_over(&self) -> bool {
        let is_labelled = [names::PHASE, names::MODE].iter().any(|l| self.labels.contains_key(*l));
        self.waits() && !(is_labelled && self.stage().is_some())
    }

    /// Its stage, if the annotation parses and is of this object.
    pub(crate) fn stage(&self) -> Option<Stage> {
        let text = self.annotation(names::STAGED)?;
        Stage::of_object(text, self.uid).ok().map(|(stage, _)| stage)
    }

    /// The name of its group.
    pub(crate) fn group(&self) -> Option<&'a str> {
        self.annotation(names::GROUP).filter(|name| !name.is_empty())
    }
}

impl Markers for PublicSecret<'_> {
    fn has_key(&self, key: &str) -> bool {
        if key == names::TLS_CRT { self.tls_crt.is_some() } else { self.keys.contains(&key) }
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }

    fn owners(&self) -> &OwnerGroups {
        self.owners
    }
}

/// Whether the webhook may change data of this Secret. If not, the keeper asks for nothing.
pub(crate) fn may_change_data(secret: &PublicSecret<'_>, settings: &Settings) -> bool {
    let exemption = || exempt::exemption(secret, settings, secret.ca_crt, secret.tls_crt);
    !secret.is_immutable && !secret.is_token && exemption().is_none()
}

/// The flags that apply to every Secret.
#[derive(Clone, Debug)]
pub struct Rules {
    /// `--default-mode`, `--keep` and `--window`; the same as the webhook's.
    pub defaults: Defaults,
    /// `--settle`: how long a change of a Secret takes to reach every reader.
    pub settle: Duration,
}

/// The state of a Secret at one moment, what is due and what comes next.
#[derive(Debug)]
pub struct Outlook {
    /// Its settings.
    pub settings: Settings,
    /// The certificates of `ca.crt`, in order. Empty if it cannot be read or holds too many.
    pub certificates: Vec<BundleCertificate>,
    /// The leaf in service.
    pub leaf: Option<ServedLeaf>,
    /// The staged rotation, if one is in flight.
    pub stage: Option<StageOutlook>,
    /// What the keeper asks for now.
    pub due: Option<Due>,
    /// The next change that comes by the clock alone.
    pub next: Option<Upcoming>,
    /// The next time at which the clock alone can bring a new problem.
    pub check: Option<Timestamp>,
    /// Problems that a person should know about.
    pub problems: Vec<Problem>,
}

/// A certificate of `ca.crt`.
#[derive(Debug)]
pub struct BundleCertificate {
    /// The certificate.
    pub certificate: Certificate,
    /// Its entry in the record if it is carried; `None` if it is own.
    pub carried: Option<Entry>,
    /// When it ends, if it is carried: at the earlier of its deadline and its expiry.
    pub ends: Option<Timestamp>,
    /// Whether it issued a certificate of the chain in `tls.crt`.
    pub issued_leaf: bool,
}

impl BundleCertificate {
    /// Whether it is carried ahead of time.
    pub fn is_announced(&self) -> bool {
        self.carried.is_some_and(|entry| entry.announced.is_some())
    }
}

/// The leaf in service: the first certificate of `tls.crt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServedLeaf {
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// Its expiry; `None` beyond the year 9999.
    pub not_after: Option<Timestamp>,
}

/// A staged rotation, and when its waiting pair is promoted.
#[derive(Clone, Debug)]
pub struct StageOutlook {
    /// The annotation that the webhook keeps.
    pub stage: Stage,
    /// The CAs in `ca.crt` that issued the waiting leaf or its chain. Peers must trust them before
    /// the promotion.
    pub anchors: Vec<Fingerprint>,
    /// The CAs in `ca.crt` that issued the held leaf or its chain, and not the waiting one. Without a
    /// group, its peers are those that hold one of these.
    pub held_anchors: Vec<Fingerprint>,
    /// The earliest time of the promotion, judged by this Secret alone.
    pub ready: Timestamp,
    /// The latest time of the promotion. Then it no longer matters whether peers trust the new CA.
    pub latest: Timestamp,
}

/// What the keeper has to ask for, or to withdraw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// Promote the waiting pair whose `pending.tls.crt` has this SHA-256. The settle time has
    /// passed, judged by this Secret alone, or the held leaf expires soon.
    Promote(Fingerprint),
    /// Retire these carried certificates: they have ended.
    Retire(Vec<Fingerprint>),
    /// End what is left of a stage: a pair waits, and nothing promotes it.
    Unstage,
    /// Remove the ask that is still on the Secret: nothing is due any more.
    Withdraw,
}

/// A change that comes at a known time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upcoming {
    /// Its time.
    pub at: Timestamp,
    /// Its kind.
    pub what: Planned,
}

/// The kind of an upcoming change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planned {
    /// The waiting pair goes into service.
    Promote,
    /// A carried certificate goes.
    Retire,
}

/// Computes the outlook of one Secret at one moment.
pub fn outlook(secret: &PublicSecret<'_>, rules: &Rules, now: Timestamp) -> Outlook {
    let parsed = ParsedSecret::of(secret, rules);
    let going = parsed.going(now);
    let mut problems = parsed.problems(&going, now);
    let stage = parsed.staged(rules);
    if stage.as_ref().is_some_and(|staged| staged.is_overdue(rules, now)) {
        problems.push(Problem::StageOverdue);
    }
    let due = due(&going, stage.as_ref(), secret, now);
    if secret.annotations.contains_key(names::ASK) && due != Some(Due::Withdraw) {
        problems.push(Problem::AskNotSeen);
    }
    let next = parsed.next(stage.as_ref(), now);
    let check = parsed.check(stage.as_ref(), rules, now);
    let ParsedSecret { settings, certificates, leaf, .. } = parsed;
    Outlook { settings, certificates, leaf, stage, due, next, check, problems }
}

/// Whether the webhook would change something if the keeper asked to announce this list, and no other
/// CAs. That includes what a person announces and the webhook has missed. What else is due does not
/// count.
pub fn announces(
    secret: &PublicSecret<'_>,
    rules: &Rules,
    list: &[Announcement],
    now: Timestamp,
) -> bool {
    let parsed = ParsedSecret::of(secret, rules);
    let decide = |announcing| parsed.decide(announcing, usize::MAX, now);
    let (asked, before) = (decide(Announcing::Asked(list)), decide(Announcing::AsBefore));
    let differs = (&asked.ca_crt, &asked.record) != (&before.ca_crt, &before.record);
    parsed.may_change_data && (differs || asked.announced > 0)
}

/// The settings of a Secret.
pub(crate) fn settings(secret: &PublicSecret<'_>, rules: &Rules) -> Settings {
    let raw = RawSettings {
        mode: secret.labels.get(names::MODE).map(String::as_str),
        keep: secret.annotation(names::KEEP),
        window: secret.annotation(names::WINDOW),
        distrust: secret.annotation(names::DISTRUST),
        announce: secret.annotation(names::ANNOUNCE),
        trust: secret.annotation(names::TRUST),
    };
    Settings::read(raw, &rules.defaults)
}

fn due(
    going: &[Fingerprint],
    stage: Option<&StageOutlook>,
    secret: &PublicSecret<'_>,
    now: Timestamp,
) -> Option<Due> {
    if !going.is_empty() {
        return Some(Due::Retire(going.to_vec()));
    }
    if let Some(end) = end_of_stage(stage, secret, now) {
        return Some(end);
    }
    secret.annotations.contains_key(names::ASK).then_some(Due::Withdraw)
}

/// How the stage is to end now.
fn end_of_stage(
    stage: Option<&StageOutlook>,
    secret: &PublicSecret<'_>,
    now: Timestamp,
) -> Option<Due> {
    if secret.is_immutable {
        return None;
    }
    let is_over = |staged: &&StageOutlook| staged.ready.min(staged.latest) <= now;
    let promote = stage.filter(is_over).map(|staged| Due::Promote(staged.stage.pending));
    promote.or_else(|| secret.is_left_over().then_some(Due::Unstage))
}

impl Outlook {
    /// When the `ca.crt` of `secret`, whose outlook this is, last changed; `None` if nothing tells.
    ///
    /// The dates that the webhook wrote count, and a change that the keeper saw. Without either it
    /// is when the keeper found these bytes, or the last write if that was earlier. No later write
    /// counts, because anyone in the group could repeat one forever.
    pub fn changed(&self, secret: &PublicSecret<'_>) -> Option<Timestamp> {
        let date = |known: &BundleCertificate| {
            let entry = known.carried?;
            // The date of a previous CA also starts again at a promotion, which leaves `ca.crt` alone.
            let written = secret.written.filter(|_| entry.announced.is_none());
            Some(written.map_or(entry.since, |written| written.min(entry.since)))
        };
        let carried = self.certificates.iter().filter_map(date);
        let dated = carried.chain(self.stage.as_ref().map(|staged| staged.stage.since)).max();
        match secret.seen {
            Some(Sighting::Changed(at)) => dated.max(Some(at)),
            Some(Sighting::Found(at)) => dated.or(Some(secret.written.map_or(at, |it| it.min(at)))),
            None => dated.or(secret.written),
        }
    }

    /// Since when `ca.crt` of `secret`, whose outlook this is, has held these CAs of it, announced
    /// time included; `None` if nothing tells.
    pub fn holds_since(
        &self,
        anchors: &[Fingerprint],
        secret: &PublicSecret<'_>,
    ) -> Option<Timestamp> {
        let since = |anchor: &Fingerprint| {
            let is_it = |it: &&BundleCertificate| it.certificate.fingerprint() == *anchor;
            match self.certificates.iter().find(is_it)?.carried {
                Some(entry) => entry.announced.map(|_| entry.since),
                None => successor_since(&self.certificates, |_| true),
            }
        };
        let known: Option<Vec<_>> = anchors.iter().map(since).collect();
        let known = known.and_then(|known| known.into_iter().max());
        known.into_iter().chain(self.changed(secret)).min()
    }

    /// Whether the stage of `secret`, whose outlook this is, is to end now, judged by this Secret
    /// alone. Something else may be due first.
    pub fn is_stage_over(&self, secret: &PublicSecret<'_>, now: Timestamp) -> bool {
        end_of_stage(self.stage.as_ref(), secret, now).is_some()
    }
}

impl StageOutlook {
    fn is_overdue(&self, rules: &Rules, now: Timestamp) -> bool {
        self.overdue(rules) <= now
    }

    fn overdue(&self, rules: &Rules) -> Timestamp {
        later(self.stage.since, OVERDUE.max(rules.settle * 10))
    }

    /// Whether the promotion waits for its group no longer. Anyone may join a group, so the wait is
    /// limited by `--group-wait`, which begins when the Secret itself is ready.
    pub fn is_wait_over(&self, group_wait: Duration, now: Timestamp) -> bool {
        later(self.ready, group_wait).min(self.latest) <= now
    }

    /// The earliest time of the promotion, if another Secret has held the new CA since `since`.
    pub fn ready_after(&self, since: Timestamp, rules: &Rules) -> Timestamp {
        self.ready.max(later(since, rules.settle)).min(self.latest)
    }
}

/// The age at which a stage becomes a problem: this, or ten times `--settle` if that is longer.
const OVERDUE: Duration = Duration::from_secs(3600);
/// How much of the held leaf's life must be left when a stage ends: this, or five times `--settle`
/// if that is longer.
const RESERVE: Duration = Duration::from_secs(12 * 3600);
/// A certificate expires soon when this many seconds of its life are left, or a fifth of its life
/// if that is shorter.
const SOON: i64 = 7 * 86_400;

/// A parsed Secret: everything that does not depend on the time.
struct ParsedSecret<'a> {
    secret: &'a PublicSecret<'a>,
    settings: Settings,
    record: Option<Record>,
    record_is_unreadable: bool,
    certificates: Vec<BundleCertificate>,
    leaf: Option<ServedLeaf>,
    leaf_certificate: Option<Certificate>,
    may_change_data: bool,
    issuers: Issuers,
}

impl<'a> ParsedSecret<'a> {
    fn of(secret: &'a PublicSecret<'a>, rules: &Rules) -> Self {
        let settings = settings(secret, rules);
        let parsed = secret.annotation(names::CARRIED);
        let parsed = parsed.map(|text| Record::of_object(text, secret.uid).map(|(it, _)| it));
        let record_is_unreadable = matches!(parsed, Some(Err(_)));
        let record = parsed.and_then(Result::ok);
        let bundle = secret.ca_crt.and_then(|text| Bundle::parse(text, MAX_STORED_BLOCKS).ok());
        let bundle = bundle.unwrap_or_default();
        let chain = chain(secret.tls_crt);
        let leaf_certificate = chain.certificates().first().cloned();
        let issuers = Issuers::default();
        let certificates = certificates(&bundle, record.as_ref(), &chain, &settings, &issuers);
        Self {
            secret,
            may_change_data: may_change_data(secret, &settings),
            settings,
            record,
            record_is_unreadable,
            certificates,
            leaf: leaf_certificate.as_ref().map(|certificate| ServedLeaf {
                fingerprint: certificate.fingerprint(),
                not_after: expiry(certificate),
            }),
            leaf_certificate,
            issuers,
        }
    }

    /// The carried certificates that the webhook would remove now, and those that end but that it
    /// would announce from now on.
    fn going(&self, now: Timestamp) -> Vec<Fingerprint> {
        let may_go = |c: &BundleCertificate| c.is_announced() || self.has_ended(c, now);
        if !self.certificates.iter().any(may_go) || !self.may_change_data {
            return Vec::new();
        }
        let decision = self.decide(Announcing::AsBefore, 0, now);
        let left = decision.ca_crt.map(|left| Bundle::parse(&left, MAX_STORED_BLOCKS));
        let left = left.map(Result::unwrap_or_default);
        let goes = |c: &BundleCertificate| {
            left.as_ref().is_some_and(|left| !left.contains(&c.certificate))
        };
        let is_announced_now = |c: &BundleCertificate| match &decision.record {
            RecordAfter::Set(record) if self.has_ended(c, now) => {
                let entry = record.entry(c.certificate.fingerprint());
                entry.is_some_and(|entry| entry.announced.is_some())
            }
            _ => false,
        };
        let ends = self.certificates.iter().filter(|c| goes(c) || is_announced_now(c));
        ends.map(|c| c.certificate.fingerprint()).collect()
    }

    /// What the webhook would decide about a write that changes nothing.
    fn decide(&self, announcing: Announcing<'_>, room: usize, now: Timestamp) -> Decision {
        let contents = Contents { ca_crt: self.secret.ca_crt, tls_crt: self.secret.tls_crt };
        overlap::decide(&Write {
            now,
            stored: contents,
            incoming: contents,
            record: self.record.as_ref(),
            settings: &self.settings,
            may_change_data: true,
            room,
            repair: &[],
            issuers: &self.issuers,
            announcing,
        })
    }

    fn has_ended(&self, it: &BundleCertificate, now: Timestamp) -> bool {
        it.carried.is_some() && (it.ends.is_some_and(|ends| ends <= now) || self.is_distrusted(it))
    }

    fn is_distrusted(&self, it: &BundleCertificate) -> bool {
        let distrust = &self.settings.distrust;
        !distrust.is_empty() && distrust.contains(&it.certificate.fingerprint())
    }

    fn problems(&self, going: &[Fingerprint], now: Timestamp) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.record_is_unreadable {
            problems.push(Problem::RecordUnreadable);
        }
        problems.extend(self.settings.warnings.iter().map(|w| Problem::SettingUnreadable(*w)));
        let restart = self.secret.annotation(names::RESTART).unwrap_or_default();
        let (_, invalid) = workload::parse_list(restart);
        if invalid > 0 {
            problems.push(Problem::RestartUnreadable(invalid));
        }
        for it in &self.certificates {
            let fingerprint = it.certificate.fingerprint();
            if it.carried.is_some() {
                let stays = self.has_ended(it, now) && !going.contains(&fingerprint);
                if stays && self.may_change_data {
                    problems.push(Problem::RetireBlocked(fingerprint));
                }
                continue;
            }
            if self.is_distrusted(it) {
                problems.push(Problem::OwnDistrusted(fingerprint));
            }
            if let Some(not_after) = expires_soon(&it.certificate, now) {
                problems.push(Problem::OwnExpiring(fingerprint, not_after));
            }
        }
        let leaf = self.leaf_certificate.as_ref();
        problems.extend(leaf.and_then(|l| expires_soon(l, now)).map(Problem::LeafExpiring));
        let staged = self.secret.annotation(names::STAGED);
        if staged.is_some_and(|text| Stage::parse(text).is_err()) {
            problems.push(Problem::StageUnreadable);
        }
        if self.secret.waits() && self.secret.is_immutable {
            problems.push(Problem::StageImmutable);
        } else if self.secret.is_left_over() && !problems.contains(&Problem::StageUnreadable) {
            problems.push(Problem::StageLost);
        }
        problems
    }

    fn staged(&self, rules: &Rules) -> Option<StageOutlook> {
        let stage = self.secret.stage()?;
        let pending = chain(self.secret.pending_tls_crt);
        let certificates: Vec<Certificate> =
            self.certificates.iter().map(|c| c.certificate.clone()).collect();
        let anchors = self.issuers.of_chain(&pending, &certificates, &std::iter::empty());
        let told = successor_since(&self.certificates, |known| known.issued_leaf);
        // A clock that was set back does not make it wait for longer.
        let trusted = told.map_or(stage.since, |told| told.min(stage.since));
        let ready = later(trusted, rules.settle).max(stage.since);
        let reserve = SignedDuration::try_from(RESERVE.max(rules.settle * 5));
        let not_after = self.leaf.and_then(|leaf| leaf.not_after);
        let latest = not_after.zip(reserve.ok()).map(|(end, reserve)| end.checked_sub(reserve));
        let latest = latest.and_then(Result::ok).unwrap_or(Timestamp::MAX);
        // Whoever has the key of a distrusted CA can imitate the held leaf, so it waits for nobody.
        let is_distrusted = |c: &BundleCertificate| c.issued_leaf && self.is_distrusted(c);
        let must_not_be_held = self.certificates.iter().any(is_distrusted);
        let anchors: Vec<_> = anchors.iter().map(|&i| certificates[i].fingerprint()).collect();
        let issued_held = self.certificates.iter().filter(|known| known.issued_leaf);
        let issued_held = issued_held.map(|known| known.certificate.fingerprint());
        Some(StageOutlook {
            stage,
            held_anchors: issued_held.filter(|held| !anchors.contains(held)).collect(),
            anchors,
            ready,
            latest: if must_not_be_held { stage.since } else { latest },
        })
    }

    fn check(
        &self,
        stage: Option<&StageOutlook>,
        rules: &Rules,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let own = self.certificates.iter().filter(|c| c.carried.is_none());
        let own = own.map(|c| &c.certificate);
        let soon = own.chain(&self.leaf_certificate).filter_map(soon);
        let overdue = stage.map(|staged| staged.overdue(rules));
        soon.chain(overdue).filter(|at| *at > now).min()
    }

    fn next(&self, stage: Option<&StageOutlook>, now: Timestamp) -> Option<Upcoming> {
        let carried = self.certificates.iter().filter(|c| c.carried.is_some());
        let retire =
            carried.filter_map(|c| c.ends).map(|at| Upcoming { at, what: Planned::Retire });
        let promote = stage
            .map(|staged| Upcoming { at: staged.ready.min(staged.latest), what: Planned::Promote });
        retire
            .chain(promote)
            .filter(|next| self.may_change_data && next.at > now)
            .min_by_key(|next| next.at)
    }
}

/// Since when the own CAs have been there, as all previous CAs that `counts` picks tell.
fn successor_since(
    certificates: &[BundleCertificate],
    counts: impl Fn(&BundleCertificate) -> bool,
) -> Option<Timestamp> {
    let previous = certificates.iter().filter(|known| counts(known) && !known.is_announced());
    let told = previous.filter_map(|known| known.carried).map(|entry| entry.successor_since);
    told.collect::<Option<Vec<_>>>()?.into_iter().max()
}

fn certificates(
    bundle: &Bundle,
    record: Option<&Record>,
    chain: &Bundle,
    settings: &Settings,
    issuers: &Issuers,
) -> Vec<BundleCertificate> {
    let certificates = bundle.certificates();
    let issued = issuers.of_chain(chain, certificates, &std::iter::empty());
    let entries = carried_entries(bundle, record);
    let window = settings.window.length();
    let member = |(index, (certificate, carried)): (usize, (&Certificate, Option<Entry>))| {
        let deadline = carried.and_then(|entry| entry.deadline(window));
        let expiry = carried.and_then(|_| expiry(certificate));
        BundleCertificate {
            certificate: certificate.clone(),
            carried,
            ends: [deadline, expiry].into_iter().flatten().min(),
            issued_leaf: issued.contains(&index),
        }
    };
    certificates.iter().zip(entries).enumerate().map(member).collect()
}

/// When a certificate expires; `None` beyond the year 9999, which counts as never.
fn expiry(certificate: &Certificate) -> Option<Timestamp> {
    Timestamp::from_second(certificate.not_after()).ok()
}

fn expires_soon(certificate: &Certificate, now: Timestamp) -> Option<Timestamp> {
    let left = certificate.not_after().saturating_sub(now.as_second());
    // Call `soon` last: it parses the whole certificate, because notBefore is not among the stored
    // fields.
    let is_soon = left <= SOON && soon(certificate)? <= now;
    is_soon.then(|| expiry(certificate)).flatten()
}

/// The time from which a certificate counts as expiring soon.
fn soon(certificate: &Certificate) -> Option<Timestamp> {
    let begin = certificate.parsed()?.validity().not_before.timestamp();
    let end = certificate.not_after();
    let fifth = end.saturating_sub(begin) / 5;
    Timestamp::from_second(end.saturating_sub(fifth.min(SOON))).ok()
}

/// `start + length`, at most [`Timestamp::MAX`].
fn later(start: Timestamp, length: Duration) -> Timestamp {
    let length = SignedDuration::try_from(length);
    length.ok().and_then(|length| start.checked_add(length).ok()).unwrap_or(Timestamp::MAX)
}
