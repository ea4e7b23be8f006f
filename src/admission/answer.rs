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
}

impl Installation {
    /// Expects the keeper to run as its default `ServiceAccount` in the same namespace.
    pub fn new(defaults: Defaults, own_namespace: impl Into<String>) -> Self {
        let own_namespace = own_namespace.into();
        let keeper_user =
            format!("system:serviceaccount:{own_namespace}:{}", names::KEEPER_SERVICE_ACCOUNT);
        Self { defaults, own_namespace, keeper_user, settle: SETTLE }
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
    /// How many CAs were announced anew.
    pub announced: usize,
    /// How many carried certificates were removed.
    pub cut: usize,
    /// The name of the ask, if it was carried out.
    pub asked: Option<&'static str>,
    /// How the staged rotation changed, if there is or was one.
    pub staged: Option<&'static str>,
}

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
        }
    }
}
