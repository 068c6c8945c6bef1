//! One HTML file that loads nothing and prints well.

use std::fmt::Write as _;

use super::{Block, Cell, Document, Numbered, PortBox, Tone, Weight};
use crate::args::Lang;

const STYLE: &str = "\
*{box-sizing:border-box}
html{font-size:15px}
body{margin:0;background:#ececea;color:#1b1b1b;line-height:1.65;
font-family:\"BIZ UDPGothic\",\"BIZ UDPゴシック\",\"Hiragino Sans\",\"Yu Gothic UI\",\"Noto Sans CJK JP\",\"Noto Sans JP\",sans-serif}
main{background:#fff;max-width:210mm;margin:1rem auto;padding:13mm 14mm}
h1{font-size:1.7rem;line-height:1.3;margin:0}
.sub{color:#444;margin:.2rem 0 1rem}
h2{font-size:1.15rem;margin:1.3rem 0 .4rem;border-left:.35rem solid #2b5f8a;padding-left:.6rem;break-after:avoid}
p{margin:.4rem 0}
.banner{border-radius:.7rem;padding:.9rem 1.1rem;margin:.6rem 0 1rem}
.banner b{display:block;font-size:1.5rem;line-height:1.4}
.good{background:#dff2e4;color:#0f5429}.unsure{background:#fdf1c7;color:#5c4500}.bad{background:#fbdfdc;color:#8c1710}.calm{background:#e4edf5;color:#173f60}
table{width:100%;border-collapse:collapse;margin:.4rem 0;table-layout:fixed}
th{text-align:left;font-weight:700;background:#eef1f3}
th,td{border:1px solid #c9cdd0;padding:.35rem .5rem;vertical-align:top;overflow-wrap:anywhere}
tr{break-inside:avoid}
td.strong{font-weight:700}
ul,ol{margin:.3rem 0 .6rem;padding-left:1.5rem}
li{margin:.25rem 0}
.note{font-size:.85rem;color:#444}
code{font-family:\"DejaVu Sans Mono\",Consolas,monospace;font-size:.72rem;overflow-wrap:anywhere;background:#f3f3f1;display:block;padding:.3rem .5rem;line-height:1.4}
.ports{display:flex;gap:.4rem;background:#3a3f44;border-radius:.6rem;padding:.7rem;margin:.5rem 0}
.ports div{flex:1;border-radius:.3rem;text-align:center;padding:.4rem .2rem;min-width:0}
.ports b{display:block;font-size:1.15rem}
.ports span{font-size:.8rem;line-height:1.35;display:block;overflow-wrap:anywhere}
.plain{background:#fff;color:#1b1b1b}
@page{size:A4;margin:13mm 14mm}
@media print{body{background:#fff}main{margin:0;padding:0;max-width:none}*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
";

pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

/// The same document gives the same bytes.
pub(crate) fn render(document: &Document) -> String {
    let lang = match document.lang {
        Lang::Ja => "ja",
        Lang::En => "en",
    };
    let (title, subtitle) = (escape(&document.title), escape(&document.subtitle));
    let mut html = String::new();
    // Writing to a String cannot fail.
    let _infallible = write!(
        html,
        "<!doctype html>\n<html lang=\"{lang}\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n<p class=\"sub\">{subtitle}</p>\n"
    );
    for block in &document.blocks {
        write_block(&mut html, block);
    }
    html.push_str("</main>\n");
    if let Some(json) = &document.attachment {
        // Inside a script element only `<` could end it.
        let json = json.replace('<', "\\u003c");
        let _infallible =
            write!(html, "<script type=\"application/json\" id=\"seimon-data\">\n{json}\n</script>\n");
    }
    html.push_str("</body>\n</html>\n");
    html
}

fn class(tone: Tone) -> &'static str {
    match tone {
        Tone::Plain => "plain",
        Tone::Good => "good",
        Tone::Unsure => "unsure",
        Tone::Bad => "bad",
        Tone::Calm => "calm",
    }
}

fn write_block(html: &mut String, block: &Block) {
    let _infallible = match block {
        Block::Banner { tone, text, small } => writeln!(
            html,
            "<div class=\"banner {}\"><b>{}</b>{}</div>",
            class(*tone),
            escape(text),
            escape(small)
        ),
        Block::Heading(text) => writeln!(html, "<h2>{}</h2>", escape(text)),
        Block::Paragraph(text) => writeln!(html, "<p>{}</p>", escape(text)),
        Block::Note(text) => writeln!(html, "<p class=\"note\">{}</p>", escape(text)),
        Block::Code(text) => writeln!(html, "<code>{}</code>", escape(text)),
        Block::List { numbered, items } => {
            let tag = if *numbered == Numbered::Yes { "ol" } else { "ul" };
            let items: String = items.iter().map(|item| format!("<li>{}</li>\n", escape(item))).collect();
            writeln!(html, "<{tag}>\n{items}</{tag}>")
        }
        Block::Table { widths, head, rows } => write_table(html, widths, head, rows),
        Block::Ports(ports) => {
            let boxes: String = ports.iter().map(port).collect();
            writeln!(html, "<div class=\"ports\">{boxes}</div>")
        }
    };
}

fn port(port: &PortBox) -> String {
    format!(
        "<div class=\"{}\"><b>{}</b><span>{}</span></div>",
        class(port.tone),
        escape(&port.name),
        escape(&port.leads_to)
    )
}

fn write_table(html: &mut String, widths: &[f32], head: &[String], rows: &[Vec<Cell>]) -> std::fmt::Result {
    html.push_str("<table>\n<colgroup>");
    for width in widths {
        write!(html, "<col style=\"width:{:.0}%\">", width * 100.0)?;
    }
    html.push_str("</colgroup>\n");
    if !head.is_empty() {
        let cells: String = head.iter().map(|cell| format!("<th>{}</th>", escape(cell))).collect();
        writeln!(html, "<thead><tr>{cells}</tr></thead>")?;
    }
    html.push_str("<tbody>\n");
    for row in rows {
        html.push_str("<tr>");
        // A heading within the table stands over all columns.
        let heading = row.len() > 1
            && row[0].tone == Tone::Calm
            && row[1..].iter().all(|cell| cell.tone == Tone::Calm && cell.text.is_empty());
        let (shown, span) = if heading {
            (&row[..1], format!(" colspan=\"{}\"", row.len()))
        } else {
            (&row[..], String::new())
        };
        for cell in shown {
            let strong = if cell.weight == Weight::Bold { " strong" } else { "" };
            write!(html, "<td class=\"{}{strong}\"{span}>{}</td>", class(cell.tone), escape(&cell.text))?;
        }
        html.push_str("</tr>\n");
    }
    writeln!(html, "</tbody>\n</table>")
}
