//! The file's keys and values with their places, so that an error about `permits[2].to` can quote its line.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Byte offset of the key that leads here, if one does.
    pub(crate) key: Option<usize>,
    /// Byte offset of the value; a table's is its header's.
    pub(crate) value: usize,
    pub(crate) content: Content,
}

#[derive(Clone, Debug)]
pub(crate) enum Content {
    Table(BTreeMap<String, Node>),
    Array(Vec<Node>),
    Scalar(toml::Value),
}

impl Node {
    pub(crate) fn from_table(table: &Spanned<DeTable<'_>>) -> Self {
        Self { key: None, value: 0, content: table_content(table.get_ref()) }
    }

    fn from_value(key: Option<Range<usize>>, value: &Spanned<DeValue<'_>>) -> Self {
        let content = match value.get_ref() {
            DeValue::Table(table) => table_content(table),
            DeValue::Array(array) => {
                Content::Array(array.iter().map(|item| Self::from_value(None, item)).collect())
            }
            DeValue::String(text) => Content::Scalar(toml::Value::String(text.to_string())),
            DeValue::Boolean(truth) => Content::Scalar(toml::Value::Boolean(*truth)),
            DeValue::Datetime(when) => Content::Scalar(toml::Value::Datetime(*when)),
            DeValue::Integer(number) => {
                Content::Scalar(match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => toml::Value::Integer(number),
                    // Beyond 64 bits: no field is that large, so a text that no field takes does.
                    Err(_) => toml::Value::Float(f64::INFINITY),
                })
            }
            DeValue::Float(number) => {
                Content::Scalar(toml::Value::Float(number.as_str().parse().unwrap_or(f64::NAN)))
            }
        };
        Self { key: key.map(|key| key.start), value: value.span().start, content }
    }

    /// Where to point for this node: a table's key, a scalar's value.
    pub(crate) fn offset(&self) -> usize {
        match (&self.content, self.key) {
            (Content::Table(_), Some(key)) => key,
            (Content::Table(_) | Content::Array(_) | Content::Scalar(_), _) => self.value,
        }
    }

    /// The place of `zones.affairs.ipv4` or `permits[2].to`; of its nearest parent where it is absent.
    pub(crate) fn locate(&self, path: &str) -> usize {
        let mut node = self;
        for step in steps(path) {
            let next = match (&node.content, step) {
                (Content::Table(table), Step::Key(key)) => table.get(key),
                (Content::Array(items), Step::Index(index)) => items.get(index),
                (
                    Content::Table(_) | Content::Array(_) | Content::Scalar(_),
                    Step::Key(_) | Step::Index(_),
                ) => None,
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node.offset()
    }

    pub(crate) fn to_value(&self) -> toml::Value {
        match &self.content {
            Content::Table(table) => {
                toml::Value::Table(table.iter().map(|(key, node)| (key.clone(), node.to_value())).collect())
            }
            Content::Array(items) => toml::Value::Array(items.iter().map(Self::to_value).collect()),
            Content::Scalar(value) => value.clone(),
        }
    }
}

fn table_content(table: &DeTable<'_>) -> Content {
    Content::Table(
        table
            .iter()
            .map(|(key, value)| (key.get_ref().to_string(), Node::from_value(Some(key.span()), value)))
            .collect(),
    )
}

/// One step of a path such as `permits[2].to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// The steps of a dotted path. Keys themselves hold no dots: identifiers and field names do not.
pub(crate) fn steps(path: &str) -> impl Iterator<Item = Step<'_>> {
    path.split('.').filter(|part| !part.is_empty()).flat_map(|part| {
        let (key, rest) = part.split_once('[').unwrap_or((part, ""));
        let key = (!key.is_empty()).then_some(Step::Key(key));
        let indices =
            rest.split('[').filter_map(|index| index.trim_end_matches(']').parse().ok().map(Step::Index));
        key.into_iter().chain(indices)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_tables_are_their_headers_and_of_scalars_their_values() {
        let text = "version = 1\n[zones.a]\nipv4 = \"x\"\n[[permits]]\nto = \"y\"\n";
        let (table, errors) = DeTable::parse_recoverable(text);
        assert!(errors.is_empty());
        let tree = Node::from_table(&table);
        let at = |path: &str| &text[tree.locate(path)..];
        assert!(at("zones.a.ipv4").starts_with("\"x\""));
        assert!(at("zones.a").starts_with("a]"));
        assert!(at("zones.a.ipv6").starts_with("a]"), "an absent key stands where its table does");
        assert!(at("permits[0].to").starts_with("\"y\""));
        assert!(at("permits[0].who").starts_with("[[permits]]"));
        assert!(at("nowhere").starts_with("version"));
    }
}
