//! Reads the Secrets of a cluster page by page, without their private keys.

use std::fmt::{self, Debug};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::explain::{Audience, explain};
use super::pages::{self, Pages};
use super::secret_view::SecretView;

/// The namespaces that a command reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Namespaces {
    All,
    One(String),
}

impl Namespaces {
    /// The API for objects in these namespaces.
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

impl fmt::Display for Namespaces {
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
    /// The namespace; `None` for all of them.
    pub(crate) namespace: Option<String>,
    /// Why it could not be read.
    pub(crate) error: String,
}

/// Passes every Secret of these namespaces to `each`, and returns what could not be read.
///
/// A Secret may come twice if a list expires on the way. If the user may not list Secrets in all
/// namespaces at once, each namespace is read separately.
pub(crate) async fn read_all(
    client: &Client,
    scope: &Namespaces,
    selector: Option<&str>,
    each: impl FnMut(SecretView),
) -> Vec<Unread> {
    let mut page = ListParams::default().limit(pages::MOST);
    page.label_selector = selector.map(str::to_owned);
    read_each(client, scope, &page, |namespaces| namespaces.api(client), each).await
}

/// As [`read_all`], for objects of any kind. `api` gives the API for objects in some namespaces.
pub(crate) async fn read_each<K: Clone + DeserializeOwned + Debug>(
    client: &Client,
    scope: &Namespaces,
    page: &ListParams,
    api: impl Fn(&Namespaces) -> Api<K>,
    mut each: impl FnMut(K),
) -> Vec<Unread> {
    let Err(refused) = read(&api(scope), page, &mut each).await else {
        return Vec::new();
    };
    if *scope == Namespaces::All && is_forbidden(&refused) {
        // If namespaces cannot be listed either, report the refusal for the Secrets.
        if let Ok(namespaces) = namespaces(client).await {
            let (mut failures, all) = (Vec::new(), namespaces.len());
            for name in namespaces.into_iter().map(Namespaces::One) {
                if let Err(error) = read(&api(&name), page, &mut each).await {
                    failures.push(unread(name, &error));
                }
            }
            // If all of them refuse, the first refusal says it in one line.
            if failures.len() < all {
                return failures;
            }
        }
    }
    vec![unread(scope.clone(), &refused)]
}

/// That these namespaces could not be read.
pub(crate) fn unread(scope: Namespaces, error: &kube::Error) -> Unread {
    let namespace = match scope {
        Namespaces::All => None,
        Namespaces::One(name) => Some(name),
    };
    Unread { namespace, error: explain(error, Audience::Caller) }
}

/// Passes every object of all pages to `each`.
pub(crate) async fn read<K: Clone + DeserializeOwned + Debug>(
    objects: &Api<K>,
    page: &ListParams,
    each: &mut impl FnMut(K),
) -> Result<(), kube::Error> {
    let mut pages = Pages::of(page.clone());
    while let Some(page) = pages.next() {
        pages.turn(objects.list(&page).await)?.into_iter().for_each(&mut *each);
    }
    Ok(())
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

    /// A mock cluster that gives these answers in turn, and the queries that it received.
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

    /// The API server's answer for a list that has expired.
    fn expired(next: &str) -> (u16, Value) {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410,
            "reason": "Expired", "message": "The provided continue parameter is too old",
            "metadata": {"continue": next}});
        (410, status)
    }

    async fn read(client: &Client) -> (Vec<String>, Vec<Unread>) {
        let mut names = Vec::new();
        let scope = Namespaces::One("it".into());
        let unread = read_all(client, &scope, None, |secret| names.push(secret.name_any())).await;
        (names, unread)
    }

    #[tokio::test]
    async fn an_expired_list_continues_where_it_was() {
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
    async fn an_expired_list_without_a_token_starts_again_a_few_times() {
        let answers = vec![page(&["a"], "one"), expired(""), page(&["a", "b"], "")];
        let (cluster, asked) = cluster(answers);
        assert_eq!(read(&cluster).await.0, ["a", "a", "b"]);
        assert!(!asked.lock().unwrap()[2].contains("continue"));

        let (cluster, _) = self::cluster(vec![expired(""); pages::MAX_EXPIRED + 1]);
        let (_, unread) = read(&cluster).await;
        assert_eq!(unread[0].error, "The provided continue parameter is too old");
    }
}
