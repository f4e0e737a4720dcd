use super::*;
use crate::folder::Existing;
use crate::named_tensors;
use burn_flex::Flex;
use proptest::prelude::*;
use std::io::Write;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// A writer of protocol-2 pickles, with the instructions that checkpoints use.
#[derive(Default)]
struct Pickler {
    bytes: Vec<u8>,
    storages: Vec<Vec<u8>>,
}

impl Pickler {
    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend(bytes);
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.raw(b"X")
            .raw(&(text.len() as u32).to_le_bytes())
            .raw(text.as_bytes())
    }

    fn int(&mut self, value: usize) -> &mut Self {
        self.raw(b"J").raw(&(value as i32).to_le_bytes())
    }

    fn ints(&mut self, values: &[usize]) -> &mut Self {
        self.raw(b"(");
        for value in values {
            self.int(*value);
        }
        self.raw(b"t")
    }

    fn tensor(&mut self, tensor: &NamedTensor) -> &mut Self {
        let mut strides = vec![1; tensor.shape.len()];
        for i in (1..strides.len()).rev() {
            strides[i - 1] = strides[i] * tensor.shape[i];
        }
        let key = self.storages.len().to_string();
        let values = tensor.values.iter().flat_map(|value| value.to_le_bytes());
        self.storages.push(values.collect());
        self.raw(b"ctorch._utils\n_rebuild_tensor_v2\n((")
            .text("storage")
            .raw(b"ctorch\nFloatStorage\n")
            .text(&key)
            .text("cpu")
            .int(tensor.values.len())
            .raw(b"tQ")
            .int(0)
            .ints(&tensor.shape)
            .ints(&strides)
            .raw(b"\x89ccollections\nOrderedDict\n)RtR")
    }

    /// An omegaconf value, as a Lightning checkpoint holds one.
    fn node(&mut self, write: impl FnOnce(&mut Self) -> &mut Self) -> &mut Self {
        self.raw(b"comegaconf.nodes\nAnyNode\n)\x81}").text("_val");
        write(self);
        self.raw(b"sb")
    }

    /// An omegaconf dictionary.
    fn config(&mut self, write: impl FnOnce(&mut Self)) -> &mut Self {
        self.raw(b"comegaconf.dictconfig\nDictConfig\n)\x81}")
            .text("_content")
            .raw(b"}(");
        write(self);
        self.raw(b"usb")
    }
}

/// A checkpoint as the reference writes it.
struct Lightning<'a> {
    algorithm: &'a str,
    live: Vec<NamedTensor>,
    averages: Vec<NamedTensor>,
}

impl Lightning<'_> {
    fn pickle(&self) -> Pickler {
        let mut p = Pickler::default();
        p.raw(b"\x80\x02}(").text("global_step").int(1234);
        p.text("state_dict").raw(b"ccollections\nOrderedDict\n)R(");
        for tensor in &self.live {
            p.text(&tensor.name).tensor(tensor);
        }
        p.raw(b"u")
            .text("ema")
            .raw(b"}(")
            .text("shadow_params")
            .raw(b"](");
        for tensor in &self.averages {
            p.tensor(tensor);
        }
        p.raw(b"e")
            .text("decay")
            .raw(b"G")
            .raw(&0.5_f64.to_be_bytes());
        p.raw(b"u")
            .text("hyper_parameters")
            .raw(b"}")
            .text("config");
        p.config(|p| {
            p.text("algo").config(|p| {
                p.text("name").node(|p| p.text(self.algorithm));
            });
            p.text("model").config(|p| {
                p.text("length").node(|p| p.int(3));
                p.text("dropout")
                    .node(|p| p.raw(b"G").raw(&0.25_f64.to_be_bytes()));
            });
        });
        p.raw(b"su.");
        p
    }

    fn write(&self, path: &Path) {
        let pickle = self.pickle();
        write_archive(path, &pickle.bytes, &pickle.storages);
    }
}

fn write_archive(path: &Path, pickle: &[u8], storages: &[Vec<u8>]) {
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut zip = ZipWriter::new(fs::File::create(path).unwrap());
    let mut file = |name: String, content: &[u8]| {
        zip.start_file(name, stored).unwrap();
        zip.write_all(content).unwrap();
    };
    file("model/data.pkl".to_owned(), pickle);
    file("model/byteorder".to_owned(), b"little");
    for (key, content) in storages.iter().enumerate() {
        file(format!("model/data/{key}"), content);
    }
    zip.finish().unwrap();
}

fn config(two_time: bool) -> DitConfig {
    DitConfig {
        cond_dim: 6,
        dropout: 0.25,
        ..DitConfig::new(5, 3, 8, 2, 2).with_two_time(two_time)
    }
}

fn network(config: &DitConfig, seed: u64) -> Dit<Flex> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    config.init(&mut rng, &Default::default()).unwrap()
}

fn rotary(config: &DitConfig) -> NamedTensor {
    let values = sizes::frequencies(config);
    NamedTensor {
        name: sizes::ROTARY.to_owned(),
        shape: vec![values.len()],
        values,
    }
}

/// The parameters of a network as in a `state_dict`: with a prefix, and a constant among them.
fn state(model: &Dit<Flex>, config: &DitConfig, prefix: &str) -> Vec<NamedTensor> {
    let mut tensors = named_tensors(model);
    tensors.insert(5, rotary(config));
    for tensor in &mut tensors {
        tensor.name.insert_str(0, prefix);
    }
    tensors
}

/// A checkpoint of a two-time network. Its averages are the parameters of another network.
fn checkpoint(algorithm: &str) -> Lightning<'_> {
    let config = config(true);
    Lightning {
        algorithm,
        live: state(&network(&config, 1), &config, "backbone._orig_mod."),
        averages: named_tensors(&network(&config, 2)),
    }
}

fn home() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn load(path: &Path, weights: Weights, hints: &Hints) -> Result<(Dit<Flex>, DitConfig), String> {
    let loaded = ReferenceCheckpoint::open(path)
        .and_then(|file| file.load(weights, hints, &Default::default()));
    loaded.map_err(|error| error.to_string())
}

/// The error for a checkpoint, without its path.
fn fault(checkpoint: &Lightning<'_>, weights: Weights) -> String {
    let home = home();
    let path = home.path().join("x.ckpt");
    checkpoint.write(&path);
    let fault = load(&path, weights, &Hints::default()).unwrap_err();
    let place = format!("{}", path.display());
    fault.replacen(&place, "x.ckpt", 1)
}

#[test]
fn a_checkpoint_gives_its_averages_or_its_parameters() {
    let home = home();
    let path = home.path().join("x.ckpt");
    checkpoint("fmlm").write(&path);
    let file = ReferenceCheckpoint::open(&path).unwrap();
    let settings = file.settings();
    assert_eq!(settings.algorithm.as_deref(), Some("fmlm"));
    assert_eq!((settings.step, settings.decay), (Some(1234), Some(0.5)));
    assert_eq!(file.kind().unwrap(), Kind::FlowMap);
    assert!(file.has_averages());

    let device = Default::default();
    let hints = Hints::default();
    let (averaged, found) = file
        .load::<Flex>(Weights::Averaged, &hints, &device)
        .unwrap();
    assert_eq!(found, config(true));
    let expected = |seed| named_tensors(&network(&config(true), seed));
    assert_eq!(named_tensors(&averaged), expected(2));
    let (live, _) = file.load::<Flex>(Weights::Live, &hints, &device).unwrap();
    assert_eq!(named_tensors(&live), expected(1));
}

#[test]
fn a_network_is_told_by_its_tensors_and_its_name() {
    let kind = |algorithm: &str, two_time| {
        let home = home();
        let path = home.path().join("x.ckpt");
        let config = config(two_time);
        let model = network(&config, 1);
        Lightning {
            algorithm,
            live: state(&model, &config, "backbone."),
            averages: named_tensors(&model),
        }
        .write(&path);
        let found = ReferenceCheckpoint::open(&path).unwrap().kind();
        found.map_err(|error| {
            error
                .to_string()
                .replace(&path.display().to_string(), "x.ckpt")
        })
    };
    assert_eq!(kind("flm", false), Ok(Kind::Flow));
    assert_eq!(kind("dos", false), Ok(Kind::Flow));
    assert_eq!(kind("fmlm", true), Ok(Kind::FlowMap));
    assert_eq!(kind("fmlm_twostage", true), Ok(Kind::FlowMap));
    assert_eq!(kind("fmlm_twomodel", true), Ok(Kind::Residual));
    assert_eq!(
        kind("mdlm", false).unwrap_err(),
        "x.ckpt holds a model of the kind `mdlm`, expected a flow language model or its flow map"
    );
}

#[test]
fn a_teacher_is_left_out_and_any_other_tensor_is_named() {
    let mut good = checkpoint("fmlm");
    let mut teacher = good.live[0].clone();
    teacher.name = "teacher_model.vocab_embed.embedding".to_owned();
    good.live.push(teacher);
    let home = home();
    let path = home.path().join("x.ckpt");
    good.write(&path);
    let file = ReferenceCheckpoint::open(&path).unwrap();
    assert_eq!(file.left_out(), ["teacher_model.vocab_embed.embedding"]);
    assert!(load(&path, Weights::Averaged, &Hints::default()).is_ok());

    let mut stray = checkpoint("fmlm");
    stray.live[3].name = "metrics.loss".to_owned();
    assert_eq!(
        fault(&stray, Weights::Live),
        "x.ckpt: tensor metrics.loss belongs neither to the network (backbone.) nor to a teacher"
    );
    let mut unknown = checkpoint("fmlm");
    unknown.live.push(NamedTensor {
        name: "backbone.gate".to_owned(),
        ..rotary(&config(true))
    });
    assert_eq!(
        fault(&unknown, Weights::Live),
        "x.ckpt: tensor gate of shape [2] does not match any parameter of this network"
    );
}

#[test]
fn averages_must_be_those_of_the_parameters() {
    let mut fewer = checkpoint("fmlm");
    fewer.averages.pop();
    assert_eq!(
        fault(&fewer, Weights::Averaged),
        "x.ckpt holds 34 parameters, but 33 averages: select the live parameters"
    );
    let mut swapped = checkpoint("fmlm");
    swapped.averages.swap(0, 1);
    assert_eq!(
        fault(&swapped, Weights::Averaged),
        "x.ckpt: tensor vocab_embed.embedding has shape [5, 8], its average [6, 256]"
    );
    let mut turned = checkpoint("fmlm");
    turned.live[5].values[1] = 0.5;
    assert_eq!(
        fault(&turned, Weights::Averaged),
        "x.ckpt: tensor rotary_emb.inv_freq must hold the 2 rotary frequencies of base 10000, found other values"
    );
}

#[test]
fn a_plain_dictionary_of_tensors_has_one_set_of_weights() {
    let home = home();
    let path = home.path().join("x.pt");
    let mut p = Pickler::default();
    p.raw(b"\x80\x02}(");
    for tensor in state(&network(&config(true), 1), &config(true), "") {
        p.text(&tensor.name).tensor(&tensor);
    }
    p.raw(b"u.");
    write_archive(&path, &p.bytes, &p.storages);
    let hints = Hints {
        length: Some(3),
        ..Hints::default()
    };
    let (model, found) = load(&path, Weights::Averaged, &hints).unwrap();
    assert_eq!((found.heads, found.length), (2, 3));
    assert_eq!(
        named_tensors(&model),
        named_tensors(&network(&config(true), 1))
    );
    let place = path.display();
    assert_eq!(
        load(&path, Weights::Live, &hints).unwrap_err(),
        format!(
            "{place} holds one set of weights and does not say whether they are averages: load them as they are"
        )
    );
    assert_eq!(
        load(&path, Weights::Averaged, &Hints::default()).unwrap_err(),
        format!("{place} does not specify the network's length: it must be given")
    );
    let heads = Hints {
        heads: Some(4),
        ..hints
    };
    assert_eq!(
        load(&path, Weights::Averaged, &heads).unwrap_err(),
        format!("{place} says that the network's heads is 2, but 4 is given")
    );
}

#[test]
fn files_made_to_take_memory_are_refused_before_they_do() {
    let home = home();
    // A thousand names for one storage: the error comes before any value is read.
    let path = home.path().join("names.pt");
    let mut p = Pickler::default();
    p.raw(b"\x80\x02}(");
    for tensor in state(&network(&config(true), 1), &config(true), "") {
        p.text(&tensor.name).tensor(&tensor);
    }
    let first = named_tensors(&network(&config(true), 1)).remove(0);
    p.text("copy.0").tensor(&first).raw(b"q\x01");
    for i in 1..1000 {
        p.text(&format!("copy.{i}")).raw(b"h\x01");
    }
    p.raw(b"u.");
    write_archive(&path, &p.bytes, &p.storages);
    let hints = Hints {
        length: Some(3),
        ..Hints::default()
    };
    let found = load(&path, Weights::Averaged, &hints).unwrap_err();
    assert!(
        found.ends_with("copy.0 of shape [5, 8] does not match any parameter of this network"),
        "{found}"
    );
    // A dictionary of settings that contains itself under every key that is read.
    let path = home.path().join("itself.ckpt");
    let mut p = Pickler::default();
    p.raw(b"\x80\x02}(")
        .text("state_dict")
        .raw(b"}")
        .text("hyper_parameters")
        .raw(b"}q\x01(");
    for key in ["config", "algo", "model", "data"] {
        p.text(key).raw(b"h\x01");
    }
    p.raw(b"uu.");
    write_archive(&path, &p.bytes, &[]);
    assert_eq!(
        ReferenceCheckpoint::open(&path).unwrap().settings(),
        &Settings::default()
    );
}

#[test]
fn sixteen_bits_are_read_with_their_rotary_frequencies() {
    let home = home();
    let config = config(false);
    let tensors = state(&network(&config, 1), &config, "");
    for (dtype, bits) in [
        (
            ::safetensors::Dtype::F16,
            burn::tensor::f16::to_le_bytes as fn(_) -> _,
        ),
        (::safetensors::Dtype::BF16, |half: burn::tensor::f16| {
            burn::tensor::bf16::from_f32(half.to_f32()).to_le_bytes()
        }),
    ] {
        let path = home.path().join(format!("{dtype}.safetensors"));
        let bytes: Vec<Vec<u8>> = (tensors.iter())
            .map(|tensor| {
                let halves = tensor
                    .values
                    .iter()
                    .map(|value| burn::tensor::f16::from_f32(*value));
                halves.flat_map(bits).collect()
            })
            .collect();
        let views = tensors.iter().zip(&bytes).map(|(tensor, bytes)| {
            let shape = tensor.shape.clone();
            let view = ::safetensors::tensor::TensorView::new(dtype, shape, bytes).unwrap();
            (&tensor.name, view)
        });
        fs::write(&path, ::safetensors::serialize(views, None).unwrap()).unwrap();
        let hints = Hints {
            length: Some(3),
            ..Hints::default()
        };
        let (found, _) = load(&path, Weights::Averaged, &hints).unwrap();
        let expected = named_tensors(&network(&config, 1));
        for (found, expected) in named_tensors(&found).iter().zip(&expected) {
            for (a, b) in found.values.iter().zip(&expected.values) {
                assert!((a - b).abs() <= 1e-2 * b.abs() + 1e-6, "{}", found.name);
            }
        }
    }
}

#[test]
fn what_goes_out_comes_in_again() {
    let home = home();
    for (number, two_time, residual) in [(0, false, false), (1, true, false), (2, true, true)] {
        let config = DitConfig {
            residual,
            loss_weight: residual,
            ..config(two_time)
        };
        let model = network(&config, 3);
        let folder = home.path().join(format!("model-{number}"));
        export(
            &folder,
            &model,
            &config,
            ExportFormat::HuggingFace,
            Existing::Refuse,
        )
        .unwrap();
        let (found, sizes) = load(&folder, Weights::Averaged, &Hints::default()).unwrap();
        assert_eq!(sizes, config);
        assert_eq!(named_tensors(&found), named_tensors(&model));

        let file = home.path().join(format!("model-{number}.safetensors"));
        export(
            &file,
            &model,
            &config,
            ExportFormat::StateDict,
            Existing::Refuse,
        )
        .unwrap();
        let hints = Hints {
            length: Some(3),
            kind: residual.then_some(Kind::Residual),
            ..Hints::default()
        };
        let (found, _) = load(&file, Weights::Averaged, &hints).unwrap();
        assert_eq!(named_tensors(&found), named_tensors(&model));
        let again = export(
            &file,
            &model,
            &config,
            ExportFormat::StateDict,
            Existing::Refuse,
        );
        assert!(again.unwrap_err().to_string().ends_with("exists already"));
        assert!(
            load(&file, Weights::Live, &hints)
                .unwrap_err()
                .contains("one set of weights")
        );
    }
}

#[test]
fn what_the_reference_cannot_have_is_not_written() {
    let [mut register, mut evidence] = [(), ()].map(|()| config(false));
    (register.register_token, evidence.evidence) = (true, true);
    for (key, config) in [("register_token", register), ("evidence", evidence)] {
        let home = home();
        let place = home.path().join("model");
        let refused = export(
            &place,
            &network(&config, 1),
            &config,
            ExportFormat::HuggingFace,
            Existing::Refuse,
        );
        assert_eq!(
            refused.unwrap_err().to_string(),
            format!(
                "the network has {key} = true, which the reference does not support: only false can be exported"
            )
        );
        assert!(!place.exists());
    }
}

#[test]
fn hostile_files_end_in_a_sentence() {
    let home = home();
    let path = home.path().join("x.ckpt");
    let message = |content: &[u8]| {
        fs::write(&path, content).unwrap();
        let message = load(&path, Weights::Averaged, &Hints::default()).unwrap_err();
        message.replace(&path.display().to_string(), "x.ckpt")
    };
    assert!(message(b"").starts_with("x.ckpt is not a readable checkpoint: "));
    assert!(message(b"\x80\x02}q\x00.").contains("zip archives since PyTorch 1.6"));

    checkpoint("fmlm").write(&path);
    let good = fs::read(&path).unwrap();
    assert!(message(&good[..good.len() / 2]).starts_with("x.ckpt is not a readable checkpoint"));
    // One flipped bit of an average fails the archive's checksum.
    let mut flipped = good.clone();
    let place = flipped.len() * 7 / 8;
    flipped[place] ^= 1;
    let found = message(&flipped);
    assert!(found.contains("hecksum"), "{found}");

    write_archive(&path, b"cos\nsystem\n(X\x01\x00\x00\x00atR.", &[]);
    let bytes = fs::read(&path).unwrap();
    assert!(
        message(&bytes).starts_with("x.ckpt is not a readable checkpoint: it imports os.system,")
    );
    write_archive(&path, b"\x80\x02K\x01.", &[]);
    let bytes = fs::read(&path).unwrap();
    assert_eq!(
        message(&bytes),
        "x.ckpt is not a readable checkpoint: expected a dictionary, found a number"
    );
    // A tensor larger than its storage.
    let mut huge = checkpoint("fmlm");
    huge.averages[0].shape = vec![1 << 30, 1 << 30];
    assert!(fault(&huge, Weights::Averaged).contains("does not fit in its storage of 40 numbers"));
    // A block index without its blocks.
    let mut far = checkpoint("fmlm");
    far.live[10].name = "backbone.blocks.99999999999.attn_qkv.weight".to_owned();
    assert!(fault(&far, Weights::Live).contains("is missing"));
}

#[test]
fn compressed_archives_are_refused_before_they_are_unpacked() {
    let home = home();
    let path = home.path().join("x.ckpt");
    checkpoint("fmlm").write(&path);
    let mut bytes = fs::read(&path).unwrap();
    // Sets the method of every entry, in both places that store it, to deflate.
    for i in 0..bytes.len() - 12 {
        match &bytes[i..i + 4] {
            b"PK\x03\x04" => bytes[i + 8] = 8,
            b"PK\x01\x02" => bytes[i + 10] = 8,
            _ => {}
        }
    }
    fs::write(&path, bytes).unwrap();
    let found = load(&path, Weights::Averaged, &Hints::default()).unwrap_err();
    assert!(found.contains("compress"), "{found}");
}

/// A `.safetensors` file with this header and `bytes` bytes of data.
fn safetensors_of(header: &str, bytes: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + bytes, 0);
    file
}

#[test]
fn files_of_tensors_that_lie_are_refused() {
    let home = home();
    let path = home.path().join("x.safetensors");
    let tensor = |name: &str, shape: &str, from: usize, to: usize| {
        format!(r#""{name}":{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    };
    let overlapping = format!(
        "{{{},{}}}",
        tensor("a", "[2]", 0, 8),
        tensor("b", "[2]", 4, 12)
    );
    let beyond = format!("{{{}}}", tensor("a", "[2]", 0, 8));
    let huge = format!("{{{}}}", tensor("a", "[4611686018427387904,4]", 0, 8));
    let other = r#"{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}"#;
    for (content, expected) in [
        (safetensors_of(&overlapping, 12), "truncated, corrupt"),
        (safetensors_of(&beyond, 4), "truncated, corrupt"),
        (safetensors_of(&huge, 8), "truncated, corrupt"),
        (
            safetensors_of(other, 8),
            "tensor a has type I64, expected F32, F16 or BF16",
        ),
        (vec![0xff; 64], "truncated, corrupt"),
        (Vec::new(), "truncated, corrupt"),
    ] {
        fs::write(&path, content).unwrap();
        let found = load(&path, Weights::Averaged, &Hints::default()).unwrap_err();
        assert!(found.contains(expected), "{found}");
    }
}

/// A valid file with a few bytes changed, possibly truncated.
fn harmed(good: &[u8], changes: &[(prop::sample::Index, u8)], end: prop::sample::Index) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for (place, byte) in changes {
        bytes[place.index(good.len())] = *byte;
    }
    // Untruncated half of the time.
    let end = end.index(2 * good.len());
    bytes.truncate(end.max(1));
    bytes
}

fn harm() -> impl Strategy<Value = (Vec<(prop::sample::Index, u8)>, prop::sample::Index)> {
    let change = (any::<prop::sample::Index>(), any::<u8>());
    (
        prop::collection::vec(change, 0..4),
        any::<prop::sample::Index>(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A damaged checkpoint is read or gives an error.
    #[test]
    fn a_harmed_checkpoint_does_not_panic((changes, end) in harm()) {
        let home = home();
        let path = home.path().join("x.ckpt");
        // Fewer tensors, so that more changes hit the structure.
        let mut small = checkpoint("fmlm");
        small.live.truncate(4);
        small.averages.truncate(3);
        small.write(&path);
        let good = fs::read(&path).unwrap();
        fs::write(&path, harmed(&good, &changes, end)).unwrap();
        if let Ok(file) = ReferenceCheckpoint::open(&path) {
            let _ = file.config(&Hints::default());
            let _ = file.load::<Flex>(Weights::Averaged, &Hints::default(), &Default::default());
        }
    }

    #[test]
    fn a_harmed_file_of_tensors_does_not_panic((changes, end) in harm()) {
        let home = home();
        let path = home.path().join("x.safetensors");
        let config = config(false);
        export(&path, &network(&config, 3), &config, ExportFormat::StateDict, Existing::Refuse).unwrap();
        let good = fs::read(&path).unwrap();
        // Damage the header only.
        let header = good.len().min(3000);
        let mut bytes = harmed(&good[..header], &changes, end);
        if bytes.len() == header {
            bytes.extend(&good[header..]);
        }
        fs::write(&path, bytes).unwrap();
        let hints = Hints { length: Some(3), ..Hints::default() };
        let _ = load(&path, Weights::Averaged, &hints);
    }
}
