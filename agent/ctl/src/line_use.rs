//! May a line's contract be cancelled, and who still uses it.

use seimon_ipc::report::LineUse;

use crate::args::Lang;
use crate::screen::{Look, Paint, clean, table};
use crate::words::{pick, say};

pub(crate) fn answer(lang: Lang, look: Look, answer: &LineUse) -> String {
    let verdict = if answer.may_cancel {
        look.paint(Paint::Green, &say(lang, "[解約できます]", "[MAY BE CANCELLED]"))
    } else {
        look.paint(Paint::Red, &say(lang, "[まだできません]", "[NOT YET]"))
    };
    let mut text = format!("{verdict}\n{}", look.indented(2, &pick(lang, &answer.sentence)));
    for reason in &answer.reasons {
        text.push_str(&look.item(2, &pick(lang, reason)));
    }
    if !answer.stragglers.is_empty() {
        let head = match lang {
            Lang::Ja => ["何が", "どこから", "回数", "最後の日"],
            Lang::En => ["what", "from", "times", "last"],
        };
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(answer.stragglers.iter().map(|straggler| {
            vec![
                pick(lang, &straggler.kind),
                pick(lang, &straggler.from),
                straggler.flows.to_string(),
                clean(&straggler.last),
            ]
        }));
        text.push_str(&say(lang, "\nまだ使っているもの（この回線を通ったもの）\n", "\nWhat still uses it\n"));
        text.push_str(&table(2, &rows));
    }
    for note in &answer.notes {
        text.push_str(&look.item(2, &format!("{}{}", say(lang, "注意: ", "note: "), pick(lang, note))));
    }
    text
}
