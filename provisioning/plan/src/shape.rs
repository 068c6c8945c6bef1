//! The file against the schema: unknown keys, missing keys, wrong types, malformed values; all of them.
//!
//! What can be left out without changing the meaning of the rest is left out of the returned tree, so that the rules
//! across fields can still be checked and reported in the same run.

use serde_json::Value as Json;

use crate::error::{PlanError, Source, Text, of_file, text};
use crate::format;
use crate::model::SitePlan;
use crate::tree::{Content, Node};

pub(crate) const UNKNOWN_KEY: &str = "plan/unknown-key";
pub(crate) const MISSING_KEY: &str = "plan/missing-key";
pub(crate) const WRONG_TYPE: &str = "plan/wrong-type";
pub(crate) const BAD_VALUE: &str = "plan/bad-value";
pub(crate) const IPV6_UNSAID: &str = "plan/ipv6-unsaid";

/// The schema of a plan.
pub fn schema() -> Json {
    schemars::schema_for!(SitePlan).to_value()
}

/// Checks the tree, takes out what does not belong, and says what it found.
pub(crate) fn check(source: &Source<'_>, tree: &mut Node, schema: &Json) -> Vec<PlanError> {
    let mut walk = Walk { source, schema, errors: Vec::new() };
    walk.node(tree, schema, "");
    walk.errors
}

struct Walk<'a> {
    source: &'a Source<'a>,
    schema: &'a Json,
    errors: Vec<PlanError>,
}

impl<'a> Walk<'a> {
    fn say(&mut self, offset: usize, rule: &'static str, what: Text, fix: Text) {
        self.errors.push(self.source.error(offset, rule, what, fix));
    }

    fn resolve(&self, schema: &'a Json) -> &'a Json {
        let mut schema = schema;
        while let Some(name) = schema["$ref"].as_str() {
            schema = self.schema.pointer(name.trim_start_matches('#')).unwrap_or(&Json::Null);
        }
        schema
    }

    /// The branch of `anyOf`/`oneOf` that the node is meant to be: for tables the one with most of its keys.
    fn branch(&self, node: &Node, schema: &'a Json) -> &'a Json {
        let schema = self.resolve(schema);
        let Some(branches) = schema["anyOf"].as_array() else { return schema };
        let fit = |branch: &Json| match &node.content {
            Content::Table(table) => {
                table.keys().filter(|key| branch["properties"].get(key).is_some()).count()
            }
            Content::Array(_) | Content::Scalar(_) => 0,
        };
        let mut best: Option<(&'a Json, usize)> = None;
        for branch in branches.iter().map(|branch| self.resolve(branch)).filter(|b| b["type"] != "null") {
            let fit = fit(branch);
            if best.is_none_or(|(_, other)| fit > other) {
                best = Some((branch, fit));
            }
        }
        best.map_or(schema, |(branch, _)| branch)
    }

    /// Whether the node can stay. `false`: reported, and of no use to what follows.
    fn node(&mut self, node: &mut Node, schema: &'a Json, path: &str) -> bool {
        let schema = self.branch(node, schema);
        let offset = node.offset();
        let expected = expected(schema);
        match &mut node.content {
            Content::Table(table) if expected == Some("object") => {
                self.table(table, offset, schema, path);
                true
            }
            Content::Array(items) if expected == Some("array") => {
                // A list with a gap would shift the places of the rest: items stay, however bad.
                for (index, item) in items.iter_mut().enumerate() {
                    self.node(item, &schema["items"], &format!("{path}[{index}]"));
                }
                true
            }
            Content::Scalar(value) => self.scalar(value, offset, schema, path),
            Content::Table(_) | Content::Array(_) => {
                self.wrong_type(offset, schema, path);
                false
            }
        }
    }

    fn table(
        &mut self,
        table: &mut std::collections::BTreeMap<String, Node>,
        offset: usize,
        schema: &'a Json,
        path: &str,
    ) {
        let properties = schema["properties"].as_object();
        let of_any_key = schema["patternProperties"]
            .as_object()
            .and_then(|patterns| patterns.values().next())
            .or_else(|| schema.get("additionalProperties").filter(|schema| schema.is_object()));
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
        let mut unwanted = Vec::new();
        if let Some(properties) = properties {
            self.right_misspelt_keys(table, path, properties);
        }
        for (key, node) in table.iter_mut() {
            let inner = join(path, key);
            let known = properties.and_then(|properties| properties.get(key));
            if let Some(schema) = known {
                if !self.node(node, schema, &inner) {
                    unwanted.push(key.clone());
                }
            } else if let Some(schema) = of_any_key {
                if let Err(fix) = format::check("identifier", key) {
                    let what = text(
                        format!("`{key}` cannot be a name here"),
                        format!("「{key}」は名前に使えません"),
                    );
                    self.say(node.key.unwrap_or(node.value), BAD_VALUE, what, fix);
                }
                self.node(node, schema, &inner);
            } else {
                let names = properties.into_iter().flat_map(|properties| properties.keys());
                self.unknown_key(node.key.unwrap_or(node.value), key, path, &names.collect::<Vec<_>>());
                unwanted.push(key.clone());
            }
        }
        for key in &required {
            if !table.contains_key(*key) {
                self.missing_key(offset, key, path, properties.and_then(|properties| properties.get(*key)));
                if is_path(path) && *key == "ipv6" {
                    let content = Content::Scalar(toml::Value::String("none".to_owned()));
                    table.insert((*key).to_owned(), Node { key: None, value: offset, content });
                }
            }
        }
        // A bad optional value goes with its key; a bad required one stays and stops the reading later on.
        for key in unwanted.iter().filter(|key| !required.contains(&key.as_str())) {
            table.remove(key);
        }
    }

    /// A key that can only be meant for one that is absent is reported and read as that one, so that what hangs on
    /// it is not reported as missing too.
    fn right_misspelt_keys(
        &mut self,
        table: &mut std::collections::BTreeMap<String, Node>,
        path: &str,
        properties: &serde_json::Map<String, Json>,
    ) {
        let unknown: Vec<String> =
            table.keys().filter(|key| !properties.contains_key(*key)).cloned().collect();
        for key in unknown {
            let Some(meant) = nearest(&key, properties.keys().map(String::as_str)) else { continue };
            if table.contains_key(meant) {
                continue;
            }
            if let Some(node) = table.remove(&key) {
                let names: Vec<&String> = properties.keys().collect();
                self.unknown_key(node.key.unwrap_or(node.value), &key, path, &names);
                table.insert(meant.to_owned(), node);
            }
        }
    }

    fn scalar(&mut self, value: &toml::Value, offset: usize, schema: &'a Json, path: &str) -> bool {
        match (expected(schema), value) {
            (Some("string"), toml::Value::String(written)) => self.string(written, offset, schema, path),
            (Some("integer"), toml::Value::Integer(number)) => {
                let low = schema["minimum"].as_f64().unwrap_or(f64::MIN);
                let high = schema["maximum"].as_f64().unwrap_or(f64::from(u32::MAX));
                // Precise enough: the bounds are below 2^53, and what is beyond is beyond.
                #[expect(clippy::cast_precision_loss, reason = "compared only with small bounds")]
                let fits = (low..=high).contains(&(*number as f64));
                if !fits {
                    let what = text(
                        format!("`{}` is {number}, which is out of range", last(path)),
                        format!("「{}」の値 {number} は範囲外です", last(path)),
                    );
                    let fix = text(
                        format!("write a whole number from {low} to {high}"),
                        format!("{low} から {high} までの整数を書いてください"),
                    );
                    self.say(offset, BAD_VALUE, what, fix);
                }
                fits
            }
            (Some("number"), toml::Value::Integer(_) | toml::Value::Float(_)) => true,
            (Some("boolean"), toml::Value::Boolean(_)) => true,
            (Some("string"), toml::Value::Datetime(_)) if schema.get("format").is_some() => {
                let what = text(
                    format!("`{}` is written without quotes", last(path)),
                    format!("「{}」の値が引用符で囲まれていません", last(path)),
                );
                self.say(offset, WRONG_TYPE, what, text("put it in quotes", "引用符で囲んでください"));
                false
            }
            (_, _) => {
                self.wrong_type(offset, schema, path);
                false
            }
        }
    }

    fn string(&mut self, written: &str, offset: usize, schema: &'a Json, path: &str) -> bool {
        let words = words(schema);
        let shown: String = written.chars().take(60).collect();
        if !words.is_empty() {
            if words.contains(&written) {
                return true;
            }
            let what = text(
                format!("`{}` cannot be `{shown}`", last(path)),
                format!("「{}」に「{shown}」は使えません", last(path)),
            );
            let meant = nearest(written, words.iter().copied());
            let list = words.join(", ");
            let fix = match meant {
                Some(meant) => text(
                    format!("did you mean `{meant}`? Possible: {list}"),
                    format!("「{meant}」のことですか？ 使える値: {list}"),
                ),
                None => {
                    text(format!("write one of: {list}"), format!("次のいずれかを書いてください: {list}"))
                }
            };
            self.say(offset, BAD_VALUE, what, fix);
            return false;
        }
        match format::check(schema["format"].as_str().unwrap_or_default(), written) {
            Ok(()) => true,
            Err(fix) => {
                let rule = if schema["format"] == "time-zone" { "plan/time-zone" } else { BAD_VALUE };
                let what = text(
                    format!("`{}` cannot be `{shown}`", last(path)),
                    format!("「{}」に「{shown}」は使えません", last(path)),
                );
                self.say(offset, rule, what, fix);
                false
            }
        }
    }

    fn wrong_type(&mut self, offset: usize, schema: &Json, path: &str) {
        let (en, ja) = match expected(schema) {
            Some("string") => ("a text in quotes", "引用符で囲んだ文字列"),
            Some("integer") => ("a whole number without quotes", "引用符のない整数"),
            Some("number") => ("a number without quotes", "引用符のない数値"),
            Some("boolean") => ("true or false", "true または false"),
            Some("array") => ("a list in [ ]", "[ ] で囲んだ一覧"),
            _ => ("a table", "テーブル"),
        };
        let (en, ja) = match schema.get("patternProperties") {
            Some(_) => (
                format!("a table for each, as in [{path}.NAME]"),
                format!("[{path}.名前] のように、それぞれのテーブル"),
            ),
            None => (en.to_owned(), ja.to_owned()),
        };
        let name = if path.is_empty() { "the file" } else { path };
        let what =
            text(format!("`{name}` has the wrong kind of value"), format!("「{name}」の値の種類が違います"));
        self.say(offset, WRONG_TYPE, what, text(format!("write {en}"), format!("{ja}を書いてください")));
    }

    fn unknown_key(&mut self, offset: usize, key: &str, path: &str, known: &[&String]) {
        let shown: String = key.chars().take(60).collect();
        let place = if path.is_empty() { "the top of the file".to_owned() } else { format!("`{path}`") };
        let place_ja =
            if path.is_empty() { "ファイルの最上位".to_owned() } else { format!("「{path}」") };
        let what = text(
            format!("`{shown}` is not a key of {place}"),
            format!("「{shown}」は{place_ja}のキーではありません"),
        );
        let list = known.iter().map(|key| key.as_str()).collect::<Vec<_>>().join(", ");
        let fix = match nearest(key, known.iter().map(|key| key.as_str())) {
            Some(meant) => text(format!("did you mean `{meant}`?"), format!("「{meant}」のことですか？")),
            None => text(
                format!("remove it; possible here: {list}"),
                format!("削除してください。ここで使えるキー: {list}"),
            ),
        };
        self.say(offset, UNKNOWN_KEY, what, fix);
    }

    fn missing_key(&mut self, offset: usize, key: &str, path: &str, schema: Option<&'a Json>) {
        if is_path(path) && key == "ipv6" {
            let id = last(path);
            let what = text(
                format!("path `{id}` says nothing about IPv6"),
                format!("パス「{id}」に IPv6 の記載がありません"),
            );
            let fix = text(
                "add `ipv6 = \"none\"` when there is none (IPv6 is then refused at once and AAAA answers are \
                 withheld), else \"native\" or \"nat66\": an allow-list that covers only IPv4 is a hole",
                "IPv6 がなければ `ipv6 = \"none\"`（IPv6 は即座に拒否され、AAAA は返しません）、あれば \"native\" か \"nat66\" を\
                 書いてください。IPv4 しか見ない許可リストは穴になります",
            );
            self.say(offset, IPV6_UNSAID, what, fix);
            return;
        }
        let name = join(path, key);
        let what = text(format!("`{name}` is missing"), format!("「{name}」がありません"));
        let description = schema
            .map(|schema| schema["description"].as_str().or(self.resolve(schema)["description"].as_str()))
            .and_then(|description| description)
            .map(|description| format!(" ({})", first_sentence(description)))
            .unwrap_or_default();
        let fix = text(format!("add `{key}`{description}"), format!("`{key}` を追加してください"));
        if path.is_empty() {
            self.errors.push(of_file(self.source.file, MISSING_KEY, what, fix));
        } else {
            self.say(offset, MISSING_KEY, what, fix);
        }
    }
}

fn first_sentence(description: &str) -> String {
    let line = description.replace('\n', " ");
    line.split(". ").next().unwrap_or_default().trim_end_matches('.').to_owned()
}

/// The JSON type wanted, `null` aside.
fn expected(schema: &Json) -> Option<&str> {
    match &schema["type"] {
        Json::String(name) => Some(name),
        Json::Array(names) => names.iter().filter_map(Json::as_str).find(|name| *name != "null"),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Object(_) => {
            (!words(schema).is_empty()).then_some("string")
        }
    }
}

/// The words of an enumeration, written as `enum` or as `oneOf` of `const`s and `enum`s.
fn words(schema: &Json) -> Vec<&str> {
    let mut words: Vec<&str> = Vec::new();
    for branch in std::iter::once(schema).chain(schema["oneOf"].as_array().into_iter().flatten()) {
        words.extend(branch["const"].as_str());
        words.extend(branch["enum"].as_array().into_iter().flatten().filter_map(Json::as_str));
    }
    words
}

fn is_path(path: &str) -> bool {
    path.strip_prefix("paths.").is_some_and(|id| !id.contains('.'))
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// The one word that was probably meant: at most a third of its letters differ, and no other is as near.
pub(crate) fn nearest<'w>(written: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    if written.len() > 64 {
        return None;
    }
    let mut near: Vec<(usize, &str)> = words
        .into_iter()
        .map(|word| (distance(written, word), word))
        .filter(|(distance, word)| *distance <= (word.chars().count() / 3).max(1))
        .collect();
    near.sort_unstable();
    match near[..] {
        [(best, _), (next, _), ..] if best == next => None,
        [(_, word), ..] => Some(word),
        [] => None,
    }
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_the_word_and_noise_does_not() {
        let words = ["gateway4", "gateway6", "port", "resolvers"];
        assert_eq!(nearest("gatway4", words), Some("gateway4"));
        assert_eq!(nearest("resolver", words), Some("resolvers"));
        assert_eq!(nearest("colour", words), None);
        assert_eq!(nearest("gateway5", words), None, "two words are as near");
    }
}
