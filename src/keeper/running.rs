//! The looks that are being taken, each by a task of its own.

use std::collections::HashMap;

use tokio::task::{Id, JoinError, JoinSet};

use crate::kubernetes::key::Key;

/// Tasks, at most one for each key.
#[derive(Debug)]
pub(super) struct Running<T> {
    tasks: JoinSet<T>,
    keys: HashMap<Id, Key>,
    /// Whether what is looked at has changed since.
    changed: HashMap<Key, bool>,
}

/// A task that has ended.
#[derive(Debug)]
pub(super) struct Ended<T> {
    /// Of what.
    pub(super) key: Key,
    /// What it gave; or that it was told to end, or panicked, which was logged.
    pub(super) result: Result<T, JoinError>,
    /// Whether it has changed meanwhile.
    pub(super) is_changed: bool,
}

impl<T: Send + 'static> Running<T> {
    /// How many run.
    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Notes the change where one runs for this key. Says whether one does.
    pub(super) fn change(&mut self, key: &Key) -> bool {
        self.changed.get_mut(key).map(|is_changed| *is_changed = true).is_some()
    }

    /// Starts one.
    pub(super) fn start(&mut self, key: &Key, task: impl Future<Output = T> + Send + 'static) {
        let id = self.tasks.spawn(task).id();
        self.keys.insert(id, key.clone());
        self.changed.insert(key.clone(), false);
    }

    /// Waits for one to end; `None` where none runs. May be dropped at any time.
    pub(super) async fn next(&mut self) -> Option<Ended<T>> {
        let ended = self.tasks.join_next_with_id().await?;
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let key = self.keys.remove(&id)?;
        let is_changed = self.changed.remove(&key) == Some(true);
        Some(Ended { key, result: ended.map(|(_, outcome)| outcome), is_changed })
    }

    /// Tells all to end; how they did is still to be asked.
    pub(super) fn abort(&mut self) {
        self.tasks.abort_all();
    }

    /// Ends all.
    pub(super) async fn shutdown(&mut self) {
        self.tasks.shutdown().await;
    }
}

impl<T: 'static> Default for Running<T> {
    fn default() -> Self {
        Self { tasks: JoinSet::new(), keys: HashMap::new(), changed: HashMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_panics_or_is_aborted_is_told_by_its_key() {
        let [a, b, c] = ["a", "b", "c"].map(|name| Key::new("n", name));
        let mut running = Running::default();
        running.start(&a, async { 7 });
        let Ended { key, result, is_changed } = running.next().await.unwrap();
        assert_eq!((key, result.unwrap(), is_changed), (a, 7, false));
        running.start(&b, async { panic!("a look that panics") });
        assert!(running.change(&b) && !running.change(&c));
        let Ended { key, result, is_changed } = running.next().await.unwrap();
        assert_eq!((&key, result.unwrap_err().is_panic(), is_changed), (&b, true, true));
        running.start(&c, std::future::pending());
        running.abort();
        let Ended { key, result, is_changed } = running.next().await.unwrap();
        assert_eq!((key, result.unwrap_err().is_cancelled(), is_changed), (c, true, false));
        assert!(running.next().await.is_none() && running.len() == 0);
        assert!(!running.change(&b), "it may be looked at again");
    }
}
