//! Scorers of samples: GPT-2, Llama models, n-gram models of a data folder, and autoregressive
//! models of flm.

use crate::args::DeviceArgs;
use crate::device::{self, Device, Job, Place};
use crate::error::Result;
use crate::progress::Progress;
use burn::tensor::backend::AutodiffBackend;
use clap::Args;
use flm_eval::GenPpl;
use flm_study::{Features, Scorers, ScoringOptions, TextSet};

/// Options of scorers.
#[derive(Debug, Args)]
pub(crate) struct ScoreArgs {
    /// Model that scores the samples: a folder, a GGUF file or ngram:DATA; repeatable
    ///
    /// A folder of GPT-2, Llama or an autoregressive model of flm, a GGUF file, ngram:DATA or
    /// ngram:DATA:ORDER.
    #[arg(long = "scorer", value_name = "SCORER")]
    pub(crate) scorers: Vec<String>,
    /// Tokens that a pretrained scorer reads of each sample [default: the samples' length; for
    /// --mauve the scorer's context]
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub(crate) score_length: Option<usize>,
    /// Batch size of scorers; affects speed only
    #[arg(long, default_value_t = 16, value_name = "N", hide_short_help = true)]
    pub(crate) score_batch: usize,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// The scorers that the options name.
pub(crate) struct Judges<'a> {
    scorers: Scorers,
    args: &'a ScoreArgs,
}

impl<'a> Judges<'a> {
    pub(crate) fn open(args: &'a ScoreArgs) -> Result<Self> {
        Ok(Self {
            scorers: Scorers::open(&args.scorers, args.score_length)?,
            args,
        })
    }

    /// Returns the scores of each set, in the order of the scorers.
    pub(crate) fn score(&self, sets: &[TextSet<'_>]) -> Result<Vec<Vec<GenPpl>>> {
        let device = match self.scorers.have_networks() {
            true => self.args.device.device,
            false => Device::Cpu,
        };
        device::run(device, ScoreJob { judges: self, sets })
    }

    pub(crate) fn have_features(&self) -> bool {
        self.scorers.have_features()
    }

    /// Returns the features of every list of texts, by each pretrained scorer.
    pub(crate) fn features(&self, texts: &[&[String]]) -> Result<Vec<Features>> {
        let job = FeaturesJob {
            judges: self,
            texts,
        };
        device::run(self.args.device.device, job)
    }

    fn options<B: AutodiffBackend>(&self, place: &Place<B>) -> ScoringOptions<B::InnerBackend> {
        ScoringOptions {
            batch: self.args.score_batch,
            device: place.device.clone(),
            side_by_side: place.side_by_side,
            execution: place.execution,
        }
    }
}

struct ScoreJob<'a> {
    judges: &'a Judges<'a>,
    sets: &'a [TextSet<'a>],
}

impl Job for ScoreJob<'_> {
    type Output = Vec<Vec<GenPpl>>;

    fn run<B: AutodiffBackend>(self, place: &Place<B>) -> Result<Self::Output> {
        let total: usize = self.sets.iter().map(|set| set.texts.len()).sum();
        let progress = Progress::new("scoring", (total * self.judges.scorers.len()) as u64);
        let options = self.judges.options(place);
        let scores = (self.judges.scorers).score(self.sets, &options, &|done, label| {
            progress.goes_on(done, label)
        });
        Ok(scores?)
    }
}

struct FeaturesJob<'a> {
    judges: &'a Judges<'a>,
    texts: &'a [&'a [String]],
}

impl Job for FeaturesJob<'_> {
    type Output = Vec<Features>;

    fn run<B: AutodiffBackend>(self, place: &Place<B>) -> Result<Self::Output> {
        let total: usize = self.texts.iter().map(|texts| texts.len()).sum();
        let progress = Progress::new("reading", total as u64);
        let options = self.judges.options(place);
        let features = (self.judges.scorers).features(self.texts, &options, &|done, label| {
            progress.goes_on(done, label)
        });
        Ok(features?)
    }
}
