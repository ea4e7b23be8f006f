//! A connection that goes on as long as it can, before others have their turn.
//!
//! hyper hands a body over piece by piece: it gives one to the handler, wakes its own task, and waits
//! for it to be taken. The task then goes to the end of the queue. With hundreds of requests at a
//! time, all of them would be half read at once, each with its buffers. A large body is better
//! read by and by: what arrives meanwhile is then read at once, and a wait for each record of TLS
//! costs more than the record.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::task::AtomicWaker;
use tokio::task::coop;

/// Polls `future` again at once where it has woken itself in the meantime, up to [`ROUNDS`] times, as
/// long as `is_small` is set.
pub(super) fn eager<F>(future: F, is_small: &AtomicBool) -> Eager<'_, F> {
    let relay = Arc::new(Relay::default());
    Eager { future, is_small, waker: relay.clone().into(), relay }
}

/// The most that the body of a request may have to be finished before others, in bytes.
pub(super) const SMALL: u64 = 64 << 10;

/// How often at most: more than a small body has pieces.
const ROUNDS: usize = 16;

/// See [`eager`].
pub(super) struct Eager<'a, F> {
    future: F,
    is_small: &'a AtomicBool,
    waker: Waker,
    relay: Arc<Relay>,
}

impl<F: Future + Unpin> Future for Eager<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.relay.task.register(cx.waker());
        for _ in 0..ROUNDS {
            let Self { future, waker, relay, .. } = &mut *self;
            relay.begin();
            if let Poll::Ready(output) = Pin::new(future).poll(&mut Context::from_waker(waker)) {
                return Poll::Ready(output);
            }
            if !relay.end() {
                return Poll::Pending;
            }
            // Without budget nothing gets on before the task has yielded (`tokio::task::coop`).
            if !self.is_small.load(Ordering::Relaxed) || !coop::has_budget_remaining() {
                break;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Passes a wake on to the task, unless the task is at work on this very future.
#[derive(Default)]
struct Relay {
    is_polling: AtomicBool,
    is_woken: AtomicBool,
    task: AtomicWaker,
}

impl Relay {
    fn begin(&self) {
        self.is_woken.store(false, Ordering::SeqCst);
        self.is_polling.store(true, Ordering::SeqCst);
    }

    /// Whether there was a wake. One from elsewhere in this moment is seen here or passed on, or both:
    /// in the one order of all four accesses, either ours of `is_polling` comes before its own, or its
    /// own of `is_woken` before ours.
    fn end(&self) -> bool {
        self.is_polling.store(false, Ordering::SeqCst);
        self.is_woken.swap(false, Ordering::SeqCst)
    }
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, Ordering::SeqCst);
        if !self.is_polling.load(Ordering::SeqCst) {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;

    use futures::FutureExt;

    use super::*;

    /// A task that counts how often it is woken.
    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Task {
        fn poll<T>(self: &Arc<Self>, future: &mut (impl Future<Output = T> + Unpin)) -> Poll<T> {
            future.poll_unpin(&mut Context::from_waker(&self.clone().into()))
        }

        fn wakes(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }

    static SMALL_ONE: AtomicBool = AtomicBool::new(true);
    static LARGE_ONE: AtomicBool = AtomicBool::new(false);

    /// Wakes itself so often before it is ready.
    fn after(mut wakes: usize) -> impl Future<Output = ()> + Unpin {
        poll_fn(move |cx| {
            if wakes == 0 {
                return Poll::Ready(());
            }
            wakes -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }

    #[test]
    fn what_wakes_itself_is_polled_again_at_once() {
        let task = Arc::new(Task::default());
        assert_eq!(task.poll(&mut eager(after(ROUNDS - 1), &SMALL_ONE)), Poll::Ready(()));
        assert_eq!(task.wakes(), 0);
    }

    #[test]
    fn but_others_have_their_turn_in_the_end() {
        let (task, mut future) = (Arc::new(Task::default()), eager(after(ROUNDS), &SMALL_ONE));
        assert_eq!((task.poll(&mut future), task.wakes()), (Poll::Pending, 1));
        assert_eq!((task.poll(&mut future), task.wakes()), (Poll::Ready(()), 1));
    }

    #[test]
    fn what_is_large_is_not_hurried() {
        let (task, mut future) = (Arc::new(Task::default()), eager(after(1), &LARGE_ONE));
        assert_eq!((task.poll(&mut future), task.wakes()), (Poll::Pending, 1));
        assert_eq!((task.poll(&mut future), task.wakes()), (Poll::Ready(()), 1));
    }

    #[test]
    fn a_wake_from_elsewhere_wakes_the_task() {
        let (task, other) = (Arc::new(Task::default()), Arc::new(AtomicWaker::new()));
        let mut polls = 0;
        let mut future = eager(
            poll_fn(|cx| {
                other.register(cx.waker());
                polls += 1;
                if polls == 3 { Poll::Ready(()) } else { Poll::Pending }
            }),
            &SMALL_ONE,
        );
        assert_eq!((task.poll(&mut future), task.wakes()), (Poll::Pending, 0));
        other.wake();
        assert_eq!(task.wakes(), 1);
        // A second wake before the next poll is passed on too, and one that comes in a poll counts once.
        assert_eq!((task.poll(&mut future), task.wakes()), (Poll::Pending, 1));
        other.wake();
        assert_eq!((task.poll(&mut future), task.wakes()), (Poll::Ready(()), 2));
    }

    #[test]
    fn another_task_that_polls_later_is_the_one_to_wake() {
        let (first, second) = (Arc::new(Task::default()), Arc::new(Task::default()));
        let other = AtomicWaker::new();
        let mut future = eager(
            poll_fn(|cx| {
                other.register(cx.waker());
                Poll::<()>::Pending
            }),
            &SMALL_ONE,
        );
        assert_eq!(
            (first.poll(&mut future), second.poll(&mut future)),
            (Poll::Pending, Poll::Pending)
        );
        other.wake();
        assert_eq!((first.wakes(), second.wakes()), (0, 1));
    }

    #[tokio::test]
    async fn no_round_is_spent_without_budget() {
        let mut polls = 0;
        let mut future = eager(
            poll_fn(|cx| {
                polls += 1;
                if polls == 2 {
                    return Poll::Ready(());
                }
                while coop::has_budget_remaining() {
                    coop::consume_budget().now_or_never();
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            }),
            &SMALL_ONE,
        );
        let pending = poll_fn(|cx| Poll::Ready(future.poll_unpin(cx))).await;
        assert_eq!(pending, Poll::Pending);
        drop(future);
        assert_eq!(polls, 1);
    }
}
