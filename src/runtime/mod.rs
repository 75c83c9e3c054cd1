//! How to run: SIMD level and threads, as a value.
//!
//! Nothing is global: two networks of one process may run at different levels and thread counts.

mod scratch;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
#[cfg(feature = "rayon")]
use core::iter;
#[cfg(feature = "rayon")]
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::{AtomicBool, Ordering};
#[cfg(feature = "rayon")]
use std::sync::{Mutex, PoisonError};
#[cfg(feature = "rayon")]
use std::thread;
#[cfg(feature = "rayon")]
use std::time::{Duration, Instant};

use crate::kernels::SimdLevel;
use crate::{Error, Result};
pub(crate) use scratch::Lent;
use scratch::Scratch;

/// SIMD level and thread count of a computation. Results do not depend on the thread count.
///
/// Training leaves the memory that its steps need for a moment with the runtime and its clones, until the last is
/// dropped.
///
/// ```
/// use mobilenet::{Runtime, SimdLevel};
/// let runtime = Runtime::new().level(SimdLevel::Scalar)?.threads(1)?;
/// assert_eq!(runtime.simd_level(), SimdLevel::Scalar);
/// # Ok::<(), mobilenet::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Runtime {
    level: SimdLevel,
    #[cfg(feature = "rayon")]
    pool: Option<Pool>,
    scratch: Arc<Scratch>,
    /// Whether the next [`Runtime::sweep`] begins with the last item.
    backwards: Arc<AtomicBool>,
}

#[cfg(feature = "rayon")]
#[derive(Clone, Debug)]
struct Pool {
    threads: Arc<rayon::ThreadPool>,
    /// How many computations are in it, if it is one of our own.
    inside: Option<Arc<AtomicUsize>>,
}

impl Default for Runtime {
    fn default() -> Self {
        Self::new()
    }
}

impl Runtime {
    /// Elements of an elementwise pass that are worth a thread's waking, which takes up to fifty microseconds: three
    /// arrays of 256 KiB take as long.
    pub(crate) const PIECE: usize = 64 * 1024;

    /// The machine's best level, on the calling thread alone.
    #[must_use]
    pub fn new() -> Self {
        Self {
            level: SimdLevel::detect(),
            #[cfg(feature = "rayon")]
            pool: None,
            scratch: Arc::default(),
            backwards: Arc::default(),
        }
    }

    /// The same with this SIMD level.
    ///
    /// # Errors
    ///
    /// If this machine cannot run it.
    pub fn level(mut self, level: SimdLevel) -> Result<Self> {
        if !level.is_available() {
            let available: Vec<_> = SimdLevel::available().map(SimdLevel::name).collect();
            return Err(Error::invalid("runtime", "level", level, format_args!("one of {}", available.join(", "))));
        }
        self.level = level;
        Ok(self)
    }

    /// The same with this many threads: a pool of its own, shared by clones, that ends with the last of them.
    ///
    /// # Errors
    ///
    /// If `threads` is 0, above 1024, above 1 without the `rayon` feature, or refused by the system.
    pub fn threads(self, threads: usize) -> Result<Self> {
        const EXPECTED: &str = if cfg!(feature = "rayon") { "1 to 1024" } else { "1 (more need the `rayon` feature)" };
        let refuse = || Error::invalid("runtime", "threads", threads, EXPECTED);
        match threads {
            0 | 1025.. => Err(refuse()),
            #[cfg(not(feature = "rayon"))]
            2.. => Err(refuse()),
            #[cfg(feature = "rayon")]
            2.. => {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(|error| {
                    Error::invalid(
                        "runtime",
                        "threads",
                        threads,
                        format_args!("as many as the system grants ({error})"),
                    )
                })?;
                Ok(Self { pool: Some(Pool { threads: Arc::new(pool), inside: Some(Arc::default()) }), ..self })
            }
            1 => Ok(Self {
                #[cfg(feature = "rayon")]
                pool: None,
                ..self
            }),
        }
    }

    /// The same on the threads of a pool of the caller's, which other work may share.
    #[cfg(feature = "rayon")]
    #[must_use]
    pub fn pool(self, pool: Arc<rayon::ThreadPool>) -> Self {
        Self { pool: Some(Pool { threads: pool, inside: None }), ..self }
    }

    /// The SIMD level in use.
    #[must_use]
    pub fn simd_level(&self) -> SimdLevel {
        self.level
    }

    /// The number of threads in use.
    #[must_use]
    pub fn thread_count(&self) -> usize {
        #[cfg(feature = "rayon")]
        if let Some(pool) = &self.pool {
            return pool.threads.current_num_threads();
        }
        1
    }

    /// Runs `work` on the threads of this runtime: [`Runtime::join`] inside it uses them all.
    #[cfg_attr(not(feature = "rayon"), expect(clippy::unused_self, reason = "threads come with `rayon`"))]
    pub(crate) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        #[cfg(feature = "rayon")]
        if let Some(pool) = &self.pool {
            let _counted = pool.inside.as_deref().map(Counted::new);
            return pool.threads.install(work);
        }
        work()
    }

    /// As [`Runtime::install`], for work whose parts follow each other within microseconds: in a pool of its own, another
    /// thread looks for them as long as this is all there is to do, rather than fall asleep in between and have to be
    /// woken.
    pub(crate) fn install_awake<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        #[cfg(feature = "rayon")]
        if let Some(Pool { threads, inside: Some(inside) }) = &self.pool {
            let counted = Counted::new(inside);
            let work = move || {
                let _ends = counted;
                work()
            };
            return threads.install(|| rayon::join(work, || stay_awake(inside)).0);
        }
        self.install(work)
    }

    /// Both results, computed at once if this runs inside [`Runtime::install`] and a thread is free.
    pub(crate) fn join<A: Send, B: Send>(a: impl FnOnce() -> A + Send, b: impl FnOnce() -> B + Send) -> (A, B) {
        #[cfg(feature = "rayon")]
        return rayon::join(a, b);
        #[cfg(not(feature = "rayon"))]
        (a(), b())
    }

    /// Lends memory that earlier work on this runtime, or on a clone of it, may have left anything in.
    pub(crate) fn scratch<S: Any + Default + Send>(&self) -> Lent<'_, S> {
        self.scratch.lend()
    }

    /// As [`Runtime::for_each`], over pieces of maps: every other sweep begins with the last. Where one's results are
    /// the next one's operands, those that were computed last are still in the cache.
    pub(crate) fn sweep<I: Send, S: Any + Default + Send>(&self, mut items: Vec<I>, work: impl Fn(&mut S, I) + Sync) {
        if self.backwards.fetch_xor(true, Ordering::Relaxed) {
            items.reverse();
        }
        self.for_each(items, work);
    }

    /// Gives each item to `work` on this runtime's threads, with scratch as [`Runtime::scratch`] lends it.
    pub(crate) fn for_each<I: Send, S: Any + Default + Send>(&self, items: Vec<I>, work: impl Fn(&mut S, I) + Sync) {
        self.share(items.into_iter(), |items| {
            let mut scratch = self.scratch();
            items.for_each(|item| work(&mut scratch, item));
        });
    }

    /// Cuts `data` into chunks of `chunk` elements (the last may be shorter) and gives each to `work` with its
    /// index, on this runtime's threads.
    pub(crate) fn for_each_chunk<T: Send>(&self, data: &mut [T], chunk: usize, work: impl Fn(usize, &mut [T]) + Sync) {
        if data.is_empty() {
            return;
        }
        self.share(data.chunks_mut(chunk).enumerate(), |chunks| chunks.for_each(|(index, part)| work(index, part)));
    }

    /// Runs `work` on this runtime's threads, each of which draws from the same `items`.
    ///
    /// What is generic here is compiled again in every crate that trains a network; rayon is behind [`on_threads`].
    #[cfg_attr(not(feature = "rayon"), expect(clippy::unused_self, reason = "threads come with `rayon`"))]
    fn share<I: ExactSizeIterator<Item: Send> + Send>(
        &self,
        mut items: I,
        work: impl Fn(&mut dyn Iterator<Item = I::Item>) + Sync,
    ) {
        #[cfg(feature = "rayon")]
        if let Some(pool) = &self.pool {
            let threads = items.len().min(pool.threads.current_num_threads());
            let items = Mutex::new(items);
            let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
            return on_threads(&pool.threads, threads, &|| work(&mut iter::from_fn(next)));
        }
        work(&mut items);
    }
}

/// One of the computations in a pool, until it is dropped.
#[cfg(feature = "rayon")]
struct Counted<'a>(&'a AtomicUsize);

#[cfg(feature = "rayon")]
impl<'a> Counted<'a> {
    fn new(inside: &'a AtomicUsize) -> Self {
        inside.fetch_add(1, Ordering::Relaxed);
        Self(inside)
    }
}

#[cfg(feature = "rayon")]
impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Does parts of the one computation in the pool until it ends, for it waits for this thread, or until there was nothing
/// to do for a while. Another's work, which it would have to wait for too, is left to the pool.
#[cfg(feature = "rayon")]
fn stay_awake(inside: &AtomicUsize) {
    const IDLE: Duration = Duration::from_millis(1);
    let mut last = Instant::now();
    while inside.load(Ordering::Relaxed) == 1 && last.elapsed() < IDLE {
        if rayon::yield_now() == Some(rayon::Yield::Executed) {
            last = Instant::now();
        } else {
            thread::yield_now();
        }
    }
}

/// Runs `work` on this many threads of a pool. One that finds no other free runs it again itself.
#[cfg(feature = "rayon")]
fn on_threads(pool: &rayon::ThreadPool, threads: usize, work: &(dyn Fn() + Sync)) {
    fn split(threads: usize, work: &(dyn Fn() + Sync)) {
        if threads > 1 {
            rayon::join(|| split(threads / 2, work), || split(threads - threads / 2, work));
        } else {
            work();
        }
    }
    pool.install(|| split(threads, work));
}
