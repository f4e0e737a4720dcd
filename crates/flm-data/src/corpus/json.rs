//! One string out of a line of JSON, without holding the rest of the line as a tree.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// What a line of JSON has in a field.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Field {
    Text(String),
    Null,
    /// The line is no object, or the field is missing or something else.
    Missing,
}

/// The string in a field of a JSON object.
pub(super) fn string_field(json: &str, field: &str) -> serde_json::Result<Field> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let text = Pick { field: Some(field) }.deserialize(&mut reader)?;
    reader.end()?;
    Ok(text)
}

/// At the top: looks for a field. At its value: takes a string.
struct Pick<'a> {
    field: Option<&'a str>,
}

impl<'de> DeserializeSeed<'de> for Pick<'_> {
    type Value = Field;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Pick<'_> {
    type Value = Field;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Field::Missing;
        while let Some(key) = map.next_key::<String>()? {
            // Of a field that is there twice the last one counts, as in most readers.
            if self.field == Some(key.as_str()) {
                found = map.next_value_seed(Pick { field: None })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::Missing)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        self.visit_string(text.to_owned())
    }

    fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
        Ok(match self.field {
            None => Field::Text(text),
            Some(_) => Field::Missing,
        })
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Field::Missing)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Field::Missing)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Field::Missing)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Field::Missing)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(match self.field {
            None => Field::Null,
            Some(_) => Field::Missing,
        })
    }
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
        // Nesting without end would be a stack without end.
        assert!(string_field(&"[".repeat(1 << 20), "text").is_err());
        let deep = format!(r#"{{"a": {}"#, r#"{"a":"#.repeat(1 << 20));
        assert!(string_field(&deep, "text").is_err());
    }
}
