//! Changing single values of a plan's text, as scenarios do.

use std::collections::BTreeMap;

use crate::tree::{Step, steps};

/// Why a value could not be set.
#[derive(Debug, thiserror::Error)]
pub enum OverrideError {
    #[error("the plan is not TOML: {}", .0.message())]
    NotToml(#[source] toml::de::Error),
    #[error("`{0}` cannot be set: it is empty, or a part of it is not a table or a list long enough")]
    NoSuchPlace(String),
    #[error("the changed plan cannot be written as TOML")]
    NotWritable(#[source] toml::ser::Error),
}

/// A plan's text with values set at dotted keys: `services.affairs.session_idle`, `migration.windows`,
/// `permits[0].until`. Tables that are missing on the way are made; an index one past a list's end appends.
///
/// Comments and the order of keys are lost, so errors of the result speak of other lines. The result is not
/// validated.
pub fn with_overrides(text: &str, set: &BTreeMap<String, toml::Value>) -> Result<String, OverrideError> {
    let mut plan: toml::Value = toml::Value::Table(toml::from_str(text).map_err(OverrideError::NotToml)?);
    for (key, value) in set {
        let place = place(&mut plan, key).ok_or_else(|| OverrideError::NoSuchPlace(key.clone()))?;
        *place = value.clone();
    }
    toml::to_string(&plan).map_err(OverrideError::NotWritable)
}

fn place<'a>(plan: &'a mut toml::Value, key: &str) -> Option<&'a mut toml::Value> {
    let mut place = plan;
    let mut depth = 0;
    for step in steps(key) {
        depth += 1;
        place = match step {
            Step::Key(name) => {
                place.as_table_mut()?.entry(name).or_insert_with(|| toml::Value::Table(toml::Table::new()))
            }
            Step::Index(index) => {
                let items = place.as_array_mut()?;
                if index == items.len() {
                    items.push(toml::Value::Table(toml::Table::new()));
                }
                items.get_mut(index)?
            }
        };
    }
    (depth > 0).then_some(place)
}
