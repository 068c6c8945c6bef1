//! Names that a plan gives to its parts.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! identifiers {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        /// 1 to 32 characters: lower-case letters, digits, `-`, `_`; begins with a letter.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schemars(with = "String", extend("format" = "identifier", "pattern" = "^[a-z][a-z0-9_-]{0,31}$"))]
        pub struct $name(String);

        impl $name {
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidIdentifier> {
                identifier(text.into()).map(Self)
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidIdentifier;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a valid identifier: 1 to 32 of a-z, 0-9, `-`, `_`, beginning with a letter")]
pub struct InvalidIdentifier(pub String);

fn identifier(text: String) -> Result<String, InvalidIdentifier> {
    let good = (1..=32).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
    if good { Ok(text) } else { Err(InvalidIdentifier(text)) }
}

identifiers! {
    /// A school site, unique within its municipality.
    SiteId
    /// A physical access.
    LineId
    /// A way to the world over a line.
    PathId
    /// A segment of the school's network.
    ZoneId
    /// A destination that the plan names.
    ServiceId
    /// Services that one log-in spans and that move together. `internet` is reserved: what an open zone reaches
    /// besides named services.
    GroupId
    /// A part of a zone whose clients may try a new path first.
    RoomId
}

/// The group that stands for everything an open zone reaches besides the services that the plan names.
pub const INTERNET_GROUP: &str = "internet";
