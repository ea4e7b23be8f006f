//! Lists in pages of a limited number of bytes.
//!
//! The API server counts the objects of a page, and a Secret has up to 1 MiB. So a hundred large
//! Secrets fill the memory of a process whose page has a hundred objects. Here the limit of a page
//! follows the sizes that were seen, a page that grows too large is asked for again with fewer
//! objects, and a process reads one page at a time.

use std::sync::Arc;
use std::time::Duration;

use http::header::ACCEPT;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::BodyExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::Client;
use kube::api::ListParams;
use kube::client::Body;
use kube::core::ObjectList;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// The most bytes of a page with several objects.
const MAX_PAGE: usize = 4 << 20;
/// The most bytes of a page with one object. The API server's own limit for an object is 3 MiB.
const MAX_OBJECT: usize = 16 << 20;
/// How many objects the first page has.
const FIRST: usize = 16;
/// The most objects of a page.
pub(crate) const MOST: u32 = 500;
/// How often an expired list continues or starts again.
pub(super) const MAX_EXPIRED: usize = 3;
/// The time limit of a page. A list that does not answer must not keep the others waiting.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How many objects the next page has.
#[derive(Debug)]
struct PageSizes {
    whole: usize,
    /// For lists that show only the metadata, which is much smaller.
    metadata: usize,
}

/// The client, with pages of a limited size. Every list that has a `limit` is read so; the limit
/// that the caller sets is the most objects of a page.
pub(crate) fn paged(client: Client) -> Client {
    let namespace = client.default_namespace().to_owned();
    let sizes = Arc::new(Mutex::new(PageSizes { whole: FIRST, metadata: FIRST }));
    let service = tower::service_fn(move |request| send(client.clone(), sizes.clone(), request));
    Client::new(service, namespace)
}

/// The client, with answers that show only the metadata of objects, whatever their type. kube's own
/// type for metadata keeps all labels and annotations.
pub(crate) fn metadata_only(client: Client) -> Client {
    let namespace = client.default_namespace().to_owned();
    let service = tower::service_fn(move |mut request: Request<Body>| {
        let client = client.clone();
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let accept = if is_watch { METADATA } else { METADATA_LIST };
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static(accept));
        async move { client.send(request).await }
    });
    Client::new(service, namespace)
}

const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

/// Which page of a list comes next.
#[derive(Clone, Debug)]
pub(crate) struct Pages {
    next: Option<ListParams>,
    expired: usize,
}

impl Pages {
    /// Begins with the first page.
    pub(crate) fn of(list: ListParams) -> Self {
        Self { next: Some(list), expired: 0 }
    }

    /// The page to ask for; `None` after the last one.
    pub(crate) fn next(&self) -> Option<ListParams> {
        self.next.clone()
    }

    /// Takes the answer for that page, gives its objects, and turns to the next one.
    ///
    /// All pages show the state at the start of the list, and etcd compacts that after some minutes
    /// (410). Then the list continues with the present state, or starts again, and an object may come
    /// twice.
    pub(crate) fn turn<K: Clone>(
        &mut self,
        answer: Result<ObjectList<K>, kube::Error>,
    ) -> Result<Vec<K>, kube::Error> {
        let token = |read: ListMeta| read.continue_.filter(|token| !token.is_empty());
        let (next, objects) = match answer {
            Ok(list) => (token(list.metadata).map(Some), list.items),
            Err(kube::Error::Api(status)) if status.code == 410 && self.expired < MAX_EXPIRED => {
                self.expired += 1;
                // Without a token it is the first page.
                (Some(status.metadata.and_then(token)), Vec::new())
            }
            Err(error) => return Err(error),
        };
        let page = self.next.take().zip(next);
        self.next = page.map(|(page, continue_token)| ListParams { continue_token, ..page });
        Ok(objects)
    }
}

/// Why a page could not be read.
#[derive(Debug, thiserror::Error)]
enum PageError {
    /// There was no answer in time.
    #[error("the API server did not answer within {} s", TIMEOUT.as_secs())]
    Late,
    /// One object alone is too large.
    #[error("an object is larger than {} MiB", MAX_OBJECT >> 20)]
    TooLarge,
}

/// Sends a request. The lock is the permit for the one page that is read at a time.
async fn send(
    client: Client,
    sizes: Arc<Mutex<PageSizes>>,
    request: Request<Body>,
) -> Result<Response<Body>, kube::Error> {
    let Some(most) = limit(request.uri()) else { return client.send(request).await };
    let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let is_metadata = accept.is_some_and(|accept| accept.contains("PartialObjectMetadata"));
    let mut sizes = sizes.lock().await;
    let size = if is_metadata { &mut sizes.metadata } else { &mut sizes.whole };
    let (head, _) = request.into_parts();
    loop {
        let objects = (*size).min(most).max(1);
        let mut request = Request::new(Body::empty());
        request.method_mut().clone_from(&head.method);
        request.headers_mut().clone_from(&head.headers);
        *request.uri_mut() = with_limit(&head.uri, objects)?;
        let max = if objects > 1 { MAX_PAGE } else { MAX_OBJECT };
        match timeout(TIMEOUT, read(&client, request, max)).await {
            Ok(Ok(Some((response, bytes)))) => {
                *size = next_size(objects, bytes, *size);
                return Ok(response);
            }
            Ok(Ok(None)) if objects > 1 => *size = (objects / 4).max(1),
            Ok(Ok(None)) => return Err(kube::Error::Service(PageError::TooLarge.into())),
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                *size = (objects / 2).max(1);
                return Err(kube::Error::Service(PageError::Late.into()));
            }
        }
    }
}

/// The answer, and how many bytes it has; `None` if it has more than `max`.
async fn read(
    client: &Client,
    request: Request<Body>,
    max: usize,
) -> Result<Option<(Response<Body>, usize)>, kube::Error> {
    let (head, mut body) = client.send(request).await?.into_parts();
    let mut page = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if page.len() + data.len() > max {
            return Ok(None);
        }
        page.extend_from_slice(&data);
    }
    let bytes = page.len();
    Ok(Some((Response::from_parts(head, Body::from(page)), bytes)))
}

/// The size of the next page after one of `objects` with `bytes`. The size grows step by step,
/// because the next objects may be larger. The last page of a list has fewer objects than were
/// asked for, so its objects may be larger than they seem.
fn next_size(objects: usize, bytes: usize, size: usize) -> usize {
    let fitting = objects * (MAX_PAGE / 4 * 3) / bytes.max(1);
    fitting.clamp(1, (objects * 2).max(size).min(MOST as usize))
}

/// The limit in the query of a list. A watch has none.
fn limit(uri: &Uri) -> Option<usize> {
    parameters(uri).find_map(|parameter| parameter.strip_prefix("limit=")?.parse().ok())
}

fn with_limit(uri: &Uri, objects: usize) -> Result<Uri, kube::Error> {
    let mut target = format!("{}?limit={objects}", uri.path());
    for parameter in parameters(uri).filter(|parameter| !parameter.starts_with("limit=")) {
        target.push('&');
        target.push_str(parameter);
    }
    let uri: Result<Uri, http::Error> = target.parse().map_err(http::Error::from);
    uri.map_err(kube::Error::HttpError)
}

fn parameters(uri: &Uri) -> impl Iterator<Item = &str> {
    uri.query().unwrap_or_default().split('&').filter(|parameter| !parameter.is_empty())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use kube::{Api, Resource};
    use serde_json::json;

    use super::*;
    use crate::kubernetes::secret_view::SecretView;

    /// What a mock API server has seen.
    #[derive(Debug, Default)]
    struct Seen {
        /// The sizes of its answers.
        pages: Mutex<Vec<usize>>,
        now: AtomicUsize,
        /// The most requests at the same time.
        most: AtomicUsize,
    }

    /// A client for a mock API server with Secrets that each have a value of so many bytes.
    fn cluster(sizes: Vec<usize>) -> (Client, Arc<Seen>) {
        let seen = Arc::new(Seen::default());
        let server = (Arc::new(sizes), seen.clone());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (sizes, seen) = server.clone();
            async move {
                let now = seen.now.fetch_add(1, Ordering::SeqCst) + 1;
                seen.most.fetch_max(now, Ordering::SeqCst);
                tokio::task::yield_now().await;
                let value = |key: &str| {
                    let found = parameters(request.uri()).find_map(|it| it.strip_prefix(key));
                    found.and_then(|value| value.parse::<usize>().ok())
                };
                let begin = value("continue=").unwrap_or_default();
                let end = sizes.len().min(begin + value("limit=").unwrap());
                let items: Vec<_> = (begin..end)
                    .map(|n| {
                        let data = json!({"large": "A".repeat(sizes[n])});
                        json!({"metadata": {"name": n.to_string()}, "data": data})
                    })
                    .collect();
                let next = if end < sizes.len() { end.to_string() } else { String::new() };
                let list = json!({"kind": "SecretList", "apiVersion": "v1",
                    "metadata": {"continue": next}, "items": items});
                let body = list.to_string().into_bytes();
                seen.pages.lock().unwrap().push(body.len());
                seen.now.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, kube::Error>(Response::new(Body::from(body)))
            }
        });
        (paged(Client::new(service, "n")), seen)
    }

    /// The names of all Secrets, in the order of the list.
    async fn names(client: &Client) -> Result<Vec<String>, kube::Error> {
        let api: Api<SecretView> = Api::all(client.clone());
        let (mut pages, mut names) = (Pages::of(ListParams::default().limit(MOST)), Vec::new());
        while let Some(page) = pages.next() {
            let secrets = pages.turn(api.list(&page).await)?;
            names.extend(secrets.iter().filter_map(|secret| secret.meta().name.clone()));
        }
        Ok(names)
    }

    #[tokio::test]
    async fn large_objects_behind_many_small_ones_come_in_small_pages() {
        let sizes: Vec<usize> = [vec![10; 900], vec![1 << 20; 40], vec![10; 90]].concat();
        let (client, seen) = cluster(sizes.clone());
        let all: Vec<String> = (0..sizes.len()).map(|n| n.to_string()).collect();
        assert_eq!(names(&client).await.unwrap(), all);
        let pages = seen.pages.lock().unwrap();
        let (read, left): (Vec<usize>, Vec<usize>) =
            pages.iter().partition(|page| **page <= MAX_PAGE);
        assert!(left.len() < 6, "few pages are asked for again: {left:?}");
        assert!(read.len() < 40, "{read:?}");
    }

    #[tokio::test]
    async fn one_page_is_read_at_a_time() {
        let (client, seen) = cluster(vec![1 << 19; 40]);
        let lists = (0..8).map(|_| names(&client));
        for list in futures::future::join_all(lists).await {
            assert_eq!(list.unwrap().len(), 40);
        }
        assert_eq!(seen.most.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn an_object_that_is_too_large_ends_the_list() {
        let (client, _) = cluster(vec![10, 17 << 20, 10]);
        let error = names(&client).await.unwrap_err();
        assert!(error.to_string().contains("larger than 16 MiB"), "{error}");
    }

    #[test]
    fn only_a_list_has_a_limit_and_it_keeps_its_other_parameters() {
        let watch: Uri = "/api/v1/secrets?watch=true&labelSelector=limit=3".parse().unwrap();
        assert_eq!(limit(&watch), None);
        let list: Uri = "/api/v1/secrets?&limit=500&continue=a%2Bb".parse().unwrap();
        assert_eq!(limit(&list), Some(500));
        let page = with_limit(&list, 7).unwrap();
        assert_eq!(page.to_string(), "/api/v1/secrets?limit=7&continue=a%2Bb");
    }

    #[test]
    fn pages_grow_step_by_step_and_leave_some_room() {
        assert_eq!(next_size(16, 16 * 100, 16), 32);
        assert_eq!(next_size(400, 400 * 100, 400), 500);
        assert_eq!(next_size(16, 16 << 18, 16), 12);
        assert_eq!(next_size(1, 3 << 20, 1), 1);
    }
}
