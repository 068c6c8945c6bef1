//! A4 pages as PDF/A-3: laid out by [`super::layout`], written by krilla, with the glyphs that appear inside.

use krilla::Document as Pdf;
use krilla::SerializeSettings;
use krilla::color::rgb;
use krilla::configure::{Archival, ConfigurationBuilder};
use krilla::embed::{AssociationKind, EmbeddedFile, MimeType};
use krilla::geom::{PathBuilder, Point, Rect};
use krilla::metadata::{DateTime, Metadata};
use krilla::num::NormalizedF32;
use krilla::page::PageSettings;
use krilla::paint::{Fill, FillRule};
use krilla::surface::Surface;
use krilla::text::{Font, TextDirection};
use skrifa::instance::{LocationRef, Size};
use skrifa::{FontRef, MetadataProvider as _};

use super::font::Fonts;
use super::layout::{self, Draw, PAGE, Rgb};
use super::{Document, Weight};
use crate::args::Lang;

/// Why there is no PDF.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PdfError {
    #[error("the font cannot be used")]
    Font,
    #[error("the page cannot be written: {0}")]
    Writing(String),
}

/// The same document and fonts give the same bytes.
pub(crate) fn render(document: &Document, fonts: &Fonts) -> Result<Vec<u8>, PdfError> {
    let pages = {
        let regular = Widths::new(&fonts.regular)?;
        let bold = Widths::new(&fonts.bold)?;
        let advance = |c: char, weight: Weight| match weight {
            Weight::Normal => regular.of(c),
            Weight::Bold => bold.of(c),
        };
        layout::pages(document, &advance)
    };
    let font = |bytes: &[u8]| Font::new(bytes.to_vec().into(), 0).ok_or(PdfError::Font);
    let faces = Faces { regular: font(&fonts.regular)?, bold: font(&fonts.bold)? };
    let configuration = ConfigurationBuilder::new()
        .with_archival_validator(Archival::A3_B)
        .finish()
        .map_err(|error| PdfError::Writing(format!("{error:?}")))?;
    let mut pdf = Pdf::new_with(SerializeSettings { configuration, ..SerializeSettings::default() });
    let made = date(document.made_ms);
    let lang = match document.lang {
        Lang::Ja => "ja",
        Lang::En => "en",
    };
    let metadata = Metadata::new()
        .title(document.title.clone())
        .language(lang.to_owned())
        .creator(format!("seimonctl {}", env!("CARGO_PKG_VERSION")));
    pdf.set_metadata(match made {
        Some(made) => metadata.creation_date(made),
        None => metadata,
    });
    if let Some(json) = &document.attachment {
        pdf.embed_file(EmbeddedFile {
            path: "seimon-data.json".to_owned(),
            mime_type: MimeType::new("application/json"),
            description: Some("the same as data, signed".to_owned()),
            association_kind: AssociationKind::Data,
            data: json.clone().into_bytes().into(),
            modification_date: made,
            // To be found by looking for its beginning.
            compress: Some(false),
            location: None,
        });
    }
    for orders in pages {
        let settings = PageSettings::from_wh(PAGE.0, PAGE.1)
            .ok_or_else(|| PdfError::Writing("the page has no size".to_owned()))?;
        let mut page = pdf.start_page_with(settings);
        let mut surface = page.surface();
        for order in &orders {
            draw(&mut surface, order, &faces);
        }
        surface.finish();
        page.finish();
    }
    pdf.finish().map_err(|error| PdfError::Writing(format!("{error:?}")))
}

struct Faces {
    regular: Font,
    bold: Font,
}

fn draw(surface: &mut Surface<'_>, order: &Draw, faces: &Faces) {
    match order {
        Draw::Fill { x, y, width, height, ink } => {
            let mut builder = PathBuilder::new();
            if let Some(rect) = Rect::from_xywh(*x, *y, *width, *height) {
                builder.push_rect(rect);
            }
            if let Some(path) = builder.finish() {
                surface.set_fill(Some(fill(*ink)));
                surface.draw_path(&path);
            }
        }
        Draw::Text { x, y, size, weight, ink, text } => {
            if text.is_empty() {
                return;
            }
            let font = match weight {
                Weight::Normal => &faces.regular,
                Weight::Bold => &faces.bold,
            };
            surface.set_fill(Some(fill(*ink)));
            let (at, direction) = (Point::from_xy(*x, *y), TextDirection::LeftToRight);
            surface.draw_text(at, font.clone(), *size, text, false, direction);
        }
    }
}

fn fill((red, green, blue): Rgb) -> Fill {
    let opacity = NormalizedF32::ONE;
    Fill { paint: rgb::Color::new(red, green, blue).into(), opacity, rule: FillRule::default() }
}

/// In UTC.
fn date(ms: i64) -> Option<DateTime> {
    let at = jiff::Timestamp::from_millisecond(ms).ok()?.to_zoned(jiff::tz::TimeZone::UTC);
    let small = |number: i8| u8::try_from(number).unwrap_or(0);
    Some(
        DateTime::new(u16::try_from(at.year()).ok()?)
            .month(small(at.month()))
            .day(small(at.day()))
            .hour(small(at.hour()))
            .minute(small(at.minute()))
            .second(small(at.second()))
            .utc_offset_hour(0)
            .utc_offset_minute(0),
    )
}

/// How wide characters are.
struct Widths<'a> {
    font: FontRef<'a>,
}

impl<'a> Widths<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, PdfError> {
        FontRef::from_index(bytes, 0).map(|font| Self { font }).map_err(|_| PdfError::Font)
    }

    /// In parts of the size; a square where the font does not know the character.
    fn of(&self, c: char) -> f32 {
        let metrics = self.font.glyph_metrics(Size::new(1.0), LocationRef::default());
        let glyph = self.font.charmap().map(c);
        glyph.and_then(|glyph| metrics.advance_width(glyph)).unwrap_or(1.0)
    }
}
