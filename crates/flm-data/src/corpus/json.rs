//! Extracts one string from a line of JSON without building a tree of the line.

use serde_json::value::RawValue;
use std::collections::HashMap;

/// The value of a field in a line of JSON.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Field {
    Text(String),
    Null,
    /// The line is not an object, or the field is missing or has another type.
    Missing,
}

/// Returns the string in a field of a JSON object. For a duplicate field, the last value counts.
pub(super) fn string_field(json: &str, field: &str) -> serde_json::Result<Field> {
    let whole: &RawValue = serde_json::from_str(json)?;
    if !whole.get().starts_with('{') {
        return Ok(Field::Missing);
    }
    let fields: HashMap<String, &RawValue> = serde_json::from_str(whole.get())?;
    let value = fields.get(field).map_or("false", |value| value.get());
    Ok(match value.as_bytes()[0] {
        b'"' => Field::Text(serde_json::from_str(value)?),
        b'n' => Field::Null,
        _ => Field::Missing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_string_of_the_object_itself_is_found() {
        let find = |json: &str| string_field(json, "text").unwrap();
        let found = |text: &str| Field::Text(text.to_owned());
        assert_eq!(
            find(r#"{"a": [{"text": 1}], "text": "x\ny"}"#),
            found("x\ny")
        );
        assert_eq!(find(r#"{"text": "a", "text": "b"}"#), found("b"));
        assert_eq!(find(r#"{"t\u0065xt": "a"}"#), found("a"));
        for json in [
            r#"{"a": {"text": "x"}}"#,
            r#"{"text": {"text": "x"}}"#,
            r#"{"text": ["x"]}"#,
            r#"{"text": "a", "text": 1.5}"#,
            r#"["text"]"#,
            r#""text""#,
            "true",
            "-3",
            "3",
            "null",
        ] {
            assert_eq!(find(json), Field::Missing, "{json}");
        }
    }

    #[test]
    fn null_is_not_missing() {
        let find = |json: &str| string_field(json, "text").unwrap();
        assert_eq!(find(r#"{"a": 1, "text": null}"#), Field::Null);
        assert_eq!(find(r#"{"a": null}"#), Field::Missing);
    }

    #[test]
    fn what_is_not_json_is_an_error_wherever_it_is() {
        for json in [
            "",
            "{",
            r#"{"text": "a"} b"#,
            r#"{"a": [1, }"#,
            r#"{"text": "\ud800"}"#,
        ] {
            assert!(string_field(json, "text").is_err(), "{json}");
        }
        // Unbounded nesting must not overflow the stack.
        assert!(string_field(&"[".repeat(1 << 20), "text").is_err());
        let deep = format!(r#"{{"a": {}"#, r#"{"a":"#.repeat(1 << 20));
        assert!(string_field(&deep, "text").is_err());
    }
}
