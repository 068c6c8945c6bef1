//! A TOML document in which every value knows its line, and a reader that collects problems instead of stopping.

use std::collections::BTreeMap;
use std::fmt;

use toml::de::{DeTable, DeValue};

/// One thing that is wrong with a scenario file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Counted from 1; 0: the file as a whole.
    pub line: usize,
    /// What is wrong and what to write instead.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Scalar(toml::Value),
    List(Vec<Node>),
    Table(BTreeMap<String, Node>),
}

impl Node {
    /// Syntax errors go to `problems`; what could be read is returned.
    pub(super) fn parse(text: &str, problems: &mut Vec<Problem>) -> Self {
        let lines = Lines::of(text);
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let line = error.span().map_or(0, |span| lines.at(span.start));
            problems.push(Problem { line, what: error.message().to_owned() });
        }
        Self { line: 1, value: Value::Table(read_table(table.get_ref(), &lines)) }
    }

    /// The same without lines, for typed readers.
    pub(super) fn plain(&self) -> toml::Value {
        match &self.value {
            Value::Scalar(value) => value.clone(),
            Value::List(list) => toml::Value::Array(list.iter().map(Node::plain).collect()),
            Value::Table(table) => {
                toml::Value::Table(table.iter().map(|(k, v)| (k.clone(), v.plain())).collect())
            }
        }
    }

    fn kind(&self) -> &'static str {
        match &self.value {
            Value::Scalar(value) => value.type_str(),
            Value::List(_) => "array",
            Value::Table(_) => "table",
        }
    }
}

fn read_table(table: &DeTable<'_>, lines: &Lines) -> BTreeMap<String, Node> {
    table
        .iter()
        .map(|(key, value)| {
            let line = lines.at(key.span().start);
            (key.get_ref().to_string(), Node { line, ..read(value.get_ref(), lines, line) })
        })
        .collect()
}

fn read(value: &DeValue<'_>, lines: &Lines, line: usize) -> Node {
    let value = match value {
        DeValue::String(text) => Value::Scalar(toml::Value::String(text.to_string())),
        DeValue::Integer(number) => Value::Scalar(
            i64::from_str_radix(number.as_str(), number.radix())
                .map_or_else(|_| toml::Value::String(number.to_string()), toml::Value::Integer),
        ),
        DeValue::Float(number) => {
            Value::Scalar(toml::Value::Float(number.as_str().parse().unwrap_or(f64::NAN)))
        }
        DeValue::Boolean(flag) => Value::Scalar(toml::Value::Boolean(*flag)),
        DeValue::Datetime(time) => Value::Scalar(toml::Value::Datetime(*time)),
        DeValue::Array(list) => Value::List(
            list.iter().map(|item| read(item.get_ref(), lines, lines.at(item.span().start))).collect(),
        ),
        DeValue::Table(table) => Value::Table(read_table(table, lines)),
    };
    Node { line, value }
}

/// Byte offsets to line numbers.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at).collect())
    }

    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|newline| *newline < offset) + 1
    }
}

/// One table of the document, being read. Every failing read adds a problem and returns None.
pub(super) struct Section<'a> {
    table: &'a BTreeMap<String, Node>,
    pub(super) line: usize,
    name: String,
}

impl<'a> Section<'a> {
    /// None, with a problem, if the node is not a table.
    pub(super) fn of(node: &'a Node, name: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        match &node.value {
            Value::Table(table) => Some(Self { table, line: node.line, name: name.to_owned() }),
            Value::Scalar(_) | Value::List(_) => {
                problems.push(Problem {
                    line: node.line,
                    what: format!("{name} must be a table, not {}", node.kind()),
                });
                None
            }
        }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = (&'a str, &'a Node)> {
        self.table.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// Every key that is not `known` becomes a problem, with the nearest known one.
    pub(super) fn only(&self, known: &[&str], problems: &mut Vec<Problem>) {
        for (key, node) in self.table {
            if !known.contains(&key.as_str()) {
                problems.push(Problem {
                    line: node.line,
                    what: format!("unknown key `{key}` in {}{}", self.name, hint(key, known)),
                });
            }
        }
    }

    pub(super) fn node(&self, key: &str) -> Option<&'a Node> {
        self.table.get(key)
    }

    pub(super) fn missing(&self, key: &str, problems: &mut Vec<Problem>) {
        problems.push(Problem { line: self.line, what: format!("`{key}` is missing in {}", self.name) });
    }

    pub(super) fn text(&self, key: &str, problems: &mut Vec<Problem>) -> Option<&'a str> {
        let node = self.node(key)?;
        let Value::Scalar(toml::Value::String(text)) = &node.value else {
            problems.push(Problem {
                line: node.line,
                what: format!("`{key}` must be a text, not {}", node.kind()),
            });
            return None;
        };
        Some(text)
    }

    /// As [`Section::text`]; absence is a problem.
    pub(super) fn required_text(&self, key: &str, problems: &mut Vec<Problem>) -> Option<&'a str> {
        if self.node(key).is_none() {
            self.missing(key, problems);
        }
        self.text(key, problems)
    }

    pub(super) fn integer(&self, key: &str, problems: &mut Vec<Problem>) -> Option<i64> {
        let node = self.node(key)?;
        let Value::Scalar(toml::Value::Integer(number)) = &node.value else {
            problems.push(Problem {
                line: node.line,
                what: format!("`{key}` must be a whole number, not {}", node.kind()),
            });
            return None;
        };
        Some(*number)
    }

    /// The array's items; an absent key has none.
    pub(super) fn list(&self, key: &str, problems: &mut Vec<Problem>) -> &'a [Node] {
        match self.node(key).map(|node| (node, &node.value)) {
            None => &[],
            Some((_, Value::List(items))) => items,
            Some((node, Value::Scalar(_) | Value::Table(_))) => {
                problems.push(Problem {
                    line: node.line,
                    what: format!("`{key}` must be an array (write [[{key}]] for each), not {}", node.kind()),
                });
                &[]
            }
        }
    }
}

/// `; did you mean …` or the list of what there is.
pub(super) fn hint(word: &str, known: &[&str]) -> String {
    let near = known.iter().map(|k| (distance(word, k), k)).min().filter(|(d, k)| *d <= 2.max(k.len() / 3));
    match near {
        Some((_, near)) => format!("; did you mean `{near}`?"),
        None => format!("; known: {}", known.join(", ")),
    }
}

/// Edits between two words (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
