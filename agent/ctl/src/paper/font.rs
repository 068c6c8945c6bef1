//! Fonts with Japanese glyphs, found on the machine: none is carried along. Of the one that is used only the glyphs that
//! appear go into a page.

use std::path::{Path, PathBuf};

/// Regular and bold, the best to read first: files of Debian's packages, and our image's own folder. Where there is no bold
/// one, the regular one does.
const KNOWN: &[(&str, &str)] = &[
    ("/usr/share/seimon/fonts/regular.ttf", "/usr/share/seimon/fonts/bold.ttf"),
    (
        "/usr/share/fonts/truetype/morisawa-biz-ud-gothic/BIZUDPGothic-Regular.ttf",
        "/usr/share/fonts/truetype/morisawa-biz-ud-gothic/BIZUDPGothic-Bold.ttf",
    ),
    (
        "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
        "/usr/share/fonts/opentype/noto/NotoSansCJK-Bold.ttc",
    ),
    ("/usr/share/fonts/opentype/ipaexfont-gothic/ipaexg.ttf", ""),
    ("/usr/share/fonts/truetype/fonts-japanese-gothic.ttf", ""),
];

/// The bytes of two font files; the first face of a collection is the Japanese one in those above.
#[derive(Clone, Debug)]
pub(crate) struct Fonts {
    pub(crate) regular: Vec<u8>,
    pub(crate) bold: Vec<u8>,
}

#[derive(Debug)]
pub(crate) enum NoFont {
    /// None of the known files is there.
    NotInstalled,
    Unreadable(PathBuf, std::io::Error),
}

/// The given font, else the first of the known ones.
pub(crate) fn find(given: Option<&Path>) -> Result<Fonts, NoFont> {
    if let Some(path) = given {
        let regular = std::fs::read(path).map_err(|error| NoFont::Unreadable(path.to_owned(), error))?;
        return Ok(Fonts { bold: regular.clone(), regular });
    }
    for (regular, bold) in KNOWN {
        if let Ok(regular) = std::fs::read(regular) {
            let bold = std::fs::read(bold).unwrap_or_else(|_| regular.clone());
            return Ok(Fonts { regular, bold });
        }
    }
    Err(NoFont::NotInstalled)
}
