//! Built-in manifests, invalid manifests, and local copies of data sets.

use std::fs;
use std::path::Path;

use flm_data::{
    Detokenizer, Layout, Manifest, ManifestError, ManifestTokenizer, Source, SplitRule, TextUnit,
};

#[test]
fn every_builtin_manifest_says_everything_needed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets");
    let mut files: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            Some(name.strip_suffix(".toml")?.to_owned())
        })
        .collect();
    let mut names: Vec<&str> = Manifest::builtin_names().collect();
    files.sort();
    names.sort_unstable();
    assert_eq!(names, files, "each file is built in");
    for name in names {
        let manifest = Manifest::builtin(name).unwrap();
        assert_eq!(manifest.name, name);
        let about = Manifest::builtin_text(name)
            .unwrap()
            .lines()
            .next()
            .unwrap();
        assert!(
            about.starts_with("# ") && about.len() > 20,
            "{name} says what it is"
        );
        for file in manifest.train.iter().chain(&manifest.validation) {
            assert!(file.address().starts_with("https://"), "{name}");
            assert!(!file.file_name().contains('/'), "{name}");
        }
        let from_hub = manifest.tokenizer.file().map(|file| &file.source);
        assert!(
            !matches!(from_hub, Some(Source::Hub { revision, .. }) if revision.len() != 40),
            "{name}: a tokenizer that changes makes other numbers"
        );
    }
}

#[test]
fn the_published_experiments_are_described_as_published() {
    let lm1b = Manifest::builtin("lm1b").unwrap();
    assert_eq!(lm1b.detokenizer, Detokenizer::Lm1b);
    assert_eq!(lm1b.tokenizer.name(), "bert-base-uncased");
    assert_eq!((lm1b.length, lm1b.layout), (128, Layout::Packed));
    assert_eq!(lm1b.split, SplitRule::Files);
    let owt = Manifest::builtin("openwebtext").unwrap();
    assert_eq!(owt.detokenizer, Detokenizer::None);
    assert_eq!(owt.tokenizer.name(), "gpt2");
    assert_eq!((owt.length, owt.layout), (1024, Layout::Packed));
    assert_eq!(owt.split, SplitRule::Last(100_000));
    let shakespeare = Manifest::builtin("tiny-shakespeare").unwrap();
    assert_eq!(shakespeare.unit, TextUnit::Whole);
    assert_eq!(shakespeare.tokenizer, ManifestTokenizer::Chars);
}

const GOOD: &str = r#"
format = 1
title = "Letters"
license = "mine"
page = "https://example.org/letters"
split = "files"
column = "text"
unit = "lines"
detokenizer = "none"
tokenizer = { name = "bpe:8000" }
length = 128
layout = "packed"

[[train]]
repo = "me/letters"
revision = "main"
path = "data/train-*.txt"
files = 2

[[validation]]
url = "https://example.org/letters/last.txt"
sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
bytes = 3
"#;

/// Returns the error for the valid manifest with one text replaced.
fn refusal(find: &str, put: &str) -> String {
    assert!(GOOD.contains(find), "{find}");
    let error = Manifest::parse(&GOOD.replacen(find, put, 1), "letters");
    error.expect_err(put).to_string()
}

#[test]
fn every_fault_names_manifest_and_key() {
    Manifest::parse(GOOD, "letters").unwrap();
    let cases = [
        (
            "title = \"Letters\"",
            "title = ",
            "cannot be understood at `line 3`: ",
        ),
        (
            "title",
            "titel",
            "cannot be understood at `titel`: unknown field `titel`, expected one of ",
        ),
        (
            "title = \"Letters\"\n",
            "",
            "cannot be understood at `the top`: missing field `title`",
        ),
        (
            "bytes = 3",
            "bytes = \"3\"",
            "at `validation[0].bytes`: invalid type: string \"3\", expected u64",
        ),
        (
            "\"none\"",
            "\"nine\"",
            "at `detokenizer`: unknown variant `nine`, expected one of ",
        ),
        (
            "split = \"files\"",
            "split = { lost = 3 }",
            "says split = { lost = 3 }, expected \"files\", { last = N } or { share = S }",
        ),
        (
            "split = \"files\"",
            "split = \"last\"",
            "says split = \"last\", expected \"files\", { last = N } or { share = S }",
        ),
        (
            "split = \"files\"",
            "split = { last = -1 }",
            "says split = { last = -1 }, expected \"files\", { last = N }",
        ),
        (
            "split = \"files\"",
            "split = { last = 3, share = 0.5 }",
            "says split = { last = 3, share = 0.5 }, expected \"files\", ",
        ),
        (
            "format = 1",
            "format = 2",
            "says format = 2, expected 1, the version that this program reads",
        ),
        (
            "\"mine\"",
            "\" \"",
            "says license = \" \", expected some text",
        ),
        (
            "https://example.org/letters\"",
            "example.org\"",
            "says page = \"example.org\", expected an address that begins with https://",
        ),
        (
            "length = 128",
            "length = 2",
            "says length = 2, expected at least 3 for the layout `packed`",
        ),
        (
            "bpe:8000",
            "bpe:8",
            "says tokenizer.name = \"bpe:8\", expected bpe:N with an N of at least ",
        ),
        (
            "bpe:8000",
            "gpt2",
            "says tokenizer.name = \"gpt2\", expected words, chars, bpe:N, or the name of a published",
        ),
        (
            "\"bpe:8000\"",
            "\"words\", file = { url = \"https://a.b/c\" }",
            "has a fault in `tokenizer.file`: a tokenizer that is made from the corpus",
        ),
        (
            "split = \"files\"",
            "split = { last = 3 }",
            "has a fault in `validation`: files for validation require split = \"files\"",
        ),
        ("unit = \"lines\"", "unit = \"whole\"", ""),
        (
            "repo = \"me/letters\"",
            "repo = \"letters\"",
            "says train[0].repo = \"letters\", expected owner/name",
        ),
        (
            "data/train-*",
            "../train-*",
            "says train[0].path = \"../train-*.txt\", expected a path in the repository",
        ),
        (
            "revision = \"main\"\n",
            "",
            "has a fault in `train[0]`: a file is given by its url, or by repo, revision and path",
        ),
        (
            "files = 2",
            "bytes = 2",
            "has a fault in `train[0]`: a pattern matches several files",
        ),
        (
            "bytes = 3",
            "files = 3",
            "has a fault in `validation[0]`: `files` counts the matches of a pattern",
        ),
        (
            "https://example.org/letters/last",
            "http://example.org/last",
            "says validation[0].url = \"http://example.org/last.txt\", expected the address of a file",
        ),
        (
            "sha256 = \"ba",
            "sha256 = \"BA",
            "says validation[0].sha256 = \"BA",
        ),
    ];
    for (find, put, expected) in cases {
        if expected.is_empty() {
            let text = GOOD.replacen(find, put, 1);
            assert_eq!(
                Manifest::parse(&text, "letters").unwrap().unit,
                TextUnit::Whole
            );
            continue;
        }
        let message = refusal(find, put);
        assert!(message.starts_with("the manifest letters "), "{message}");
        assert!(message.contains(expected), "{message}\n{expected}");
        assert!(!message.contains('\n'), "{message}");
    }
    // Faults that need two replacements.
    let alone = GOOD.split("[[validation]]").next().unwrap();
    let message = |text: &str| Manifest::parse(text, "letters").unwrap_err().to_string();
    assert!(message(alone).contains("split = \"files\" needs at least one file"));
    let last = alone.replace("\"files\"", "{ last = 0 }");
    assert!(message(&last).contains("says split.last = 0, expected at least one document"));
    let share = alone.replace("\"files\"", "{ share = 1.0 }");
    assert!(message(&share).contains(
        "says split.share = 1, expected a number above 0 and below 1, with at most six decimals"
    ));
    let share = alone.replace("\"files\"", "{ share = 0.0200001 }");
    assert!(message(&share).contains("says split.share = 0.0200001, expected a number above 0"));
    let whole = alone
        .replace("\"files\"", "{ last = 9 }")
        .replace("\"lines\"", "\"whole\"");
    assert!(message(&whole).contains("has no last documents"));
    let rows = whole
        .replace("{ last = 9 }", "{ share = 0.1 }")
        .replace("\"packed\"", "\"rows\"");
    assert!(message(&rows).contains("has a fault in `layout`"));
    let twice = format!("{GOOD}\n[[validation]]\nurl = \"https://example.com/last.txt\"\n");
    assert!(message(&twice).contains("`last.txt` is the name of another file of the split"));
    let error = Manifest::parse(GOOD, "../letters").unwrap_err().to_string();
    assert!(
        error.contains("says the name = \"../letters\", expected letters, digits"),
        "{error}"
    );
}

#[test]
fn names_and_files_that_are_not_there() {
    let message = Manifest::builtin("lm1c").unwrap_err().to_string();
    assert!(message.starts_with("unknown data set `lm1c`: expected one of lm1b, openwebtext, "));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters.toml");
    let message = Manifest::load(&path).unwrap_err().to_string();
    assert_eq!(message, format!("cannot read {}", path.display()));
    fs::write(&path, GOOD).unwrap();
    assert_eq!(Manifest::load(&path).unwrap().name, "letters");
    fs::write(&path, "format = 1").unwrap();
    let message = Manifest::load(&path).unwrap_err().to_string();
    assert!(message.contains(&format!("the manifest {} cannot", path.display())));
}

fn write(folder: &Path, files: &[&str]) {
    for file in files {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "abc").unwrap();
    }
}

#[test]
fn a_copy_is_taken_however_it_is_arranged() {
    let manifest = Manifest::parse(GOOD, "letters").unwrap();
    let arrangements = [
        [
            "train/train-2.txt",
            "train/train-1.txt",
            "validation/last.txt",
        ],
        ["data/train-2.txt", "data/train-1.txt", "last.txt"],
        ["train-2.txt", "train-1.txt", "last.txt"],
    ];
    for files in arrangements {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &files);
        write(folder.path(), &["train/.train-3.txt", "other.txt"]);
        let taken = manifest.take(folder.path()).unwrap();
        assert_eq!(
            taken.train,
            [folder.path().join(files[1]), folder.path().join(files[0])]
        );
        assert_eq!(taken.validation, [folder.path().join(files[2])]);
        assert_eq!(taken.tokenizer, None);
    }
}

#[test]
fn one_file_is_taken_as_it_is_called() {
    let text = GOOD.split("[[validation]]").next().unwrap();
    let text = text
        .replace("\"files\"", "{ share = 0.1 }")
        .replace("files = 2\n", "");
    let manifest = Manifest::parse(&text, "letters").unwrap();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &["any.txt"]);
    let file = folder.path().join("any.txt");
    assert_eq!(manifest.take(&file).unwrap().train, [file]);
}

#[test]
fn a_published_tokenizer_is_taken_along() {
    let owt = Manifest::builtin("openwebtext").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let shards: Vec<String> = (0..80)
        .map(|shard| format!("plain_text/train-{shard:05}-of-00080.parquet"))
        .collect();
    let shards: Vec<&str> = shards.iter().map(String::as_str).collect();
    write(folder.path(), &shards[..79]);
    let message = owt.take(folder.path()).unwrap_err().to_string();
    assert!(message.contains("openwebtext; missing:\n"), "{message}");
    write(folder.path(), &shards);
    assert_eq!(owt.take(folder.path()).unwrap().tokenizer, None);
    write(folder.path(), &["tokenizer.json"]);
    let taken = owt.take(folder.path()).unwrap();
    assert_eq!(taken.train.len(), 80);
    assert_eq!(taken.tokenizer, Some(folder.path().join("tokenizer.json")));
}

#[test]
fn what_a_copy_lacks_is_listed_and_what_is_wrong_is_named() {
    let manifest = Manifest::parse(GOOD, "letters").unwrap();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &["train/train-1.txt"]);
    let place = folder.path().display();
    let message = manifest.take(folder.path()).unwrap_err().to_string();
    assert_eq!(
        message,
        format!(
            "{place} lacks files of letters; missing:\n  \
             {place}/train/train-*.txt (from https://huggingface.co/datasets/me/letters/tree/main/data);\n  \
             {place}/validation/last.txt (from https://example.org/letters/last.txt)"
        )
    );
    write(folder.path(), &["train/train-2.txt"]);
    let last = folder.path().join("validation/last.txt");
    fs::create_dir_all(last.parent().unwrap()).unwrap();
    fs::write(&last, "abcd").unwrap();
    let error = manifest.take(folder.path()).unwrap_err();
    assert!(matches!(error, ManifestError::NotTheFile { .. }));
    let message = error.to_string();
    assert_eq!(
        message,
        format!("{place}/validation/last.txt has bytes 4, expected 3 from the manifest letters")
    );
    fs::write(&last, "abd").unwrap();
    let message = manifest.take(folder.path()).unwrap_err().to_string();
    assert!(message.contains("has SHA-256 a52d159f262b2c6ddb724a61840befc36eb30c88877a4030b65cbe86298449c9, expected ba78"), "{message}");
}

#[test]
fn a_file_is_not_taken_for_both_splits() {
    let text = GOOD
        .replace("data/train-*.txt", "train/0000.parquet")
        .replace("files = 2\n", "");
    let text = text.replace("letters/last.txt", "test/0000.parquet");
    let manifest = Manifest::parse(&text, "letters").unwrap();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &["0000.parquet"]);
    let message = manifest.take(folder.path()).unwrap_err().to_string();
    assert!(
        message.contains("/validation/0000.parquet (from"),
        "{message}"
    );
    assert!(!message.contains("/train/0000.parquet (from"), "{message}");
}
