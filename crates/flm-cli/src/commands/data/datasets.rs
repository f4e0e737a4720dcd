//! Data sets by name: listing, fetching and preparing them.

use super::prepare::{self, text_map};
use super::{FetchArgs, PlaceArgs, PrepareArgs};
use crate::error::{CliError, Result};
use crate::files;
use crate::progress::{Progress, thousands};
use crate::{stop, table};
use flm_data::{
    DataFiles, FetchOptions, FileCorpus, Layout, Manifest, ManifestTokenizer, PrepareOptions,
    SplitRule, TextUnit, TokenizerSource, Validation,
};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Lists the built-in data sets, or returns the manifest of one.
pub(crate) fn list(name: Option<&str>) -> Result<String> {
    if let Some(name) = name {
        // An unknown name gives an error that lists the known ones.
        Manifest::builtin(name)?;
        return Ok(Manifest::builtin_text(name).unwrap_or_default().to_owned());
    }
    let mut lines = vec![
        ["name", "tokenizer", "length", "title"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for name in Manifest::builtin_names() {
        let manifest = Manifest::builtin(name)?;
        lines.push(vec![
            name.to_owned(),
            manifest.tokenizer.name(),
            manifest.length.to_string(),
            manifest.title,
        ]);
    }
    Ok(table::aligned(&lines))
}

/// Returns a built-in manifest by name, or reads one by path.
pub(crate) fn manifest(name: &str) -> Result<Manifest> {
    let path = Path::new(name);
    if path
        .extension()
        .is_some_and(|extension| extension == "toml")
    {
        return Ok(Manifest::load(path)?);
    }
    Manifest::builtin(name).map_err(|error| {
        if path.exists() {
            return CliError::input(format!(
                "{name} is a file or a folder, expected the name of a data set: use --input {name}"
            ));
        }
        error.into()
    })
}

/// Fetches a data set and reports its location.
pub(crate) fn fetch(args: &FetchArgs) -> Result<String> {
    let manifest = manifest(&args.name)?;
    let files = files(&manifest, &args.place)?;
    let mut out = format!(
        "data set   {}\nlicense    {}\n",
        manifest.title, manifest.license
    );
    for (label, paths) in [("train", &files.train), ("validation", &files.validation)] {
        if let (Some(first), count) = (paths.first(), paths.len()) {
            let more = match count {
                1 => String::new(),
                count => format!(" and {} more files", count - 1),
            };
            out += &format!("{label:11}{}{more}\n", first.display());
        }
    }
    if let Some(tokenizer) = &files.tokenizer {
        out += &format!("tokenizer  {}\n", tokenizer.display());
    }
    let from = match &args.place.from {
        Some(from) => format!(" --from {}", from.display()),
        None => String::new(),
    };
    Ok(out
        + &format!(
            "next       flm data prepare {}{from} --out data\n",
            args.name
        ))
}

/// Returns the files of a data set: from a local copy, or fetched.
fn files(manifest: &Manifest, place: &PlaceArgs) -> Result<DataFiles> {
    if let Some(from) = &place.from {
        return Ok(manifest.take(from)?);
    }
    let cache = match &place.cache {
        Some(cache) => cache.clone(),
        None => default_cache()?,
    };
    let progress = Progress::new("fetching", 0);
    Ok(flm_data::fetch(
        manifest,
        &FetchOptions::from_env(cache),
        &mut |at| {
            let size = at.size.map_or_else(String::new, |size| {
                format!(" of {}", thousands(size as f64))
            });
            progress.update(
                at.bytes,
                &format!(
                    "file {} of {}: {}  {}{size} bytes",
                    at.index + 1,
                    at.files,
                    at.file,
                    thousands(at.bytes as f64)
                ),
            );
            if stop::asked() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        },
    )?)
}

fn default_cache() -> Result<PathBuf> {
    let root = files::cache().ok_or_else(|| {
        CliError::input("there is no home folder for the data sets: pass a folder with --cache")
    })?;
    Ok(root.join("datasets"))
}

/// Prepares a data set by its manifest, overridden by the given options.
pub(crate) fn prepare(name: &str, args: &PrepareArgs) -> Result<()> {
    let mut manifest = manifest(name)?;
    for (given, option) in [
        (args.count.is_some(), "--count"),
        (args.seed.is_some(), "--seed"),
    ] {
        if given {
            return Err(CliError::input(format!(
                "{option} applies to sentences of the grammar, but {name} is a data set"
            )));
        }
    }
    let given = match (args.train_bpe, &args.tokenizer) {
        (Some(size), _) => Some(TokenizerSource::TrainBpe(size)),
        (None, Some(name)) => Some(prepare::tokenizer(name)?),
        (None, None) => None,
    };
    if given.is_some() {
        // This avoids fetching the manifest's tokenizer, which is not used.
        manifest.tokenizer = ManifestTokenizer::Words;
    }
    let files = files(&manifest, &args.place)?;
    let tokenizer = match given {
        Some(given) => given,
        None => own_tokenizer(&manifest, &files)?,
    };
    let mut options = PrepareOptions::new(tokenizer, args.length.unwrap_or(manifest.length));
    options.layout = if args.pack {
        Layout::Packed
    } else {
        manifest.layout
    };
    let detokenizer = args.detokenizer.unwrap_or(manifest.detokenizer);
    options.text_map = text_map(detokenizer);
    let unit = if args.whole {
        TextUnit::Whole
    } else {
        manifest.unit
    };
    let column = args.column.as_deref().unwrap_or(&manifest.column);
    let corpus = |split: &str, paths: &[PathBuf]| {
        FileCorpus::of(format!("{} ({split})", manifest.title), paths.to_vec())
            .unit(unit)
            .field(column)
    };
    match (args.validation_share, manifest.split) {
        (Some(share), _) | (None, SplitRule::Share(share)) => options.validation_share = share,
        (None, SplitRule::Last(count)) => options.validation = Validation::Last(count),
        (None, SplitRule::Files) => {
            let validation = corpus("validation", &files.validation);
            options.validation = Validation::Corpus(Arc::new(validation));
        }
    }
    let train = corpus("train", &files.train);
    prepare::write(&train, 0, &options, &args.out, args.force)?;
    Ok(())
}

/// Returns the tokenizer of a manifest.
fn own_tokenizer(manifest: &Manifest, files: &DataFiles) -> Result<TokenizerSource> {
    match (&manifest.tokenizer, &files.tokenizer) {
        (ManifestTokenizer::Words, _) => Ok(TokenizerSource::Words),
        (ManifestTokenizer::Chars, _) => Ok(TokenizerSource::Chars),
        (ManifestTokenizer::Bpe(size), _) => Ok(TokenizerSource::TrainBpe(*size)),
        (ManifestTokenizer::Published { .. }, Some(path)) => prepare::padded(path),
        (ManifestTokenizer::Published { name, .. }, None) => Err(CliError::input(format!(
            "the copy of {} has no tokenizer.json: pass the one of {name} with --tokenizer",
            manifest.title
        ))),
    }
}
