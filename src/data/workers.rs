//! Work on background threads whose results come in order.
//!
//! Worker `w` of `W` does items `w, w + W, w + 2 W, ...` and hands each over its own bounded channel, from which the
//! consumer takes them in turn. So order needs no sorting, memory is bounded, and nothing can deadlock: a worker waits
//! only for a consumer that is behind, the consumer only for the worker whose turn it is. A slow item costs no more
//! than the others' channels hold.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};

/// Results of `job(0), job(1), ..`, computed ahead. Dropping it ends the threads, each after the item it is at.
#[derive(Debug)]
pub(super) struct Workers<T> {
    lanes: Vec<Lane<T>>,
    count: usize,
    next: usize,
}

#[derive(Debug)]
struct Lane<T> {
    /// Gone as soon as nobody wants results, which is how the thread learns it.
    results: Option<Receiver<T>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Workers<T> {
    /// Starts `threads` threads, each at most `ahead` results before the consumer.
    ///
    /// # Errors
    ///
    /// If the system refuses a thread.
    pub(super) fn start(
        threads: usize,
        ahead: usize,
        count: usize,
        job: impl Fn(usize) -> T + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let job = Arc::new(job);
        let threads = threads.clamp(1, count.max(1));
        let mut workers = Self { lanes: Vec::with_capacity(threads), count, next: 0 };
        for first in 0..threads {
            let (sender, results) = sync_channel(ahead);
            let job = Arc::clone(&job);
            let work = move || {
                let _ = (first..count).step_by(threads).try_for_each(|item| sender.send(job(item)));
            };
            let thread = thread::Builder::new().name(format!("loader-{first}")).spawn(work)?;
            workers.lanes.push(Lane { results: Some(results), thread: Some(thread) });
        }
        Ok(workers)
    }

    /// The next item and its result; `None` after the last.
    ///
    /// # Errors
    ///
    /// If the job panicked: its message. There is nothing after it.
    pub(super) fn next(&mut self) -> Option<(usize, Result<T, String>)> {
        if self.next >= self.count {
            return None;
        }
        let item = self.next;
        self.next += 1;
        let turn = item % self.lanes.len();
        let lane = &mut self.lanes[turn];
        if let Some(Ok(result)) = lane.results.as_ref().map(Receiver::recv) {
            return Some((item, Ok(result)));
        }
        // A thread hangs up before its last item only by panicking.
        self.next = self.count;
        let payload = lane.thread.take().and_then(|thread| thread.join().err());
        let message = payload.as_ref().and_then(|payload| {
            payload
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string))
        });
        Some((item, Err(message.unwrap_or_else(|| String::from("no message")))))
    }
}

impl<T> Drop for Workers<T> {
    fn drop(&mut self) {
        for lane in &mut self.lanes {
            lane.results = None;
        }
        for thread in self.lanes.iter_mut().filter_map(|lane| lane.thread.take()) {
            // A panic that nobody saw was ahead of what anybody wanted.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn results_come_in_order_from_any_number_of_threads() {
        for threads in [1, 2, 3, 50] {
            for ahead in [0, 1, 5] {
                for count in [0, 1, 2, 7, 20] {
                    let mut workers = Workers::start(threads, ahead, count, |item| item * item).unwrap();
                    let results: Vec<usize> = std::iter::from_fn(|| workers.next()).map(|(_, r)| r.unwrap()).collect();
                    assert_eq!(results, (0..count).map(|item| item * item).collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn panic_becomes_an_error_at_its_item_and_ends_the_work() {
        for threads in [1, 2, 3] {
            let mut workers = Workers::start(threads, 2, 9, |item| {
                assert!(item != 4, "item {item} is bad");
                item
            })
            .unwrap();
            for item in 0..4 {
                assert_eq!(workers.next(), Some((item, Ok(item))));
            }
            let (item, result) = workers.next().unwrap();
            assert_eq!((item, result), (4, Err(String::from("item 4 is bad"))));
            assert_eq!(workers.next(), None);
        }
    }

    #[test]
    fn dropping_early_ends_the_threads() {
        let done = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&done);
        let mut workers = Workers::start(3, 2, 1_000_000, move |_| counter.fetch_add(1, Ordering::Relaxed)).unwrap();
        assert!(workers.next().is_some());
        drop(workers);
        // The threads are joined, so nobody else holds the counter; each was at most its channel ahead.
        assert_eq!(Arc::strong_count(&done), 1);
        assert!(done.load(Ordering::Relaxed) <= 1 + 3 * (2 + 2));
    }
}
