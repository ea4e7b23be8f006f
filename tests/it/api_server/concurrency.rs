//! Many writers of one Secret: every write is admitted, and the bundle stays bounded.

use std::sync::Arc;

use super::setup::{NAME, Setup};
use crate::support::cluster;

const WRITERS: usize = 16;
const WRITES: usize = 5;

#[tokio::test]
async fn sixteen_writers_with_conflict_retries_all_succeed() {
    let Some(cluster) = cluster("writers").await else { return };
    let setup = Arc::new(Setup::new(cluster.namespace("writers").await));
    setup.create("CA1", None).await;
    let writers = (0..WRITERS).map(|number| {
        let setup = setup.clone();
        tokio::spawn(async move {
            let mut conflicts = 0;
            for write in 0..WRITES {
                let bundle = ["CA1", "CA2", "CA3", "CA4"][(number + write) % 4];
                let leaf = setup.leaf(bundle);
                // Like client-go's RetryOnConflict: read, change, PUT with the version that was
                // read.
                loop {
                    let stored = setup.secrets.get(NAME).await.ok();
                    let mut fresh = setup.fresh(bundle, &leaf);
                    fresh["metadata"]["resourceVersion"] = stored.resource_version().into();
                    let answer = setup.secrets.put(NAME, &fresh).await;
                    if answer.status != 409 {
                        answer.ok();
                        break;
                    }
                    conflicts += 1;
                }
            }
            conflicts
        })
    });
    let mut conflicts = 0;
    for writer in futures::future::join_all(writers).await {
        conflicts += writer.unwrap();
    }
    assert!(conflicts > 0, "the test needs at least one conflict");
    let shown = setup.stored().await;
    assert_eq!(shown.split(' ').count(), 2, "{shown}");
    assert!(shown.ends_with('*'), "{shown}");
}

#[tokio::test]
async fn unconditional_writers_all_succeed_too() {
    let Some(cluster) = cluster("unconditional").await else { return };
    let setup = Arc::new(Setup::new(cluster.namespace("unconditional").await));
    setup.create("CA1", None).await;
    let writers = (0..WRITERS).map(|number| {
        let setup = setup.clone();
        tokio::spawn(async move {
            for write in 0..WRITES {
                setup.put(["CA1", "CA2", "CA3", "CA4"][(number + write) % 4]).await;
            }
        })
    });
    for writer in futures::future::join_all(writers).await {
        writer.unwrap();
    }
    assert_eq!(setup.stored().await.split(' ').count(), 2);
}
