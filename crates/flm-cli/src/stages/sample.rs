//! Drawing samples from a model.

use crate::device::{self, Compute, Job, Place};
use crate::error::{CliError, Result};
use crate::files;
use crate::progress::Progress;
use crate::stop;
use burn::tensor::backend::{AutodiffBackend, Backend};
use flm::{DenoisingStep, Guidance, ModelFolder, Observer, Record, SampleOptions, Trace};
use std::path::Path;

/// Draws the samples of several requests from one model and hands each set to `take` as soon as it is there.
pub(crate) fn sample(
    model: &ModelFolder,
    compute: Compute,
    label: &str,
    requests: &[SampleOptions],
    trace: Option<&Path>,
    take: &mut dyn FnMut(&SampleOptions, Vec<Record>) -> Result<()>,
) -> Result<()> {
    for request in requests {
        model.check(request)?;
    }
    if trace.is_some() && !Guidance::is_supported(model.config()) {
        return Err(CliError::input(format!(
            "{} is of kind {}: only a flow or a flow map of one network has a trace",
            model.name(),
            model.kind()
        )));
    }
    device::run(
        compute,
        SampleJob {
            model,
            label,
            requests,
            trace,
            take,
        },
    )
}

struct SampleJob<'a> {
    model: &'a ModelFolder,
    label: &'a str,
    requests: &'a [SampleOptions],
    trace: Option<&'a Path>,
    take: &'a mut dyn FnMut(&SampleOptions, Vec<Record>) -> Result<()>,
}

impl Job for SampleJob<'_> {
    type Output = ();

    fn run<B: AutodiffBackend>(self, place: &Place<B>) -> Result<()> {
        let model = self.model.clone().load::<B::InnerBackend>(&place.device)?;
        let model = model.with_execution(place.execution);
        // All of them before the first samples are drawn.
        for request in self.requests {
            model.check(request)?;
        }
        for request in self.requests {
            let watch = Watch {
                progress: Progress::new(self.label, request.total() as u64),
                steps: request.steps_of(model.config(), model.name())?,
                trace: self.trace.map(|_| Trace::new(model.tokenizer())),
            };
            let samples = model.sample_with(request, &watch)?;
            let records = samples
                .into_iter()
                .map(|sample| model.record(request, sample))
                .collect::<flm::Result<Vec<_>>>()?;
            if let (Some(path), Some(trace)) = (self.trace, watch.trace) {
                files::write(path, &serde_json::to_vec(&trace.into_file(&records))?)?;
            }
            (self.take)(request, records)?;
        }
        Ok(())
    }
}

/// Shows how far sampling is, and keeps its trace.
struct Watch<'a> {
    progress: Progress,
    steps: usize,
    trace: Option<Trace<'a>>,
}

impl<B: Backend> Observer<B> for Watch<'_> {
    fn step(&self, step: &DenoisingStep<'_, B>) {
        if let Some(trace) = &self.trace {
            trace.step(step);
        }
    }

    fn progress(&self, done: usize, _total: usize) {
        let steps = match self.steps {
            1 => "1 step".to_owned(),
            steps => format!("{steps} steps"),
        };
        let message = format!("sampling in {steps}");
        self.progress.update(done as u64, &message);
    }

    fn is_cancelled(&self) -> bool {
        stop::asked()
    }
}

/// The texts of samples, for people: those of several lines are set apart by an empty one.
pub(crate) fn texts(records: &[Record]) -> String {
    let mut out = String::new();
    for record in records {
        out.push_str(&record.text);
        out.push('\n');
        if record.text.contains('\n') {
            out.push('\n');
        }
    }
    out
}
