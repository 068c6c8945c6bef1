//! Journals as another version of the agent would have left them: an older one that did not have every field, a newer one
//! that has more. Known to nobody who decides.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Who wrote the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Writer {
    /// Without the fields that came later, where they say nothing else than their absence does.
    Older,
    /// With fields, records and kinds of records that this version has never heard of.
    Newer,
}

/// Kind of the agent's records.
const KIND: u16 = 1;
/// Fields of a checkpoint that came with a default.
const LATER: [&str; 5] = ["previous", "holds", "paused", "tried", "drain_left_ms"];

/// The same records, as the other version would have written them.
pub fn rewritten(records: impl IntoIterator<Item = (u16, Vec<u8>)>, writer: Writer) -> Vec<(u16, Vec<u8>)> {
    let mut all: Vec<(u16, Vec<u8>)> = records
        .into_iter()
        .map(|(kind, payload)| {
            let told = serde_json::from_slice(&payload).ok().and_then(|value| retold(value, writer));
            (kind, told.unwrap_or(payload))
        })
        .collect();
    if writer == Writer::Newer {
        all.insert(0, (KIND, br#"{"record":"ticket","of":{"school":7}}"#.to_vec()));
        all.push((KIND, br#"{"record":"verdict","rooms":[1,2]}"#.to_vec()));
        all.push((KIND + 1, b"\x00not even JSON".to_vec()));
    }
    all
}

fn retold(mut record: Value, writer: Writer) -> Option<Vec<u8>> {
    if record["record"] != "checkpoint" {
        return None;
    }
    match writer {
        Writer::Older => strip(record.as_object_mut()?),
        Writer::Newer => adorn(&mut record),
    }
    serde_json::to_vec(&record).ok()
}

fn strip(object: &mut Map<String, Value>) {
    // No time left is not the same as no deadline.
    let says_nothing = |key: &str, value: &Value| {
        value.is_null()
            || *value == Value::Bool(false)
            || (key == "tried" && value.as_u64() == Some(0))
            || value.as_array().is_some_and(Vec::is_empty)
    };
    object.retain(|key, value| !(LATER.contains(&key.as_str()) && says_nothing(key, value)));
    object.values_mut().filter_map(Value::as_object_mut).for_each(strip);
}

fn adorn(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.values_mut().for_each(adorn);
            object.insert("of_a_later_version".into(), serde_json::json!({ "more": [1, "two"] }));
        }
        Value::Array(values) => values.iter_mut().for_each(adorn),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str, writer: Writer) -> Vec<String> {
        let records = rewritten([(KIND, text.as_bytes().to_vec())], writer);
        records.into_iter().map(|(_, payload)| String::from_utf8_lossy(&payload).into_owned()).collect()
    }

    #[test]
    fn an_older_version_leaves_out_only_what_says_nothing() {
        let text =
            r#"{"record":"checkpoint","previous":null,"holds":[],"state":{"left_ms":0,"paused":false}}"#;
        assert_eq!(told(text, Writer::Older), [r#"{"record":"checkpoint","state":{"left_ms":0}}"#]);
        let text = r#"{"record":"checkpoint","state":{"drain_left_ms":0,"state":"soaking"}}"#;
        assert_eq!(told(text, Writer::Older), [text]);
        let text = r#"{"holds":[{"path":"a"}],"record":"checkpoint","state":{"paused":true}}"#;
        assert_eq!(told(text, Writer::Older), [text]);
    }

    #[test]
    fn a_newer_version_says_more_and_leaves_plans_alone() {
        let told = told(r#"{"record":"plan","toml":""}"#, Writer::Newer);
        assert_eq!(told.len(), 4);
        assert!(told.contains(&r#"{"record":"plan","toml":""}"#.to_owned()), "{told:?}");
        let told = self::told(r#"{"record":"checkpoint","state":{"state":"steady"}}"#, Writer::Newer);
        assert_eq!(told[1].matches("of_a_later_version").count(), 2, "{told:?}");
    }
}
