//! What people call lines, zones and services: the plan's words, else the zone's role, else the identifier.

use seimon_plan::{LineId, PathId, PathKind, ServiceId, SitePlan, ZoneId, ZoneRole};

use crate::status::Sentence;

/// Who uses a zone of this role.
pub fn role_word(role: ZoneRole) -> Sentence {
    let (ja, en) = match role {
        ZoneRole::Affairs => ("先生方の校務用", "school affairs"),
        ZoneRole::Learning => ("子どもたちの学習用", "learning"),
        ZoneRole::Staff => ("教職員用", "staff"),
        ZoneRole::Printers => ("プリンター", "printers"),
        ZoneRole::Guest => ("来校者用", "guests"),
        ZoneRole::Shelter => ("避難所用", "shelter"),
        ZoneRole::Management => ("機器の管理用", "management"),
    };
    Sentence::new(ja, en)
}

pub fn zone_word(plan: &SitePlan, id: &ZoneId) -> Sentence {
    let zone = plan.zones.get(id);
    let role = zone.map(|zone| role_word(zone.role));
    let several = zone.is_some_and(|zone| plan.zones.values().filter(|z| z.role == zone.role).count() > 1);
    let ja = match (plan.school.words.zones.get(id), &role) {
        (Some(word), _) => word.clone(),
        (None, Some(role)) if several => format!("{}（{id}）", role.ja),
        (None, Some(role)) => role.ja.clone(),
        (None, None) => id.to_string(),
    };
    Sentence::new(ja, id.to_string())
}

pub fn line_word(plan: &SitePlan, id: &LineId) -> Sentence {
    let ja = plan.school.words.lines.get(id).cloned().unwrap_or_else(|| format!("回線 {id}"));
    Sentence::new(ja, format!("line {id}"))
}

/// The line's word; a tunnel says that it goes through the town hall.
pub fn path_word(plan: &SitePlan, id: &PathId) -> Sentence {
    let Some(path) = plan.paths.get(id) else { return Sentence::new(id.to_string(), id.to_string()) };
    let line = line_word(plan, &path.line);
    let only = plan.paths.values().filter(|other| other.line == path.line).count() == 1;
    match path.kind {
        PathKind::Plain if only => Sentence::new(line.ja, format!("path {id}")),
        PathKind::Plain => Sentence::new(format!("{}（直接）", line.ja), format!("path {id}")),
        PathKind::Wireguard => Sentence::new(format!("{}（役所を通る道）", line.ja), format!("path {id}")),
    }
}

pub fn service_word(plan: &SitePlan, id: &ServiceId) -> Sentence {
    let ja = plan.school.words.services.get(id).cloned().unwrap_or_else(|| id.to_string());
    Sentence::new(ja, id.to_string())
}
