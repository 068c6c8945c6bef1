//! The checked-in JSON Schema is the one that the types generate. `UPDATE=1` writes it anew.

use std::path::Path;

#[test]
fn the_schema_in_the_repository_is_current() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/site-plan.schema.json");
    let mut current = serde_json::to_string_pretty(&seimon_plan::schema()).expect("a schema is JSON");
    current.push('\n');
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &current).expect("the schema can be written");
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(written == current, "{} is old: run this test with UPDATE=1", file.display());
}

#[test]
fn every_key_of_the_schema_is_described() {
    fn walk(place: &str, schema: &serde_json::Value, undescribed: &mut Vec<String>) {
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            if property.get("description").is_none() && property.get("$ref").is_none() {
                undescribed.push(format!("{place}.{key}"));
            }
        }
        for branch in schema["anyOf"].as_array().into_iter().flatten() {
            walk(place, branch, undescribed);
        }
    }
    let schema = seimon_plan::schema();
    let mut undescribed = Vec::new();
    walk("", &schema, &mut undescribed);
    for (name, definition) in schema["$defs"].as_object().expect("definitions") {
        walk(name, definition, &mut undescribed);
    }
    assert!(undescribed.is_empty(), "{undescribed:?}");
}
