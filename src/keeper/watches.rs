//! The watches of Secrets.

use futures::{Stream, StreamExt};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};

use super::secrets::PAGE;
use super::tracked::Source;
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
