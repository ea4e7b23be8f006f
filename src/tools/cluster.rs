//! The cluster that a command talks to: kubeconfig, user and namespaces.

use std::cell::Cell;
use std::path::PathBuf;

use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use super::error::ToolError;
use super::progress_line;
use crate::kubernetes::explain::{Audience, causes, explain};
use crate::kubernetes::list::{self, Namespaces, Unread};
use crate::kubernetes::secret_view::SecretView;
use crate::names;

/// Flags that choose the cluster and the namespaces. They are named as in kubectl.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ScopeArgs {
    /// Look at all namespaces; overrides --namespace
    #[arg(short = 'A', long, env = "CA_OVERLAP_ALL_NAMESPACES")]
    pub(crate) all_namespaces: bool,

    /// Look at this namespace only [default: the kubeconfig's]
    #[arg(short, long, value_name = "NAME", env = "CA_OVERLAP_TARGET_NAMESPACE")]
    pub(crate) namespace: Option<String>,

    #[command(flatten)]
    pub(crate) access: KubeconfigArgs,
}

/// Flags that choose the cluster and the user.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct KubeconfigArgs {
    /// The kubeconfig file [default: `KUBECONFIG`, then ~/.kube/config, then the ServiceAccount of
    /// the pod]
    #[arg(long, value_name = "FILE", env = "CA_OVERLAP_KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// The context in the kubeconfig [default: the current context]
    #[arg(long, value_name = "NAME", env = "CA_OVERLAP_CONTEXT")]
    pub(crate) context: Option<String>,

    /// Impersonate this user
    #[arg(long = "as", value_name = "USER", env = "CA_OVERLAP_AS")]
    pub(crate) impersonate: Option<String>,
}

/// The flag that says where ca-overlap is installed.
#[derive(Clone, Debug, Args)]
pub(crate) struct InstallationArgs {
    /// The namespace that ca-overlap is installed in
    #[arg(
        long = "ca-overlap-namespace",
        value_name = "NAME",
        env = "CA_OVERLAP_NAMESPACE",
        default_value = names::NAMESPACE
    )]
    pub(crate) ca_overlap_namespace: String,
}

/// A client and the namespaces that it looks at.
#[derive(Clone)]
pub(crate) struct ScopedClient {
    /// Has the rights of the user.
    pub(crate) client: Client,
    /// The namespaces to look at.
    pub(crate) scope: Namespaces,
    /// The namespace of a Secret that is named without one.
    pub(crate) namespace: String,
}

impl ScopeArgs {
    /// Reads the kubeconfig. Makes no API call.
    pub(crate) async fn connect(&self) -> Result<ScopedClient, ToolError> {
        let config = self.access.config().await?;
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let scope =
            if self.all_namespaces { Namespaces::All } else { Namespaces::One(namespace.clone()) };
        Ok(ScopedClient { client: client(config)?, scope, namespace })
    }

    /// The Secrets that the command line names: each a namespace, if given, and a name.
    pub(crate) fn named<'a>(
        &self,
        secrets: &'a [String],
    ) -> Result<Vec<(Option<&'a str>, &'a str)>, ToolError> {
        if self.all_namespaces && !secrets.is_empty() {
            return Err(ToolError::usage("--all-namespaces", "does not go with names of Secrets"));
        }
        let no_name = |text: &String| {
            let problem = "is not the name of a Secret: expected NAMESPACE/NAME or NAME";
            ToolError::usage("SECRET", format!("{text} {problem}"))
        };
        secrets.iter().map(|text| names::parse_secret(text).ok_or_else(|| no_name(text))).collect()
    }
}

impl ScopedClient {
    /// Reads these Secrets. One that does not exist is a failure.
    pub(crate) async fn fetch(
        &self,
        names: &[(Option<&str>, &str)],
    ) -> (Vec<SecretView>, Vec<Unread>) {
        let (mut found, mut unread) = (Vec::new(), Vec::new());
        for (namespace, name) in names {
            let namespace = namespace.unwrap_or(&self.namespace);
            let secrets = Api::<SecretView>::namespaced(self.client.clone(), namespace);
            let error = match secrets.get_opt(name).await {
                Ok(Some(secret)) => {
                    found.push(secret);
                    continue;
                }
                Ok(None) => format!("there is no Secret {namespace}/{name}"),
                Err(error) => explain(&error, Audience::Caller),
            };
            unread.push(Unread { namespace: Some(namespace.to_owned()), error });
        }
        (found, unread)
    }

    /// Calls `each` with every Secret in scope and returns what could not be read. A Secret can
    /// come twice. Shows progress when it takes long.
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
        progress_line::during(|| format!("reading Secrets, {} so far", seen.get()), reading).await
    }
}

/// Says on standard error where these objects could not be read.
pub(crate) fn report_unread(objects: &str, unread: &[Unread]) {
    for Unread { namespace, error } in unread {
        let namespace = namespace.as_deref().unwrap_or("all namespaces");
        eprintln!("ca-overlap: cannot read {objects} in {namespace}: {error}");
    }
}

impl KubeconfigArgs {
    /// Reads the kubeconfig. Makes no API call.
    pub(crate) async fn connect(&self) -> Result<Client, ToolError> {
        client(self.config().await?)
    }

    async fn config(&self) -> Result<Config, ToolError> {
        let mut config = self.read().await?;
        if let Some(user) = &self.impersonate {
            config.auth_info.impersonate = Some(user.clone());
        }
        Ok(config)
    }

    async fn read(&self) -> Result<Config, ToolError> {
        let wrong = |error: &dyn std::error::Error| {
            let advice = "set KUBECONFIG, or --kubeconfig and --context";
            ToolError::Failed(format!("cannot load a kubeconfig: {}; {advice}", causes(error)))
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

fn client(config: Config) -> Result<Client, ToolError> {
    Client::try_from(config).map_err(|error| {
        ToolError::failed("the kubeconfig cannot be used", explain(&error, Audience::Caller))
    })
}
