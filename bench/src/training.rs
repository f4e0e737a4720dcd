//! Training steps of real runs on synthetic text.

use crate::{Bench, Sizes, Work};
use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use flm_data::{
    BatchOrder, Dataset, FnCorpus, Layout, PrepareOptions, TextTokenizer, TokenizerSource,
};
use flm_denoiser::{Dit, DitConfig};
use flm_distill::{FlowMapConfig, FlowMapObjective, FlowObjective, ObjectiveKind};
use flm_objective::Objective;
use flm_simplex::stream::generator;
use flm_train::{Run, TrainConfig};
use std::ops::ControlFlow;
use tempfile::TempDir;

/// Prepares packed rows in which every token of the vocabulary occurs.
///
/// The data set lives as long as the process.
fn data(sizes: Sizes) -> (&'static Dataset, TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let words: Vec<String> = (3..sizes.vocab).map(|i| format!("w{i}")).collect();
    let tokenizer = TextTokenizer::from_words(words.clone()).expect("distinct words");
    let corpus = FnCorpus::new("every word eight times", move || {
        let words = words.clone();
        (0..8).map(move |_| Ok(words.join(" ")))
    });
    let options = PrepareOptions {
        layout: Layout::Packed,
        validation_share: 0.0,
        ..PrepareOptions::new(TokenizerSource::Given(Box::new(tokenizer)), sizes.length)
    };
    let out = folder.path().join("data");
    flm_data::prepare(&corpus, &options, &out, false, &mut |_| {
        ControlFlow::Continue(())
    })
    .expect("data");
    let dataset = Dataset::open(&out).expect("the data that was prepared");
    assert_eq!(dataset.tokenizer().vocab_size(), sizes.vocab);
    (Box::leak(Box::new(dataset)), folder)
}

impl<B: AutodiffBackend> Bench<B> {
    /// One training step of a flow.
    pub fn flow_step(&self, sizes: Sizes) -> Work {
        let config = sizes.config();
        let objective =
            FlowObjective::new(config.schedule().expect("a vocabulary with a schedule"));
        self.step(sizes, config, objective)
    }

    /// One distillation step of a flow map by the semigroup objective, with a teacher.
    pub fn semigroup_step(&self, sizes: Sizes) -> Work {
        let config = sizes.config().with_two_time(true);
        let teacher = sizes
            .config()
            .init::<B>(&mut generator(0, 0, 0, 0), &self.device)
            .expect("valid sizes")
            .with_execution(self.execution);
        let schedule = config.schedule().expect("a vocabulary with a schedule");
        let semigroup = FlowMapConfig {
            objective: ObjectiveKind::Semigroup,
            ..FlowMapConfig::default()
        };
        let objective = FlowMapObjective::new(schedule, semigroup, Some(teacher.valid()));
        self.step(sizes, config, objective)
    }

    fn step<O: Objective<B, Network = Dit<B>> + 'static>(
        &self,
        sizes: Sizes,
        config: DitConfig,
        objective: O,
    ) -> Work {
        let (dataset, folder) = data(sizes);
        let settings = TrainConfig {
            steps: u64::MAX,
            batch: sizes.batch,
            micro_batch: sizes.batch / sizes.parts,
            ..Default::default()
        };
        let model = config
            .init(&mut generator(0, 0, 0, 0), &self.device)
            .expect("valid sizes")
            .with_execution(self.execution);
        let run = Run {
            model,
            objective,
            train: dataset.train(),
            validation: dataset.validation(),
            data: String::new(),
            config: settings,
            dropout: sizes.dropout,
            workers: 1,
            checkpoints: Some(folder.path().join("checkpoints")),
            resume: false,
            stop: None,
            device: self.device.clone(),
        };
        let mut ready = Some(run.start().expect("valid settings"));
        self.waited(move || {
            // Keeps the temporary folder until the workload is dropped.
            let _ = &folder;
            let before = ready.take().expect("the step before");
            let (after, report) = before.step().expect("a step");
            ready = Some(after);
            report
        })
    }
}

/// Loading the tokens of a batch of 512 rows.
pub fn batches(sizes: Sizes) -> Work {
    let (dataset, folder) = data(sizes);
    let rows = dataset.train();
    let order = BatchOrder::new(0, rows.rows()).expect("rows");
    let mut step = 0;
    Box::new(move || {
        let _ = &folder;
        std::hint::black_box(
            rows.batch(&order.batch(step, 512))
                .expect("the rows' tokens"),
        );
        step += 1;
    })
}
