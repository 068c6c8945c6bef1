//! Moments in words: `10s`, `event:ID+2s`, `state:ZONE/GROUP=STATE`.

use std::time::Duration;

use super::super::Moment;
use super::super::tree::hint;
use crate::vocabulary::{STATES, is_group};
use crate::world::params::parse_duration;

/// `state:zone/group=State` or `event:id`.
pub(super) fn reference(text: &str, plus: Duration) -> Result<Moment, String> {
    if let Some(id) = text.strip_prefix("event:") {
        return Ok(Moment::AfterEvent { id: id.to_owned(), plus });
    }
    let state = text.strip_prefix("state:").and_then(|rest| rest.split_once('='));
    match state {
        Some((group, state)) if is_group(group) && STATES.contains(&state) => {
            Ok(Moment::AfterState { group: group.to_owned(), state: state.to_owned(), plus })
        }
        Some((_, state)) if !STATES.contains(&state) => {
            Err(format!("no state `{state}`{}", hint(state, STATES)))
        }
        _ => Err(format!("`{text}` is no moment; write state:zone/group=State or event:ID")),
    }
}

/// `10s`, `event:id`, `event:id+2s`, `state:…=…+2s`.
pub(super) fn moment(text: &str) -> Result<Moment, String> {
    if text.starts_with("event:") || text.starts_with("state:") {
        let (base, plus) = match text.split_once('+') {
            Some((base, plus)) => {
                (base, parse_duration(plus).ok_or_else(|| format!("`{plus}` is not a duration"))?)
            }
            None => (text, Duration::ZERO),
        };
        return reference(base, plus);
    }
    parse_duration(text).map(Moment::At).ok_or_else(|| format!("`{text}` is neither a duration nor event:ID"))
}
