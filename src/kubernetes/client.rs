//! The client of the API server, and the namespace that the process runs in.

use kube::config::{InferConfigError, Kubeconfig};
use kube::{Client, Config};

use super::pages::paged;
use crate::names;

/// Creates a client from the kubeconfig (`KUBECONFIG`, `~/.kube/config`), else as a pod. The client
/// does not retry: its callers do, and log it.
pub(crate) async fn client() -> Result<Client, ClientError> {
    let mut config = Config::infer().await?;
    config.default_retry = false;
    Ok(paged(Client::try_from(config)?))
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The kubeconfig cannot be used.
    #[error("cannot use the kubeconfig: {0}")]
    Kubeconfig(#[from] kube::Error),
    /// Neither a kubeconfig nor a pod's ServiceAccount was found.
    #[error("no cluster found: set KUBECONFIG or run in a pod: {0}")]
    NoCluster(#[from] InferConfigError),
}

/// The pod's namespace, else that of the kubeconfig's context, else the default of the manifests.
pub(crate) fn own_namespace() -> String {
    const OF_POD: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
    let of_pod = std::fs::read_to_string(OF_POD).ok().map(|name| name.trim().to_owned());
    of_pod
        .filter(|name| !name.is_empty())
        .or_else(of_kubeconfig)
        .unwrap_or_else(|| names::NAMESPACE.to_owned())
}

fn of_kubeconfig() -> Option<String> {
    let config = Kubeconfig::read().ok()?;
    let current = config.current_context?;
    let context = config.contexts.into_iter().find(|context| context.name == current)?;
    context.context?.namespace
}
