//! The front of a case as a drawing: which socket is which, and what the lamps say. SVG, nothing loaded from elsewhere.

use std::fmt::Write as _;

use crate::hardware::{Colour, Shows};
use crate::{Board, PortRole, Via};

const SOCKET: usize = 92;
const MARGIN: usize = 18;

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn colour(colour: Colour) -> &'static str {
    match colour {
        Colour::White => "#f4f4f4",
        Colour::Red => "#c62828",
        Colour::Green => "#2e8b45",
        Colour::Blue => "#1f5fbf",
        Colour::Amber => "#e09a1a",
    }
}

/// The board's ports, lamps and buttons. The order is the file's alphabetical one: a case may have another.
pub fn svg(board: &Board) -> String {
    let (leds, buttons) = match &board.hardware {
        Some(hardware) => (Some(&hardware.leds), Some(&hardware.buttons)),
        None => (None, None),
    };
    let lamps = leds.map_or(0, std::collections::BTreeMap::len);
    let keys = buttons.map_or(0, std::collections::BTreeMap::len);
    let columns = board.ports.len().max(lamps + keys).max(3);
    let width = MARGIN * 2 + columns * SOCKET;
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _infallible = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} 236\" width=\"{width}\" height=\"236\" \
         font-family=\"sans-serif\" text-anchor=\"middle\">\n<title>{0}</title>\n\
         <rect x=\"1\" y=\"1\" width=\"{1}\" height=\"234\" rx=\"10\" fill=\"#2b2f33\"/>\n\
         <text x=\"{MARGIN}\" y=\"26\" fill=\"#fff\" font-size=\"13\" text-anchor=\"start\">{0}</text>\n",
        escape(&board.description),
        width - 2,
    );
    let centre = |at: usize| MARGIN + at * SOCKET + SOCKET / 2;
    let mut at = 0;
    for (name, led) in leds.into_iter().flatten() {
        let ring = match led.shows {
            Shows::Status => "#fff",
            Shows::Kernel => "#666",
        };
        let word = match led.shows {
            Shows::Status => "status",
            Shows::Kernel => "power, links",
        };
        let _infallible = write!(
            out,
            "<circle cx=\"{0}\" cy=\"62\" r=\"9\" fill=\"{1}\" stroke=\"{ring}\" stroke-width=\"2\"/>\n\
             <text x=\"{0}\" y=\"88\" fill=\"#fff\" font-size=\"11\">{2}</text>\n\
             <text x=\"{0}\" y=\"102\" fill=\"#aaa\" font-size=\"9\">{word}</text>\n",
            centre(at),
            colour(led.colour),
            escape(name),
        );
        at += 1;
    }
    for (name, button) in buttons.into_iter().flatten() {
        let _infallible = write!(
            out,
            "<circle cx=\"{0}\" cy=\"62\" r=\"11\" fill=\"#111\" stroke=\"#999\"/>\n\
             <text x=\"{0}\" y=\"88\" fill=\"#fff\" font-size=\"11\">{1}</text>\n\
             <text x=\"{0}\" y=\"102\" fill=\"#aaa\" font-size=\"9\">{2} s / {3} s</text>\n",
            centre(at),
            escape(name),
            button.rescue_s,
            button.reset_s,
        );
        at += 1;
    }
    for (at, (name, port)) in board.ports.iter().enumerate() {
        let fill = match port.role {
            PortRole::Wan => "#cfe0f7",
            PortRole::Lan => "#d8efd9",
        };
        let via = match port.via {
            Via::Own => "",
            Via::Switch => "switch",
        };
        let x = MARGIN + at * SOCKET + 4;
        let _infallible = write!(
            out,
            "<rect x=\"{x}\" y=\"122\" width=\"{0}\" height=\"62\" rx=\"4\" fill=\"{fill}\"/>\n\
             <text x=\"{1}\" y=\"150\" font-size=\"16\" font-weight=\"bold\">{2}</text>\n\
             <text x=\"{1}\" y=\"170\" font-size=\"11\" fill=\"#333\">{3}</text>\n\
             <text x=\"{1}\" y=\"202\" font-size=\"10\" fill=\"#aaa\">{via}</text>\n",
            SOCKET - 8,
            centre(at),
            escape(name),
            escape(port.interface.as_str()),
        );
    }
    out.push_str("</svg>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_lamp_and_button_of_every_board_is_drawn() {
        for id in Board::shipped_ids() {
            let board = Board::shipped(id).expect("shipped");
            let picture = svg(&board);
            let hardware = board.hardware.iter();
            let more = hardware.flat_map(|h| h.leds.keys().chain(h.buttons.keys()));
            for word in board.ports.keys().chain(more) {
                assert!(picture.contains(&format!(">{}<", escape(word))), "{id}: {word}");
            }
            assert_eq!(picture.matches("<text").count(), picture.matches("</text>").count());
        }
    }

    #[test]
    fn what_a_board_file_says_cannot_become_markup() {
        let text = "id = \"b\"\ndescription = \"<script>\"\n[ports]\n\"<b>\" = { interface = \"e0\", role = \"wan\" }\n";
        let picture = svg(&Board::parse(text, "b.toml").expect("valid"));
        assert!(!picture.contains("<script") && !picture.contains("<b>"), "{picture}");
    }
}
