//! Threads for the parts of a step.

use crate::error::TrainError;

/// Threads that each process whole parts of a step.
///
/// On a CPU, two parts in parallel on one thread each finish sooner than one after the other on two
/// threads, because small operations do not divide well between threads. Results are in the order
/// of the parts, so they do not depend on the number of workers.
pub struct Workers {
    pools: Vec<rayon::ThreadPool>,
}

impl Workers {
    /// Creates `count` workers that share the machine's cores; one worker leaves parallelism to
    /// the operations.
    ///
    /// # Errors
    ///
    /// [`TrainError::Io`] if the threads cannot be started.
    pub fn new(count: usize) -> Result<Self, TrainError> {
        if count <= 1 {
            return Ok(Self { pools: Vec::new() });
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let pools = (0..count)
            .map(|_| {
                rayon::ThreadPoolBuilder::new()
                    .num_threads((cores / count).max(1))
                    .build()
            })
            .collect::<Result<_, _>>()
            .map_err(|error| TrainError::Io {
                action: "start threads for",
                path: "training".into(),
                source: std::io::Error::other(error),
            })?;
        Ok(Self { pools })
    }

    /// Calls `work` for every part below `parts` and returns the results in the order of the parts.
    pub fn map<T: Send>(&self, parts: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
        if self.pools.is_empty() {
            return (0..parts).map(work).collect();
        }
        let mut results: Vec<Option<T>> = (0..parts).map(|_| None).collect();
        let count = self.pools.len();
        std::thread::scope(|scope| {
            let mut shares: Vec<Vec<(usize, &mut Option<T>)>> =
                (0..count).map(|_| Vec::new()).collect();
            for (part, slot) in results.iter_mut().enumerate() {
                shares[part % count].push((part, slot));
            }
            for (pool, share) in self.pools.iter().zip(shares) {
                let work = &work;
                scope.spawn(move || {
                    pool.install(|| {
                        for (part, slot) in share {
                            *slot = Some(work(part));
                        }
                    });
                });
            }
        });
        results
            .into_iter()
            .map(|result| result.expect("every part was given to a worker"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_their_order() {
        for count in [1, 2, 3] {
            let workers = Workers::new(count).unwrap();
            assert_eq!(workers.map(5, |part| part * part), [0, 1, 4, 9, 16]);
        }
    }
}
