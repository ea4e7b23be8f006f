//! What the servers are set to, for commands that say what these will do.

use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use humantime::parse_duration;

use crate::overlap::outlook::Rules;
use crate::overlap::settings::{Defaults, Window};

/// Flags of webhook and keeper.
#[derive(Clone, Debug, Args)]
pub(crate) struct SettingsArgs {
    /// How long the webhook carries a previous CA where the Secret says nothing; as its own flag
    #[arg(long, value_name = "DURATION", env = "CA_OVERLAP_WINDOW", default_value = "none", value_parser = Window::from_str)]
    window: Window,

    /// How long the keeper lets files spread before it promotes a leaf; as its own flag
    #[arg(long, value_name = "DURATION", env = "CA_OVERLAP_SETTLE", default_value = "120s", value_parser = parse_duration)]
    settle: Duration,
}

impl SettingsArgs {
    pub(crate) fn rules(&self) -> Rules {
        let defaults = Defaults { window: self.window, ..Defaults::default() };
        Rules { defaults, settle: self.settle }
    }
}
