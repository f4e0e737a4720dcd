//! What each command means: arguments and settings put together, then the stages.

use crate::args::{
    Cli, Command, DataCommand, DataInspectArgs, DistillArgs, EvalArgs, EvalCommand, ManArgs,
    PrepareArgs, PresetsArgs, RunArgs, SampleArgs, SettingsArgs, TrainArgs,
};
use crate::command_line::CommandLine;
use crate::config::{Config, Overrides};
use crate::error::{CliError, Result};
use crate::files::{self, RunFolder};
use crate::stages::{
    bound, controls, convert, datasets, doctor, eval, frontier, infill, inspect, perfect, prepare,
    reward, sample, train,
};
use crate::{presets, quickstart, table};
use clap::CommandFactory;
use flm::{ModelFolder, Record, SampleOptions};
use flm_data::Layout;
use flm_denoiser::{Family, Precision};
use flm_distill::ObjectiveKind;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Does what was asked for.
pub(crate) fn run(command: Command) -> Result<()> {
    let resumable = |error: CliError| error.or_resume(&CommandLine::current());
    match command {
        Command::Quickstart(args) => quickstart::run(&args).map_err(resumable),
        Command::Data(DataCommand::List(args)) => print(&datasets::list(args.name.as_deref())?),
        Command::Data(DataCommand::Fetch(args)) => print(&datasets::fetch(&args)?),
        Command::Data(DataCommand::Prepare(args)) => data_prepare(*args),
        Command::Data(DataCommand::Inspect(args)) => data_inspect(&args),
        Command::Train(args) => run_train(args).map_err(resumable),
        Command::Distill(args) => run_distill(args).map_err(resumable),
        Command::TrainReward(args) => print(&reward::train(&args)?),
        Command::Sample(args) => run_sample(&args),
        Command::Eval(args) => run_eval(&args),
        Command::Convert(args) => print(&convert::convert(&args)?),
        Command::Inspect(args) => print(&inspect::inspect(&args.path, args.tensors)?),
        Command::Presets(args) => show_presets(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Completions(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "flm", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
        Command::Man(args) => manual(&args),
    }
}

/// Writes to standard output; a reader that has had enough is no error.
pub(crate) fn print(text: &str) -> Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(CliError::input(
            format!("cannot write to standard output: {error}"),
        )),
        _ => Ok(()),
    }
}

/// Defaults, preset and single settings, in this order.
pub(crate) fn settings(
    args: &SettingsArgs,
    default: Option<&str>,
    sections: &[&str],
) -> Result<Config> {
    let mut overrides = match args.preset.as_deref().or(default) {
        Some(preset) => presets::load(preset)?,
        None => Overrides::new(),
    };
    for assignment in &args.set {
        overrides.set(assignment, sections)?;
    }
    overrides.finish()
}

/// The same for a run. One that is resumed has its own settings for a preset, and one with a teacher the teacher's.
fn run_settings(
    args: &SettingsArgs,
    run: &RunArgs,
    teacher: Option<&Path>,
    sections: &[&str],
) -> Result<Config> {
    reject_section(
        args,
        "data",
        "decided when data is prepared (`flm data prepare --set`)",
    )?;
    if teacher.is_some() {
        reject_section(args, "model", "decided by the teacher")?;
    }
    let saved = RunFolder::new(&run.out).config();
    let before = if run.resume && saved.is_file() {
        Some(saved)
    } else {
        teacher.map(config_of_run)
    };
    let default = before
        .filter(|path| path.is_file())
        .map(|path| path.display().to_string());
    settings(args, default.as_deref(), sections)
}

/// Refuses settings of a section that this command does not read, because they are `elsewhere`.
fn reject_section(args: &SettingsArgs, section: &str, elsewhere: &str) -> Result<()> {
    let belongs = |assignment: &&String| {
        let key = assignment.trim_start().strip_prefix(section);
        key.is_some_and(|rest| rest.starts_with('.'))
    };
    match args.set.iter().find(belongs) {
        Some(assignment) => Err(CliError::input(format!(
            "--set {assignment}: the settings of [{section}] are {elsewhere}"
        ))),
        None => Ok(()),
    }
}

/// Where the settings of the run that made a model are: beside the model, or in the run itself.
fn config_of_run(model: &Path) -> PathBuf {
    let own = RunFolder::new(model).config();
    let beside = model.parent().map(|run| RunFolder::new(run).config());
    beside.filter(|_| !own.is_file()).unwrap_or(own)
}

fn start(run: &RunArgs) -> train::Start {
    match (run.resume, run.force) {
        (true, _) => train::Start::Resume,
        (_, true) => train::Start::Replace,
        _ => train::Start::Fresh,
    }
}

/// Where the model is, and what to do with it.
fn next(run: &Path, steps: Option<usize>) -> String {
    let (model, run) = (run.join("model"), run.display());
    let steps = steps.map_or_else(String::new, |steps| format!(" --steps {steps}"));
    format!(
        "model      {}\nnext       flm sample --model {run}{steps}\n",
        model.display()
    )
}

fn data_prepare(args: PrepareArgs) -> Result<()> {
    let mut data = settings(&args.settings, None, &["data"])?.data;
    let named = args.dataset.as_deref().or(match &args.input {
        None => data.dataset(),
        Some(_) => None,
    });
    if let Some(name) = named {
        return datasets::prepare(name, &args);
    }
    for (given, option) in [
        (args.place.from.is_some(), "--from"),
        (args.place.cache.is_some(), "--cache"),
    ] {
        if given {
            return Err(CliError::input(format!(
                "{option} is for data sets by name: an --input is where it is"
            )));
        }
    }
    if let Some(input) = args.input {
        data.source = input;
    }
    if let Some(tokenizer) = args.tokenizer {
        data.tokenizer = tokenizer;
    }
    if let Some(size) = args.train_bpe {
        data.tokenizer = format!("bpe:{size}");
    }
    if args.pack {
        data.layout = Layout::Packed;
    }
    if args.whole {
        data.unit = crate::config::Unit::Whole;
    }
    data.column = args.column.unwrap_or(data.column);
    data.detokenizer = args.detokenizer.unwrap_or(data.detokenizer);
    data.length = args.length.unwrap_or(data.length);
    data.sentences = args.count.unwrap_or(data.sentences);
    data.seed = args.seed.unwrap_or(data.seed);
    data.validation_share = args.validation_share.unwrap_or(data.validation_share);
    prepare::prepare(&data, &args.out, args.force)?;
    Ok(())
}

fn data_inspect(args: &DataInspectArgs) -> Result<()> {
    print(&inspect::data(&args.data, args.rows)?)
}

fn run_train(args: TrainArgs) -> Result<()> {
    let config = run_settings(&args.settings, &args.run, None, &["train"])?;
    if config.model.family != Family::Duo {
        let elsewhere = format!(
            "for models of family duo alone, but model.family is {}",
            config.model.family
        );
        reject_section(&args.settings, "curriculum", &elsewhere)?;
    }
    let out = args.run.out.clone();
    let steps = (config.model.family != Family::Autoregressive).then_some(128);
    train::train(train::Request {
        config,
        data: &args.data,
        start: start(&args.run),
        evaluations: args.run.evaluations,
        compute: args.run.device.into(),
        out: RunFolder::new(args.run.out),
        command: CommandLine::current(),
        silent: false,
    })?;
    print(&next(&out, steps))
}

/// Refuses settings of a way of distilling that is not for the teacher's family.
fn check_sections(set: &[String], teacher: &str) -> Result<()> {
    let ways = [
        ("flow_map", Family::Flow),
        ("distribution", Family::Flow),
        ("sdtt", Family::Mdlm),
        ("dcd", Family::Duo),
    ];
    for assignment in set {
        let key = assignment.split('=').next().unwrap_or_default();
        let of = |section: &str| key.split('.').any(|part| part.trim() == section);
        let Some((section, of)) = ways.iter().find(|(section, _)| of(section)) else {
            continue;
        };
        let family = if teacher.is_empty() {
            Family::Flow
        } else {
            ModelFolder::open(teacher)?.config().family
        };
        if family != *of {
            return Err(CliError::input(format!(
                "--set {assignment}: [{section}] is for teachers of family {of}, found {family}"
            )));
        }
    }
    Ok(())
}

fn run_distill(args: DistillArgs) -> Result<()> {
    let mut config = run_settings(
        &args.settings,
        &args.run,
        args.teacher.as_deref(),
        &["distill", "distill.train"],
    )?;
    if let Some(teacher) = &args.teacher {
        config.distill.teacher = teacher.display().to_string();
    } else if args.no_teacher {
        config.distill.teacher.clear();
    }
    let names_start = |set: &String| set.contains("start");
    if args.settings.preset.is_none()
        && !args.run.resume
        && !args.settings.set.iter().any(names_start)
    {
        // Settings of the teacher's own run, which may have started somewhere.
        config.distill.start.clear();
    }
    check_sections(&args.settings.set, &config.distill.teacher)?;
    reject_section(&args.settings, "curriculum", "for `flm train` alone")?;
    let out = args.run.out.clone();
    let steps = match config.distill.flow_map.objective {
        ObjectiveKind::Distribution => config.distill.distribution.levels,
        _ => 4,
    };
    train::distill(train::Request {
        config,
        data: &args.data,
        start: start(&args.run),
        evaluations: args.run.evaluations,
        compute: args.run.device.into(),
        out: RunFolder::new(args.run.out),
        command: CommandLine::current(),
        silent: false,
    })?;
    print(&next(&out, Some(steps)))
}

fn run_sample(args: &SampleArgs) -> Result<()> {
    let several = args.steps.len() > 1;
    if several {
        sample_folder(args)?;
    }
    for path in args
        .trace
        .iter()
        .chain(args.out.iter().filter(|_| !several))
    {
        files::free(path, args.force)?;
    }
    let place = |path: &Option<PathBuf>| path.as_ref().map(std::path::absolute)?.ok();
    if place(&args.out).is_some_and(|out| place(&args.trace) == Some(out)) {
        return Err(CliError::input(
            "--out and --trace name the same file: samples and trace need one each",
        ));
    }
    let model = ModelFolder::open(&args.model)?;
    let (etas, scales) = (args.guidance.as_slice(), args.reward_scale.as_slice());
    // One value of each at most, so one guidance.
    let guidance = args.guides.guidances(&model, etas, scales)?.remove(0);
    let conditioning = args.given.conditioning()?;
    let request = |steps: Option<usize>| SampleOptions {
        steps,
        count: args.count,
        seed: args.seed,
        batch: args.batch,
        temperature: args.temperature,
        top_p: args.top_p,
        gamma: args.gamma,
        sampler: args.sampler.into(),
        noise_scale: args.noise_scale,
        greedy_tail: args.greedy_tail,
        guidance: guidance.clone(),
        conditioning: conditioning.clone(),
    };
    let requests: Vec<_> = match args.steps.as_slice() {
        [] => vec![request(None)],
        steps => steps.iter().map(|steps| request(Some(*steps))).collect(),
    };
    let mut take = |request: &SampleOptions, records: Vec<Record>| {
        let path = match (&args.out, request.steps) {
            (Some(folder), Some(steps)) if several => folder.join(steps_file(steps)),
            (Some(path), _) => path.clone(),
            (None, _) => return print(&sample::texts(&records)),
        };
        let json = path
            .extension()
            .is_some_and(|extension| extension == "jsonl");
        let content = match json {
            true => flm::json_lines(&records),
            false => sample::texts(&records),
        };
        files::write(&path, content.as_bytes())
    };
    sample::sample(
        &model,
        args.device.into(),
        "samples",
        &requests,
        args.trace.as_deref(),
        &mut take,
    )
}

/// The samples of a number of steps, in a folder of several.
fn steps_file(steps: usize) -> String {
    format!("steps-{steps}.jsonl")
}

/// Checks that several sets of samples have a folder to go to.
fn sample_folder(args: &SampleArgs) -> Result<()> {
    let Some(folder) = &args.out else {
        return Err(CliError::input(
            "several numbers of steps make several sets of samples: name a folder for them by --out",
        ));
    };
    if args.trace.is_some() {
        return Err(CliError::input(
            "--trace is for one number of steps, found several",
        ));
    }
    if folder.is_file() {
        return Err(CliError::input(format!(
            "{} is a file, expected a folder for several sets of samples",
            folder.display()
        )));
    }
    for steps in &args.steps {
        files::free(&folder.join(steps_file(*steps)), args.force)?;
    }
    Ok(())
}

fn run_eval(args: &EvalArgs) -> Result<()> {
    match &args.command {
        Some(EvalCommand::Frontier(args)) => return print(&frontier::frontier(args)?),
        Some(EvalCommand::Bound(args)) => return print(&bound::bound(args)?),
        Some(EvalCommand::Infill(args)) => return print(&infill::infill(args)?),
        Some(EvalCommand::Perfect(args)) => return print(&perfect::perfect(args)?),
        Some(EvalCommand::Controls(args)) => {
            let written = controls::controls(args)?;
            let line = |path: PathBuf| format!("{}\n", path.display());
            return print(&written.into_iter().map(line).collect::<String>());
        }
        None => {}
    }
    if args.score.device.dtype != Precision::F32 {
        return Err(CliError::input(format!(
            "--dtype {}: nothing is drawn here, and judges compute in f32",
            args.score.device.dtype
        )));
    }
    let samples = args.samples.as_ref().expect("clap asks for it");
    let asked = eval::Asked {
        copying: args.copying,
        mauve: args.mauve,
    };
    let judged = eval::eval(samples, args.data.as_deref(), asked, &args.score)?;
    if args.json {
        return print(&(serde_json::to_string_pretty(&judged)? + "\n"));
    }
    print(&table::figures(&judged))
}

fn show_presets(args: &PresetsArgs) -> Result<()> {
    match &args.name {
        None => {
            let width = presets::list()
                .map(|(name, _)| name.len())
                .max()
                .unwrap_or(0);
            print(
                &presets::list()
                    .map(|(name, line)| format!("{name:width$}  {line}\n"))
                    .collect::<String>(),
            )
        }
        Some(name) => match presets::text(name) {
            Some(text) => print(text),
            // The error names the nearest.
            None => presets::load(name).map(drop),
        },
    }
}

fn manual(args: &ManArgs) -> Result<()> {
    std::fs::create_dir_all(&args.out).map_err(CliError::io("create", &args.out))?;
    clap_mangen::generate_to(Cli::command(), &args.out).map_err(CliError::io("write", &args.out))
}
