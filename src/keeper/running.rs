//! The looks that are being taken, each by a task of its own.

use std::collections::{BTreeMap, HashMap};

use tokio::task::{Id, JoinError, JoinSet};

use crate::kubernetes::key::Key;

/// Tasks, at most one for each key.
#[derive(Debug)]
pub struct Running<T> {
    tasks: JoinSet<T>,
    keys: HashMap<Id, Key>,
    /// Whether what is looked at has changed since.
    changed: BTreeMap<Key, bool>,
}

/// A task that has ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended<T> {
    /// Of what.
    pub key: Key,
    /// How.
    pub how: How<T>,
    /// Whether it has changed meanwhile.
    pub is_changed: bool,
}

/// How a task has ended.
#[derive(Debug, PartialEq, Eq)]
pub enum How<T> {
    /// It was told to.
    Aborted,
    /// With this.
    Done(T),
    /// It panicked, which was logged.
    Panicked,
}

impl<T: Send + 'static> Running<T> {
    /// How many run.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether none runs.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Notes the change where one runs for this key. Says whether one does.
    pub fn change(&mut self, key: &Key) -> bool {
        self.changed.get_mut(key).map(|is_changed| *is_changed = true).is_some()
    }

    /// Starts one.
    pub fn start(&mut self, key: &Key, task: impl Future<Output = T> + Send + 'static) {
        let id = self.tasks.spawn(task).id();
        self.keys.insert(id, key.clone());
        self.changed.insert(key.clone(), false);
    }

    /// Waits for one to end; `None` where none runs. May be dropped at any time.
    pub async fn next(&mut self) -> Option<Ended<T>> {
        let ended = self.tasks.join_next_with_id().await?;
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let key = self.keys.remove(&id)?;
        let is_changed = self.changed.remove(&key) == Some(true);
        let how = match ended {
            Ok((_, outcome)) => How::Done(outcome),
            Err(error) if error.is_panic() => How::Panicked,
            Err(_) => How::Aborted,
        };
        Some(Ended { key, how, is_changed })
    }

    /// Tells all to end; how they did is still to be asked.
    pub fn abort(&mut self) {
        self.tasks.abort_all();
    }

    /// Ends all.
    pub async fn shutdown(&mut self) {
        self.tasks.shutdown().await;
    }
}

impl<T: 'static> Default for Running<T> {
    fn default() -> Self {
        Self { tasks: JoinSet::new(), keys: HashMap::new(), changed: BTreeMap::new() }
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
        let ended = running.next().await.unwrap();
        assert_eq!(ended, Ended { key: a, how: How::Done(7), is_changed: false });
        running.start(&b, async { panic!("a look that panics") });
        assert!(running.change(&b) && !running.change(&c));
        let ended = running.next().await.unwrap();
        assert_eq!(ended, Ended { key: b.clone(), how: How::Panicked, is_changed: true });
        running.start(&c, std::future::pending());
        running.abort();
        let ended = running.next().await.unwrap();
        assert_eq!(ended, Ended { key: c, how: How::Aborted, is_changed: false });
        assert!(running.next().await.is_none() && running.is_empty());
        assert!(!running.change(&b), "it may be looked at again");
    }
}
