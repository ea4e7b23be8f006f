//! Many writers to one Secret: every write is admitted, and the bundle stays bounded.

use std::sync::Arc;

use super::scene::{NAME, Scene};
use crate::support::cluster;

const WRITERS: usize = 16;
const WRITES: usize = 5;

#[tokio::test]
async fn sixteen_writers_with_conflict_retries_all_succeed() {
    let Some(cluster) = cluster("writers").await else { return };
    let scene = Arc::new(Scene::new(cluster.namespace("writers").await));
    scene.create("CA1", None).await;
    let writers = (0..WRITERS).map(|number| {
        let scene = scene.clone();
        tokio::spawn(async move {
            let mut conflicts = 0;
            for write in 0..WRITES {
                let bundle = ["CA1", "CA2", "CA3", "CA4"][(number + write) % 4];
                let leaf = scene.leaf(bundle);
                // As client-go's RetryOnConflict: read, change, PUT with the version that was read.
                loop {
                    let stored = scene.secrets.get(NAME).await.ok();
                    let mut fresh = scene.fresh(bundle, &leaf);
                    fresh["metadata"]["resourceVersion"] = stored.resource_version().into();
                    let answer = scene.secrets.put(NAME, &fresh).await;
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
    assert!(conflicts > 0, "without a conflict this shows nothing");
    let shown = scene.shows().await;
    assert_eq!(shown.split(' ').count(), 2, "{shown}");
    assert!(shown.ends_with('*'), "{shown}");
}

#[tokio::test]
async fn unconditional_writers_all_succeed_too() {
    let Some(cluster) = cluster("unconditional").await else { return };
    let scene = Arc::new(Scene::new(cluster.namespace("unconditional").await));
    scene.create("CA1", None).await;
    let writers = (0..WRITERS).map(|number| {
        let scene = scene.clone();
        tokio::spawn(async move {
            for write in 0..WRITES {
                scene.put(["CA1", "CA2", "CA3", "CA4"][(number + write) % 4]).await;
            }
        })
    });
    for writer in futures::future::join_all(writers).await {
        writer.unwrap();
    }
    assert_eq!(scene.shows().await.split(' ').count(), 2);
}
