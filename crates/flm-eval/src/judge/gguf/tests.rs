use super::*;
use crate::judge::gguf::golden::BLOCKS;

/// Writes GGUF files.
#[derive(Default)]
pub(crate) struct Writer {
    settings: Vec<(String, u32, Vec<u8>)>,
    tensors: Vec<(String, Vec<usize>, u32, Vec<u8>)>,
}

fn text(bytes: &str) -> Vec<u8> {
    let mut out = (bytes.len() as u64).to_le_bytes().to_vec();
    out.extend(bytes.as_bytes());
    out
}

impl Writer {
    pub(crate) fn size(mut self, key: &str, value: u32) -> Self {
        let bytes = value.to_le_bytes().to_vec();
        self.settings.push((key.to_owned(), 4, bytes));
        self
    }

    pub(crate) fn number(mut self, key: &str, value: f32) -> Self {
        let bytes = value.to_le_bytes().to_vec();
        self.settings.push((key.to_owned(), 6, bytes));
        self
    }

    pub(crate) fn text(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), 8, text(value)));
        self
    }

    pub(crate) fn texts(mut self, key: &str, values: &[&str]) -> Self {
        let mut bytes = 8_u32.to_le_bytes().to_vec();
        bytes.extend((values.len() as u64).to_le_bytes());
        bytes.extend(values.iter().flat_map(|value| text(value)));
        self.settings.push((key.to_owned(), 9, bytes));
        self
    }

    pub(crate) fn tensor(mut self, name: &str, shape: &[usize], values: &[f32]) -> Self {
        let bytes = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.tensors
            .push((name.to_owned(), shape.to_vec(), 0, bytes));
        self
    }

    fn stored(mut self, name: &str, shape: &[usize], kind: u32, bytes: Vec<u8>) -> Self {
        self.tensors
            .push((name.to_owned(), shape.to_vec(), kind, bytes));
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(3_u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.settings.len() as u64).to_le_bytes());
        for (key, kind, bytes) in &self.settings {
            out.extend(text(key));
            out.extend(kind.to_le_bytes());
            out.extend(bytes);
        }
        let mut offset = 0_u64;
        for (name, shape, kind, bytes) in &self.tensors {
            out.extend(text(name));
            out.extend((shape.len() as u32).to_le_bytes());
            out.extend(
                shape
                    .iter()
                    .rev()
                    .flat_map(|&size| (size as u64).to_le_bytes()),
            );
            out.extend(kind.to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset = (offset + bytes.len() as u64).next_multiple_of(ALIGNMENT);
        }
        for (.., bytes) in &self.tensors {
            out.resize(out.len().next_multiple_of(ALIGNMENT as usize), 0);
            out.extend(bytes);
        }
        out
    }

    pub(crate) fn read(&self) -> Result<Gguf, String> {
        read(&self.bytes())
    }
}

fn read(bytes: &[u8]) -> Result<Gguf, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, bytes).unwrap();
    Gguf::read(&path).map_err(|error| plain(&error, &path))
}

/// Returns the message without the temporary path.
fn plain(error: &JudgeError, path: &Path) -> String {
    error
        .to_string()
        .replace(&path.display().to_string(), "file")
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks_exact(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn blocks_are_read_as_the_formats_own_package_reads_them() {
    for (kind, block, some, sum) in BLOCKS {
        let numbers = blocks::Kind::of(*kind).unwrap().numbers;
        let file = Writer::default().stored("x", &[numbers], *kind, from_hex(block));
        let (shape, values) = file.read().unwrap().tensors().unwrap().remove("x").unwrap();
        assert_eq!((shape, values.len()), (vec![numbers], numbers));
        for (place, expected) in *some {
            let found = values[*place];
            assert!(
                (found - expected).abs() < 1e-5,
                "{kind}: {found} {expected}"
            );
        }
        let weighed = (1..)
            .zip(&values)
            .map(|(i, value)| f64::from(i) * f64::from(*value));
        let found: f64 = weighed.sum();
        assert!(
            (found - sum).abs() < 1e-5 * sum.abs().max(1.0),
            "{kind}: {found} {sum}"
        );
    }
}

#[test]
fn shapes_have_their_outermost_dimension_first() {
    let values: Vec<f32> = (0..6).map(|i| i as f32).collect();
    let file = Writer::default()
        .size("a.size", 7)
        .tensor("x", &[2, 3], &values)
        .tensor("y", &[1], &[9.0]);
    let file = file.read().unwrap();
    let tensors = file.tensors().unwrap();
    assert_eq!(tensors["x"], (vec![2, 3], values));
    assert_eq!(tensors["y"], (vec![1], vec![9.0]));
    assert_eq!(file.size("a.size").unwrap(), 7);
    assert_eq!(file.rows("x").unwrap(), 2);
}

#[test]
fn faults_name_the_tensor_or_the_setting() {
    let whole = Writer::default()
        .size("a.size", 7)
        .tensor("x", &[4], &[1.0; 4]);
    let bytes = whole.bytes();
    let fault = |file: Result<Gguf, String>| match file {
        Err(error) => error,
        Ok(file) => plain(&file.tensors().unwrap_err(), file.path()),
    };
    assert_eq!(
        fault(read(&bytes[..bytes.len() - 1])),
        "file: tensor x extends beyond the end of the file"
    );
    assert_eq!(
        fault(read(&bytes[..40])),
        "file is truncated or corrupt: it ends within the header"
    );
    assert_eq!(
        fault(read(b"PK  ....")),
        "file is truncated or corrupt: it does not start with `GGUF`"
    );
    let mut old = bytes.clone();
    old[4] = 1;
    assert_eq!(
        fault(read(&old)),
        "file is truncated or corrupt: expected GGUF version 2 or 3, found 1"
    );
    let unknown = Writer::default().stored("x", &[32], 10, vec![0; 84]);
    assert_eq!(
        fault(unknown.read()),
        "file: tensor x is stored as type 10, expected one of F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K"
    );
    let infinite = Writer::default().tensor("x", &[1], &[f32::INFINITY]);
    assert_eq!(
        fault(infinite.read()),
        "file: tensor x holds inf; every value must be finite"
    );
    let file = whole.read().unwrap();
    let message = |error: JudgeError| plain(&error, file.path());
    assert_eq!(
        message(file.text("a.size").unwrap_err()),
        "file: a.size must be a string, found 7"
    );
    assert_eq!(
        message(file.size("b").unwrap_err()),
        "file: b must be a size, found nothing"
    );
}

/// Tries every truncation, and several values of every byte.
#[test]
fn no_damage_of_the_header_is_more_than_an_error() {
    let whole = Writer::default()
        .texts("tokenizer.ggml.tokens", &["a", "b"])
        .size("general.alignment", 32)
        .tensor("x", &[2], &[1.0; 2]);
    let bytes = whole.bytes();
    for end in 0..bytes.len() {
        let _ = read(&bytes[..end]);
        for value in [0, 1, 255] {
            let mut bytes = bytes.clone();
            bytes[end] = value;
            if let Ok(file) = read(&bytes) {
                let _ = file.tensors();
            }
        }
    }
}

#[test]
fn a_vocabulary_of_byte_pairs_becomes_a_tokenizer() {
    let whole = |model: &str, pre: &str| {
        let mut kinds = 5_u32.to_le_bytes().to_vec();
        kinds.extend(3_u64.to_le_bytes());
        kinds.extend([3_i32, 1, 1].iter().flat_map(|kind| kind.to_le_bytes()));
        let mut file = Writer::default()
            .text("tokenizer.ggml.model", model)
            .text("tokenizer.ggml.pre", pre)
            .texts("tokenizer.ggml.tokens", &["<|endoftext|>", "a", "b"])
            .texts("tokenizer.ggml.merges", &["a b"]);
        let key = "tokenizer.ggml.token_type".to_owned();
        file.settings.push((key, 9, kinds));
        let file = file.read().unwrap();
        file.tokenizer().map_err(|error| plain(&error, file.path()))
    };
    let json: serde_json::Value = serde_json::from_str(&whole("gpt2", "smollm").unwrap()).unwrap();
    assert_eq!(json["model"]["vocab"]["b"], 2);
    assert_eq!(json["model"]["merges"][0], "a b");
    assert_eq!(json["added_tokens"][0]["content"], "<|endoftext|>");
    assert_eq!(json["added_tokens"].as_array().unwrap().len(), 1);
    assert_eq!(json["pre_tokenizer"]["pretokenizers"][0]["type"], "Digits");
    assert_eq!(
        whole("llama", "gpt-2").unwrap_err(),
        "file: tokenizer.ggml.model must be gpt2, a byte-pair vocabulary, found llama"
    );
    assert_eq!(
        whole("gpt2", "qwen2").unwrap_err(),
        "file: tokenizer.ggml.pre must be gpt-2, smollm or llama-bpe, found qwen2"
    );
}
