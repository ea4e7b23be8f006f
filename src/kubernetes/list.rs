//! Reading the Secrets of a cluster, page by page, without what is secret in them.

use std::fmt;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::core::Status;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;

use super::explain::{For, explain};
use super::secret_view::SecretView;

/// How many objects are asked for at once.
const PAGE: u32 = 500;
/// How often a list that has expired is begun anew.
const ANEW: usize = 3;

/// Which namespaces are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    All,
    One(String),
}

impl Scope {
    /// Its objects.
    pub(crate) fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        match self {
            Self::All => Api::all(client.clone()),
            Self::One(name) => Api::namespaced(client.clone(), name),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("any namespace"),
            Self::One(name) => write!(f, "namespace {name}"),
        }
    }
}

/// A namespace that could not be read, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Unread {
    /// Which; `None` if all of them.
    pub(crate) namespace: Option<String>,
    /// What the API server said.
    pub(crate) error: String,
}

/// Hands every Secret in scope to `each`; one may come twice, if a list expired meanwhile. Where
/// the user may not list all namespaces at once, each one is asked for alone. What could not be
/// read is returned.
pub(crate) async fn read_all(
    client: &Client,
    scope: &Scope,
    selector: Option<&str>,
    mut each: impl FnMut(SecretView),
) -> Vec<Unread> {
    let Err(refused) = read(&scope.api(client), selector, &mut each).await else {
        return Vec::new();
    };
    if *scope == Scope::All && is_forbidden(&refused) {
        // Who may not list namespaces either is told about the Secrets, which were asked for.
        if let Ok(namespaces) = namespaces(client).await {
            let mut failures = Vec::new();
            for name in namespaces.into_iter().map(Scope::One) {
                if let Err(error) = read(&name.api(client), selector, &mut each).await {
                    failures.push(unread(name, &error));
                }
            }
            return failures;
        }
    }
    vec![unread(scope.clone(), &refused)]
}

fn unread(scope: Scope, error: &kube::Error) -> Unread {
    let namespace = match scope {
        Scope::All => None,
        Scope::One(name) => Some(name),
    };
    Unread { namespace, error: explain(error, For::Caller) }
}

async fn read(
    secrets: &Api<SecretView>,
    selector: Option<&str>,
    each: &mut impl FnMut(SecretView),
) -> Result<(), kube::Error> {
    let mut page = ListParams::default().limit(PAGE);
    page.label_selector = selector.map(str::to_owned);
    let mut expired = 0;
    loop {
        let list = match secrets.list(&page).await {
            Ok(list) => list,
            Err(error) if expired < ANEW => {
                let Some(status) = expiry(&error) else { return Err(error) };
                expired += 1;
                page.continue_token = rest(status);
                continue;
            }
            Err(error) => return Err(error),
        };
        list.items.into_iter().for_each(&mut *each);
        page.continue_token = list.metadata.continue_.filter(|token| !token.is_empty());
        if page.continue_token.is_none() {
            return Ok(());
        }
    }
}

/// The pages of one list show the state at its begin, and that is forgotten after some minutes.
fn expiry(error: &kube::Error) -> Option<&Status> {
    match error {
        kube::Error::Api(status) if status.code == 410 => Some(status),
        _ => None,
    }
}

/// The token by which the rest of an expired list can be read as it is now. Without one the list
/// begins anew.
fn rest(status: &Status) -> Option<String> {
    let token = status.metadata.as_ref()?.continue_.clone();
    token.filter(|token| !token.is_empty())
}

fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

async fn namespaces(client: &Client) -> Result<Vec<String>, kube::Error> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let list = namespaces.list_metadata(&ListParams::default()).await?;
    Ok(list.items.iter().map(ResourceExt::name_any).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// A cluster that gives these answers one after another, and the queries it was asked.
    fn cluster(answers: Vec<(u16, Value)>) -> (Client, Arc<Mutex<Vec<String>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let queries = asked.clone();
        let answers = Arc::new(Mutex::new(answers.into_iter()));
        let service = tower::service_fn(move |request: http::Request<Body>| {
            queries.lock().unwrap().push(request.uri().query().unwrap_or_default().to_owned());
            let (status, body) = answers.lock().unwrap().next().expect("no more requests");
            async move {
                let response = http::Response::builder().status(status);
                response.body(Body::from(body.to_string().into_bytes()))
            }
        });
        (Client::new(service, "it"), asked)
    }

    fn page(names: &[&str], next: &str) -> (u16, Value) {
        let items: Vec<_> = names.iter().map(|name| json!({"metadata": {"name": name}})).collect();
        let metadata = json!({"continue": next});
        (
            200,
            json!({"kind": "SecretList", "apiVersion": "v1", "metadata": metadata, "items": items}),
        )
    }

    /// What the API server says when it has forgotten the state at which a list began.
    fn expired(next: &str) -> (u16, Value) {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410,
            "reason": "Expired", "message": "The provided continue parameter is too old",
            "metadata": {"continue": next}});
        (410, status)
    }

    async fn read(client: &Client) -> (Vec<String>, Vec<Unread>) {
        let mut names = Vec::new();
        let scope = Scope::One("it".into());
        let unread = read_all(client, &scope, None, |secret| names.push(secret.name_any())).await;
        (names, unread)
    }

    #[tokio::test]
    async fn a_list_that_expires_goes_on_where_it_was() {
        let answers = vec![page(&["a"], "one"), expired("now"), page(&["b"], "")];
        let (cluster, asked) = cluster(answers);
        assert_eq!(read(&cluster).await, (vec!["a".to_owned(), "b".to_owned()], Vec::new()));
        let asked = asked.lock().unwrap();
        assert!(
            asked[1].contains("continue=one") && asked[2].contains("continue=now"),
            "{asked:?}"
        );
    }

    #[tokio::test]
    async fn without_a_token_it_begins_anew_but_not_for_ever() {
        let answers = vec![page(&["a"], "one"), expired(""), page(&["a", "b"], "")];
        let (cluster, asked) = cluster(answers);
        assert_eq!(read(&cluster).await.0, ["a", "a", "b"]);
        assert!(!asked.lock().unwrap()[2].contains("continue"));

        let (cluster, _) = self::cluster(vec![expired(""); ANEW + 1]);
        let (_, unread) = read(&cluster).await;
        assert_eq!(unread[0].error, "The provided continue parameter is too old");
    }
}
