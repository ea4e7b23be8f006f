//! Flags that tell a command how webhook and keeper are configured.

use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use kube::Client;

use super::installed::Installed;
use crate::kubernetes::explain::{Audience, explain};
use crate::overlap::outlook::Rules;
use crate::overlap::settings::{Defaults, Mode, Window, parse_time};

/// Flags of webhook and keeper that decide what happens next to a Secret.
#[derive(Clone, Debug, Args)]
pub(crate) struct ServerArgs {
    /// The webhook's --window: how long it carries a previous CA by default [default: as installed]
    #[arg(long, value_name = "DURATION", value_parser = Window::from_str)]
    window: Option<Window>,

    /// The keeper's --settle: how long it waits before it promotes a new leaf [default: as
    /// installed]
    #[arg(long, value_name = "DURATION", value_parser = parse_time)]
    settle: Option<Duration>,

    /// The webhook's --default-mode: the mode of Secrets without a label [default: as installed]
    #[arg(long, value_name = "MODE", value_parser = Mode::from_str)]
    default_mode: Option<Mode>,
}

impl ServerArgs {
    /// What these flags say, and else the defaults of the program.
    pub(crate) fn rules(&self) -> Rules {
        self.over(Rules { defaults: Defaults::default(), settle: SETTLE })
    }

    /// What these flags say, and else what the servers in this namespace run with. Says on standard
    /// error what cannot be read.
    pub(crate) async fn rules_of(&self, client: &Client, namespace: &str) -> Rules {
        let mut rules = self.rules();
        let unknown = match Installed::read(client, namespace).await {
            Ok(Installed { webhook: None, .. }) => {
                format!("there is no Deployment of the webhook in namespace {namespace}")
            }
            Ok(installed) => match installed.put_into(&mut rules)[..] {
                [] => return self.over(rules),
                ref flags => format!("{} cannot be read", flags.join(", ")),
            },
            Err(error) => explain(&error, Audience::Caller),
        };
        if self.window.is_none() || self.settle.is_none() || self.default_mode.is_none() {
            eprintln!(
                "ca-overlap: cannot tell the flags of webhook and keeper, so defaults count: {unknown}"
            );
        }
        self.over(rules)
    }

    fn over(&self, mut rules: Rules) -> Rules {
        rules.settle = self.settle.unwrap_or(rules.settle);
        let defaults = &mut rules.defaults;
        defaults.window = self.window.unwrap_or(defaults.window);
        defaults.mode = self.default_mode.unwrap_or(defaults.mode);
        rules
    }
}

/// The default of `--settle`.
pub(super) const SETTLE: Duration = Duration::from_secs(300);
