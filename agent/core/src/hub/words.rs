//! How a hub and its schools' ends are, in a colour and a sentence.

use std::time::Duration;

use seimon_board::Instant;

use super::roster::Standing;
use crate::status::{Colour, Sentence};

/// Schools send something every 25 s to keep the way open, and shake hands every two minutes; a session ends after three.
const SILENT: Duration = Duration::from_secs(180);

/// One school's end.
pub fn school_end(standing: &Standing, now: Instant) -> (Colour, Sentence) {
    if standing.key.is_none() {
        return (
            Colour::Red,
            Sentence::new(
                "期限内の鍵がないため、つながりません。計画に新しい公開鍵を書いてください。",
                "none of its keys counts today, so it is not let in: write its new public key into the plan",
            ),
        );
    }
    match standing.heard.max(standing.handshake).map(|at| now.since(at)) {
        Some(silent) if silent <= SILENT => (Colour::Green, Sentence::new("つながっています。", "connected")),
        Some(_) => (
            Colour::Yellow,
            Sentence::new(
                "応答がありません。学校の機器の電源と回線を確かめてください。",
                "silent: are the school's gateway and its line up?",
            ),
        ),
        None => (
            Colour::Yellow,
            Sentence::new(
                "起動してから、まだ一度もつながっていません。学校の電源と回線、両側の公開鍵を確かめてください。",
                "not heard of since the agent started: are its gateway and line up, and both ends' public keys right?",
            ),
        ),
    }
}

/// The hub as a whole: how many schools there are of each colour, and what is wrong with the hub itself.
pub fn hub_sentence(ends: &[Colour], trouble: Option<&str>) -> (Colour, Sentence) {
    let all = ends.len();
    let of = |colour: Colour| ends.iter().filter(|end| **end == colour).count();
    let (green, red) = (of(Colour::Green), of(Colour::Red));
    if let Some(trouble) = trouble {
        return (
            Colour::Red,
            Sentence::new(
                format!("ハブ自身に問題があります（{trouble}）。"),
                format!("something is wrong with the hub itself: {trouble}"),
            ),
        );
    }
    if all == 0 {
        return (
            Colour::Yellow,
            Sentence::new("計画に学校がまだありません。", "there is no school in the plan yet"),
        );
    }
    let (ja, en) = (
        format!("{all} 校のうち {green} 校とつながっています。"),
        format!("{green} of {all} schools are connected"),
    );
    let colour = if red > 0 {
        Colour::Red
    } else if green < all {
        Colour::Yellow
    } else {
        Colour::Green
    };
    match red {
        0 => (colour, Sentence::new(ja, en)),
        _ => (
            colour,
            Sentence::new(
                format!("{ja}{red} 校は鍵の期限が切れています。"),
                format!("{en}; without a key that counts today: {red}"),
            ),
        ),
    }
}
