//! The sheet that hangs beside the gateway: what to expect, whom to call, which cable goes where.

use seimon_board::{Board, PortRole};
use seimon_plan::{LineId, ValidSitePlan, ZoneId, ZoneRole};

use crate::acceptance::steps;
use crate::args::Lang;
use crate::paper::{Block, Cell, Document, Numbered, PortBox, Tone};
use crate::screen::clean;
use crate::words::say;

/// What the cable in a port is for.
enum Use<'a> {
    Line(&'a LineId),
    Zone(&'a ZoneId),
    /// To a switch, for several zones.
    Trunk,
    Nothing,
}

fn use_of<'a>(plan: &'a ValidSitePlan, port: &str) -> Use<'a> {
    let line = plan.lines.iter().find(|(_, line)| line.port == port).map(|(id, _)| Use::Line(id));
    let zone = || plan.zones.iter().find(|(_, zone)| zone.ports.iter().any(|name| name == port));
    let is_trunk = plan.zones.values().any(|zone| zone.trunks.iter().any(|name| name == port));
    let other = if is_trunk { Use::Trunk } else { Use::Nothing };
    line.or_else(|| zone().map(|(id, _)| Use::Zone(id))).unwrap_or(other)
}

fn line_word(lang: Lang, plan: &ValidSitePlan, id: &LineId) -> String {
    let word = plan.school.words.lines.get(id).map(|word| clean(word));
    word.filter(|_| lang == Lang::Ja)
        .unwrap_or_else(|| say(lang, &format!("回線 {id}"), &format!("line {id}")))
}

fn zone_word(lang: Lang, plan: &ValidSitePlan, id: &ZoneId) -> String {
    if let (Lang::Ja, Some(word)) = (lang, plan.school.words.zones.get(id)) {
        return clean(word);
    }
    let Some(zone) = plan.zones.get(id) else { return id.to_string() };
    let (ja, en) = match zone.role {
        ZoneRole::Affairs => ("先生方の校務用", "school affairs"),
        ZoneRole::Learning => ("子どもたちの学習用", "learning"),
        ZoneRole::Staff => ("教職員用", "staff"),
        ZoneRole::Printers => ("プリンター", "printers"),
        ZoneRole::Guest => ("来校者用", "guests"),
        ZoneRole::Shelter => ("避難所用", "shelter"),
        ZoneRole::Management => ("機器の管理用", "management"),
    };
    say(lang, ja, en)
}

pub(crate) fn sheet(lang: Lang, plan: &ValidSitePlan, board: &Board) -> Document {
    let mut blocks = vec![Block::Banner {
        tone: Tone::Calm,
        text: say(
            lang,
            "箱と回線の機械の、電源と線を抜かないでください。",
            "Please leave power and cables of this box and its neighbours in.",
        ),
        small: say(
            lang,
            "先生方や子どもたちの使い方は、何も変わりません。覚えることも設定もありません。",
            "Nothing changes for teachers and pupils. There is nothing to learn and nothing to set up.",
        ),
    }];
    blocks.extend(expect(lang, plan));
    blocks.extend(cables(lang, plan, board));
    blocks.extend(trouble(lang));
    blocks.push(contacts(lang, plan));
    let name = clean(&plan.site.name);
    Document {
        lang,
        title: say(lang, "学校のネットワークの箱「正門」", "The school's gateway, Seimon"),
        subtitle: format!("{name}　{}", plan.site.id),
        blocks,
        attachment: None,
        made_ms: 0,
    }
}

fn expect(lang: Lang, plan: &ValidSitePlan) -> [Block; 2] {
    let mut items = vec![
        say(
            lang,
            "校務のシステムや教材への道を、新しい回線へ 1 つずつ、仕事の少ない時間に移します。うまくいかないときは、箱が自分で元に戻します。",
            "The ways to the school's services move to the new line one by one, when few people work. If that does not go well, the box goes back by itself.",
        ),
        say(
            lang,
            "使っている途中の人は、終わるまで今までどおりです。回線が急に切れたときだけ、数秒待つことがあります。もう一度押してみてください。",
            "Whoever is at work stays as they are until done. Only when a line fails there may be some seconds to wait: press once more.",
        ),
        say(
            lang,
            "停電のあとは、何もしなくて大丈夫です。電気が戻れば、数分で自分で動き始めます。",
            "After a power cut there is nothing to do: it starts by itself within minutes.",
        ),
    ];
    let pages: Vec<String> = plan
        .zones
        .iter()
        .filter(|(_, zone)| zone.role != ZoneRole::Printers)
        .map(|(id, zone)| match lang {
            Lang::Ja => format!("{}のパソコンなら http://{}/", zone_word(lang, plan, id), zone.ipv4.addr()),
            Lang::En => format!("{}: http://{}/", zone_word(lang, plan, id), zone.ipv4.addr()),
        })
        .collect();
    if !pages.is_empty() {
        let and = say(lang, "、", ", ");
        items.push(match lang {
            Lang::Ja => format!(
                "今の様子は、校内のパソコンでいつでも見られます（パスワードはいりません）。インターネットを見るソフトの一番上の欄に、次のとおり入れてください。{}",
                pages.join(and.as_str())
            ),
            Lang::En => format!("How it is can be seen at any time: {}", pages.join(and.as_str())),
        });
    }
    [
        Block::Heading(say(lang, "これから起きること", "What to expect")),
        Block::List { numbered: Numbered::No, items },
    ]
}

fn cables(lang: Lang, plan: &ValidSitePlan, board: &Board) -> Vec<Block> {
    let mut boxes = Vec::new();
    let mut rows = Vec::new();
    for (name, port) in &board.ports {
        let (leads_to, comes_from, tone) = match use_of(plan, name) {
            Use::Line(id) => (
                line_word(lang, plan, id),
                say(lang, "回線会社の機械（壁の近く）", "the carrier's box"),
                Tone::Calm,
            ),
            Use::Zone(id) => (
                zone_word(lang, plan, id),
                say(lang, "校内の配線（壁の差し込み口など）", "the school's own cabling"),
                Tone::Good,
            ),
            Use::Trunk => (
                say(lang, "いくつもの部屋・用途の線をまとめる機械", "several networks"),
                say(lang, "校内のスイッチや無線の機械", "the school's switch or access point"),
                Tone::Good,
            ),
            Use::Nothing => (
                say(lang, "使いません", "not used"),
                say(lang, "何も差さないでください", "leave empty"),
                Tone::Plain,
            ),
        };
        let kind = match port.role {
            PortRole::Wan => say(lang, "外へ　", "out　"),
            PortRole::Lan => say(lang, "校内　", "in　"),
        };
        let kind = if tone == Tone::Plain { String::new() } else { kind };
        boxes.push(PortBox { name: clean(name), leads_to: format!("{kind}{leads_to}"), tone });
        rows.push(vec![Cell::toned(clean(name), tone), Cell::new(leads_to), Cell::new(comes_from)]);
    }
    let head = match lang {
        Lang::Ja => ["差し込み口", "何の線か", "線の反対側"],
        Lang::En => ["port", "what for", "the cable's other end"],
    };
    vec![
        Block::Heading(say(lang, "線が抜けたら、ここへ戻します", "Which cable goes where")),
        Block::Paragraph(say(
            lang,
            "差し込み口の名前は、箱に印刷してあります。線の札の名前と合わせて、カチッと音がするまで差してください。違う口に差すと使えません。",
            "The names are printed on the case. Push each cable in until it clicks. In another port it does not work.",
        )),
        Block::Ports(boxes),
        Block::Table { widths: vec![0.18, 0.40, 0.42], head: head.map(str::to_owned).to_vec(), rows },
    ]
}

fn trouble(lang: Lang) -> [Block; 2] {
    [
        Block::Heading(say(lang, "つながらないときは", "When it does not work")),
        steps(vec![
            say(
                lang,
                "ほかの人、ほかの部屋でも同じか聞いてください。1 台だけなら、その機械の電源を入れ直します。",
                "Ask whether others have it, too. If it is one machine only, switch that off and on.",
            ),
            say(
                lang,
                "箱と回線の機械の電源が入っているか、線が抜けていないか見てください。",
                "See that the boxes are on and no cable is out.",
            ),
            say(
                lang,
                "5 分待っても直らなければ、下へ電話してください。「いつから」「どの部屋のだれが」「何が使えないか」を伝えてください。箱の電源は、頼まれたときだけ入れ直します。",
                "If it is not well in five minutes, call: since when, who in which room, what does not work. Switch the box off only when asked to.",
            ),
        ]),
    ]
}

fn contacts(lang: Lang, plan: &ValidSitePlan) -> Block {
    let head = match lang {
        Lang::Ja => ["連絡先", "電話", "受付時間"],
        Lang::En => ["whom to call", "telephone", "hours"],
    };
    let mut rows: Vec<Vec<Cell>> = plan
        .school
        .contacts
        .iter()
        .map(|contact| {
            let [who, phone, hours] = [&contact.who, &contact.phone, &contact.hours].map(|text| clean(text));
            vec![Cell::bold(who), Cell::bold(phone), Cell::new(hours)]
        })
        .collect();
    if rows.is_empty() {
        let office = say(lang, "教育委員会 ネットワーク担当", "education board, network office");
        rows.push(vec![Cell::bold(office), Cell::new("（　　　　　　　　　）"), Cell::new("")]);
    }
    Block::Table { widths: vec![0.42, 0.28, 0.30], head: head.map(str::to_owned).to_vec(), rows }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paper::html;

    fn plan() -> (ValidSitePlan, Board) {
        let board = Board::shipped("lab-namespace").unwrap();
        let text = include_str!("../../../provisioning/plan/examples/two-line-town.toml");
        (seimon_plan::parse(text, "town.toml", &board).unwrap(), board)
    }

    #[test]
    fn every_port_of_the_case_is_on_the_sheet_with_what_it_is_for() {
        let (plan, board) = plan();
        let html = html::render(&sheet(Lang::Ja, &plan, &board));
        for port in board.ports.keys() {
            assert!(html.contains(&format!("<b>{port}</b>")), "{port}");
        }
        for word in
            ["これまでの専用の回線", "先生方の校務用", "使いません", "0000-00-0000", "http://10.20.1.1/"]
        {
            assert!(html.contains(word), "{word}");
        }
    }

    #[test]
    fn the_sheet_has_no_jargon() {
        let (plan, board) = plan();
        let html = html::render(&sheet(Lang::Ja, &plan, &board));
        let body = html.split("<body>").nth(1).unwrap();
        for word in ["DNS", "VPN", "ゾーン", "経路", "パケット", "プロトコル", "エージェント", "ルータ"]
        {
            assert!(!body.contains(word), "{word}");
        }
    }
}
