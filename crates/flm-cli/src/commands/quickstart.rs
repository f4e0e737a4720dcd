//! The `flm quickstart` command: all stages in order, and a report.

mod budget;
mod html;
mod plot;
mod report;

use super::data::prepare;
use super::sample::sample;
use super::{distill, print, train};
use crate::args::{DeviceArgs, SettingsArgs, settings};
use crate::command_line::CommandLine;
use crate::config::{Config, first_difference};
use crate::curve;
use crate::device;
use crate::error::{CliError, Result};
use crate::files::{self, Kind, RunFolder};
use crate::purpose;
use crate::run::{Request, Start};
use clap::Args;
use flm::{Card, ModelFolder, SampleOptions, Sampler};
use flm_data::DatasetMeta;
use flm_distill::ObjectiveKind;
use flm_eval::{Grammar, corpus_quality};
use flm_simplex::stream::generator;
use flm_study::Samples;
use report::{Corpus, Report, Row, Seconds};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Train, distill and sample on a small grammar, with a report: ten minutes, no GPU
///
/// Draws sentences from a small English grammar, trains a flow language model on them, distills it
/// into a flow map and samples both. The grammar scores the samples exactly. One folder holds
/// everything: `data`, `flm`, `fmlm`, `samples`, `report.json` and `report.html`.
#[derive(Debug, Args)]
#[command(after_long_help = "Example: flm quickstart --out quickstart --set train.steps=300")]
pub(crate) struct QuickstartArgs {
    /// Output folder
    #[arg(long, default_value = "quickstart", value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Seed of sentences, initial weights and noise
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Choose the training steps so that everything takes about N minutes
    #[arg(long, value_name = "N")]
    pub(crate) minutes: Option<f64>,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    /// Replace an earlier quickstart
    #[arg(long, conflicts_with = "resume")]
    pub(crate) force: bool,
    /// Continue an interrupted quickstart
    #[arg(long)]
    pub(crate) resume: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

const PRESET: &str = "grammar-tiny";
/// Number of one-step sentences to show.
const SHOWN: usize = 10;
/// Name of the data folder.
const DATA: &str = "data";

/// Runs all stages that are not done yet.
pub(crate) fn run(args: &QuickstartArgs) -> Result<()> {
    let mut config = settings(&args.settings, Some(PRESET), &["train"])?;
    if let Some(seed) = args.seed {
        config.data.seed = seed;
        config.train.seed = seed;
        config.distill.train.seed = seed;
        config.sample.seed = seed;
    }
    check(&config)?;
    args.minutes.map_or(Ok(()), budget::check)?;
    device::check(args.device)?;
    let mut quickstart = Quickstart {
        config,
        out: args.out.clone(),
        args,
    };
    let folder = RunFolder::new(&quickstart.out);
    if args.minutes.is_some() && args.resume && folder.config().is_file() {
        quickstart.config.take_steps(&folder.saved()?);
    }
    let data = quickstart.begin()?;
    if let Some(minutes) = args.minutes
        && !quickstart.path("flm").exists()
    {
        budget::fit(&mut quickstart.config, minutes, &data, args.device.into())?;
        folder.save(&quickstart.config.whole()?)?;
    }
    let flow = quickstart.train()?;
    let flow_map = quickstart.distill()?;
    let report = quickstart.report(&data, &flow, &flow_map)?;
    quickstart.tell(&report)
}

/// Checks everything that can be checked before the first stage.
fn check(config: &Config) -> Result<()> {
    if !config.data.is_grammar() {
        return Err(CliError::input(format!(
            "the quickstart draws its corpus from the grammar, found data.source = {:?}: use data prepare, train and distill",
            config.data.source
        )));
    }
    if config.distill.flow_map.objective == ObjectiveKind::Residual {
        return Err(CliError::input(
            "the quickstart distills a flow map of one network, found distill.flow_map.objective = residual: use train and distill",
        ));
    }
    config.train.validate()?;
    config.distill.train.validate()?;
    config.distill.flow_map.validate()?;
    config.distill.distribution.validate()?;
    config.sample.validate()?;
    config.model.network(2, config.data.length, true)?;
    Ok(())
}

/// Durations in seconds that no other file holds.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Times {
    prepare: f64,
    /// Sampling time per set of samples.
    sample: BTreeMap<String, f64>,
}

struct Quickstart<'a> {
    config: Config,
    out: PathBuf,
    args: &'a QuickstartArgs,
}

impl Quickstart<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.out.join(name)
    }

    /// Creates the folder with its data, or checks that an existing one has the same settings.
    ///
    /// The configuration and the data are first made in a temporary folder next to it, so settings
    /// that give no corpus change nothing. Then the files of an earlier quickstart are removed
    /// while its configuration is still there, and the new configuration moves in before the data.
    /// If the process stops at any point, the folder can be resumed with the settings in it.
    fn begin(&self) -> Result<PathBuf> {
        let folder = RunFolder::new(&self.out);
        let data = self.path(DATA);
        if self.args.resume && folder.config().is_file() {
            let saved = folder.saved()?;
            if let Some((key, then, now)) = first_difference(&saved, &self.config) {
                return Err(CliError::input(format!(
                    "{} cannot be resumed with other settings: {key} was {then}, now {now}",
                    self.out.display()
                )));
            }
            if !data.exists() {
                self.prepare(&folder)?;
            }
            return Ok(data);
        }
        folder.check_free(self.args.force, Kind::Quickstart)?;
        let beside = self
            .out
            .ancestors()
            .skip(1)
            .find(|folder| folder.is_dir())
            .unwrap_or(Path::new("."));
        let hidden = tempfile::Builder::new()
            .prefix(".flm-quickstart-")
            .tempdir_in(beside)
            .map_err(CliError::io("create a folder in", beside))?;
        let new = RunFolder::new(hidden.path().join("new"));
        self.prepare(&new)?;
        new.save(&self.config.whole()?)?;
        if self.out.exists() {
            self.clear()?;
            for from in [new.config(), new.times(), new.root().join(DATA)] {
                let to = self.out.join(from.file_name().unwrap_or_default());
                std::fs::rename(&from, &to).map_err(CliError::io("create", &to))?;
            }
        } else {
            let parent = self.out.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(parent).map_err(CliError::io("create", parent))?;
            std::fs::rename(new.root(), &self.out).map_err(CliError::io("create", &self.out))?;
        }
        Ok(data)
    }

    /// Prepares the data of `folder`, and saves the duration.
    fn prepare(&self, folder: &RunFolder) -> Result<()> {
        let started = Instant::now();
        prepare::prepare(&self.config.data, &folder.root().join(DATA), false)?;
        let times = Times {
            prepare: started.elapsed().as_secs_f64(),
            ..Times::default()
        };
        files::write(&folder.times(), &serde_json::to_vec_pretty(&times)?)
    }

    /// Removes the files of an earlier quickstart.
    fn clear(&self) -> Result<()> {
        for stage in ["flm", "fmlm", "samples", DATA] {
            let path = self.path(stage);
            if path.exists() {
                std::fs::remove_dir_all(&path).map_err(CliError::io("remove", &path))?;
            }
        }
        for file in ["report.json", "report.html"] {
            let path = self.path(file);
            if path.exists() {
                std::fs::remove_file(&path).map_err(CliError::io("remove", &path))?;
            }
        }
        Ok(())
    }

    fn times(&self) -> Result<Times> {
        let path = RunFolder::new(&self.out).times();
        if !path.is_file() {
            return Ok(Times::default());
        }
        serde_json::from_str(&files::read(&path)?).map_err(|error| {
            CliError::input(format!("{} cannot be parsed: {error}", path.display()))
        })
    }

    fn keep(&self, times: &Times) -> Result<()> {
        let path = RunFolder::new(&self.out).times();
        files::write(&path, &serde_json::to_vec_pretty(times)?)
    }

    fn train(&self) -> Result<Card> {
        self.stage("flm", &self.config, train::train)
    }

    fn distill(&self) -> Result<Card> {
        let mut config = self.config.clone();
        config.distill.teacher = self.path("flm").display().to_string();
        self.stage("fmlm", &config, distill::distill)
    }

    fn stage(
        &self,
        name: &str,
        config: &Config,
        train: impl Fn(Request<'_>) -> Result<Card>,
    ) -> Result<Card> {
        let out = RunFolder::new(self.path(name));
        let data = self.path(DATA);
        let hash = DatasetMeta::read(&data)?.identity(&data)?;
        let is_this = |card: &Card| {
            card.training
                .as_ref()
                .is_some_and(|run| run.data_hash == hash)
        };
        if let Some(card) = Card::read(&out.model())?.filter(is_this) {
            return Ok(card);
        }
        let start = if out.config().is_file() {
            Start::Resume
        } else {
            // Left by a run that was stopped before it wrote a file.
            if out.root().exists() {
                std::fs::remove_dir_all(out.root()).map_err(CliError::io("remove", out.root()))?;
            }
            Start::Fresh
        };
        train(Request {
            config: config.clone(),
            data: &data,
            out,
            start,
            evaluations: None,
            compute: self.args.device.into(),
            command: CommandLine::current(),
            silent: false,
        })
    }

    fn report(&self, data: &Path, flow: &Card, flow_map: &Card) -> Result<Report> {
        let grammar = flm_study::grammar_of(data)?
            .ok_or_else(|| CliError::input(format!("{} holds no grammar", data.display())))?;
        let settings = &self.config.sample;
        // Gamma applies to flow maps only.
        let mut rows = self.sample("flm", "flow", &settings.flm_steps, 0.0, &grammar)?;
        rows.extend(self.sample(
            "fmlm",
            "flow map",
            &settings.fmlm_steps,
            settings.gamma,
            &grammar,
        )?);
        let seed = self.config.sample.seed;
        let mut rng = generator(seed, purpose::REFERENCE, 0, 0);
        let corpus = corpus_quality(&grammar, self.config.sample.count, &mut rng)?;
        let times = self.times()?;
        let seconds = |card: &Card| card.training.as_ref().map_or(0.0, |run| run.seconds);
        let report = Report {
            corpus: Corpus {
                oracle_nats_per_token: corpus.oracle_nats_per_token,
                frame_divergence: corpus.frame_divergence,
                entropy: corpus.entropy,
                distinct: corpus.distinct,
            },
            rows,
            seconds: Seconds {
                prepare: times.prepare,
                train: seconds(flow),
                distill: seconds(flow_map),
                sample: times.sample.values().sum(),
            },
            seed,
            minutes: self.args.minutes,
            config: self.config.clone(),
        };
        files::write(
            &self.path("report.json"),
            &serde_json::to_vec_pretty(&report)?,
        )?;
        let page = html::Page {
            report: &report,
            sentences: &self.shown()?,
            fewest: self.fewest(),
            models: [("flow", "flm", flow), ("flow map", "fmlm", flow_map)].map(
                |(label, folder, card)| html::Model {
                    label,
                    card,
                    curve: curve::read(&RunFolder::new(self.path(folder)).metrics()),
                },
            ),
            out: &self.out,
        };
        files::write(&self.path("report.html"), page.render()?.as_bytes())?;
        Ok(report)
    }

    fn samples(&self, model: &str, steps: usize) -> PathBuf {
        self.path("samples").join(format!("{model}-{steps}.jsonl"))
    }

    /// Draws the missing samples of one model at all its numbers of steps, and judges all of them.
    fn sample(
        &self,
        model: &str,
        label: &str,
        steps: &[usize],
        gamma: f64,
        grammar: &Grammar,
    ) -> Result<Vec<Row>> {
        let settings = &self.config.sample;
        let missing: Vec<SampleOptions> = steps
            .iter()
            .filter(|&&steps| !self.samples(model, steps).is_file())
            .map(|&steps| SampleOptions {
                steps: Some(steps),
                count: settings.count,
                gamma,
                temperature: settings.temperature,
                sampler: if model == "flm" {
                    settings.sampler
                } else {
                    Sampler::default()
                },
                noise_scale: settings.noise_scale,
                seed: settings.seed,
                batch: settings.batch,
                ..SampleOptions::default()
            })
            .collect();
        if !missing.is_empty() {
            let mut started = Instant::now();
            sample(
                &ModelFolder::open(self.path(model))?,
                self.args.device.into(),
                label,
                &missing,
                None,
                &mut |request, records| {
                    let steps = request.steps.unwrap_or_default();
                    let mut times = self.times()?;
                    times
                        .sample
                        .insert(format!("{model}-{steps}"), started.elapsed().as_secs_f64());
                    self.keep(&times)?;
                    started = Instant::now();
                    let content = flm::json_lines(&records);
                    files::write(&self.samples(model, steps), content.as_bytes())
                },
            )?;
        }
        let judge = |&steps: &usize| {
            let texts = Samples::read(&self.samples(model, steps))?.texts;
            let quality = flm_eval::Quality::of(grammar, &texts)?;
            Ok(Row::new(model, steps, &quality))
        };
        steps.iter().map(judge).collect()
    }

    /// Returns the smallest number of steps of the flow map.
    fn fewest(&self) -> usize {
        self.config
            .sample
            .fmlm_steps
            .iter()
            .min()
            .copied()
            .unwrap_or(1)
    }

    /// Returns the sentences to show.
    fn shown(&self) -> Result<Vec<String>> {
        let path = self.samples("fmlm", self.fewest());
        let mut texts = if path.is_file() {
            Samples::read(&path)?.texts
        } else {
            Vec::new()
        };
        texts.truncate(SHOWN);
        Ok(texts)
    }

    /// Prints the table and some sentences.
    fn tell(&self, report: &Report) -> Result<()> {
        let mut out = report.table();
        out += &format!(
            "\nten sentences of the flow map in {}:\n",
            report::steps(self.fewest())
        );
        for sentence in self.shown()? {
            out += &format!("  “{sentence}”\n");
        }
        out += &format!(
            "\nreport     {}\nnext       flm sample --model {} --steps 1 --trace trace.json\n",
            self.path("report.html").display(),
            self.path("fmlm").display()
        );
        print(&out)
    }
}
