//! Compares detokenizers with the output of the published code.

use flm_data::Detokenizer;

fn golden() -> serde_json::Value {
    serde_json::from_str(include_str!("golden/text.json")).unwrap()
}

#[test]
fn texts_come_out_as_from_the_published_code() {
    let golden = golden();
    for name in ["lm1b", "wikitext", "ptb", "lambada"] {
        let detokenizer: Detokenizer = name.parse().unwrap();
        let pairs: Vec<[String; 2]> = serde_json::from_value(golden[name].clone()).unwrap();
        assert!(!pairs.is_empty());
        for [text, expected] in pairs {
            assert_eq!(detokenizer.apply(&text), expected, "{name}: {text:?}");
        }
    }
}

#[test]
fn the_packed_documents_are_the_detokenized_ones() {
    let golden = golden();
    let pairs: Vec<[String; 2]> = serde_json::from_value(golden["lm1b"].clone()).unwrap();
    for case in ["lm1b_wrap", "owt_wrap"] {
        let documents: Vec<String> =
            serde_json::from_value(golden[case]["documents"].clone()).unwrap();
        for (document, [text, _]) in documents.iter().zip(pairs.iter().cycle()) {
            assert_eq!(Detokenizer::Lm1b.apply(text), *document);
        }
    }
}

proptest::proptest! {
    /// LAMBADA's rules are idempotent. The other rules are not.
    #[test]
    fn only_lambada_settles_at_once(text in ".*") {
        let once = Detokenizer::Lambada.apply(&text).into_owned();
        assert_eq!(Detokenizer::Lambada.apply(&once), once);
    }
}

#[test]
fn a_second_application_may_change_a_text_again() {
    let once = Detokenizer::Lm1b
        .apply("barked and ' left ' .")
        .into_owned();
    assert_eq!(once, "barked and 'left' .");
    assert_eq!(Detokenizer::Lm1b.apply(&once), "barked and'left' .");
}
