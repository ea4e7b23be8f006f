//! The user's own cluster: which kubeconfig, as whom, which namespaces.

use std::path::PathBuf;

use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::text::printable;

/// How commands for people reach a cluster: the flags of kubectl, and its files.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterArgs {
    /// All namespaces; counts more than --namespace
    #[arg(short = 'A', long, env = "CA_OVERLAP_ALL_NAMESPACES")]
    pub all_namespaces: bool,

    /// This namespace alone [default: the kubeconfig's]
    #[arg(short, long, value_name = "NAME", env = "CA_OVERLAP_TARGET_NAMESPACE")]
    pub namespace: Option<String>,

    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would show it")]
    pub access: AccessArgs,
}

/// Which cluster, and as whom.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub struct AccessArgs {
    /// The kubeconfig [default: `KUBECONFIG`, else ~/.kube/config, else the pod's own account]
    #[arg(long, value_name = "FILE", env = "CA_OVERLAP_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,

    /// The context in it [default: its current one]
    #[arg(long, value_name = "NAME", env = "CA_OVERLAP_CONTEXT")]
    pub context: Option<String>,

    /// Act as this user
    #[arg(long = "as", value_name = "USER", env = "CA_OVERLAP_AS")]
    pub impersonate: Option<String>,
}

/// Which namespaces a command looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    All,
    /// This one.
    One(String),
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("any namespace"),
            Self::One(name) => write!(f, "namespace {name}"),
        }
    }
}

/// A client, and where to look.
#[derive(Clone)]
pub struct Cluster {
    /// As the user.
    pub client: Client,
    /// Which namespaces.
    pub scope: Scope,
    /// The namespace of names that are given without one.
    pub namespace: String,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No kubeconfig that can be used, and no pod around us.
    #[error("no cluster to talk to: {0}; set KUBECONFIG, or --kubeconfig and --context")]
    Config(String),
    /// A kubeconfig that no client can be made of.
    #[error("the kubeconfig cannot be used: {0}")]
    Client(String),
}

impl ClusterArgs {
    /// Reads the kubeconfig. Makes no call yet.
    pub async fn connect(&self) -> Result<Cluster, ConnectError> {
        let config = self.access.config().await?;
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let scope = if self.all_namespaces { Scope::All } else { Scope::One(namespace.clone()) };
        Ok(Cluster { client: client(config)?, scope, namespace })
    }
}

impl AccessArgs {
    /// Reads the kubeconfig. Makes no call yet.
    pub async fn connect(&self) -> Result<Client, ConnectError> {
        client(self.config().await?)
    }

    async fn config(&self) -> Result<Config, ConnectError> {
        let mut config = self.read().await?;
        if let Some(user) = &self.impersonate {
            config.auth_info.impersonate = Some(user.clone());
        }
        Ok(config)
    }

    async fn read(&self) -> Result<Config, ConnectError> {
        let wrong = |error: &dyn std::error::Error| ConnectError::Config(chain(error));
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

fn client(config: Config) -> Result<Client, ConnectError> {
    Client::try_from(config).map_err(|error| ConnectError::Client(explain(&error)))
}

/// What a call that failed says to people. Never what an answer held.
pub(crate) fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => printable(&status.message),
        // Its text would quote the answer, which holds Secrets.
        kube::Error::SerdeError(_) => "the API server's answer is not what was asked for".into(),
        other => chain(other),
    }
}

/// The causes of an error, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    printable(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_never_quoted() {
        let error = serde_json::from_str::<u8>("\"CANARY\"").unwrap_err();
        assert!(error.to_string().contains("CANARY"), "the control");
        assert!(!explain(&kube::Error::SerdeError(error)).contains("CANARY"));
    }

    #[test]
    fn causes_are_told_once() {
        let inner = std::io::Error::other("connection refused");
        let error = kube::Error::Service(Box::new(inner));
        assert_eq!(explain(&error), "ServiceError: connection refused");
    }
}
