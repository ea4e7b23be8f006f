//! `ca-overlap review`: explains the decision of the webhook, without a cluster.

mod input;
mod report;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use jiff::Timestamp;
use serde_json::Value;

use crate::admission::handler::render;
use crate::admission::respond::{Installation, respond};
use crate::admission::review;
use crate::names;
use crate::overlap::settings::{Defaults, Keep, Mode, Window};
use crate::overlap::staged::KeeperHealth;
use crate::tools::error::ToolError;
use crate::tools::output::Output;

/// Explain what the webhook decides about a write, without a cluster
///
/// Reads an AdmissionReview (JSON or YAML), or the old and the new state of a Secret: two Secrets
/// (JSON or YAML) or two PEM files with the content of ca.crt.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ReviewArgs {
    /// An AdmissionReview as JSON or YAML; - reads standard input
    #[arg(value_name = "FILE", required_unless_present_any = ["old", "new"], conflicts_with_all = ["old", "new"])]
    pub(crate) file: Option<PathBuf>,

    /// The Secret as stored: a Secret (JSON or YAML) or a PEM file
    #[arg(long, value_name = "FILE", requires = "new")]
    pub(crate) old: Option<PathBuf>,

    /// The Secret as the generator writes it, in the same formats
    #[arg(long, value_name = "FILE", requires = "old")]
    pub(crate) new: Option<PathBuf>,

    /// Output format; json and yaml hold the webhook's response and, under `result`, the Secret as
    /// stored
    #[arg(short, long, value_parser = Output::one_of(&[Output::Text, Output::Json, Output::Yaml, Output::Diff]), default_value = "text")]
    pub(crate) output: Output,

    /// Decide as of this time (RFC 3339) instead of now
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<Timestamp>,

    /// Mode of Secrets without a label: bundle, staged or off
    #[arg(long, value_name = "MODE", default_value = "bundle", value_parser = Mode::from_str)]
    pub(crate) default_mode: Mode,

    /// How many previous CAs to carry, 0 to 8
    #[arg(long, value_name = "N", default_value = "1", value_parser = Keep::from_str)]
    pub(crate) keep: Keep,

    /// How long to carry a previous CA, such as 24h or 7d; none means until the next rotation
    #[arg(long, value_name = "DURATION", default_value = "none", value_parser = Window::from_str)]
    pub(crate) window: Window,

    /// The webhook's own namespace; its Secrets are left alone
    #[arg(long, value_name = "NAME", default_value = names::NAMESPACE)]
    pub(crate) namespace: String,
}

const EXAMPLES: &str = "Examples:
  ca-overlap review review.json
  ca-overlap review --old old-ca.pem --new new-ca.pem
  kubectl get secret envoy -o yaml >old.yaml
  ca-overlap review --old old.yaml --new new.yaml -o diff

Exit code: 0 if the decision was explained; 2 if something failed; 64 if the command line is
wrong.";

impl ReviewArgs {
    /// Reads the input, decides and prints the explanation.
    pub(crate) fn run(self) -> Result<(), ToolError> {
        let Self { file, old, new, output, at, default_mode, keep, window, namespace } = self;
        let (source, document) = match (file, old, new) {
            (Some(file), _, _) => (file.clone(), input::review(&file)?),
            (None, Some(old), Some(new)) => (new.clone(), input::review_of(&old, &new)?),
            // The argument parser rejects every other combination.
            _ => return Ok(()),
        };
        let defaults = Defaults { mode: default_mode, keep, window, ..Defaults::default() };
        let now = at.unwrap_or_else(Timestamp::now);
        let installation = Installation::new(defaults, namespace);
        decide(&source, &document, &installation, now, output)
    }
}

/// Runs the webhook's code on an admission review and prints the decision.
fn decide(
    source: &Path,
    document: &Value,
    installation: &Installation,
    now: Timestamp,
    output: Output,
) -> Result<(), ToolError> {
    let no_review = |error| ToolError::failed(source.display(), error);
    let body = document.to_string();
    let request = review::read(body.as_bytes()).map_err(no_review)?;
    let mut answer = respond(&request, installation, KeeperHealth::Absent, now);
    let incoming = &document["request"]["object"];
    let result = report::Explanation::new(&request, &answer, incoming, now);
    if let Some(patch) = &mut answer.patch {
        report::without_private_keys(patch);
    }
    let rendered = || {
        let response = render(&request.uid, &answer);
        let mut response: Value = serde_json::from_slice(&response).unwrap_or_default();
        response["result"] = result.to_json();
        response
    };
    let text = || if output == Output::Diff { result.to_diff() } else { result.to_text() };
    Ok(output.print(text, rendered)?)
}
