//! A counter for what every request of a storage may add to.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// As many queues as a guest usually has count at once without writing to the same cache line.
const STRIPES: usize = 16;

/// Counts what is done on many threads at once. Whoever counts waits for nobody, not even for a cache line.
#[derive(Debug, Default)]
pub struct StripedCounter([Stripe; STRIPES]);

/// Two cache lines: processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe(AtomicU64);

impl StripedCounter {
    /// Counts so many.
    pub fn add(&self, more: u64) {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES;
        }
        // A thread that is ending has none any more.
        let own = OWN.try_with(|own| *own).unwrap_or(0);
        if let Some(Stripe(counter)) = self.0.get(own) {
            counter.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// All that was counted.
    pub fn sum(&self) -> u64 {
        let stripes = self.0.iter();
        stripes.fold(0, |sum, Stripe(counter)| {
            sum.wrapping_add(counter.load(Ordering::Relaxed))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_many_threads_count_is_added_up() {
        let counter = StripedCounter::default();
        std::thread::scope(|scope| {
            for _ in 0..19 {
                scope.spawn(|| (0..1000).for_each(|_| counter.add(2)));
            }
        });
        assert_eq!(counter.sum(), 19 * 2000);
    }
}
