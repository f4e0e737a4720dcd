//! What `prepare` writes and `Dataset` reads back.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use flm_data::{
    Corpus, DataError, Dataset, DatasetMeta, FileCorpus, FnCorpus, Layout, PrepareOptions,
    Progress, Split, Stage, TextMap, TextTokenizer, TextUnit, TokenizerSource, Validation,
    ValidationFrom, prepare,
};

fn numbers(count: u64) -> impl Corpus {
    FnCorpus::new("numbers", move || {
        (0..count).map(|n| Ok(format!("n {} {} {}", n % 7, n % 11, n % 13)))
    })
}

fn make(
    corpus: &dyn Corpus,
    options: &PrepareOptions,
    out: &Path,
) -> Result<DatasetMeta, DataError> {
    prepare(corpus, options, out, false, &mut |_| {
        ControlFlow::Continue(())
    })
}

fn packed(tokenizer: TokenizerSource, length: usize) -> PrepareOptions {
    PrepareOptions {
        layout: Layout::Packed,
        ..PrepareOptions::new(tokenizer, length)
    }
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read(entry.path()).unwrap_or_default())
        })
        .collect()
}

fn rows(split: &Split) -> Vec<Vec<u32>> {
    (0..split.rows())
        .map(|row| split.row(row).unwrap())
        .collect()
}

#[test]
fn rows_come_back_as_the_documents_that_fit() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("data");
    let texts = ["a b", "a b c d", "b", " ", "c c c", "a b c d d"];
    let corpus = FnCorpus::new("six texts", move || {
        texts.into_iter().map(|text| Ok(text.to_owned()))
    });
    let options = PrepareOptions {
        validation_share: 0.0,
        rows_per_shard: 2,
        ..PrepareOptions::new(TokenizerSource::Words, 4)
    };
    let meta = make(&corpus, &options, &out).unwrap();
    assert_eq!((meta.train.rows, meta.train.documents), (3, 3));
    assert_eq!(
        (meta.train.dropped_too_long, meta.train.dropped_empty),
        (2, 1)
    );
    assert_eq!(meta.train.tokens, 3 + 2 + 4);
    assert_eq!(meta.source, "six texts");

    let data = Dataset::open(&out).unwrap();
    assert_eq!(data.meta(), &meta);
    data.verify().unwrap();
    assert_eq!(
        rows(data.train()),
        [[3, 4, 2, 0], [4, 2, 0, 0], [5, 5, 5, 2]]
    );
    assert_eq!(
        data.train().batch(&[2, 0]).unwrap(),
        [5, 5, 5, 2, 3, 4, 2, 0]
    );
    let names: Vec<String> = files(&out).into_keys().collect();
    assert_eq!(
        names,
        [
            "dataset.json",
            "tokenizer.json",
            "train-00000.bin",
            "train-00001.bin"
        ]
    );
    assert_eq!(data.validation().rows(), 0);
    let beyond = data.train().row(3).unwrap_err();
    assert_eq!(
        beyond.to_string(),
        "row 3 does not exist: the train split has 3 rows"
    );
}

#[test]
fn every_document_is_in_one_split() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("data");
    let corpus = FnCorpus::new("words", || (0..1000).map(|n| Ok(format!("word{n:03}"))));
    let options = PrepareOptions::new(TokenizerSource::Words, 2);
    let meta = make(&corpus, &options, &out).unwrap();
    assert_eq!((meta.train.rows, meta.validation.rows), (980, 20));

    let data = Dataset::open(&out).unwrap();
    let mut all = rows(data.train());
    assert!(all.is_sorted(), "the order of the corpus");
    all.extend(rows(data.validation()));
    all.sort();
    let expected: Vec<Vec<u32>> = (3..1003).map(|token| vec![token, 2]).collect();
    assert_eq!(all, expected);
}

#[test]
fn packed_documents_are_the_stream_of_their_split() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("data");
    let corpus = numbers(500);
    let meta = make(&corpus, &packed(TokenizerSource::Words, 16), &out).unwrap();
    let data = Dataset::open(&out).unwrap();
    let tokenizer = data.tokenizer();

    for split in [data.train(), data.validation()] {
        let mut stream = Vec::new();
        for row in rows(split) {
            assert_eq!((row.len(), row[0], row[15]), (16, 1, 2));
            stream.extend_from_slice(&row[1..15]);
        }
        // 4 words and an end token per document. The stream is truncated only at its end.
        let total = split.meta().documents as usize * 5;
        assert_eq!(stream.len() + split.meta().dropped_tokens as usize, total);
        assert!(split.meta().dropped_tokens < 14);
        assert_eq!(split.meta().tokens as usize, split.rows() * 16);
        for document in stream.chunks_exact(5) {
            assert_eq!(
                (document[0], document[4]),
                (tokenizer.token_id("n").unwrap(), 2)
            );
        }
    }
    assert_eq!((meta.train.documents, meta.validation.documents), (490, 10));
}

#[test]
fn a_whole_text_is_cut_in_blocks_that_join_again() {
    let folder = tempfile::tempdir().unwrap();
    let text: String = (0..20_000)
        .map(|n| format!("line {n} of\n\nthe text\n"))
        .collect();
    let path = folder.path().join("text.txt");
    fs::write(&path, &text).unwrap();
    let corpus = FileCorpus::open(&path).unwrap().unit(TextUnit::Whole);
    let out = folder.path().join("data");
    let mut options = packed(TokenizerSource::Chars, 102);
    options.validation_share = 0.1;
    let meta = make(&corpus, &options, &out).unwrap();
    let blocks = meta.train.rows + meta.validation.rows;
    assert_eq!(blocks, (text.len() as u64 + 1) / 100);
    assert!(meta.validation.rows.abs_diff(blocks / 10) <= 1);
    assert_eq!((meta.train.documents, meta.validation.documents), (1, 0));
    assert_eq!(meta.train.dropped_tokens, (text.len() as u64 + 1) % 100);

    // Every block is a contiguous part of the text, newlines included. Its only end token is its
    // last token.
    let data = Dataset::open(&out).unwrap();
    let mut train = rows(data.train()).into_iter().peekable();
    let mut validation = rows(data.validation()).into_iter().peekable();
    for stretch in text.as_bytes().chunks_exact(100) {
        let stretch = std::str::from_utf8(stretch).unwrap();
        let decode = |row: &Vec<u32>| data.tokenizer().decode(row).unwrap();
        if train.peek().map(decode).as_deref() == Some(stretch) {
            train.next();
        } else {
            let row = validation
                .next()
                .expect("the block is in one of the splits");
            assert_eq!(decode(&row), stretch);
        }
    }
    assert!(train.next().is_none() && validation.next().is_none());

    let error = make(
        &corpus,
        &PrepareOptions::new(TokenizerSource::Chars, 102),
        &folder.path().join("rows"),
    );
    assert_eq!(
        error.unwrap_err().to_string(),
        "a text read as a whole has no separate sequences: pack it, or read it by lines"
    );
}

#[test]
fn the_same_corpus_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let sources = [
        TokenizerSource::Words,
        TokenizerSource::Chars,
        TokenizerSource::TrainBpe(300),
    ];
    for (n, source) in sources.into_iter().enumerate() {
        let options = packed(source, 20);
        let [first, second] = ["a", "b"].map(|name| folder.path().join(format!("{name}{n}")));
        // More than one batch of documents.
        make(&numbers(2500), &options, &first).unwrap();
        make(&numbers(2500), &options, &second).unwrap();
        assert_eq!(files(&first), files(&second));
        Dataset::open(&first).unwrap().verify().unwrap();
    }
}

#[test]
fn wide_vocabularies_take_wide_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let words: Vec<String> = (0..70_000).map(|n| format!("w{n}")).collect();
    let tokenizer = TextTokenizer::from_words(words).unwrap();
    let corpus = FnCorpus::new("two words", || std::iter::once(Ok("w0 w69999".to_owned())));
    let mut options = PrepareOptions::new(TokenizerSource::Given(Box::new(tokenizer)), 4);
    options.validation_share = 0.0;
    let out = folder.path().join("data");
    make(&corpus, &options, &out).unwrap();
    let data = Dataset::open(&out).unwrap();
    data.verify().unwrap();
    assert_eq!(data.train().row(0).unwrap(), [3, 70_002, 2, 0]);
    let size = fs::metadata(out.join("train-00000.bin")).unwrap().len();
    assert_eq!(size, 128 + 4 * 4);
}

#[test]
fn a_saved_tokenizer_is_the_same_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let corpus = FnCorpus::new("texts", || {
        (0..50).map(|n| Ok(format!("Zoë said\n {n} [EOS] words ")))
    });
    let plain = FnCorpus::new("words", || std::iter::once(Ok("b a".to_owned())));
    for tokenizer in [
        TextTokenizer::words(&plain).unwrap(),
        TextTokenizer::chars(&corpus).unwrap(),
        TextTokenizer::train_bpe(&corpus, 280).unwrap(),
    ] {
        tokenizer.save(&path).unwrap();
        let loaded = TextTokenizer::load(&path).unwrap();
        assert_eq!(loaded.hash(), tokenizer.hash());
        assert_eq!(loaded.vocab_size(), tokenizer.vocab_size());
        assert_eq!(
            (loaded.pad_id(), loaded.bos_id(), loaded.eos_id()),
            (0, 1, 2)
        );
        let text = "Zoë said\n 3 [EOS]";
        assert_eq!(loaded.encode(text).ok(), tokenizer.encode(text).ok());
    }
    assert_eq!(files(folder.path()).len(), 1, "no temporary file is left");
}

#[test]
fn what_fails_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("data");
    let message = |corpus: &dyn Corpus, options: &PrepareOptions| {
        let error = make(corpus, options, &out).unwrap_err();
        assert!(files(folder.path()).is_empty(), "{error}");
        error.to_string()
    };
    let words = |length| PrepareOptions::new(TokenizerSource::Words, length);
    let none = FnCorpus::new("nothing", std::iter::empty);
    let blank = FnCorpus::new("blanks", || std::iter::once(Ok(" ".to_owned())));
    let given = TextTokenizer::from_words(["n"]).unwrap();
    let given = TokenizerSource::Given(Box::new(given));

    assert_eq!(message(&none, &words(8)), "the corpus is empty: nothing");
    assert_eq!(
        message(&blank, &PrepareOptions::new(given.clone(), 8)),
        "the corpus is empty: blanks"
    );
    assert_eq!(
        message(&numbers(10), &words(0)),
        "length 0 is too small: the layout `rows` needs at least 2 tokens a row"
    );
    assert_eq!(
        message(&numbers(10), &packed(TokenizerSource::Words, 2)),
        "length 2 is too small: the layout `packed` needs at least 3 tokens a row"
    );
    assert_eq!(
        message(&numbers(10), &packed(TokenizerSource::Words, 100)),
        "the corpus is too small for one training row of 100 tokens (packed): numbers gave 50 \
         tokens, and 0 documents were too long"
    );
    assert_eq!(
        message(&numbers(10), &words(4)),
        "the corpus is too small for one training row of 4 tokens (rows): numbers gave 0 tokens, \
         and 10 documents were too long"
    );
    assert_eq!(
        message(&numbers(10), &PrepareOptions::new(given, 8)),
        "`0` is not in the vocabulary of 4 tokens"
    );
    assert_eq!(
        message(
            &numbers(10),
            &PrepareOptions {
                validation_share: 1.0,
                ..words(8)
            }
        ),
        "the validation share must be at least 0 and below 1, with at most six decimals, found 1"
    );
    assert_eq!(
        message(
            &numbers(10),
            &PrepareOptions {
                rows_per_shard: 0,
                ..words(8)
            }
        ),
        "a shard must hold at least one row, found rows_per_shard 0"
    );
    // The error occurs after rows have been written.
    let late = FnCorpus::new("late", || {
        (0..5000).map(|n| match n {
            4999 => Err(DataError::NoRows),
            _ => Ok("n".to_owned()),
        })
    });
    let given = TokenizerSource::Given(Box::new(TextTokenizer::from_words(["n"]).unwrap()));
    assert_eq!(
        message(&late, &PrepareOptions::new(given, 8)),
        DataError::NoRows.to_string()
    );
}

#[test]
fn an_existing_folder_is_only_replaced_when_forced_and_only_when_complete() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("deep/data");
    let options = PrepareOptions::new(TokenizerSource::Words, 8);
    make(&numbers(100), &options, &out).unwrap();
    let before = files(&out);
    let on = &mut |_: &Progress| ControlFlow::Continue(());

    let refused = make(&numbers(200), &options, &out).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "{} exists already: choose another folder, or force its replacement",
            out.display()
        )
    );
    let none = FnCorpus::new("nothing", std::iter::empty);
    prepare(&none, &options, &out, true, on).unwrap_err();
    assert_eq!(files(&out), before, "a failed replacement changes nothing");

    // An open old folder keeps its rows while it is replaced.
    let old = Dataset::open(&out).unwrap();
    let meta = prepare(&numbers(200), &options, &out, true, on).unwrap();
    assert_eq!(meta.train.rows, 196);
    assert_eq!(Dataset::open(&out).unwrap().meta(), &meta);
    old.verify().unwrap();
    let beside: Vec<String> = files(&folder.path().join("deep")).into_keys().collect();
    assert_eq!(beside, ["data"]);

    let foreign = folder.path().join("home");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("letter.txt"), "dear").unwrap();
    let refused = prepare(&numbers(9), &options, &foreign, true, on).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "{} is not a data folder (it holds no dataset.json) and is not replaced",
            foreign.display()
        )
    );
    assert_eq!(files(&foreign).len(), 1);
}

#[test]
fn progress_tells_the_stages_and_can_stop() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("data");
    let options = PrepareOptions::new(TokenizerSource::Words, 8);
    let mut seen = Vec::new();
    prepare(&numbers(2500), &options, &out, false, &mut |progress| {
        seen.push((progress.stage, progress.documents, progress.rows));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(
        seen,
        [
            (Stage::Vocabulary, 1000, 0),
            (Stage::Vocabulary, 2000, 0),
            (Stage::Encoding, 1000, 1000),
            (Stage::Encoding, 2000, 2000),
            (Stage::Encoding, 2500, 2500),
        ]
    );
    let other = folder.path().join("other");
    let stopped = prepare(
        &numbers(2500),
        &options,
        &other,
        false,
        &mut |progress| match progress.stage {
            Stage::Vocabulary => ControlFlow::Continue(()),
            Stage::Encoding => ControlFlow::Break(()),
        },
    );
    assert_eq!(
        stopped.unwrap_err().to_string(),
        "the preparation was stopped before it was complete"
    );
    let names: Vec<String> = files(folder.path()).into_keys().collect();
    assert_eq!(names, [".other.preparing", "data"]);
}

#[test]
fn the_last_documents_are_for_validation() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = FnCorpus::new("words", || (0..1000).map(|n| Ok(format!("word{n:03}"))));
    let words = TextTokenizer::words(&corpus).unwrap();
    let given = TokenizerSource::Given(Box::new(words));
    // With a pass that builds a vocabulary, and with one that only counts.
    for (name, source) in [("a", TokenizerSource::Words), ("b", given)] {
        let options = PrepareOptions {
            validation: Validation::Last(30),
            ..PrepareOptions::new(source, 2)
        };
        let out = folder.path().join(name);
        let meta = make(&corpus, &options, &out).unwrap();
        assert_eq!(meta.validation_from, ValidationFrom::Last(30));
        let data = Dataset::open(&out).unwrap();
        assert_eq!(data.meta(), &meta);
        let document = |token: u32| vec![token, 2];
        assert_eq!(
            rows(data.train()),
            (3..973).map(document).collect::<Vec<_>>()
        );
        assert_eq!(
            rows(data.validation()),
            (973..1003).map(document).collect::<Vec<_>>()
        );
    }
    for last in [1000, 1001] {
        let options = PrepareOptions {
            validation: Validation::Last(last),
            ..PrepareOptions::new(TokenizerSource::Words, 2)
        };
        let error = make(&corpus, &options, &folder.path().join("all")).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "the last {last} documents cannot be set apart for validation: the corpus has 1000"
            )
        );
    }
}

#[test]
fn validation_can_be_a_corpus_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("data");
    let train = FnCorpus::new("training", || (0..40).map(|_| Ok("b a".to_owned())));
    let held_out = FnCorpus::new("held out", || (0..3).map(|_| Ok("c a".to_owned())));
    let options = PrepareOptions {
        validation: Validation::Corpus(Arc::new(held_out)),
        ..PrepareOptions::new(TokenizerSource::Words, 3)
    };
    let meta = make(&train, &options, &out).unwrap();
    assert_eq!((meta.train.documents, meta.validation.documents), (40, 3));
    assert_eq!(meta.source, "training");
    let data = Dataset::open(&out).unwrap();
    assert_eq!(
        data.meta().validation_from,
        ValidationFrom::Corpus("held out".to_owned())
    );
    assert_eq!(rows(data.train()), vec![vec![4, 3, 2]; 40]);
    // The words of the validation corpus are in the vocabulary.
    assert_eq!(rows(data.validation()), vec![vec![5, 3, 2]; 3]);
}

#[test]
fn a_text_map_comes_before_the_vocabulary_and_is_written_down() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("data");
    let corpus = FnCorpus::new("shouts", || (0..60).map(|_| Ok("A @-@ B".to_owned())));
    let options = PrepareOptions {
        text_map: Some(TextMap::new("quiet", |text| {
            text.replace(" @-@ ", "-").to_lowercase()
        })),
        ..PrepareOptions::new(TokenizerSource::Words, 3)
    };
    let meta = make(&corpus, &options, &out).unwrap();
    assert_eq!(meta.text_map.as_deref(), Some("quiet"));
    let data = Dataset::open(&out).unwrap();
    assert_eq!(data.meta(), &meta);
    assert_eq!(data.tokenizer().token(3).as_deref(), Some("a-b"));
    assert_eq!(data.train().row(0).unwrap(), [3, 2, 0]);
}
