//! The witness of a hub plan's validation, and the questions that others ask of it.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use seimon_board::{Board, InterfaceName};

use super::model::{HubKey, HubPlan};
use crate::model::{Line, LineId};

/// A hub plan that has passed every rule, together with the board that its ports were checked against.
///
/// There is no other way to make one than to validate: [`crate::parse_hub`].
#[derive(Clone, Debug, PartialEq)]
pub struct ValidHubPlan {
    pub(super) plan: HubPlan,
    pub(super) board: Board,
    pub(super) zone: TimeZone,
}

impl std::ops::Deref for ValidHubPlan {
    type Target = HubPlan;

    fn deref(&self) -> &HubPlan {
        &self.plan
    }
}

impl ValidHubPlan {
    /// A line with the kernel's name of its port; `None` only for lines that the plan does not have.
    pub fn line(&self, id: &LineId) -> Option<(&Line, &InterfaceName)> {
        let line = self.plan.lines.get(id)?;
        Some((line, self.board.interface_of(&line.port)?))
    }

    /// The date at the hub.
    pub fn today(&self, wall: Timestamp) -> Date {
        wall.to_zoned(self.zone.clone()).date()
    }
}

impl HubKey {
    /// The last day has not passed.
    pub fn has_not_run_out(&self, today: Date) -> bool {
        self.until.as_deref().is_none_or(|last| last.parse::<Date>().is_ok_and(|last| today <= last))
    }

    /// The first day has come.
    pub fn has_begun(&self, today: Date) -> bool {
        self.from.as_deref().is_none_or(|first| first.parse::<Date>().is_ok_and(|first| first <= today))
    }
}
