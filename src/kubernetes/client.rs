//! The client of a server, and the namespace that it is in.

use kube::config::{InferConfigError, Kubeconfig};
use kube::{Client, Config};

use crate::names;

/// As kubectl finds its way: `KUBECONFIG`, else as a pod. Nothing is repeated by the client itself:
/// who calls does that, and says so.
pub(crate) async fn client() -> Result<Client, ClientError> {
    let mut config = Config::infer().await?;
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig cannot be used: {0}")]
    Kubeconfig(#[from] kube::Error),
    /// There is no cluster.
    #[error("no cluster: set KUBECONFIG, or run in a pod: {0}")]
    NoCluster(#[from] InferConfigError),
}

/// The pod's own namespace, else that of the kubeconfig's context, else the manifests' default.
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
