//! The page that everybody in the school may see: one colour, one sentence, what to do. Plain words only: no zones, paths,
//! addresses. Works without JavaScript, loads nothing else, looks for news by itself.

use std::fmt::Write as _;

use seimon_plan::{Contact, ZoneRole};

use crate::acceptance::role_word;
use crate::status::{Colour, Sentence};

/// Seconds between looks for news.
pub const REFRESH: u32 = 30;

/// How the school's network is, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matter {
    Fine,
    /// Something is being put right by itself; work goes on.
    PuttingRight,
    /// These people are cut off from something. Never empty.
    CutOff(Vec<ZoneRole>),
    /// These services do not work; the school's side does. Never empty.
    ServiceIll(Vec<String>),
    /// Every ordinary line is dead. These people go on over an emergency line, slowly (never empty); those are cut off.
    OnReserve {
        served: Vec<ZoneRole>,
        cut_off: Vec<ZoneRole>,
    },
    /// The gateway is not sure of itself.
    NotSure,
    /// Just started; nothing is known yet.
    Starting,
}

impl Matter {
    pub fn colour(&self) -> Colour {
        match self {
            Self::Fine => Colour::Green,
            Self::OnReserve { served: _, cut_off } if cut_off.is_empty() => Colour::Yellow,
            Self::PuttingRight | Self::ServiceIll(_) | Self::Starting => Colour::Yellow,
            Self::CutOff(_) | Self::OnReserve { .. } | Self::NotSure => Colour::Red,
        }
    }

    /// What is the matter.
    pub fn sentence(&self) -> Sentence {
        match self {
            Self::Fine => Sentence::new(
                "学校のネットワークは、いつもどおり使えます。",
                "The school's network works as usual.",
            ),
            Self::PuttingRight => Sentence::new(
                "機械が自動で調整しています。授業や仕事は、そのまま続けられます。",
                "Something is being put right by itself. Lessons and work can go on.",
            ),
            Self::Starting => Sentence::new(
                "機械が動き始めたところです。数分お待ちください。",
                "The gateway has just started. Please wait a few minutes.",
            ),
            Self::CutOff(roles) => {
                let Sentence { ja, en } = listed(roles);
                Sentence::new(
                    format!("「{ja}」のネットワークに、今使えないものがあります。"),
                    format!("Something cannot be used at the moment: {en}."),
                )
            }
            Self::OnReserve { served, cut_off } => {
                let on = listed(served);
                let off = listed(cut_off);
                let (more_ja, more_en) = if cut_off.is_empty() {
                    (String::new(), String::new())
                } else {
                    (format!("「{}」は、今は使えません。", off.ja), format!(" Not usable now: {}.", off.en))
                };
                Sentence::new(
                    format!(
                        "いつもの回線が切れています。「{}」の大事な仕事は、予備の回線でゆっくり続けられます。{more_ja}",
                        on.ja
                    ),
                    format!(
                        "The usual lines are down. Important work of {} goes on, slowly, over a spare line.{more_en}",
                        on.en
                    ),
                )
            }
            Self::ServiceIll(services) => Sentence::new(
                format!(
                    "「{}」が、今は使えないようです。学校の外での不調なので、直るのを待っています。",
                    services.join("」「")
                ),
                format!(
                    "Not working at the moment: {}. The fault is outside the school.",
                    services.join(", ")
                ),
            ),
            Self::NotSure => Sentence::new(
                "機械の設定が、決めたとおりになっていません。自動で直しています。",
                "The gateway is not set up as it should be. It is putting itself right.",
            ),
        }
    }

    /// What the reader has to do.
    pub fn to_do(&self) -> Sentence {
        match self {
            Self::OnReserve { served: _, cut_off } if !cut_off.is_empty() => Sentence::new(
                "大きな動画やファイルは、あとにしてください。5 分待っても直らなければ、下の連絡先に電話してください。",
                "Please leave large videos and files for later. If it is not well in five minutes, please call the number below.",
            ),
            Self::Fine
            | Self::PuttingRight
            | Self::ServiceIll(_)
            | Self::Starting
            | Self::OnReserve { .. } => {
                Sentence::new("今あなたがすることはありません。", "There is nothing for you to do now.")
            }
            Self::CutOff(_) | Self::NotSure => Sentence::new(
                "5 分待っても直らなければ、下の連絡先に電話してください。",
                "If it is not well in five minutes, please call the number below.",
            ),
        }
    }
}

/// As in 「先生の校務用」と「…」.
fn listed(roles: &[ZoneRole]) -> Sentence {
    let words: Vec<Sentence> = roles.iter().map(|role| role_word(*role)).collect();
    let ja: Vec<&str> = words.iter().map(|word| word.ja.as_str()).collect();
    let en: Vec<&str> = words.iter().map(|word| word.en.as_str()).collect();
    Sentence::new(ja.join("」と「"), en.join(", "))
}

/// What the page shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageView<'a> {
    pub school: &'a str,
    pub matter: Matter,
    pub contacts: &'a [Contact],
    /// As on a clock in the school, e.g. `11月23日 14:05`; `None`: the clock is not set.
    pub time: Option<String>,
}

/// Text as it may stand in HTML, also between quotes.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c if c.is_control() && c != '\n' => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

const STYLE: &str = "\
html{font-size:18px}
body{margin:0;min-height:100vh;background:#f4f4f2;color:#1b1b1b;
font-family:\"BIZ UDPGothic\",\"BIZ UDPゴシック\",\"Hiragino Sans\",\"Yu Gothic UI\",\"Noto Sans CJK JP\",\"Noto Sans JP\",sans-serif;line-height:1.7}
main{max-width:40rem;margin:0 auto;padding:1.5rem 1.2rem 3rem}
.who{font-size:.95rem;color:#444;margin:0 0 1rem}
.lamp{border-radius:1.2rem;padding:2rem 1.5rem 2.2rem;text-align:center;color:#fff}
.green{background:#17713a}.yellow{background:#f2c230;color:#231c00}.red{background:#b3261e}
.mark{font-size:4rem;line-height:1;margin:0}
.word{font-size:1rem;letter-spacing:.2em;margin:.4rem 0 1rem}
h1{font-size:1.65rem;line-height:1.5;margin:0;font-weight:700;word-break:auto-phrase;text-wrap:balance}
.do{background:#fff;border-radius:1.2rem;padding:1.3rem 1.5rem;margin:1rem 0;font-size:1.3rem;font-weight:700;text-align:center;word-break:auto-phrase;text-wrap:balance}
.en{display:block;font-size:.85rem;font-weight:400;margin-top:.5rem;opacity:.85}
table{width:100%;border-collapse:collapse;background:#fff;border-radius:1.2rem;overflow:hidden}
caption{text-align:left;padding:.6rem .2rem;font-size:.95rem;color:#444}
td{padding:.7rem 1rem;border-top:1px solid #e4e4e0;vertical-align:baseline}
td.tel{font-size:1.2rem;font-weight:700;white-space:nowrap}
.small{font-size:.85rem;color:#555;margin-top:1.4rem}
@media (max-width:30rem){td{display:block;border-top:0;padding:.1rem 1rem}td:first-child{border-top:1px solid #e4e4e0;padding-top:.8rem}td:last-child{padding-bottom:.8rem}}
";

/// The whole page.
pub fn page(view: &PageView<'_>) -> String {
    let colour = view.matter.colour();
    let (class, mark) = match colour {
        Colour::Green => ("green", "○"),
        Colour::Yellow => ("yellow", "△"),
        Colour::Red => ("red", "！"),
    };
    let (sentence, to_do) = (view.matter.sentence(), view.matter.to_do());
    let school = escape(view.school);
    let mut html = String::new();
    // Writing to a String cannot fail.
    let _infallible = write!(
        html,
        "<!doctype html>\n<html lang=\"ja\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"refresh\" content=\"{REFRESH}\">\n<meta name=\"robots\" content=\"noindex\">\n\
         <title>{school} ネットワークの様子</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <p class=\"who\">{school}　ネットワークの様子</p>\n\
         <section class=\"lamp {class}\">\n<p class=\"mark\" aria-hidden=\"true\">{mark}</p>\n\
         <p class=\"word\">{}</p>\n<h1>{}<span class=\"en\" lang=\"en\">{}</span></h1>\n</section>\n\
         <p class=\"do\">{}<span class=\"en\" lang=\"en\">{}</span></p>\n",
        match colour {
            Colour::Green => "緑（正常）",
            Colour::Yellow => "黄（見守り中）",
            Colour::Red => "赤（使えないものがあります）",
        },
        escape(&sentence.ja),
        escape(&sentence.en),
        escape(&to_do.ja),
        escape(&to_do.en),
    );
    contacts(&mut html, view.contacts);
    let time = match &view.time {
        Some(time) => format!("{}の様子です。", escape(time)),
        None => "機械の時計はまだ合っていませんが、様子は今のものです。".to_owned(),
    };
    let _infallible = write!(
        html,
        "<p class=\"small\">{time}このページは {REFRESH} 秒ごとに新しくなります。\
         このページが出ないときは、箱の電源と線が抜けていないか見てください。</p>\n</main>\n</body>\n</html>\n"
    );
    html
}

fn contacts(html: &mut String, contacts: &[Contact]) {
    if contacts.is_empty() {
        html.push_str(
            "<p class=\"small\">困ったときは、教育委員会のネットワーク担当に電話してください。</p>\n",
        );
        return;
    }
    html.push_str("<table>\n<caption>困ったときの連絡先</caption>\n");
    for contact in contacts {
        let _infallible = writeln!(
            html,
            "<tr><td>{}</td><td class=\"tel\">{}</td><td>{}</td></tr>",
            escape(&contact.who),
            escape(&contact.phone),
            escape(&contact.hours)
        );
    }
    html.push_str("</table>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matters() -> Vec<Matter> {
        vec![
            Matter::Fine,
            Matter::PuttingRight,
            Matter::Starting,
            Matter::NotSure,
            Matter::ServiceIll(vec!["校務支援システム".to_owned()]),
            Matter::CutOff(vec![ZoneRole::Affairs, ZoneRole::Learning]),
            Matter::OnReserve { served: vec![ZoneRole::Affairs], cut_off: vec![] },
            Matter::OnReserve { served: vec![ZoneRole::Affairs], cut_off: vec![ZoneRole::Learning] },
        ]
    }

    /// What somebody at a school need not know.
    const JARGON: [&str; 14] = [
        "DNS",
        "IP",
        "VPN",
        "TLS",
        "TCP",
        "NAT",
        "ゾーン",
        "経路",
        "パケット",
        "ルータ",
        "サーバ",
        "プロトコル",
        "エージェント",
        "ポート",
    ];

    #[test]
    fn the_page_has_one_colour_one_sentence_and_what_to_do_and_no_jargon() {
        for matter in matters() {
            let view =
                PageView { school: "日の出小学校", matter: matter.clone(), contacts: &[], time: None };
            let html = page(&view);
            let body = html.split("<body>").nth(1).unwrap();
            assert!(body.contains(&matter.sentence().ja) && body.contains(&matter.to_do().ja));
            let lamps = ["lamp green", "lamp yellow", "lamp red"].map(|lamp| body.matches(lamp).count());
            assert_eq!(lamps.iter().sum::<usize>(), 1, "{lamps:?}");
            for word in JARGON {
                assert!(!body.contains(word), "{matter:?}: {word}");
            }
        }
    }

    #[test]
    fn whoever_need_not_act_is_told_so_in_the_same_words_everywhere() {
        for matter in matters() {
            let nothing = matter.to_do().ja == "今あなたがすることはありません。";
            assert_eq!(nothing, matter.colour() != Colour::Red, "{matter:?}");
        }
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere_and_no_script_runs() {
        let view = PageView { school: "x", matter: Matter::Fine, contacts: &[], time: None };
        let html = page(&view);
        for word in ["<script", "http://", "https://", "src=", "url(", "onload", "<form"] {
            assert!(!html.contains(word), "{word}");
        }
        assert!(html.contains("http-equiv=\"refresh\""));
    }

    #[test]
    fn what_the_plan_says_cannot_become_markup() {
        let contact = Contact { who: "<b>x".to_owned(), phone: "\"1\"".to_owned(), hours: "a&b'".to_owned() };
        let view =
            PageView { school: "</title><script>", matter: Matter::Fine, contacts: &[contact], time: None };
        let html = page(&view);
        assert!(!html.contains("<script") && !html.contains("<b>x"), "{html}");
        assert!(html.contains("&lt;b&gt;x") && html.contains("a&amp;b&#39;"));
    }
}
