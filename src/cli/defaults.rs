//! The flags for defaults of settings, which webhook and keeper share and must get alike.

use std::path::PathBuf;

use clap::Args;

use crate::overlap::settings::{Defaults, Keep, Mode, Window};

/// The settings of Secrets that do not set them.
#[derive(Clone, Debug, Args)]
pub(super) struct DefaultsArgs {
    /// The mode of Secrets without the label ca-overlap.dev/mode: bundle, staged or off
    #[arg(long, value_name = "MODE", env = "CA_OVERLAP_DEFAULT_MODE", default_value = "bundle")]
    default_mode: Mode,

    /// How many previous CAs a Secret carries, 0 to 8
    #[arg(long, value_name = "N", env = "CA_OVERLAP_KEEP", default_value = "1")]
    keep: Keep,

    /// How long a previous CA is carried, such as 24h; none means until the next rotation
    #[arg(long, value_name = "TIME", env = "CA_OVERLAP_WINDOW", default_value = "none")]
    window: Window,

    /// The directory with the list of distrusted CAs; re-read when its content changes
    ///
    /// The manifests mount the ConfigMap ca-overlap-distrusted here. Its CAs are never carried, in
    /// any Secret of the cluster. ca-overlap distrust -A adds to it.
    #[arg(
        long,
        value_name = "DIR",
        env = "CA_OVERLAP_DISTRUSTED",
        help_heading = "Distrusted CAs"
    )]
    distrusted: Option<PathBuf>,

    /// Decide, count, log and warn as usual, but change nothing: a trial
    ///
    /// Every write is stored as it comes, and the keeper writes neither Secrets nor workloads. Where
    /// rotations are in flight, run ca-overlap drain first.
    #[arg(long, env = "CA_OVERLAP_AUDIT", help_heading = "Trial")]
    audit: bool,
}

impl DefaultsArgs {
    /// The defaults, the directory of `--distrusted`, and whether `--audit` is set.
    pub(super) fn defaults(self) -> (Defaults, Option<PathBuf>, bool) {
        let Self { default_mode, keep, window, distrusted, audit } = self;
        (Defaults { mode: default_mode, keep, window, ..Defaults::default() }, distrusted, audit)
    }
}
