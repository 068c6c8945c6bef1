//! The rules across the fields of a hub plan: one function a rule, each with a stable id.

mod addresses;
mod schools;

use seimon_board::Board;

use super::model::HubPlan;
use crate::error::{PlanError, Source, text};
use crate::rules::{Report, repeated, suggestion};
use crate::tree::Node;

struct Rule {
    id: &'static str,
    check: fn(&HubPlan, &mut Report<'_>),
}

const RULES: &[Rule] = &[
    Rule { id: "hub/empty", check: empty },
    Rule { id: "hub/unknown-reference", check: unknown_reference },
    Rule { id: "hub/port-twice", check: port_twice },
    Rule { id: "hub/gateway", check: gateway },
    Rule { id: "hub/mtu", check: mtu },
    Rule { id: "hub/address", check: addresses::address },
    Rule { id: "hub/family", check: addresses::family },
    Rule { id: "hub/dns", check: addresses::dns },
    Rule { id: "hub/overlap", check: addresses::overlap },
    Rule { id: "hub/school-address", check: schools::address },
    Rule { id: "hub/key", check: schools::key },
    Rule { id: "hub/key-days", check: schools::key_days },
    Rule { id: "hub/egress", check: schools::egress },
];

const BOARD: &str = "hub/board";
const PORT_UNKNOWN: &str = "hub/port-unknown";

/// The ids of a hub plan's own rules, besides those of every file (`plan/syntax` and the like).
pub fn hub_rules() -> impl Iterator<Item = &'static str> {
    [BOARD, PORT_UNKNOWN].into_iter().chain(RULES.iter().map(|rule| rule.id))
}

pub(super) fn check(plan: &HubPlan, board: &Board, source: &Source<'_>, tree: &Node) -> Vec<PlanError> {
    let mut report = Report::new(source, tree);
    report.begin(BOARD);
    of_this_board(plan, board, &mut report);
    report.begin(PORT_UNKNOWN);
    port_unknown(plan, board, &mut report);
    for rule in RULES {
        report.begin(rule.id);
        (rule.check)(plan, &mut report);
    }
    report.into_errors()
}

fn of_this_board(plan: &HubPlan, board: &Board, report: &mut Report<'_>) {
    let (wanted, given) = (&plan.hub.board, &board.id);
    if wanted != given {
        report.at(
            "hub.board",
            text(
                format!("the plan is for board `{wanted}`, this is board `{given}`"),
                format!("計画のボードは「{wanted}」ですが、この機器は「{given}」です"),
            ),
            text(
                format!(
                    "write `board = \"{given}\"` and check every port, or give the other board's descriptor"
                ),
                format!(
                    "`board = \"{given}\"` と書いて全ポートを確認するか、対応するボード定義を使ってください"
                ),
            ),
        );
    }
}

fn port_unknown(plan: &HubPlan, board: &Board, report: &mut Report<'_>) {
    for (id, line) in &plan.lines {
        if board.interface_of(&line.port).is_none() {
            report.at(
                &format!("lines.{id}.port"),
                text(
                    format!("board `{}` has no port `{}`", board.id, line.port),
                    format!("ボード「{}」にポート「{}」はありません", board.id, line.port),
                ),
                suggestion(&line.port, board.ports.keys().map(String::as_str)),
            );
        }
    }
}

fn port_twice(plan: &HubPlan, report: &mut Report<'_>) {
    let ports: Vec<_> = plan.lines.iter().map(|(id, line)| (id, line.port.as_str())).collect();
    for (earlier, later) in repeated(ports.iter().map(|(_, port)| *port)) {
        let ((id, port), (other, _)) = (ports[later], ports[earlier]);
        report.at(
            &format!("lines.{id}.port"),
            text(
                format!("port `{port}` is used already, by line `{other}`"),
                format!("ポート「{port}」は既に回線「{other}」で使われています"),
            ),
            text("give one of them another port", "どちらかを別のポートにしてください"),
        );
    }
}

fn empty(plan: &HubPlan, report: &mut Report<'_>) {
    let mut lists = vec![
        ("hub.name".to_owned(), plan.hub.name.trim().is_empty()),
        ("lines".to_owned(), plan.lines.is_empty()),
        ("tunnel.private_key_file".to_owned(), plan.tunnel.private_key_file.trim().is_empty()),
        ("town.prefixes".to_owned(), plan.town.prefixes.is_empty()),
        ("dns.servers".to_owned(), plan.dns.as_ref().is_some_and(|dns| dns.servers.is_empty())),
        (
            "egress.ipv4".to_owned(),
            plan.egress.as_ref().is_some_and(|egress| egress.ipv4.is_empty() && egress.ipv6.is_empty()),
        ),
        ("control.from".to_owned(), plan.control.as_ref().is_some_and(|control| control.from.is_empty())),
        ("control.ports".to_owned(), plan.control.as_ref().is_some_and(|control| control.ports.is_empty())),
    ];
    for (id, school) in &plan.schools {
        lists.push((format!("schools.{id}.name"), school.name.trim().is_empty()));
        lists.push((format!("schools.{id}.keys"), school.keys.is_empty()));
    }
    for (place, empty) in lists {
        if empty {
            report.at(
                &place,
                text(format!("`{place}` is empty"), format!("「{place}」が空です")),
                text(
                    "write at least one entry, or remove it where it may be absent",
                    "1 つ以上書くか、省略できる項目なら削除してください",
                ),
            );
        }
    }
}

fn unknown_reference(plan: &HubPlan, report: &mut Report<'_>) {
    let refers = [
        ("tunnel.line", Some(&plan.tunnel.line)),
        ("town.line", Some(&plan.town.line)),
        ("egress.line", plan.egress.as_ref().map(|egress| &egress.line)),
        ("control.line", plan.control.as_ref().map(|control| &control.line)),
    ];
    for (place, id) in refers {
        let Some(id) = id.filter(|id| !plan.lines.contains_key(*id)) else { continue };
        report.at(
            place,
            text(format!("there is no line `{id}`"), format!("回線「{id}」はありません")),
            suggestion(id.as_str(), plan.lines.keys().map(|id| id.as_str())),
        );
    }
}

fn gateway(plan: &HubPlan, report: &mut Report<'_>) {
    crate::rules::addresses::next_hops(&plan.lines, report);
}

/// 576 to 9000 bytes; with IPv6 at least 1280 (RFC 8200 section 5). A tunnel leaves room for its own headers.
fn mtu(plan: &HubPlan, report: &mut Report<'_>) {
    let mut check = |place: String, mtu: u16, ipv6: bool, most: u16| {
        let least = if ipv6 { 1280 } else { 576 };
        if !(least..=most).contains(&mtu) {
            report.at(
                &place,
                text(
                    format!("an MTU of {mtu} bytes does not work here"),
                    format!("MTU {mtu} バイトは使えません"),
                ),
                text(format!("write {least} to {most}"), format!("{least}〜{most} で書いてください")),
            );
        }
    };
    for (id, line) in &plan.lines {
        check(format!("lines.{id}.mtu"), line.mtu, line.ipv6.is_some(), 9000);
    }
    if let Some(line) = plan.lines.get(&plan.tunnel.line) {
        let most = line.mtu.saturating_sub(80);
        check("tunnel.mtu".to_owned(), plan.tunnel.mtu, plan.tunnel.ipv6.is_some(), most);
    }
}
