//! The tasks that reconcile Secrets.

use std::collections::HashMap;

use tokio::task::{Id, JoinError, JoinSet};

use crate::kubernetes::key::Key;

/// The most tasks for Secrets of one namespace.
const MAX_OF_NAMESPACE: usize = 4;

/// Tasks, at most one for each key.
#[derive(Debug)]
pub(super) struct Tasks<T> {
    set: JoinSet<T>,
    keys: HashMap<Id, Key>,
    /// Whether the object of a task has changed since the task was started.
    changed: HashMap<Key, bool>,
}

/// A task that has ended.
#[derive(Debug)]
pub(super) struct EndedTask<T> {
    /// What it worked on.
    pub(super) key: Key,
    /// Its result, or an error if it was aborted or panicked.
    pub(super) result: Result<T, JoinError>,
    /// Whether the object changed in the meantime.
    pub(super) is_changed: bool,
}

impl<T: Send + 'static> Tasks<T> {
    /// How many run.
    pub(super) fn len(&self) -> usize {
        self.set.len()
    }

    /// Whether another one may run for a Secret of this namespace.
    pub(super) fn has_room(&self, namespace: &str) -> bool {
        let of_namespace = self.changed.keys().filter(|key| key.namespace() == namespace);
        of_namespace.count() < MAX_OF_NAMESPACE
    }

    /// If a task runs for `key`, notes that its object has changed. Returns whether a task runs.
    pub(super) fn change(&mut self, key: &Key) -> bool {
        self.changed.get_mut(key).map(|is_changed| *is_changed = true).is_some()
    }

    /// Whether a task runs for `key`.
    pub(super) fn is_running(&self, key: &Key) -> bool {
        self.changed.contains_key(key)
    }

    /// Starts a task for `key`.
    pub(super) fn start(&mut self, key: &Key, task: impl Future<Output = T> + Send + 'static) {
        let id = self.set.spawn(task).id();
        self.keys.insert(id, key.clone());
        self.changed.insert(key.clone(), false);
    }

    /// Waits for a task to end; `None` if none runs. It is cancel safe.
    pub(super) async fn next(&mut self) -> Option<EndedTask<T>> {
        let ended = self.set.join_next_with_id().await?;
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let key = self.keys.remove(&id)?;
        let is_changed = self.changed.remove(&key) == Some(true);
        Some(EndedTask { key, result: ended.map(|(_, outcome)| outcome), is_changed })
    }

    /// Aborts all tasks; [`Self::next`] still returns each of them.
    pub(super) fn abort(&mut self) {
        self.set.abort_all();
    }

    /// Aborts all tasks, and waits until they have ended.
    pub(super) async fn shutdown(&mut self) {
        self.set.shutdown().await;
    }
}

impl<T: 'static> Default for Tasks<T> {
    fn default() -> Self {
        Self { set: JoinSet::new(), keys: HashMap::new(), changed: HashMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_or_is_aborted_is_returned_with_its_key() {
        let [a, b, c] = ["a", "b", "c"].map(|name| Key::new("n", name));
        let mut tasks = Tasks::default();
        tasks.start(&a, async { 7 });
        let EndedTask { key, result, is_changed } = tasks.next().await.unwrap();
        assert_eq!((key, result.unwrap(), is_changed), (a, 7, false));
        tasks.start(&b, async { panic!("a task that panics") });
        assert!(tasks.change(&b) && !tasks.change(&c));
        let EndedTask { key, result, is_changed } = tasks.next().await.unwrap();
        assert_eq!((&key, result.unwrap_err().is_panic(), is_changed), (&b, true, true));
        tasks.start(&c, std::future::pending());
        tasks.abort();
        let EndedTask { key, result, is_changed } = tasks.next().await.unwrap();
        assert_eq!((key, result.unwrap_err().is_cancelled(), is_changed), (c, true, false));
        assert!(tasks.next().await.is_none() && tasks.len() == 0);
        assert!(!tasks.change(&b), "a new task may start");
    }
}
