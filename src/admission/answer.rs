//! The answer to a request, and the configuration that it depends on.

use std::time::Duration;

use json_patch::Patch;

use super::decision::AdmissionDecision;
use crate::names;
use crate::overlap::Warning;
use crate::overlap::record::Record;
use crate::overlap::settings::Defaults;

/// The largest Secret that the API server accepts: the sum of its decoded values, in bytes
/// (`MaxSecretSize` of the core API).
pub const MAX_DATA: usize = 1024 * 1024;

/// The default of `--settle`.
pub const SETTLE: Duration = Duration::from_secs(300);

/// The configuration that holds for every Secret of this installation.
#[derive(Clone, Debug)]
pub struct Installation {
    /// The settings of Secrets that do not set their own.
    pub defaults: Defaults,
    /// The namespace that we run in. Its Secrets are never changed.
    pub own_namespace: String,
    /// The only user who may ask (`--keeper-user`).
    pub keeper_user: String,
    /// How long the keeper waits before it promotes a waiting pair (`--settle`).
    pub settle: Duration,
    /// Whether every answer leaves out its patch (`--audit`).
    pub audit: bool,
}

impl Installation {
    /// Expects the keeper to run as its default `ServiceAccount` in the same namespace.
    pub fn new(defaults: Defaults, own_namespace: impl Into<String>) -> Self {
        let own_namespace = own_namespace.into();
        let keeper_user =
            format!("system:serviceaccount:{own_namespace}:{}", names::KEEPER_SERVICE_ACCOUNT);
        Self { defaults, own_namespace, keeper_user, settle: SETTLE, audit: false }
    }
}

/// The answer to one request. It always allows the write.
pub struct Answer {
    /// Which rule, exemption or guard applied.
    pub decision: AdmissionDecision,
    /// The patch, if the write is changed.
    pub patch: Option<Patch>,
    /// The warnings for the writer.
    pub warnings: Vec<Warning>,
    /// What is carried after the write.
    pub record: Record,
    /// How many certificates were appended.
    pub appended: usize,
    /// How many CAs were newly announced.
    pub announced: usize,
    /// How many carried certificates were removed.
    pub cut: usize,
    /// The name of the ask, if it was carried out.
    pub asked: Option<&'static str>,
    /// How the staged rotation changed, if there is or was one.
    pub staged: Option<&'static str>,
    /// With `--audit`: [`WOULD_CHANGE`], or [`NO_CHANGE`]. All else is as it would be without it.
    pub audit: Option<&'static str>,
}

/// The value of [`Answer::audit`] if a patch was left out.
pub const WOULD_CHANGE: &str = "would_change";
/// The value of [`Answer::audit`] if there was no patch.
pub const NO_CHANGE: &str = "no_change";

impl Answer {
    pub(super) fn without_change(decision: AdmissionDecision) -> Self {
        Self {
            decision,
            patch: None,
            warnings: Vec::new(),
            record: Record::default(),
            appended: 0,
            announced: 0,
            cut: 0,
            asked: None,
            staged: None,
            audit: None,
        }
    }

    /// The answer with `--audit`: without its patch.
    pub(super) fn audited(self) -> Self {
        let audit = Some(if self.patch.is_some() { WOULD_CHANGE } else { NO_CHANGE });
        Self { patch: None, audit, ..self }
    }

    /// The warnings in words. With `--audit` the first one says what would be changed.
    pub(super) fn texts(&self) -> Vec<String> {
        let texts = self.warnings.iter().map(ToString::to_string);
        if self.audit.is_none() {
            return texts.collect();
        }
        let would = self.would().into_iter();
        let texts = texts.map(|text| {
            format!("{AUDIT}warn: {}", text.strip_prefix("ca-overlap: ").unwrap_or(&text))
        });
        would.chain(texts).collect()
    }

    /// What would happen to the certificates of the Secret, in words.
    fn would(&self) -> Option<String> {
        let counts = [("keep", self.appended), ("announce", self.announced), ("remove", self.cut)];
        let counts = counts.into_iter().filter(|(_, count)| *count > 0);
        let counts = counts.map(|(verb, count)| {
            let plural = if count == 1 { "" } else { "s" };
            format!("{verb} {count} CA{plural}")
        });
        let stage = self.staged.map(|change| match change {
            "begun" => "hold the new leaf back".to_owned(),
            change => format!("note its stage as {change}"),
        });
        let all: Vec<String> = counts.chain(stage).collect();
        (!all.is_empty())
            .then(|| format!("{AUDIT}{}; the write is stored as it is", all.join(", ")))
    }
}

/// How a warning begins with `--audit`.
const AUDIT: &str = "ca-overlap (audit): would ";
