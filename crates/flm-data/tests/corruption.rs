//! Every kind of damage to a data folder gives a one-sentence error.

use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;

use flm_data::{
    DataError, Dataset, FnCorpus, PrepareOptions, TextTokenizer, TokenizerSource, prepare,
};
use tempfile::TempDir;

/// A data folder of 40 rows of 4 tokens in two shards and a vocabulary of 6.
struct Folder {
    parent: TempDir,
}

impl Folder {
    fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let corpus = FnCorpus::new("cats", || (0..40).map(|_| Ok("the cat sat".to_owned())));
        let options = PrepareOptions {
            validation_share: 0.0,
            rows_per_shard: 30,
            ..PrepareOptions::new(TokenizerSource::Words, 4)
        };
        let out = parent.path().join("data");
        prepare(&corpus, &options, out, false, &mut |_| {
            ControlFlow::Continue(())
        })
        .unwrap();
        Self { parent }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.parent.path().join("data").join(file)
    }

    fn name(&self, file: &str) -> String {
        self.path(file).display().to_string()
    }

    fn open(&self) -> Result<Dataset, DataError> {
        Dataset::open(self.parent.path().join("data"))
    }

    fn message(&self) -> String {
        self.open().unwrap_err().to_string()
    }

    fn edit(&self, file: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.path(file)).unwrap();
        edit(&mut bytes);
        fs::write(self.path(file), bytes).unwrap();
    }

    fn replace(&self, from: &str, to: &str) {
        self.edit("dataset.json", |bytes| {
            let json = String::from_utf8(bytes.clone()).unwrap();
            assert!(json.contains(from), "{from} in {json}");
            *bytes = json.replacen(from, to, 1).into_bytes();
        });
    }
}

#[test]
fn a_missing_shard() {
    let folder = Folder::new();
    fs::remove_file(folder.path("train-00001.bin")).unwrap();
    assert_eq!(
        folder.message(),
        format!(
            "shard {} is missing, expected from dataset.json",
            folder.name("train-00001.bin")
        )
    );
}

#[test]
fn a_shard_cut_short_anywhere_or_too_long() {
    let expected = 128 + 30 * 4 * 2;
    for (size, expected) in [
        (0, 128),
        (5, 128),
        (127, 128),
        (128, expected),
        (expected - 1, expected),
        (expected + 1, expected),
    ] {
        let folder = Folder::new();
        folder.edit("train-00000.bin", |bytes| bytes.resize(size, 0));
        assert_eq!(
            folder.message(),
            format!(
                "shard {} has {size} bytes, expected {expected}",
                folder.name("train-00000.bin")
            )
        );
    }
}

#[test]
fn a_file_that_is_no_shard() {
    let folder = Folder::new();
    folder.edit("train-00000.bin", |bytes| {
        bytes[..8].copy_from_slice(b"PNG\r\n\x1a\n\0");
    });
    assert_eq!(
        folder.message(),
        format!(
            "{} is not a token shard: it begins with `PNG\\r\\n\\x1a\\n\\x00`, expected `FLMSHARD`",
            folder.name("train-00000.bin")
        )
    );
}

#[test]
fn another_version() {
    let folder = Folder::new();
    folder.edit("train-00000.bin", |bytes| bytes[8] = 2);
    assert_eq!(
        folder.message(),
        format!(
            "{} has format version 2, expected version 1",
            folder.name("train-00000.bin")
        )
    );
    let folder = Folder::new();
    folder.replace("\"format_version\": 1", "\"format_version\": 7, \"new\": 1");
    assert_eq!(
        folder.message(),
        format!(
            "{} has format version 7, expected version 1",
            folder.name("dataset.json")
        )
    );
}

#[test]
fn damaged_rows_are_found_by_verifying() {
    let folder = Folder::new();
    let before = fs::read(folder.path("train-00000.bin")).unwrap();
    folder.edit("train-00000.bin", |bytes| bytes[200] ^= 1);
    let data = folder.open().expect("opening does not read the rows");
    let found = crc32fast::hash(&fs::read(folder.path("train-00000.bin")).unwrap()[128..]);
    let expected = crc32fast::hash(&before[128..]);
    assert_eq!(
        data.verify().unwrap_err().to_string(),
        format!(
            "shard {} is damaged: checksum {found:08x}, expected {expected:08x}",
            folder.name("train-00000.bin")
        )
    );
}

#[test]
fn a_token_beyond_the_vocabulary() {
    let folder = Folder::new();
    folder.edit("train-00001.bin", |bytes| {
        bytes[128 + 3 * 8] = 6;
        let checksum = crc32fast::hash(&bytes[128..]);
        bytes[64..68].copy_from_slice(&checksum.to_le_bytes());
    });
    let message = format!(
        "shard {} has token 6 in row 3, expected below 6",
        folder.name("train-00001.bin")
    );
    let data = folder.open().unwrap();
    assert_eq!(data.train().row(33).unwrap_err().to_string(), message);
    assert_eq!(data.verify().unwrap_err().to_string(), message);
    assert!(data.train().row(32).is_ok());
}

#[test]
fn headers_that_contradict_the_description() {
    for (at, field, expected, found) in [
        (12, "bits a token", 16, 17),
        (16, "vocabulary size", 6, 7),
        (20, "row length", 4, 5),
        (24, "row count", 30, 31),
    ] {
        let folder = Folder::new();
        folder.edit("train-00000.bin", |bytes| bytes[at] += 1);
        assert_eq!(
            folder.message(),
            format!(
                "{} has {field} {found}, expected {expected} from dataset.json",
                folder.name("train-00000.bin")
            )
        );
    }
    let folder = Folder::new();
    let hash = folder.open().unwrap().meta().tokenizer_hash.clone();
    folder.edit("train-00000.bin", |bytes| bytes[32..64].fill(0));
    assert_eq!(
        folder.message(),
        format!(
            "{} has tokenizer hash {}, expected {hash} from dataset.json",
            folder.name("train-00000.bin"),
            "0".repeat(64)
        )
    );
}

#[test]
fn another_tokenizer() {
    let folder = Folder::new();
    let expected = folder.open().unwrap().meta().tokenizer_hash.clone();
    let same_size = TextTokenizer::from_words(["the", "cat", "sat"]).unwrap();
    same_size.save(folder.path("tokenizer.json")).unwrap();
    assert_eq!(
        folder.message(),
        format!(
            "{} has hash {}, expected {expected} from dataset.json",
            folder.name("tokenizer.json"),
            same_size.hash()
        )
    );
    let larger = TextTokenizer::from_words(["the", "cat", "sat", "up"]).unwrap();
    larger.save(folder.path("tokenizer.json")).unwrap();
    assert_eq!(
        folder.message(),
        format!(
            "{} has vocabulary size 7, expected 6 from dataset.json",
            folder.name("tokenizer.json")
        )
    );
    fs::write(folder.path("tokenizer.json"), "{}").unwrap();
    let message = folder.message();
    let start = format!("{} is not a tokenizer: ", folder.name("tokenizer.json"));
    assert!(message.starts_with(&start), "{message}");
    // A decoder that is not valid JSON, on which the library panics.
    larger.save(folder.path("tokenizer.json")).unwrap();
    let text = fs::read_to_string(folder.path("tokenizer.json")).unwrap();
    let (before, _) = text.split_once("\"decoder\": ").unwrap();
    fs::write(
        folder.path("tokenizer.json"),
        format!("{before}\"decoder\": %}}"),
    )
    .unwrap();
    assert_eq!(folder.message(), format!("{start}its parts cannot be read"));
}

#[test]
fn a_description_that_is_missing_or_wrong() {
    let folder = Folder::new();
    folder.replace("\"rows\": 40", "\"rows\": 41");
    assert_eq!(
        folder.message(),
        format!(
            "{} says train.rows 41, expected 40, the sum over its shards",
            folder.name("dataset.json")
        )
    );
    let folder = Folder::new();
    folder.replace("\"length\": 4", "\"length\": 1");
    assert_eq!(
        folder.message(),
        "length 1 is too small: the layout `rows` needs at least 2 tokens a row"
    );
    let folder = Folder::new();
    folder.replace("\"length\": 4", "\"lenght\": 4");
    assert_eq!(
        folder.message(),
        format!(
            "{} is damaged, prepare the data again",
            folder.name("dataset.json")
        )
    );
    let folder = Folder::new();
    fs::remove_file(folder.path("dataset.json")).unwrap();
    assert_eq!(
        folder.message(),
        format!(
            "{} is not a data folder: it holds no dataset.json",
            folder.path("").display().to_string().trim_end_matches('/')
        )
    );
}
