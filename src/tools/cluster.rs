//! The cluster that a command talks to: kubeconfig, user and namespaces.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use http::{Request, Response};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use super::error::ToolError;
use super::{complete, progress_line};
use crate::kubernetes::explain::{Audience, causes, explain};
use crate::kubernetes::key::Key;
use crate::kubernetes::list::{self, Namespaces, Unread};
use crate::kubernetes::secret_view::SecretView;
use crate::names;
use crate::overlap::settings::{parse_time, time_to_text};

/// Flags that choose the cluster and the namespaces. They are named as in kubectl.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ScopeArgs {
    /// Look at all namespaces; overrides --namespace
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,

    /// Look at this namespace only [default: the kubeconfig's]
    #[arg(short, long, value_name = "NAME", value_parser = namespace, add = ArgValueCompleter::new(complete::namespaces))]
    pub(crate) namespace: Option<String>,

    /// Look at the Secrets with these labels only, such as app=envoy,tier!=test
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub(crate) selector: Option<String>,

    #[command(flatten)]
    pub(crate) access: KubeconfigArgs,
}

/// Flags that choose the cluster and the user.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct KubeconfigArgs {
    /// The kubeconfig file [default: `KUBECONFIG`, then ~/.kube/config, then the ServiceAccount of
    /// the pod]
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// The context in the kubeconfig [default: the current context]
    #[arg(long, value_name = "NAME", add = ArgValueCompleter::new(complete::contexts))]
    pub(crate) context: Option<String>,

    /// Impersonate this user
    #[arg(long = "as", value_name = "USER")]
    pub(crate) impersonate: Option<String>,

    /// Impersonate this group, too; repeat the flag for several
    #[arg(long = "as-group", value_name = "GROUP", requires = "impersonate")]
    pub(crate) groups: Vec<String>,

    /// How long to wait for each answer of the API server, such as 5s; 0 means without end
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = request_timeout)]
    pub(crate) request_timeout: Duration,
}

/// Parses the name of a namespace.
pub(crate) fn namespace(text: &str) -> Result<String, &'static str> {
    let is_right = names::is_namespace(text);
    is_right.then(|| text.to_owned()).ok_or("expected the name of a namespace, such as gateway")
}

/// Parses a time. As in kubectl, a number alone is in seconds.
fn request_timeout(text: &str) -> Result<Duration, String> {
    let is_number = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    if is_number { parse_time(&format!("{text}s")) } else { parse_time(text) }
}

/// The flag that says where ca-overlap is installed.
#[derive(Clone, Debug, Args)]
pub(crate) struct InstallationArgs {
    /// The namespace that ca-overlap is installed in
    #[arg(
        long = "ca-overlap-namespace",
        value_name = "NAME",
        value_parser = namespace,
        add = ArgValueCompleter::new(complete::namespaces),
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
    /// The labels of the Secrets to look at.
    pub(crate) selector: Option<String>,
    /// Whether the command line names the Secrets to look at.
    pub(crate) is_named: bool,
}

/// A namespace, if the command line gives one, and the name of a Secret.
pub(crate) type SecretName<'a> = (Option<&'a str>, &'a str);

impl ScopeArgs {
    /// Reads the kubeconfig. Makes no API call.
    pub(crate) async fn connect(&self) -> Result<ScopedClient, ToolError> {
        let config = self.access.config().await?;
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let scope =
            if self.all_namespaces { Namespaces::All } else { Namespaces::One(namespace.clone()) };
        let client = self.access.client(config)?;
        let selector = self.labels().map(str::to_owned);
        Ok(ScopedClient { client, scope, namespace, selector, is_named: false })
    }

    /// The labels to look for. As in kubectl, an empty selector is none.
    fn labels(&self) -> Option<&str> {
        self.selector.as_deref().filter(|labels| !labels.is_empty())
    }

    /// The flag that asks for Secrets which are not named, if there is one.
    pub(crate) fn wider(&self) -> Option<&'static str> {
        if self.all_namespaces {
            return Some("--all-namespaces");
        }
        self.labels().map(|_| "--selector")
    }

    /// Whether every Secret of the cluster is in scope.
    pub(crate) fn is_everything(&self) -> bool {
        self.all_namespaces && self.labels().is_none()
    }

    /// The Secrets that the command line names.
    pub(crate) fn named<'a>(
        &self,
        secrets: &'a [String],
    ) -> Result<Vec<SecretName<'a>>, ToolError> {
        if let Some(flag) = self.wider().filter(|_| !secrets.is_empty()) {
            return Err(ToolError::usage(flag, "does not go with names of Secrets"));
        }
        let no_name = |text: &String| {
            let problem = "is not the name of a Secret: expected NAMESPACE/NAME or NAME";
            ToolError::usage("SECRET", format!("{text} {problem}"))
        };
        secrets.iter().map(|text| names::parse_secret(text).ok_or_else(|| no_name(text))).collect()
    }
}

impl ScopedClient {
    /// Looks at the namespaces of these Secrets only, if there are any.
    pub(crate) fn narrowed(mut self, names: &[SecretName<'_>]) -> Self {
        let mut namespaces =
            names.iter().map(|(namespace, _)| namespace.unwrap_or(&self.namespace));
        if let Some(first) = namespaces.next() {
            let is_one = namespaces.all(|other| other == first);
            self.scope = if is_one { Namespaces::One(first.to_owned()) } else { Namespaces::All };
            self.is_named = true;
        }
        self
    }

    /// Whether only some Secrets of the namespaces count.
    pub(crate) fn is_part(&self) -> bool {
        self.is_named || self.selector.is_some()
    }

    /// Where the command looks, for people.
    pub(crate) fn place(&self) -> String {
        match (&self.scope, &self.selector) {
            _ if self.is_named => "these Secrets".to_owned(),
            (scope, None) => scope.to_string(),
            (Namespaces::All, _) => "the Secrets with these labels".to_owned(),
            (scope, _) => format!("the Secrets with these labels in {scope}"),
        }
    }

    /// Whether a Secret has one of these names. If there are none, all count.
    pub(crate) fn is_one_of(&self, key: &Key, names: &[SecretName<'_>]) -> bool {
        let is_it = |(namespace, name): &SecretName<'_>| {
            key.name() == *name && key.namespace() == namespace.unwrap_or(&self.namespace)
        };
        names.is_empty() || names.iter().any(is_it)
    }

    /// Calls `each` with the Secrets of these names, or if there are none, with every one in scope.
    /// Returns what could not be read.
    pub(crate) async fn secrets(
        &self,
        names: &[SecretName<'_>],
        each: impl FnMut(SecretView),
    ) -> Vec<Unread> {
        if names.is_empty() {
            return self.read_secrets(each).await;
        }
        let (found, unread) = self.fetch(names).await;
        found.into_iter().for_each(each);
        unread
    }

    /// Reads these Secrets. One that does not exist is a failure.
    pub(crate) async fn fetch(&self, names: &[SecretName<'_>]) -> (Vec<SecretView>, Vec<Unread>) {
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
    pub(crate) async fn read_secrets(&self, mut each: impl FnMut(SecretView)) -> Vec<Unread> {
        let seen = Cell::new(0_usize);
        let counted = |secret| {
            seen.set(seen.get() + 1);
            each(secret);
        };
        let reading = list::read_all(&self.client, &self.scope, self.selector.as_deref(), counted);
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
        self.client(self.config().await?)
    }

    async fn config(&self) -> Result<Config, ToolError> {
        let mut config = self.read().await?;
        if let Some(user) = &self.impersonate {
            config.auth_info.impersonate = Some(user.clone());
            config.auth_info.impersonate_groups =
                Some(self.groups.clone()).filter(|groups| !groups.is_empty());
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

    fn client(&self, config: Config) -> Result<Client, ToolError> {
        let client = Client::try_from(config).map_err(|error| {
            ToolError::failed("the kubeconfig cannot be used", explain(&error, Audience::Caller))
        })?;
        let limit = self.request_timeout;
        Ok(if limit.is_zero() { client } else { limited(client, limit) })
    }
}

/// The client, with a time limit for each answer and its body. A watch has none.
fn limited(client: Client, limit: Duration) -> Client {
    let namespace = client.default_namespace().to_owned();
    let service = tower::service_fn(move |request: Request<Body>| {
        let client = client.clone();
        async move {
            if request.uri().query().is_some_and(|query| query.contains("watch=true")) {
                return client.send(request).await;
            }
            let answer = async {
                let (head, body) = client.send(request).await?.into_parts();
                let body = body.collect_bytes().await?;
                Ok(Response::from_parts(head, Body::from(body.to_vec())))
            };
            let late = |_| Err(kube::Error::Service(Late(limit).into()));
            tokio::time::timeout(limit, answer).await.unwrap_or_else(late)
        }
    });
    Client::new(service, namespace)
}

/// The API server did not answer in time.
#[derive(Debug, thiserror::Error)]
#[error("the API server did not answer within {} (--request-timeout)", time_to_text(*.0))]
struct Late(Duration);
