//! The user's own cluster: which kubeconfig, as whom, which namespaces.

use std::cell::Cell;
use std::path::PathBuf;

use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::error::Error;
use super::progress;
use crate::kubernetes::explain::{Audience, causes, explain};
use crate::kubernetes::list::{self, Namespaces, Unread};
use crate::kubernetes::secret_view::SecretView;

/// How commands for people reach a cluster: the flags of kubectl, and its files.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ClusterArgs {
    /// All namespaces; counts more than --namespace
    #[arg(short = 'A', long, env = "CA_OVERLAP_ALL_NAMESPACES")]
    pub(crate) all_namespaces: bool,

    /// This namespace alone [default: the kubeconfig's]
    #[arg(short, long, value_name = "NAME", env = "CA_OVERLAP_TARGET_NAMESPACE")]
    pub(crate) namespace: Option<String>,

    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

/// Which cluster, and as whom.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct AccessArgs {
    /// The kubeconfig [default: `KUBECONFIG`, else ~/.kube/config, else the pod's own account]
    #[arg(long, value_name = "FILE", env = "CA_OVERLAP_KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// The context in it [default: its current one]
    #[arg(long, value_name = "NAME", env = "CA_OVERLAP_CONTEXT")]
    pub(crate) context: Option<String>,

    /// Act as this user
    #[arg(long = "as", value_name = "USER", env = "CA_OVERLAP_AS")]
    pub(crate) impersonate: Option<String>,
}

/// A client, and where to look.
#[derive(Clone)]
pub(crate) struct Cluster {
    /// As the user.
    pub(crate) client: Client,
    /// Which namespaces.
    pub(crate) scope: Namespaces,
    /// The namespace of names that are given without one.
    pub(crate) namespace: String,
}

impl ClusterArgs {
    /// Reads the kubeconfig. Makes no call yet.
    pub(crate) async fn connect(&self) -> Result<Cluster, Error> {
        let config = self.access.config().await?;
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let scope =
            if self.all_namespaces { Namespaces::All } else { Namespaces::One(namespace.clone()) };
        Ok(Cluster { client: client(config)?, scope, namespace })
    }
}

impl Cluster {
    /// Hands every Secret in scope to `each`, and says how far it has come where that takes long.
    /// One may come twice; what could not be read is returned.
    pub(crate) async fn read_secrets(
        &self,
        selector: Option<&str>,
        mut each: impl FnMut(SecretView),
    ) -> Vec<Unread> {
        let seen = Cell::new(0_usize);
        let counted = |secret| {
            seen.set(seen.get() + 1);
            each(secret);
        };
        let reading = list::read_all(&self.client, &self.scope, selector, counted);
        progress::during(|| format!("reading Secrets, {} so far", seen.get()), reading).await
    }
}

impl AccessArgs {
    /// Reads the kubeconfig. Makes no call yet.
    pub(crate) async fn connect(&self) -> Result<Client, Error> {
        client(self.config().await?)
    }

    async fn config(&self) -> Result<Config, Error> {
        let mut config = self.read().await?;
        if let Some(user) = &self.impersonate {
            config.auth_info.impersonate = Some(user.clone());
        }
        Ok(config)
    }

    async fn read(&self) -> Result<Config, Error> {
        let wrong = |error: &dyn std::error::Error| {
            let advice = "set KUBECONFIG, or --kubeconfig and --context";
            Error::Failed(format!("no cluster to talk to: {}; {advice}", causes(error)))
        };
        let options =
            KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        match (&self.kubeconfig, &self.context) {
            (Some(file), _) => {
                let file = Kubeconfig::read_from(file).map_err(|e| wrong(&e))?;
                Config::from_custom_kubeconfig(file, &options).await.map_err(|e| wrong(&e))
            }
            (None, Some(_)) => Config::from_kubeconfig(&options).await.map_err(|e| wrong(&e)),
            (None, None) => Config::infer().await.map_err(|e| wrong(&e)),
        }
    }
}

fn client(config: Config) -> Result<Client, Error> {
    Client::try_from(config).map_err(|error| {
        Error::failed("the kubeconfig cannot be used", explain(&error, Audience::Caller))
    })
}
