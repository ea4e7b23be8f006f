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
use crate::kubernetes::pages;
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
    let start = (api, leadership, first.clone(), VecDeque::new());
    stream::unfold(start, move |(api, leadership, mut page, mut found)| {
        let first = first.clone();
        async move {
            loop {
                if let Some(key) = found.pop_front() {
                    return Some((key, (api, leadership, page, found)));
                }
                if !leadership.may_act() {
                    page = first.clone();
                    sleep(STANDBY).await;
                    continue;
                }
                let list = match call(api.list(&page)).await {
                    Ok(list) => list,
                    Err(error) => {
                        tracing::warn!(%error, "cannot look for waiting leaves: trying again later");
                        page = first.clone();
                        sleep(AGAIN).await;
                        continue;
                    }
                };
                let left_over = list.items.iter().filter(|secret| secret.view().is_left_over());
                found.extend(left_over.map(Key::of));
                if !pages::turn(&mut page, list.metadata) && found.is_empty() {
                    sleep(INTERVAL).await;
                }
            }
        }
    })
}
