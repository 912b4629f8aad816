//! The OpenAPI document: what the handlers say of themselves, and what is the same for all of them.

use serde_json::{Value, json};

use super::access;
use super::{exec, roll, sse};

/// The document with what holds for every endpoint: how one is let in, the errors, and what POSTs and streams take.
pub(super) fn complete(mut document: Value) -> Value {
    document["components"]["securitySchemes"] = json!({
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "A token's secret (`layby token create`). On the Unix socket none is needed.",
        },
        "named-token": {
            "type": "http",
            "scheme": "basic",
            "description": "A token's name and secret.",
        },
    });
    document["security"] = json!([{"token": []}, {"named-token": []}, {}]);
    bound(&mut document);
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for (path, methods) in paths {
        for (method, operation) in methods.as_object_mut().into_iter().flatten() {
            roll::describe(path, method, operation);
            exec::describe(path, operation);
            one(path, method, operation);
        }
    }
    document
}

/// Numbers without a sign, which are said to have one: how large they may be.
fn bound(value: &mut Value) {
    let unsigned = value.get("minimum").and_then(Value::as_u64) == Some(0);
    let bounds = match value.get("format").and_then(Value::as_str) {
        Some("int32") if unsigned => Some(("uint32", u64::from(u32::MAX))),
        Some("int64") if unsigned => Some(("uint64", u64::MAX)),
        Some(_) | None => None,
    };
    if let (Some((format, most)), Some(schema)) = (bounds, value.as_object_mut()) {
        schema.insert("format".to_owned(), json!(format));
        schema.entry("maximum").or_insert(json!(most));
    }
    match value {
        Value::Object(fields) => fields.values_mut().for_each(bound),
        Value::Array(items) => items.iter_mut().for_each(bound),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What an operation is called: it must be unique (OpenAPI 3.1, "Operation Object"), which the handlers' own names are not.
fn operation_id(path: &str, method: &str) -> String {
    let words = path.trim_start_matches("/v1").split(['/', '.', '-']);
    let words = words.map(|word| word.trim_matches(['{', '}']));
    let words = words.filter(|word| !word.is_empty());
    let words: Vec<&str> = std::iter::once(method).chain(words).collect();
    words.join("_")
}

fn one(path: &str, method: &str, operation: &mut Value) {
    operation["operationId"] = json!(operation_id(path, method));
    let method = axum::http::Method::from_bytes(method.to_uppercase().as_bytes());
    let rule = method.ok().and_then(|method| access::rule(&method, path));
    if let Some(rule) = rule {
        operation["x-layby-role"] = json!(rule.role.text());
    }
    let problem = json!({"$ref": "#/components/schemas/Problem"});
    operation["responses"]["default"] = json!({
        "description": "What went wrong (RFC 9457)",
        "content": {"application/problem+json": {"schema": problem}},
    });
    let mut streams = false;
    for (_, response) in operation["responses"].as_object_mut().into_iter().flatten() {
        let content = response.get_mut("content").and_then(Value::as_object_mut);
        if let Some(content) = content
            && content.contains_key(sse::LINES)
        {
            streams = true;
            let text = json!({"schema": {"type": "string"}});
            content.insert(sse::KIND.to_owned(), text);
        }
    }
    if rule.is_some_and(|rule| rule.method == "POST") {
        let mut add = vec![json!({
            "name": "Idempotency-Key",
            "in": "header",
            "description": "A request that comes again with the same key within a day is not carried out again: it gets the first one's answer",
            "required": false,
            "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
        })];
        if streams {
            add.push(json!({
                "name": "Prefer",
                "in": "header",
                "description": "`respond-async`: answer 202 and an operation at once",
                "required": false,
                "schema": {"type": "string"},
            }));
            operation["responses"]["202"] = json!({
                "description": "It goes on as an operation, which was asked for by `Prefer: respond-async`, or by `detach=true` without accepting a stream",
                "headers": {"Location": {"schema": {"type": "string"}, "description": "The operation"}},
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/OperationView"}}},
            });
        }
        match operation["parameters"].as_array_mut() {
            Some(parameters) => parameters.extend(add),
            None => operation["parameters"] = Value::Array(add),
        }
    }
}
