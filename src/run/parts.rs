//! What runs for as long as the process does: a part that ends, ends the process.

use std::collections::HashMap;

use tokio::task::{Id, JoinSet};

/// The parts of a server. Dropped, it ends those that still run.
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

    /// Waits for the next part that ends or panics, and names it.
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

    /// Waits until none of these runs.
    pub(super) async fn all_ended(&mut self, names: &[&'static str]) {
        while names.iter().any(|name| self.runs(name)) {
            self.ended().await;
        }
    }

    /// Whether a part of this name runs.
    pub(super) fn runs(&self, name: &str) -> bool {
        self.names.values().any(|running| *running == name)
    }
}
