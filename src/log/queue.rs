//! A queue of log lines that never blocks who logs.

use std::io::Write;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;

/// The most bytes that wait, apart from the batch that is being written.
const LIMIT: usize = 1 << 20;
/// How long the writer collects a batch. A write for each line, and the wake-up for it, would cost
/// more than the line.
const COLLECTED_FOR: Duration = Duration::from_millis(20);

/// Log lines that wait for one thread, which writes them. A line that finds no room is dropped.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    filled: Condvar,
    written: Condvar,
    dropped: Counter,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    /// The lines dropped since the writer took the last batch.
    dropped: u64,
    is_writing: bool,
    is_ending: bool,
}

impl Queue {
    /// Makes an empty queue that counts its dropped lines in `dropped`.
    pub(super) fn new(dropped: Counter) -> Self {
        Self { dropped, ..Self::default() }
    }

    /// Adds one line, which ends with a newline, or drops it.
    pub(super) fn push(&self, line: &[u8]) {
        let mut waiting = self.lock();
        let before = waiting.lines.len();
        let after = before + line.len();
        if after > LIMIT {
            waiting.dropped += 1;
            self.dropped.inc();
            return;
        }
        waiting.lines.extend_from_slice(line);
        drop(waiting);
        // The writer waits for a first line, then for time to pass or for many lines.
        if before == 0 || (before < LIMIT / 2 && after >= LIMIT / 2) {
            self.filled.notify_one();
        }
    }

    /// Writes batches to `output` until the queue has ended and is empty. Before a batch that lines
    /// were dropped after, calls `report` with their number.
    pub(super) fn write(&self, mut output: impl Write, report: impl Fn(u64)) {
        let mut batch = Vec::new();
        while let Some(dropped) = self.take(&mut batch) {
            if dropped > 0 {
                // The queue is empty now, so the report follows the batch.
                report(dropped);
            }
            if output.write_all(&batch).is_err() {
                self.dropped.inc_by(memchr::memchr_iter(b'\n', &batch).count() as u64);
            }
        }
    }

    /// Waits for lines and puts them into `batch`. Returns how many lines were dropped after them.
    fn take(&self, batch: &mut Vec<u8>) -> Option<u64> {
        batch.clear();
        let mut waiting = self.lock();
        waiting.is_writing = false;
        self.written.notify_all();
        let is_idle = |waiting: &mut Waiting| waiting.lines.is_empty() && !waiting.is_ending;
        let waiting = self.filled.wait_while(waiting, is_idle);
        let is_short = |it: &mut Waiting| it.lines.len() < LIMIT / 2 && !it.is_ending;
        let waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        let waiting = self.filled.wait_timeout_while(waiting, COLLECTED_FOR, is_short);
        let (mut waiting, _) = waiting.unwrap_or_else(PoisonError::into_inner);
        if waiting.lines.is_empty() {
            return None;
        }
        std::mem::swap(&mut waiting.lines, batch);
        waiting.is_writing = true;
        Some(std::mem::take(&mut waiting.dropped))
    }

    /// Ends the queue: waits until all lines are written, at most for `patience`.
    pub(super) fn end(&self, patience: Duration) {
        let mut waiting = self.lock();
        waiting.is_ending = true;
        self.filled.notify_one();
        let is_unwritten = |it: &mut Waiting| it.is_writing || !it.lines.is_empty();
        drop(self.written.wait_timeout_while(waiting, patience, is_unwritten));
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread::{self, JoinHandle};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Where each write says what it writes, and then waits for its result.
    struct Output(Sender<Vec<u8>>, Receiver<io::Result<()>>);

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_owned()).unwrap();
            self.1.recv().unwrap().map(|()| bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Running {
        queue: Arc<Queue>,
        writes: Receiver<Vec<u8>>,
        results: Sender<io::Result<()>>,
        handle: JoinHandle<()>,
    }

    fn running() -> Running {
        let queue = Arc::new(Queue::default());
        let ((begun, writes), (results, ended)) = (channel(), channel());
        let (it, reporting) = (Arc::clone(&queue), Arc::clone(&queue));
        let report = move |lines| reporting.push(format!("{lines} dropped\n").as_bytes());
        let handle = thread::spawn(move || it.write(Output(begun, ended), report));
        Running { queue, writes, results, handle }
    }

    #[test]
    fn what_was_logged_is_written_in_order_before_the_end() {
        let Running { queue, writes, results, handle } = running();
        let lines: Vec<String> = (0..100).map(|number| format!("line {number}\n")).collect();
        for line in &lines {
            queue.push(line.as_bytes());
            results.send(Ok(())).unwrap();
        }
        queue.end(PATIENCE);
        let written: Vec<_> = writes.try_iter().collect();
        assert_eq!(written.concat(), lines.concat().into_bytes());
        handle.join().unwrap();
    }

    #[test]
    fn a_full_queue_drops_lines_and_says_how_many_where_they_are_missing() {
        let Running { queue, writes, results, handle } = running();
        queue.push(b"first\n");
        assert_eq!(writes.recv().unwrap(), b"first\n", "this write is blocked");
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        for _ in 0..(LIMIT >> 10) + 3 {
            queue.push(&line);
        }
        assert_eq!(queue.dropped.get(), 3);
        results.send(Ok(())).unwrap();
        assert_eq!(writes.recv().unwrap().len(), LIMIT);
        queue.push(b"last\n");
        results.send(Ok(())).unwrap();
        assert_eq!(writes.recv().unwrap(), b"3 dropped\nlast\n");
        results.send(Ok(())).unwrap();
        queue.end(PATIENCE);
        handle.join().unwrap();
    }

    #[test]
    fn a_blocked_write_does_not_hold_up_the_end() {
        let Running { queue, writes, results, handle } = running();
        queue.push(b"first\n");
        writes.recv().unwrap();
        queue.end(Duration::from_millis(1));
        results.send(Ok(())).unwrap();
        handle.join().unwrap();
    }

    #[test]
    fn lines_that_cannot_be_written_count_as_dropped() {
        let Running { queue, writes: _writes, results, handle } = running();
        queue.push(b"first\n");
        queue.push(b"second\n");
        results.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
        results.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
        queue.end(PATIENCE);
        handle.join().unwrap();
        assert_eq!(queue.dropped.get(), 2);
    }
}
