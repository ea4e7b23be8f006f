//! Looks through all Secrets for waiting pairs that no watch shows: their labels were wiped while
//! webhook and keeper were away (DESIGN §4.4).

use std::collections::VecDeque;
use std::time::Duration;

use futures::{Stream, stream};
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::time::sleep;

use super::election::Leadership;
use super::groups::NOT_THESE;
use crate::kubernetes::call::call;
use crate::kubernetes::key::Key;
use crate::kubernetes::pages::{self, Pages};
use crate::kubernetes::secret_view::SecretView;

/// How long after the end of one sweep the next one starts.
const INTERVAL: Duration = Duration::from_secs(6 * 3600);
/// How long after an error the sweep starts again.
const AGAIN: Duration = Duration::from_secs(300);
/// How often a standby looks whether it leads now.
const STANDBY: Duration = Duration::from_secs(1);

/// The keys of Secrets in which a pair waits that no label or stage tells of. It never ends, and
/// reads only while this replica leads: at once, then every six hours.
pub(super) fn left_over(client: Client, leadership: Leadership) -> impl Stream<Item = Key> {
    let api: Api<SecretView> = Api::all(client);
    let first = ListParams::default().limit(pages::MOST).fields(NOT_THESE);
    let start = (api, leadership, Pages::of(first.clone()), VecDeque::new());
    stream::unfold(start, move |(api, leadership, mut pages, mut found)| {
        let first = Pages::of(first.clone());
        async move {
            loop {
                if let Some(key) = found.pop_front() {
                    return Some((key, (api, leadership, pages, found)));
                }
                if !leadership.may_act() {
                    pages = first.clone();
                    sleep(STANDBY).await;
                    continue;
                }
                let Some(page) = pages.next() else {
                    sleep(INTERVAL).await;
                    pages = first.clone();
                    continue;
                };
                match call(async { pages.turn(api.list(&page).await) }).await {
                    Ok(secrets) => {
                        let left_over = secrets.iter().filter(|it| it.view().is_left_over());
                        found.extend(left_over.map(Key::of));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot look for waiting leaves: trying again later");
                        pages = first.clone();
                        sleep(AGAIN).await;
                    }
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::StreamExt;
    use http::Method;
    use serde_json::json;
    use tokio::time::timeout;

    use super::super::mock::api;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_sweep_goes_on_where_its_list_expires_and_finds_what_stays_once() {
        let (client, mut api) = api();
        let (_switch, leadership) = Leadership::switched(true);
        let mut found = pin!(left_over(client, leadership));
        let page = |next: &str, data| {
            let secret = json!({"metadata": {"namespace": "n", "name": "s"}, "data": data});
            json!({"kind": "SecretList", "apiVersion": "v1", "metadata": {"continue": next},
                "items": [secret]})
        };
        let server = async {
            let path = "/api/v1/secrets";
            api.expect(&Method::GET, path).await.answer(&page("one", json!({})));
            api.expect(&Method::GET, path).await.refuse(410, "Expired");
            let waits = json!({"pending.tls.crt": "QQ==", "pending.tls.key": "QQ=="});
            api.expect(&Method::GET, path).await.answer(&page("", waits));
        };
        let at_once = async { tokio::join!(found.next(), server).0 };
        let first = timeout(AGAIN / 2, at_once).await.expect("it continues at once");
        assert_eq!(first, Some(Key::new("n", "s")));
        assert!(timeout(INTERVAL / 8, found.next()).await.is_err() && api.is_quiet());
    }
}
