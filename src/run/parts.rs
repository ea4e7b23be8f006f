//! The parts of a server, which run as long as the process. When one ends, the process ends.

use std::collections::HashMap;

use tokio::task::{Id, JoinSet};

/// The running parts of a server. Dropping it aborts them.
#[derive(Default)]
pub(super) struct Parts {
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Parts {
    /// Starts a part.
    pub(super) fn start<F>(&mut self, name: &'static str, part: F)
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let task = self.tasks.spawn(async move { drop(part.await) });
        self.names.insert(task.id(), name);
    }

    /// Waits until a part ends or panics, and returns its name.
    pub(super) async fn ended(&mut self) -> &'static str {
        loop {
            let id = match self.tasks.join_next_with_id().await {
                Some(Ok((id, ()))) => id,
                Some(Err(error)) => error.id(),
                None => std::future::pending().await,
            };
            if let Some(name) = self.names.remove(&id) {
                return name;
            }
        }
    }

    /// Waits until all these parts have ended.
    pub(super) async fn all_ended(&mut self, names: &[&'static str]) {
        while names.iter().any(|name| self.runs(name)) {
            self.ended().await;
        }
    }

    /// Whether the part of this name is running.
    pub(super) fn runs(&self, name: &str) -> bool {
        self.names.values().any(|running| *running == name)
    }
}
