use super::*;
use proptest::prelude::*;

fn fault(bytes: &[u8]) -> String {
    Heap::read(bytes).unwrap_err()
}

#[test]
fn values_of_every_protocol_are_read() {
    // pickle.dumps({"a": [1, -2, 70000, True, None, 0.5], "b": (1, 2)}, protocol)
    let zero: &[u8] =
        b"(dp0\nVa\np1\n(lp2\nI1\naI-2\naI70000\naI01\naNaF0.5\nasVb\np3\n(I1\nI2\ntp4\ns.";
    let two = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01J\xfe\xff\xff\xffJp\x11\x01\x00\x88NG?\xe0\x00\x00\x00\x00\x00\x00eX\x01\x00\x00\x00bq\x03K\x01K\x02\x86q\x04u.";
    let four = b"\x80\x04\x95*\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94]\x94(K\x01J\xfe\xff\xff\xffJp\x11\x01\x00\x88NG?\xe0\x00\x00\x00\x00\x00\x00e\x8c\x01b\x94K\x01K\x02\x86\x94u.";
    for bytes in [zero, two, four] {
        let heap = Heap::read(bytes).unwrap();
        let keys: Vec<_> = heap.entries(heap.root()).unwrap();
        assert_eq!(keys.len(), 2);
        let list = heap.get(heap.root(), "a").unwrap();
        let Value::List(items) = heap.value(list) else {
            panic!("no list")
        };
        let items: Vec<_> = items.iter().map(|id| heap.value(*id).clone()).collect();
        let expected = [
            Value::Int(1),
            Value::Int(-2),
            Value::Int(70000),
            Value::Bool(true),
            Value::None,
            Value::Float(0.5),
        ];
        assert_eq!(items, expected);
        let pair = heap.get(heap.root(), "b").unwrap();
        assert!(matches!(heap.value(pair), Value::Tuple(items) if items.len() == 2));
        assert_eq!(heap.get(heap.root(), "c"), None);
    }
}

#[test]
fn long_numbers_are_signed() {
    let value = |bytes: &[u8]| {
        let heap = Heap::read(bytes).unwrap();
        heap.value(heap.root()).clone()
    };
    assert_eq!(value(b"\x8a\x00."), Value::Int(0));
    assert_eq!(value(b"\x8a\x01\xff."), Value::Int(-1));
    assert_eq!(value(b"\x8a\x02\xff\x00."), Value::Int(255));
    assert_eq!(value(b"\x8a\x05\x00\x00\x00\x00\x01."), Value::Int(1 << 32));
    assert_eq!(
        value(b"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01."),
        Value::Opaque
    );
    assert_eq!(value(b"L12L\n."), Value::Int(12));
}

#[test]
fn what_would_do_harm_is_refused_by_name_and_not_run() {
    let harm =
        "which no checkpoint needs, so the file may be malicious; nothing in the pickle was run";
    assert_eq!(
        fault(b"cos\nsystem\n(S'touch harm'\ntR."),
        format!("it imports os.system, {harm}")
    );
    assert_eq!(
        fault(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R."),
        format!("it imports builtins.eval, {harm}")
    );
    assert_eq!(
        fault(b"cbuiltins\nexec.__call__\n."),
        format!("it imports builtins.exec.__call__, {harm}")
    );
    for module in ["posix", "nt", "subprocess", "importlib.util", "os.path"] {
        let bytes = format!("c{module}\nanything\n.");
        assert!(fault(bytes.as_bytes()).contains(harm), "{module}");
    }
    // Obsolete ways to create objects, and extensions, are unsupported.
    for (code, name) in [(b'i', "69"), (b'o', "6f"), (0x82, "82"), (b'P', "50")] {
        assert_eq!(
            fault(&[code, b'.']),
            format!("its pickle has instruction 0x{name}, which checkpoints do not use")
        );
    }
}

#[test]
fn a_call_that_is_not_known_makes_something_opaque() {
    let heap = Heap::read(b"\x80\x02crandom\nRandom\n)R.").unwrap();
    assert_eq!(heap.value(heap.root()), &Value::Opaque);
}

#[test]
fn broken_programs_are_told() {
    let early = "its pickle ends early";
    for bytes in [
        &b""[..],
        b"}",
        b"X\xff\xff\xff\xffabc.",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc.",
        b"\x8b\xff\xff\xff\xff.",
        b"cos",
    ] {
        assert_eq!(fault(bytes), early);
    }
    assert_eq!(fault(b"."), "its pickle pops from an empty stack");
    assert_eq!(fault(b"}(0."), "its pickle pops from an empty stack");
    assert_eq!(fault(b"t."), "its pickle lacks a mark");
    assert_eq!(
        fault(b"h\x05."),
        "its pickle uses a value before its definition"
    );
    assert_eq!(
        fault(b"K\x01K\x02\x93."),
        "its pickle names a class by non-string values"
    );
}

#[test]
fn names_and_shapes_without_bounds_are_not_copied() {
    let long = [b"cmodule\n", &[b'x'; 5000][..], b"\n."].concat();
    assert!(fault(&long).contains("more than 256 bytes"));
    let mut many = b"ctorch._utils\n_rebuild_tensor_v2\n(NK\x00(".to_vec();
    many.extend(b"K\x01".repeat(50));
    many.extend(b"t)tR.");
    let heap = Heap::read(&many).unwrap();
    assert_eq!(heap.value(heap.root()), &Value::Opaque);
}

#[test]
fn copies_of_large_values_are_not_made() {
    // A string of a megabyte, passed a thousand times to the function that wraps tensors, is
    // stored once.
    let mut bytes = b"ctorch._utils\n_rebuild_parameter\nq\x00X\x00\x00\x10\x00".to_vec();
    bytes.extend(vec![b'x'; 1 << 20]);
    bytes.extend(b"q\x010(");
    bytes.extend(b"h\x00h\x01\x85R".repeat(1000));
    bytes.extend(b"l.");
    let heap = Heap::read(&bytes).unwrap();
    let texts = |value: &&Value| matches!(value, Value::Text(_));
    assert_eq!(heap.values.iter().filter(texts).count(), 1);
    assert!(fault(&b"N".repeat(2 << 20)).contains("more than a million values"));
    assert!(fault(&[&b"Nq\x00"[..], &b"h\x00".repeat(2 << 20)].concat()).contains("million"));
}

proptest! {
    /// Arbitrary bytes give a value or an error.
    #[test]
    fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Heap::read(&bytes);
    }

    /// The same for almost valid programs.
    #[test]
    fn no_sequence_of_instructions_panics(
        codes in prop::collection::vec(
            prop::sample::select(b"(.012N)]}lde\x88\x89\x85\x86\x87tasu\x8f\x90\x91QRb\x81\x92\x93\x94".to_vec()),
            0..60,
        ),
        names in any::<bool>(),
    ) {
        let mut bytes = if names {
            b"ctorch._utils\n_rebuild_tensor_v2\nX\x01\x00\x00\x00aK\x01ctorch\nFloatStorage\n".to_vec()
        } else {
            Vec::new()
        };
        bytes.extend(codes);
        let _ = Heap::read(&bytes);
    }
}
