//! The watches of Secrets, and how their errors are told.

use futures::{Stream, StreamExt};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};

use super::api::PAGE;
use super::tracked::Source;
use crate::kubernetes::call::CallError;
use crate::kubernetes::secret_view::SecretView;

/// The watch of one selector, for ever.
pub fn events_of(
    client: &Client,
    source: Source,
) -> impl Stream<Item = (Source, watcher::Result<Event<SecretView>>)> + use<> {
    let config = watcher::Config::default().labels(source.label()).page_size(PAGE);
    let api: Api<SecretView> = Api::all(client.clone());
    watcher::watcher(api, config).default_backoff().map(move |event| (source, event))
}

/// Without what the API server, or a parser, quotes.
pub fn describe(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => CallError::from(error).to_string(),
        watcher::Error::WatchError(status) => format!("status {} {}", status.code, status.reason),
        watcher::Error::NoResourceVersion => "an object without a resourceVersion".to_owned(),
    }
}
