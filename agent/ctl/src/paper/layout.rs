//! Where everything goes on A4 pages. Pure: a width for each character in, drawing orders out. Points (1/72 inch), from the
//! top left.

use super::{Block, Cell, Document, Numbered, PortBox, Tone, Weight};

pub(super) const PAGE: (f32, f32) = (595.28, 841.89);
const MARGIN: f32 = 40.0;
const WIDTH: f32 = PAGE.0 - 2.0 * MARGIN;
const BOTTOM: f32 = PAGE.1 - 46.0;
const PAD: f32 = 4.5;
/// Of the size: from one line to the next.
const LEADING: f32 = 1.45;

pub(super) type Rgb = (u8, u8, u8);

const INK: Rgb = (27, 27, 27);
const GREY: Rgb = (80, 80, 80);
const RULE: Rgb = (201, 205, 208);
const HEAD: Rgb = (238, 241, 243);
const CASE: Rgb = (58, 63, 68);
const ACCENT: Rgb = (43, 95, 138);

/// Background and ink.
fn colours(tone: Tone) -> (Option<Rgb>, Rgb) {
    match tone {
        Tone::Plain => (None, INK),
        Tone::Good => (Some((223, 242, 228)), (15, 84, 41)),
        Tone::Unsure => (Some((253, 241, 199)), (92, 69, 0)),
        Tone::Bad => (Some((251, 223, 220)), (140, 23, 16)),
        Tone::Calm => (Some((228, 237, 245)), (23, 63, 96)),
    }
}

/// A drawing order.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Draw {
    /// `y` is the baseline.
    Text {
        x: f32,
        y: f32,
        size: f32,
        weight: Weight,
        ink: Rgb,
        text: String,
    },
    Fill {
        x: f32,
        y: f32,
        width: f32,
        height: f32,
        ink: Rgb,
    },
}

/// Of one character in one weight, in parts of the size.
pub(super) type Advance<'a> = &'a dyn Fn(char, Weight) -> f32;

/// The pages' drawing orders.
pub(super) fn pages(document: &Document, advance: Advance<'_>) -> Vec<Vec<Draw>> {
    let mut pen = Pen { advance, pages: vec![Vec::new()], y: MARGIN };
    pen.lines(&document.title, 20.0, Weight::Bold, INK, MARGIN, WIDTH);
    pen.lines(&document.subtitle, 10.0, Weight::Normal, GREY, MARGIN, WIDTH);
    pen.y += 6.0;
    for block in &document.blocks {
        pen.block(block);
    }
    let count = pen.pages.len();
    for (i, page) in pen.pages.iter_mut().enumerate() {
        let text = format!("{}　{} / {count}", document.subtitle, i + 1);
        page.push(Draw::Text {
            x: MARGIN,
            y: PAGE.1 - 24.0,
            size: 8.0,
            weight: Weight::Normal,
            ink: GREY,
            text,
        });
    }
    pen.pages
}

struct Pen<'a> {
    advance: Advance<'a>,
    pages: Vec<Vec<Draw>>,
    y: f32,
}

impl Pen<'_> {
    fn draw(&mut self, order: Draw) {
        if let Some(page) = self.pages.last_mut() {
            page.push(order);
        }
    }

    fn room(&mut self, height: f32) {
        if self.y + height > BOTTOM && self.y > MARGIN {
            self.pages.push(Vec::new());
            self.y = MARGIN;
        }
    }

    fn width(&self, text: &str, size: f32, weight: Weight) -> f32 {
        text.chars().map(|c| (self.advance)(c, weight)).sum::<f32>() * size
    }

    /// Lines no wider than `width`. Latin words stay whole where they fit; Japanese may break anywhere but before closing
    /// signs and behind opening ones.
    fn wrap(&self, text: &str, size: f32, weight: Weight, width: f32) -> Vec<String> {
        let mut lines = Vec::new();
        let mut line = String::new();
        for piece in pieces(text) {
            let fits = self.width(&line, size, weight) + self.width(piece.trim_end(), size, weight) <= width;
            if !fits && !line.is_empty() {
                lines.push(std::mem::take(&mut line).trim_end().to_owned());
            }
            for c in piece.chars() {
                let over = self.width(&line, size, weight) + (self.advance)(c, weight) * size > width;
                if over && !line.is_empty() && c != ' ' {
                    lines.push(std::mem::take(&mut line));
                }
                line.push(c);
            }
        }
        lines.push(line.trim_end().to_owned());
        lines
    }

    /// Text at the pen, over as many lines and pages as it takes.
    fn lines(&mut self, text: &str, size: f32, weight: Weight, ink: Rgb, x: f32, width: f32) {
        for text in self.wrap(text, size, weight, width) {
            self.room(size * LEADING);
            self.y += size * LEADING;
            let y = self.y - size * 0.35;
            self.draw(Draw::Text { x, y, size, weight, ink, text });
        }
    }

    /// Text at a place, in one box.
    fn place(&mut self, lines: &[String], size: f32, weight: Weight, ink: Rgb, x: f32, top: f32) {
        for (i, text) in lines.iter().enumerate() {
            let y = top + size * (1.1 + LEADING * i as f32);
            self.draw(Draw::Text { x, y, size, weight, ink, text: text.clone() });
        }
    }

    fn fill(&mut self, x: f32, y: f32, width: f32, height: f32, ink: Rgb) {
        self.draw(Draw::Fill { x, y, width, height, ink });
    }

    fn block(&mut self, block: &Block) {
        match block {
            Block::Banner { tone, text, small } => self.banner(*tone, text, small),
            Block::Heading(text) => {
                // Never alone at the end of a page.
                self.room(70.0);
                self.y += 10.0;
                let top = self.y;
                self.lines(text, 13.0, Weight::Bold, INK, MARGIN + 9.0, WIDTH - 9.0);
                let height = self.y - top;
                self.fill(MARGIN, top + 2.0, 4.0, height - 1.0, ACCENT);
                self.y += 3.0;
            }
            Block::Paragraph(text) => {
                self.lines(text, 10.5, Weight::Normal, INK, MARGIN, WIDTH);
                self.y += 3.0;
            }
            Block::Note(text) => {
                self.lines(text, 8.5, Weight::Normal, GREY, MARGIN, WIDTH);
                self.y += 2.0;
            }
            Block::Code(text) => {
                self.lines(text, 7.5, Weight::Normal, INK, MARGIN + 6.0, WIDTH - 12.0);
                self.y += 2.0;
            }
            Block::List { numbered, items } => {
                for (i, item) in items.iter().enumerate() {
                    let mark =
                        if *numbered == Numbered::Yes { format!("{}.", i + 1) } else { "・".to_owned() };
                    self.room(10.5 * LEADING);
                    let (page, y) = (self.pages.len(), self.y + 10.5 * (LEADING - 0.35));
                    self.lines(item, 10.5, Weight::Normal, INK, MARGIN + 18.0, WIDTH - 18.0);
                    if let Some(page) = self.pages.get_mut(page - 1) {
                        let (x, size, weight, ink) = (MARGIN + 3.0, 10.5, Weight::Normal, INK);
                        page.push(Draw::Text { x, y, size, weight, ink, text: mark });
                    }
                    self.y += 1.5;
                }
                self.y += 3.0;
            }
            Block::Table { widths, head, rows } => self.table(widths, head, rows),
            Block::Ports(ports) => self.ports(ports),
        }
    }

    fn banner(&mut self, tone: Tone, text: &str, small: &str) {
        let (back, ink) = colours(tone);
        let inner = WIDTH - 24.0;
        let large = self.wrap(text, 17.0, Weight::Bold, inner);
        let below = if small.is_empty() { Vec::new() } else { self.wrap(small, 10.5, Weight::Normal, inner) };
        let height = (large.len() as f32) * 17.0 * LEADING + (below.len() as f32) * 10.5 * LEADING + 18.0;
        self.room(height + 8.0);
        let top = self.y;
        self.fill(MARGIN, top, WIDTH, height, back.unwrap_or(HEAD));
        self.place(&large, 17.0, Weight::Bold, ink, MARGIN + 12.0, top + 9.0);
        let second = top + 9.0 + (large.len() as f32) * 17.0 * LEADING;
        self.place(&below, 10.5, Weight::Normal, ink, MARGIN + 12.0, second);
        self.y = top + height + 8.0;
    }

    fn table(&mut self, widths: &[f32], head: &[String], rows: &[Vec<Cell>]) {
        let head: Vec<Cell> = head.iter().map(Cell::bold).collect();
        if !head.is_empty() {
            let first = rows.first().map_or(0.0, |row| self.row_height(widths, row));
            let height = self.row_height(widths, &head) + first;
            self.room(height);
            self.row(widths, &head, Some(HEAD));
        }
        for (i, row) in rows.iter().enumerate() {
            // What heads a group of rows is not left alone at the end of a page.
            let heads = row.first().is_some_and(|cell| cell.tone == Tone::Calm) && row.len() > 1;
            let below = rows.get(i + 1).filter(|_| heads).map_or(0.0, |next| self.row_height(widths, next));
            let height = self.row_height(widths, row) + below;
            if self.y + height > BOTTOM && self.y > MARGIN {
                self.pages.push(Vec::new());
                self.y = MARGIN;
                if !head.is_empty() {
                    self.row(widths, &head, Some(HEAD));
                }
            }
            self.row(widths, row, None);
        }
        self.y += 5.0;
    }

    fn row_height(&self, widths: &[f32], row: &[Cell]) -> f32 {
        let lines = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| self.wrap(&cell.text, 9.5, cell.weight, WIDTH * width - 2.0 * PAD).len())
            .max()
            .unwrap_or(1);
        lines as f32 * 9.5 * LEADING + 2.0 * PAD - 2.0
    }

    fn row(&mut self, widths: &[f32], row: &[Cell], back: Option<Rgb>) {
        let (top, height) = (self.y, self.row_height(widths, row));
        let mut x = MARGIN;
        for (cell, width) in row.iter().zip(widths) {
            let width = WIDTH * width;
            let (own, ink) = colours(cell.tone);
            if let Some(colour) = own.or(back) {
                self.fill(x, top, width, height, colour);
            }
            let lines = self.wrap(&cell.text, 9.5, cell.weight, width - 2.0 * PAD);
            self.place(&lines, 9.5, cell.weight, ink, x + PAD, top + PAD - 1.0);
            x += width;
        }
        self.fill(MARGIN, top + height - 0.3, x - MARGIN, 0.6, RULE);
        self.y = top + height;
    }

    fn ports(&mut self, ports: &[PortBox]) {
        if ports.is_empty() {
            return;
        }
        let gap = 6.0;
        let each = (WIDTH - gap * (ports.len() as f32 + 1.0)) / ports.len() as f32;
        let labels: Vec<Vec<String>> =
            ports.iter().map(|port| self.wrap(&port.leads_to, 8.0, Weight::Normal, each - 8.0)).collect();
        let most = labels.iter().map(Vec::len).max().unwrap_or(1) as f32;
        let inner = 24.0 + most * 8.0 * LEADING + 4.0;
        let height = inner + 2.0 * gap;
        self.room(height + 8.0);
        let top = self.y;
        self.fill(MARGIN, top, WIDTH, height, CASE);
        for (i, (port, lines)) in ports.iter().zip(&labels).enumerate() {
            let x = MARGIN + gap + (each + gap) * i as f32;
            let (back, ink) = colours(port.tone);
            self.fill(x, top + gap, each, inner, back.unwrap_or((255, 255, 255)));
            let name = self.width(&port.name, 12.0, Weight::Bold);
            let middle = x + (each - name) / 2.0;
            self.place(std::slice::from_ref(&port.name), 12.0, Weight::Bold, ink, middle, top + gap + 4.0);
            for (j, line) in lines.iter().enumerate() {
                let width = self.width(line, 8.0, Weight::Normal);
                let (x, y) = (x + (each - width) / 2.0, top + gap + 22.0 + 8.0 * LEADING * j as f32);
                self.place(std::slice::from_ref(line), 8.0, Weight::Normal, ink, x, y);
            }
        }
        self.y = top + height + 8.0;
    }
}

/// Pieces between which a line may be broken.
fn pieces(text: &str) -> Vec<&str> {
    let wide = |c: char| c >= '\u{2e80}';
    let must_follow = |c: char| "、。，．」』）】！？・ーぁぃぅぇぉっゃゅょァィゥェォッャュョ%％".contains(c);
    let (mut pieces, mut start) = (Vec::new(), 0);
    let mut before: Option<char> = None;
    for (at, c) in text.char_indices() {
        let may_break = match before {
            None => false,
            Some(' ') => c != ' ',
            Some(b) => (wide(b) || wide(c)) && c != ' ' && !must_follow(c) && !"「『（【".contains(b),
        };
        if may_break {
            pieces.push(&text[start..at]);
            start = at;
        }
        before = Some(c);
    }
    pieces.push(&text[start..]);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Lang;

    /// Half a square for Latin, a square for Japanese.
    fn advance(c: char, _: Weight) -> f32 {
        if c.is_ascii() { 0.5 } else { 1.0 }
    }

    fn document(blocks: Vec<Block>) -> Document {
        let (title, subtitle) = ("題".to_owned(), "副題".to_owned());
        Document { lang: Lang::Ja, title, subtitle, blocks, attachment: None, made_ms: 0 }
    }

    #[test]
    fn nothing_is_drawn_outside_the_page_however_long_the_text() {
        let long =
            "とても長い文章が、紙の端からはみ出さないことを確かめます。and Latin words, too. ".repeat(40);
        let cells = vec![Cell::bold(long.clone()), Cell::new("x".repeat(300))];
        let blocks = vec![
            Block::Banner { tone: Tone::Bad, text: long.chars().take(100).collect(), small: String::new() },
            Block::Paragraph(long.clone()),
            Block::List { numbered: Numbered::Yes, items: vec![long.clone(); 3] },
            Block::Code("0".repeat(500)),
            Block::Table { widths: vec![0.7, 0.3], head: vec![], rows: vec![cells; 3] },
        ];
        let pages = pages(&document(blocks), &advance);
        assert!(pages.len() > 1);
        for order in pages.iter().flatten() {
            match order {
                Draw::Text { x, y, size, text, weight, .. } => {
                    let right = x + text.chars().map(|c| advance(c, *weight)).sum::<f32>() * size;
                    assert!(*x >= MARGIN && right <= PAGE.0 - MARGIN + size, "{right}: {text}");
                    assert!(*y > 0.0 && *y < PAGE.1, "{y}: {text}");
                }
                Draw::Fill { x, y, width, height, .. } => {
                    assert!(x + width <= PAGE.0 && y + height <= PAGE.1 + 1.0, "{y} + {height}");
                }
            }
        }
    }

    #[test]
    fn no_line_begins_with_a_full_stop() {
        let pages = pages(&document(vec![Block::Paragraph("あいうえお、かきくけこ。".repeat(30))]), &advance);
        for order in pages.iter().flatten() {
            if let Draw::Text { text, .. } = order {
                assert!(!text.starts_with(['。', '、']), "{text}");
            }
        }
    }

    #[test]
    fn a_table_that_goes_on_has_its_head_again() {
        let rows = vec![vec![Cell::new("内容")]; 100];
        let table = Block::Table { widths: vec![1.0], head: vec!["見出し".to_owned()], rows };
        let pages = pages(&document(vec![table]), &advance);
        assert!(pages.len() > 1);
        for page in &pages {
            assert!(page.iter().any(|order| matches!(order, Draw::Text { text, .. } if text == "見出し")));
        }
    }
}
