//! The flags for defaults of settings, which webhook and keeper share and must get alike.

use clap::Args;

use crate::overlap::settings::{Defaults, Keep, Mode, Window};

/// The settings of Secrets that do not set them.
#[derive(Clone, Copy, Debug, Args)]
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
}

impl DefaultsArgs {
    pub(super) fn defaults(self) -> Defaults {
        let Self { default_mode, keep, window } = self;
        Defaults { mode: default_mode, keep, window }
    }
}
