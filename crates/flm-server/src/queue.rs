//! The queue of a model: gathers requests into batches and draws them on a thread.

use crate::engine::{Engine, Watch};
use crate::metrics::Metrics;
use flm::{Frame, Sample, SampleOptions};
use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// How long a request waits for others that fit into its batch.
const GATHER: Duration = Duration::from_millis(2);

/// Why a job has no samples.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The queue is full.
    #[error("the queue is full")]
    Full,
    /// The server is shutting down.
    #[error("the server is shutting down")]
    Closed,
    /// The model does not support the request.
    #[error("{0}")]
    Request(String),
    /// A fault of the server; its reason is in the log.
    #[error("internal error")]
    Internal,
}

/// Frames that a job wants.
pub(crate) struct Wish {
    /// Tokens per position.
    pub(crate) top: usize,
    /// The first step whose frame is wanted.
    pub(crate) from_step: usize,
    /// Number of the job's first sample in its request.
    pub(crate) offset: usize,
    /// Receives the frames; each with the number of its sample in the request.
    pub(crate) sender: mpsc::UnboundedSender<(usize, Frame)>,
}

/// The samples of a part, once they are drawn.
pub(crate) type Reply = oneshot::Receiver<Result<Vec<Sample>, Refusal>>;

/// One part of a request in the queue.
struct Job {
    /// The model that the request was checked against.
    engine: Arc<dyn Engine>,
    options: SampleOptions,
    wish: Option<Wish>,
    reply: oneshot::Sender<Result<Vec<Sample>, Refusal>>,
    since: Instant,
}

impl Job {
    /// Returns `true` if both can be drawn in one batch.
    fn agrees(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.engine, &other.engine) && self.options.fits(&other.options)
    }
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    closed: bool,
}

/// The queue of one model.
pub(crate) struct Queue {
    name: String,
    engine: RwLock<Arc<dyn Engine>>,
    waiting: Mutex<Waiting>,
    ready: Condvar,
    /// Rows in one batch.
    max_batch: usize,
    /// Waiting rows.
    limit: usize,
    metrics: Arc<Metrics>,
}

impl Queue {
    pub(crate) fn new(
        name: String,
        engine: Arc<dyn Engine>,
        (max_batch, limit): (usize, usize),
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            name,
            engine: RwLock::new(engine),
            waiting: Mutex::default(),
            ready: Condvar::new(),
            max_batch,
            limit,
            metrics,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The model of new requests.
    pub(crate) fn engine(&self) -> Arc<dyn Engine> {
        let engine = self.engine.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&engine)
    }

    /// Uses another model for new requests.
    pub(crate) fn replace(&self, engine: Arc<dyn Engine>) {
        *self.engine.write().unwrap_or_else(PoisonError::into_inner) = engine;
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues the parts of a request, of at most `max_batch` rows each: all of them or none.
    pub(crate) fn submit(
        &self,
        engine: &Arc<dyn Engine>,
        parts: Vec<(SampleOptions, Option<Wish>)>,
    ) -> Result<Vec<Reply>, Refusal> {
        let mut waiting = self.waiting();
        if waiting.closed {
            return Err(Refusal::Closed);
        }
        waiting.jobs.retain(|job| !job.reply.is_closed());
        let before: usize = waiting.jobs.iter().map(|job| job.options.total()).sum();
        let more: usize = parts.iter().map(|(options, _)| options.total()).sum();
        // A request that is larger than the queue is accepted by an empty one.
        if before > 0 && before + more > self.limit {
            return Err(Refusal::Full);
        }
        let mut replies = Vec::with_capacity(parts.len());
        for (options, wish) in parts {
            let (reply, receiver) = oneshot::channel();
            replies.push(receiver);
            waiting.jobs.push_back(Job {
                engine: Arc::clone(engine),
                options,
                wish,
                reply,
                since: Instant::now(),
            });
        }
        drop(waiting);
        self.ready.notify_one();
        Ok(replies)
    }

    /// Rows that wait.
    pub(crate) fn waiting_rows(&self) -> usize {
        let waiting = self.waiting();
        waiting.jobs.iter().map(|job| job.options.total()).sum()
    }

    pub(crate) fn max_batch(&self) -> usize {
        self.max_batch
    }

    /// Rejects new requests; the thread ends when the waiting ones are done.
    pub(crate) fn close(&self) {
        self.waiting().closed = true;
        self.ready.notify_all();
    }

    /// Draws batches until the queue is closed and empty.
    pub(crate) fn work(&self) {
        while let Some(jobs) = self.next() {
            self.draw(jobs);
        }
    }

    /// Waits for the next batch; `None` if the queue is closed and empty.
    fn next(&self) -> Option<Vec<Job>> {
        let mut waiting = self.waiting();
        loop {
            waiting.jobs.retain(|job| !job.reply.is_closed());
            let Some(first) = waiting.jobs.front() else {
                if waiting.closed {
                    return None;
                }
                waiting = self
                    .ready
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let (rows, jobs) = fitting(&waiting.jobs, self.max_batch);
            let waited = first.since.elapsed();
            if rows >= self.max_batch || waited >= GATHER || waiting.closed {
                return Some(taken(&mut waiting.jobs, &jobs));
            }
            let (guard, _) = self
                .ready
                .wait_timeout(waiting, GATHER - waited)
                .unwrap_or_else(PoisonError::into_inner);
            waiting = guard;
        }
    }

    fn draw(&self, jobs: Vec<Job>) {
        let requests: Vec<SampleOptions> = jobs.iter().map(|job| job.options.clone()).collect();
        let rows: usize = requests.iter().map(SampleOptions::total).sum();
        let engine = Arc::clone(&jobs[0].engine);
        let frames = Frames::of(&jobs);
        let start = Instant::now();
        let drawn = panic::catch_unwind(AssertUnwindSafe(|| engine.sample(&requests, &frames)));
        let seconds = start.elapsed().as_secs_f64();
        if matches!(drawn, Ok(Err(flm::Error::Cancelled { .. }))) {
            return;
        }
        let is_drawn = matches!(drawn, Ok(Ok(_)));
        if !is_drawn && jobs.len() > 1 {
            // Only the request at fault fails.
            for job in jobs {
                self.draw(vec![job]);
            }
            return;
        }
        let result = match drawn {
            Ok(Ok(samples)) => Ok(samples),
            Ok(Err(error)) if is_request(&error) => Err(Refusal::Request(error.to_string())),
            Ok(Err(error)) => {
                tracing::error!(model = self.name, %error, "a batch failed");
                Err(Refusal::Internal)
            }
            Err(_) => {
                tracing::error!(model = self.name, "a batch panicked");
                Err(Refusal::Internal)
            }
        };
        let steps = engine.about().steps(&requests[0]);
        self.metrics.batch(&self.name, rows, steps, seconds);
        match result {
            Ok(samples) => {
                for (job, samples) in jobs.into_iter().zip(samples) {
                    // The client may be gone.
                    let _ = job.reply.send(Ok(samples));
                }
            }
            Err(refusal) => {
                for job in jobs {
                    let _ = job.reply.send(Err(refusal.clone()));
                }
            }
        }
    }
}

/// Returns `true` for an error that the request caused.
pub(crate) fn is_request(error: &flm::Error) -> bool {
    use flm::Error::{Conditioning, Data, NotFinite, Option, Sampler, Temperature, Unsupported};
    matches!(
        error,
        Conditioning { .. }
            | Data(_)
            | NotFinite { .. }
            | Option(_)
            | Sampler(_)
            | Temperature(_)
            | Unsupported(_)
    )
}

/// Returns the rows and the indices of the jobs that fit into a batch with the first one.
fn fitting(jobs: &VecDeque<Job>, max_batch: usize) -> (usize, Vec<usize>) {
    let (mut rows, mut chosen) = (0, Vec::new());
    for (i, job) in jobs.iter().enumerate() {
        let more = job.options.total();
        if i == 0 || (rows + more <= max_batch && jobs[0].agrees(job)) {
            rows += more;
            chosen.push(i);
        }
    }
    (rows, chosen)
}

/// Removes the jobs with these ascending indices.
fn taken(jobs: &mut VecDeque<Job>, chosen: &[usize]) -> Vec<Job> {
    let mut taken: Vec<Job> = chosen
        .iter()
        .rev()
        .filter_map(|i| jobs.remove(*i))
        .collect();
    taken.reverse();
    taken
}

/// Sends the frames of a batch to its jobs.
struct Frames<'a> {
    /// For each sample of the batch, its job and its number in the job.
    samples: Vec<(&'a Job, usize)>,
}

impl<'a> Frames<'a> {
    fn of(jobs: &'a [Job]) -> Self {
        let samples = |job: &'a Job| (0..job.options.total()).map(move |i| (job, i));
        Self {
            samples: jobs.iter().flat_map(samples).collect(),
        }
    }
}

impl Watch for Frames<'_> {
    fn top(&self, sample: usize, step: usize) -> usize {
        let wish = self.samples[sample].0.wish.as_ref();
        wish.filter(|wish| step >= wish.from_step && !wish.sender.is_closed())
            .map_or(0, |wish| wish.top)
    }

    fn is_cancelled(&self) -> bool {
        self.samples.iter().all(|(job, _)| job.reply.is_closed())
    }

    fn frame(&self, sample: usize, frame: Frame) {
        let (job, number) = self.samples[sample];
        if let Some(wish) = &job.wish {
            // The client may be gone.
            let _ = wish.sender.send((wish.offset + number, frame));
        }
    }
}
