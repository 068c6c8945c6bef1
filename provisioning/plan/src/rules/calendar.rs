//! Windows and freezes.

use super::{Context, Report, repeated};
use crate::calendar::{Calendar, date, local_date_time};
use crate::error::text;
use crate::model::{Migration, Window};

/// A window has days, each once, or an end after its start.
pub(super) fn window(context: &Context<'_>, report: &mut Report<'_>) {
    for (i, window) in context.plan.migration.windows.iter().enumerate() {
        match window {
            Window::Weekly { days, .. } => {
                if days.is_empty() {
                    report.at(
                        &format!("migration.windows[{i}].days"),
                        text("the window has no days", "曜日がありません"),
                        text(
                            "name the days on which it begins, as in [\"sat\", \"sun\"]",
                            "[\"sat\", \"sun\"] のように、始まる曜日を書いてください",
                        ),
                    );
                }
                for (_, later) in repeated(days.iter().map(|day| *day as u8)) {
                    report.at(
                        &format!("migration.windows[{i}].days[{later}]"),
                        text("this day comes twice", "同じ曜日が 2 回あります"),
                        text("keep it once", "1 回だけにしてください"),
                    );
                }
            }
            Window::Once { start, end } => {
                let (first, last) = (local_date_time(start), local_date_time(end));
                if first.is_some() && last.is_some() && first >= last {
                    report.at(
                        &format!("migration.windows[{i}].end"),
                        text(
                            format!("the window ends ({end}) before it starts ({start})"),
                            format!("終了（{end}）が開始（{start}）より前です"),
                        ),
                        text("correct one of the two", "どちらかを直してください"),
                    );
                }
            }
        }
    }
}

/// A window that the freezes swallow, that a clock change swallows, or that is past, never opens.
pub(super) fn window_never(context: &Context<'_>, report: &mut Report<'_>) {
    let Some(calendar) = context.calendar else { return };
    let migration = &context.plan.migration;
    for (i, window) in migration.windows.iter().enumerate() {
        let sound = match window {
            Window::Weekly { days, .. } => !days.is_empty(),
            Window::Once { start, end } => local_date_time(start) < local_date_time(end),
        };
        if !sound {
            continue;
        }
        let alone = Migration { windows: vec![window.clone()], ..migration.clone() };
        let opens = Calendar::new(calendar.zone.clone(), &alone).opens_from(context.now);
        if !opens {
            report.at(
                &format!("migration.windows[{i}]"),
                text(
                    "this window never opens: it is past, or freezes cover all of it",
                    "この時間帯は一度も開きません（過去であるか、凍結期間に覆われています）",
                ),
                text(
                    "move the window or shorten the freeze; for no moves at all remove the window",
                    "時間帯を動かすか凍結期間を短くしてください。移行させない場合は時間帯を削除してください",
                ),
            );
        }
    }
}

/// A freeze ends after it begins, and says why.
pub(super) fn freeze(context: &Context<'_>, report: &mut Report<'_>) {
    for (i, freeze) in context.plan.migration.freezes.iter().enumerate() {
        let (first, last) = (date(&freeze.first), date(&freeze.last));
        if first.is_some() && last.is_some() && first > last {
            report.at(
                &format!("migration.freezes[{i}].last"),
                text(
                    format!("the freeze ends ({}) before it begins ({})", freeze.last, freeze.first),
                    format!("凍結の終わり（{}）が始まり（{}）より前です", freeze.last, freeze.first),
                ),
                text("correct one of the two", "どちらかを直してください"),
            );
        }
        if freeze.reason.trim().is_empty() {
            report.at(
                &format!("migration.freezes[{i}].reason"),
                text("the freeze has no reason", "凍結の理由がありません"),
                text(
                    "say why: people will read it when a move waits",
                    "理由を書いてください。移行が待たされたときに表示されます",
                ),
            );
        }
    }
}
