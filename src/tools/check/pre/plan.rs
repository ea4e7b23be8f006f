//! What webhook and keeper would do with a Secret. The code of the webhook decides: it is shown the
//! next rotation of that Secret, with a CA and a leaf that were made for this. Pure, but for the
//! making of these.

use std::collections::{BTreeMap, BTreeSet};

use base64::prelude::*;
use jiff::Timestamp;
use kube::Resource;
use serde_json::{Map, Value, json};

use super::readers::Readers;
use crate::admission::guard::SkipReason;
use crate::admission::respond::{AdmissionDecision, Answer, Installation, respond};
use crate::admission::review;
use crate::kubernetes::issuer::IssuerKey;
use crate::kubernetes::key::Key;
use crate::kubernetes::secret_view::SecretView;
use crate::names;
use crate::overlap::outlook::PublicSecret;
use crate::overlap::settings::{Defaults, Mode, RawSettings, Settings};
use crate::overlap::staged::{KeeperHealth, StageChange};
use crate::overlap::workload::{self, Workload};
use crate::overlap::{Case, exempt, trust};
use crate::tools::error::ToolError;
use crate::tools::simulate::generator;
use crate::tools::text::data_left_alone;

/// What would happen to a Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    Staged,
    Announced,
    Bundled,
    LeftAlone,
}

impl Outcome {
    pub(super) const ALL: [Self; 4] =
        [Self::Staged, Self::Announced, Self::Bundled, Self::LeftAlone];

    /// Its name in machine output.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Staged => "staged",
            Self::Announced => "announced",
            Self::Bundled => "bundled",
            Self::LeftAlone => "leftAlone",
        }
    }
}

/// Why a Secret is not staged, or is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Why {
    /// Its name in machine output.
    pub(super) name: String,
    pub(super) text: String,
}

/// The plan for one Secret. It holds no value of the Secret.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub(super) kind: String,
    pub(super) outcome: Outcome,
    pub(super) why: Option<Why>,
    /// The Secrets whose CAs the keeper announces to it.
    pub(super) sources: Vec<Key>,
    /// The workloads that its annotation `restart` names.
    pub(super) restart: Vec<Workload>,
    pub(super) readers: Readers,
}

/// Knows what the plan depends on, besides the Secret.
pub(super) struct Planner {
    installation: Installation,
    now: Timestamp,
    /// The data of the next rotation: of a Secret with a leaf, and of one that holds the CA itself.
    next: Vec<Value>,
    /// The namespaces that are opted out.
    pub(super) off: BTreeSet<String>,
    /// The CA issuers of cert-manager, and the Secrets that they sign with.
    pub(super) issuers: BTreeMap<IssuerKey, Key>,
}

impl Planner {
    /// Plans for `overlays/full` in the namespace `installed_in`.
    pub(super) fn new(installed_in: &str, now: Timestamp) -> Result<Self, ToolError> {
        let defaults = Defaults { mode: Mode::Staged, ..Defaults::default() };
        let next = generator::generation(1)
            .map_err(|error| ToolError::failed("cannot make a certificate", error))?;
        Ok(Self {
            installation: Installation::new(defaults, installed_in),
            now,
            next,
            off: BTreeSet::new(),
            issuers: BTreeMap::new(),
        })
    }

    /// The plan for a Secret; `None` if it holds no TLS certificates.
    pub(super) fn plan(&self, secret: &SecretView) -> Option<Planned> {
        let view = secret.view();
        if !secret.is_tls() && view.ca_crt.is_none() {
            return None;
        }
        let key = Key::of(secret);
        let (mut outcome, why) = self.outcome(secret, &key);
        let sources = self.sources(secret, &key);
        if outcome == Outcome::Bundled && !sources.is_empty() {
            outcome = Outcome::Announced;
        }
        let restart = view.annotation(names::RESTART).unwrap_or_default();
        Some(Planned {
            kind: secret.kind().to_owned(),
            outcome,
            why,
            sources: if outcome == Outcome::LeftAlone { Vec::new() } else { sources },
            restart: workload::parse_list(restart).0,
            readers: Readers::new(),
        })
    }

    fn outcome(&self, secret: &SecretView, key: &Key) -> (Outcome, Option<Why>) {
        let left_alone = |name: &str, text: &str| (Outcome::LeftAlone, Some(why(name, text)));
        if key.namespace() == names::UNCALLED_NAMESPACE {
            return left_alone("systemNamespace", "the webhook is not called for its namespace");
        }
        if self.off.contains(key.namespace()) {
            return left_alone("namespaceOff", "its namespace is opted out");
        }
        let body = self.rotation(secret, key).to_string();
        let Ok(request) = review::read(body.as_bytes()) else {
            return left_alone("notReadable", "it cannot be read");
        };
        let answer = respond(&request, &self.installation, KeeperHealth::Alive, self.now);
        let not_staged = answer
            .warnings
            .iter()
            .find_map(|warning| Some(why(warning.reason(), warning.why_not_staged()?)));
        let begun: &str = StageChange::Begun.into();
        if answer.staged == Some(begun) {
            (Outcome::Staged, None)
        } else if answer.appended > 0 {
            (Outcome::Bundled, not_staged.or_else(|| self.not_wanted(secret)))
        } else {
            (Outcome::LeftAlone, Some(why_left_alone(&answer)))
        }
    }

    /// Why no stage of this Secret was looked for.
    fn not_wanted(&self, secret: &SecretView) -> Option<Why> {
        let raw = RawSettings { mode: secret.label(names::MODE), ..RawSettings::default() };
        let mode = Settings::read(raw, &self.installation.defaults).mode;
        if mode != Mode::Staged {
            return Some(why("mode", &format!("its mode is {mode}")));
        }
        let has_pair = secret.view().tls_crt.is_some() && secret.has_tls_key();
        (!has_pair).then(|| why("noPair", "it has no leaf with a key that could wait"))
    }

    /// The Secrets whose CAs are announced to this one.
    fn sources(&self, secret: &SecretView, key: &Key) -> Vec<Key> {
        let issuer = IssuerKey::of_secret(key, secret.meta());
        let of_issuer = issuer.and_then(|issuer| self.issuers.get(&issuer).cloned());
        let (named, _) = trust::parse_list(secret.annotation(names::TRUST).unwrap_or_default());
        let named = named.into_iter().map(|it| {
            Key::new(it.namespace.unwrap_or_else(|| key.namespace().to_owned()), it.name)
        });
        of_issuer.into_iter().chain(named).filter(|source| source != key).collect()
    }

    /// The review of a write that replaces the certificates of the Secret by new ones.
    fn rotation(&self, secret: &SecretView, key: &Key) -> Value {
        let view = secret.view();
        let is_its_own_anchor = exempt::is_its_own_anchor(view.ca_crt, view.tls_crt);
        let next = &self.next[usize::from(is_its_own_anchor)];
        let stored = object(secret, &view);
        let mut object = stored.clone();
        for key in [names::CA_CRT, names::TLS_CRT, names::TLS_KEY] {
            if let Some(value) = object["data"].get_mut(key) {
                *value = next[key].clone();
            }
        }
        json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "plan",
                "kind": {"group": "", "version": "v1", "kind": "Secret"},
                "operation": "UPDATE",
                "namespace": key.namespace(),
                "name": key.name(),
                "options": {"kind": "UpdateOptions"},
                "object": object,
                "oldObject": stored,
            }
        })
    }
}

/// Stands for a value that is not read.
const UNREAD: &str = "dW5yZWFk";

/// The Secret as the webhook would see it, without values that are not read, and without what a
/// webhook left on it.
fn object(secret: &SecretView, view: &PublicSecret<'_>) -> Value {
    let mut data = Map::new();
    for (key, value) in [(names::CA_CRT, view.ca_crt), (names::TLS_CRT, view.tls_crt)] {
        data.extend(value.map(|it| (key.to_owned(), BASE64_STANDARD.encode(it).into())));
    }
    let key = secret.has_tls_key().then_some(names::TLS_KEY);
    let other = secret.has_other_keys().then_some("other");
    let watched = view.keys.iter().copied().filter(|key| !names::PENDING.contains(key));
    data.extend(watched.chain(key).chain(other).map(|key| (key.to_owned(), UNREAD.into())));
    let settings = |all: &BTreeMap<String, String>| {
        const STATE: [&str; 5] =
            [names::PHASE, names::CARRIED, names::STAGED, names::PREVIOUS, names::ASK];
        let kept = all.iter().filter(|(key, _)| !STATE.contains(&key.as_str()));
        kept.map(|(key, value)| (key.clone(), value.clone().into())).collect::<Map<_, Value>>()
    };
    let owners =
        view.owners.names().iter().map(|group| json!({"apiVersion": format!("{group}/v1")}));
    json!({
        "type": secret.kind(),
        "immutable": view.is_immutable,
        "metadata": {
            "labels": settings(view.labels),
            "annotations": settings(view.annotations),
            "ownerReferences": owners.collect::<Vec<_>>(),
        },
        "data": data,
    })
}

fn why_left_alone(answer: &Answer) -> Why {
    let name = answer.decision.as_str();
    let text = match answer.decision {
        AdmissionDecision::Exempt(reason) => {
            let text = data_left_alone(reason);
            text.strip_prefix("data is left alone: ").unwrap_or(text).to_owned()
        }
        AdmissionDecision::Skipped(SkipReason::Immutable) => "it is immutable".to_owned(),
        AdmissionDecision::Skipped(SkipReason::OwnNamespace) => {
            "it is in the namespace of ca-overlap".to_owned()
        }
        AdmissionDecision::Skipped(SkipReason::ServiceAccountToken) => {
            "it is a ServiceAccount token".to_owned()
        }
        AdmissionDecision::Skipped(SkipReason::NotASecretUpdate) => "it is no Secret".to_owned(),
        AdmissionDecision::Case(Case::NoCa) => "it has no ca.crt".to_owned(),
        AdmissionDecision::Case(Case::TrustStore) => {
            "its ca.crt has so many CAs that it is a trust store".to_owned()
        }
        AdmissionDecision::Case(_) => match answer.warnings.first() {
            Some(warning) => {
                let text = warning.to_string();
                let text = text.strip_prefix("ca-overlap: ").unwrap_or(&text);
                return why(warning.reason(), text);
            }
            None => return why("nothingCarried", "nothing of its ca.crt would be carried"),
        },
    };
    why(name, &text)
}

/// Takes a name in snake case or in camel case.
fn why(name: &str, text: &str) -> Why {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (first, rest) = word.split_at(1);
        camel.push_str(&first.to_uppercase());
        camel.push_str(rest);
    }
    Why { name: camel, text: text.to_owned() }
}
