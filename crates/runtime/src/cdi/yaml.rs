//! YAML text as a JSON value: as much of it as vendors write. Aliases are refused.

use granit_parser::{Event, Parser, ScalarStyle, options};
use serde_json::{Map, Value};

/// The deepest nesting.
const MAX_DEPTH: usize = 32;

/// A list or map that is not closed yet.
enum Open {
    List(Vec<Value>),
    Map(Map<String, Value>, Option<String>),
}

/// Reads the first document.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let options = options! {
        block_nesting_limit: MAX_DEPTH,
        flow_nesting_limit: MAX_DEPTH,
        emit_comments: false,
    };
    let mut stack: Vec<Open> = Vec::new();
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) =
            event.map_err(|error| format!("line {}: {}", error.marker().line(), error.info()))?;
        let value = match event {
            Event::SequenceStart(..) => {
                stack.push(Open::List(Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                stack.push(Open::Map(Map::new(), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match stack.pop() {
                Some(Open::List(list)) => Value::Array(list),
                Some(Open::Map(map, _)) => Value::Object(map),
                None => return Err("it closes what it did not open".to_owned()),
            },
            Event::Scalar(text, style, ..) => scalar(&text, style == ScalarStyle::Plain),
            Event::Alias(..) => {
                return Err(format!("line {}: aliases are not read", span.start.line()));
            }
            _ => continue,
        };
        match stack.last_mut() {
            Some(Open::List(list)) => list.push(value),
            Some(Open::Map(map, key)) => match key.take() {
                Some(key) => {
                    map.insert(key, value);
                }
                None => {
                    *key = Some(match value {
                        Value::String(text) => text,
                        other => other.to_string(),
                    });
                }
            },
            None => return Ok(value),
        }
    }
    Err("it is empty".to_owned())
}

/// A plain scalar by the core schema (YAML 1.2.2, 10.3.2), and octal numbers as Go reads them.
fn scalar(text: &str, plain: bool) -> Value {
    if !plain {
        return Value::from(text);
    }
    let octal = text
        .strip_prefix("0o")
        .or_else(|| text.strip_prefix('0').filter(|rest| !rest.is_empty()));
    if let Some(number) = octal.and_then(|digits| u64::from_str_radix(digits, 8).ok()) {
        return Value::from(number);
    }
    match text {
        "" | "~" | "null" => Value::Null,
        "true" => Value::from(true),
        "false" => Value::from(false),
        _ => text
            .parse::<i64>()
            .map_or_else(|_| Value::from(text), Value::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_is_read_as_json_would_be() {
        let text = "a: [1, \"2\", x]\nb:\n  - {c: true, d: 0666}\n  - ~\n'3': null\n";
        let expected =
            serde_json::json!({"a": [1, "2", "x"], "b": [{"c": true, "d": 438}, null], "3": null});
        assert_eq!(parse(text).expect("yaml"), expected);
        for bad in ["", "a: [", "a: &x 1\nb: *x\n"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
