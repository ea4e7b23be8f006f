//! A channel of limited length in which namespaces take turns.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use super::fair::Fair;

/// Where items go in. Clones share the channel.
#[derive(Debug)]
pub(super) struct Sender<T> {
    waiting: Arc<Mutex<Waiting<T>>>,
    wake: mpsc::Sender<()>,
}

/// Where they come out.
pub(super) struct Receiver<T> {
    waiting: Arc<Mutex<Waiting<T>>>,
    wake: mpsc::Receiver<()>,
}

#[derive(Debug)]
struct Waiting<T> {
    /// By their numbers, so that those of one namespace stay in order.
    items: Fair<u64, (String, T)>,
    last: u64,
}

/// A channel for `limit` items.
pub(super) fn channel<T>(limit: usize) -> (Sender<T>, Receiver<T>) {
    let waiting = Arc::new(Mutex::new(Waiting { items: Fair::new(limit), last: 0 }));
    let (wake, woken) = mpsc::channel(1);
    (Sender { waiting: waiting.clone(), wake }, Receiver { waiting, wake: woken })
}

impl<T> Sender<T> {
    /// Puts in an item. Never waits. Returns the namespaces of the items for which there is no room
    /// any more: those of the namespace with most items, the last ones first.
    pub(super) fn send(&self, namespace: &str, item: T) -> Vec<String> {
        let mut waiting = lock(&self.waiting);
        waiting.last += 1;
        let (number, item) = (waiting.last, (namespace.to_owned(), item));
        let inserted = waiting.items.insert(namespace, number, item, 1);
        drop(waiting);
        // If it is full, the receiver is going to wake up anyway.
        let _ = self.wake.try_send(());
        inserted.dropped(number).map(|(_, (namespace, _))| namespace).collect()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { waiting: self.waiting.clone(), wake: self.wake.clone() }
    }
}

impl<T> Receiver<T> {
    /// Waits for the next item; `None` if there is none and all senders are dropped.
    pub(super) async fn next(&mut self) -> Option<T> {
        loop {
            let next = lock(&self.waiting).items.take(|_| true);
            if let Some((_, (_, item))) = next {
                return Some(item);
            }
            self.wake.recv().await?;
        }
    }
}

fn lock<T>(waiting: &Mutex<Waiting<T>>) -> MutexGuard<'_, Waiting<T>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_namespace_that_sends_much_loses_its_own_last_items() {
        let (sender, mut receiver) = channel(4);
        let mut dropped = Vec::new();
        for item in ["busy 1", "busy 2", "busy 3", "busy 4", "busy 5"] {
            dropped.extend(sender.clone().send("busy", item));
        }
        assert_eq!(dropped, ["busy"], "the fifth");
        assert_eq!(sender.send("quiet", "quiet 1"), ["busy"]);
        assert_eq!(sender.send("other", "other 1"), ["busy"]);
        drop(sender);
        let mut items = Vec::new();
        while let Some(item) = receiver.next().await {
            items.push(item);
        }
        assert_eq!(items, ["busy 1", "quiet 1", "other 1", "busy 2"]);
    }

    #[tokio::test]
    async fn an_item_wakes_the_receiver() {
        let (sender, mut receiver) = channel(4);
        let waits = tokio::spawn(async move { receiver.next().await });
        tokio::task::yield_now().await;
        sender.send("n", 7);
        assert_eq!(waits.await.unwrap(), Some(7));
    }
}
