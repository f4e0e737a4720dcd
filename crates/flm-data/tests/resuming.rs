//! Interrupted preparations, which resume and give the same bytes.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flm_data::{
    Corpus, DataError, Dataset, FileCorpus, FnCorpus, Layout, PrepareOptions, Stage, TextMap,
    TextTokenizer, TextUnit, TokenizerSource, Validation, prepare,
};

/// A corpus of nine batches of documents of different lengths. Some are empty and some are too long
/// for a row.
fn numbers() -> impl Corpus + Send + Sync {
    FnCorpus::new("numbers", || {
        (0..8500_u64).map(|n| Ok("ab c".repeat((n * n % 13) as usize)))
    })
}

fn tokenizer() -> TokenizerSource {
    let letters = FnCorpus::new("letters", || std::iter::once(Ok("abc LMN".to_owned())));
    TokenizerSource::Given(Box::new(TextTokenizer::chars(&letters).unwrap()))
}

fn options(layout: Layout) -> PrepareOptions {
    PrepareOptions {
        layout,
        validation_share: 0.1,
        rows_per_shard: 700,
        checkpoint_bytes: 1,
        ..PrepareOptions::new(tokenizer(), 30)
    }
}

/// Returns the files of a folder, without subfolders.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.is_file())
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read(path).unwrap())
        })
        .collect()
}

fn whole(corpus: &dyn Corpus, options: &PrepareOptions, out: &Path) -> BTreeMap<String, Vec<u8>> {
    prepare(corpus, options, out, false, &mut |_| {
        ControlFlow::Continue(())
    })
    .unwrap();
    Dataset::open(out).unwrap().verify().unwrap();
    files(out)
}

/// Prepares until `progress` has been called `calls` times in the encoding pass.
fn until(
    calls: usize,
    corpus: &dyn Corpus,
    options: &PrepareOptions,
    out: &Path,
) -> Result<(), DataError> {
    let mut left = calls;
    prepare(corpus, options, out, false, &mut |progress| {
        left -= usize::from(progress.stage == Stage::Encoding);
        match left {
            0 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    })
    .map(drop)
}

fn unfinished(out: &Path) -> PathBuf {
    let name = out.file_name().unwrap().to_string_lossy().into_owned();
    out.with_file_name(format!(".{name}.preparing"))
}

fn is_alone(folder: &Path, names: &[&str]) {
    let found = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let mut found: Vec<_> = found
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    found.sort();
    assert_eq!(found, names);
}

#[test]
fn stopped_anywhere_it_goes_on_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    for layout in [Layout::Rows, Layout::Packed] {
        let options = options(layout);
        let expected = whole(&numbers(), &options, &folder.path().join("whole"));
        assert!(expected.len() > 5, "several shards");
        let out = folder.path().join("data");
        for calls in [1, 2, 5, 8] {
            let stopped = until(calls, &numbers(), &options, &out);
            assert!(matches!(stopped, Err(DataError::Cancelled)));
            is_alone(folder.path(), &[".data.preparing", "whole"]);
            assert_eq!(
                whole(&numbers(), &options, &out),
                expected,
                "after {calls} calls"
            );
            is_alone(folder.path(), &["data", "whole"]);
            fs::remove_dir_all(&out).unwrap();
        }
        // Interrupts several times, each time later.
        for calls in [2, 3, 6] {
            until(calls, &numbers(), &options, &out).unwrap_err();
        }
        assert_eq!(whole(&numbers(), &options, &out), expected);
        fs::remove_dir_all(&out).unwrap();
        fs::remove_dir_all(folder.path().join("whole")).unwrap();
    }
}

/// The state after `kill -9`: a journal, and files with arbitrary bytes after the recorded ones.
#[test]
fn what_a_killed_process_left_is_cut_back_to_its_journal() {
    let folder = tempfile::tempdir().unwrap();
    let options = PrepareOptions {
        // The journal records the third batch; the files are from the sixth.
        checkpoint_bytes: 70_000,
        ..options(Layout::Packed)
    };
    let expected = whole(&numbers(), &options, &folder.path().join("whole"));
    let out = folder.path().join("data");
    let unfinished = unfinished(&out);
    let killed = folder.path().join("killed");
    let mut calls = 0;
    prepare(&numbers(), &options, &out, false, &mut |_| {
        calls += 1;
        if calls == 6 {
            fs::create_dir(&killed).unwrap();
            for (name, bytes) in files(&unfinished) {
                fs::write(killed.join(name), bytes).unwrap();
            }
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    fs::remove_dir_all(&out).unwrap();

    let take = |change: &dyn Fn(&str, &mut Vec<u8>)| {
        fs::create_dir(&unfinished).unwrap();
        for (name, mut bytes) in files(&killed) {
            change(&name, &mut bytes);
            fs::write(unfinished.join(name), bytes).unwrap();
        }
        let mut first = None;
        let mut rows = 0;
        let progress = &mut |progress: &flm_data::Progress| {
            first.get_or_insert(progress.rows);
            rows = progress.rows;
            ControlFlow::Continue(())
        };
        prepare(&numbers(), &options, &out, false, progress).unwrap();
        assert_eq!(files(&out), expected);
        fs::remove_dir_all(&out).unwrap();
        // Only the rows of the first batch, if nothing was resumed.
        first.unwrap() > rows / 8
    };
    let is_shard = |name: &str| name.ends_with(".bin");
    assert!(take(&|_, _| {}), "it resumes");
    let longer = |name: &str, bytes: &mut Vec<u8>| {
        if is_shard(name) && bytes.len() != 128 + 700 * 60 {
            bytes.extend([0xab; 1000]);
        }
    };
    assert!(
        take(&longer),
        "with garbage at the tails of its open shards"
    );
    fs::write(killed.join("train-00077.bin"), "a shard started later").unwrap();
    fs::write(killed.join("journal.json.new"), "{ half a jour").unwrap();
    assert!(take(&|_, _| {}), "with files that came later");

    // Inconsistent states never resume.
    let no_journal = |name: &str, bytes: &mut Vec<u8>| {
        if name == "journal.json" {
            bytes.pop();
        }
    };
    assert!(!take(&no_journal), "half a journal");
    let empty = |name: &str, bytes: &mut Vec<u8>| {
        if is_shard(name) {
            bytes.clear();
        }
    };
    assert!(!take(&empty), "shards without their rows");
    let damaged = |name: &str, bytes: &mut Vec<u8>| {
        if is_shard(name) && bytes.len() > 150 {
            bytes[150] ^= 1;
        }
    };
    assert!(!take(&damaged), "an open shard with other rows");
    let other = |name: &str, bytes: &mut Vec<u8>| {
        if name == "tokenizer.json" {
            *bytes = b"{}".to_vec();
        }
    };
    assert!(!take(&other), "another tokenizer");
    is_alone(folder.path(), &["killed", "whole"]);
}

#[test]
fn threads_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = FnCorpus::new("words", || {
        (0..4000_u64).map(|n| Ok(format!("the {n} lowest of {} lower words", n * n % 17)))
    });
    let options = PrepareOptions {
        layout: Layout::Packed,
        rows_per_shard: 500,
        text_map: Some(TextMap::new("upper case", |text| text.to_uppercase())),
        ..PrepareOptions::new(TokenizerSource::TrainBpe(300), 20)
    };
    let expected = whole(&corpus, &options, &folder.path().join("whole"));
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let out = folder.path().join(threads.to_string());
        // The corpus stays on its thread, so it is created there.
        let found = pool.build().unwrap().install(|| {
            until(2, &corpus, &options, &out).unwrap_err();
            whole(&corpus, &options, &out)
        });
        assert_eq!(found, expected, "{threads} threads");
    }
}

#[test]
fn other_options_or_another_corpus_begin_afresh() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("data");
    let path = folder.path().join("text.txt");
    let write = |text: &str| fs::write(&path, text.repeat(5000)).unwrap();
    let corpus = || FileCorpus::open(&path).unwrap();
    write("a b c\n");
    let begun = options(Layout::Rows);
    let validation = FnCorpus::new("other", || std::iter::once(Ok("aaa".to_owned())));
    let changes: [&dyn Fn(&mut PrepareOptions); 7] = [
        &|options| options.length = 31,
        &|options| options.layout = Layout::Packed,
        &|options| options.validation_share = 0.2,
        &|options| options.rows_per_shard = 701,
        &|options| options.validation = Validation::Last(40),
        &|options| options.validation = Validation::Corpus(Arc::new(validation.clone())),
        &|options| options.text_map = Some(TextMap::new("none", str::to_owned)),
    ];
    for (n, change) in changes.into_iter().enumerate() {
        until(3, &corpus(), &begun, &out).unwrap_err();
        let mut options = begun.clone();
        change(&mut options);
        let found = whole(&corpus(), &options, &out);
        let expected = whole(&corpus(), &options, &folder.path().join(n.to_string()));
        assert_eq!(found, expected, "change {n}");
        fs::remove_dir_all(&out).unwrap();
    }
    until(3, &corpus(), &begun, &out).unwrap_err();
    write("c b a\nb\n");
    let found = whole(&corpus(), &begun, &out);
    let expected = whole(&corpus(), &begun, &folder.path().join("changed"));
    assert_eq!(found, expected);
}

#[test]
fn a_corpus_that_does_not_tell_that_it_changed_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("data");
    let seed = Arc::new(AtomicU64::new(0));
    let shared = Arc::clone(&seed);
    let corpus = FnCorpus::new("fickle", move || {
        let seed = shared.load(Ordering::Relaxed);
        (0..5000).map(move |n| Ok(if n == 700 + seed { "b" } else { "a" }.to_owned()))
    });
    let options = options(Layout::Rows);
    until(3, &corpus, &options, &out).unwrap_err();
    seed.store(1, Ordering::Relaxed);
    let error = until(99, &corpus, &options, &out).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the corpus has changed since its preparation started; run it again to start over: fickle"
    );
    is_alone(folder.path(), &[]);
    whole(&corpus, &options, &out);
}

#[test]
fn a_long_text_goes_on_in_its_middle() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    // More than one batch.
    let text = "a text of long lines, cut in pieces\nof 64 KiB ".repeat(110_000);
    fs::write(&path, &text).unwrap();
    let mut options = options(Layout::Packed);
    options.tokenizer = TokenizerSource::Chars;
    for validation in [Validation::Share, Validation::Corpus(Arc::new(numbers()))] {
        options.validation = validation;
        let out = folder.path().join("data");
        let corpus = FileCorpus::open(&path).unwrap().unit(TextUnit::Whole);
        let expected = whole(&corpus, &options, &out);
        fs::remove_dir_all(&out).unwrap();
        until(1, &corpus, &options, &out).unwrap_err();
        assert_eq!(whole(&corpus, &options, &out), expected);
        fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn a_vocabulary_is_not_gathered_again() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("data");
    let mut options = options(Layout::Rows);
    options.tokenizer = TokenizerSource::Chars;
    options.validation = Validation::Last(100);
    until(1, &numbers(), &options, &out).unwrap_err();
    let mut stages = Vec::new();
    prepare(&numbers(), &options, &out, false, &mut |progress| {
        stages.push(progress.stage);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(!stages.contains(&Stage::Vocabulary));
    assert_eq!(
        Dataset::open(&out)
            .unwrap()
            .validation()
            .meta()
            .dropped_empty,
        7
    );
}

#[test]
fn what_fails_at_the_very_end_is_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("data");
    let mut options = options(Layout::Packed);
    let expected = whole(&numbers(), &options, &folder.path().join("whole"));
    options.extra = vec![("no folder/a".to_owned(), Vec::new())];
    let error = until(99, &numbers(), &options, &out).unwrap_err();
    assert!(matches!(error, DataError::Io { .. }), "{error}");
    assert!(unfinished(&out).join("journal.json").is_file());
    // As if the machine had stopped after writing the last file.
    fs::write(unfinished(&out).join("dataset.json"), "{").unwrap();
    options.extra.clear();
    let mut rows = Vec::new();
    prepare(&numbers(), &options, &out, false, &mut |progress| {
        rows.push(progress.rows);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(files(&out), expected);
    assert!(
        rows[0] > 0 && rows[0] == rows[5],
        "nothing is encoded again"
    );
}

#[test]
fn two_at_once_are_one_too_many() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("data");
    let options = options(Layout::Rows);
    let mut refused = None;
    prepare(&numbers(), &options, &out, false, &mut |_| {
        refused.get_or_insert_with(|| until(1, &numbers(), &options, &out).unwrap_err());
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(
        refused.unwrap().to_string(),
        format!(
            "{} is being prepared by another process: wait for it, or choose another folder",
            out.display()
        )
    );
    Dataset::open(&out).unwrap().verify().unwrap();
    is_alone(folder.path(), &["data"]);
}
