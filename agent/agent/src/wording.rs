//! The lamp in the words of the people who read it.

use seimon_ipc::control::{Bilingual, Light};

fn say(ja: impl Into<String>, en: impl Into<String>) -> Bilingual {
    Bilingual { ja: ja.into(), en: en.into() }
}

/// The one sentence under the lamp.
pub(crate) fn overall(light: Light) -> Bilingual {
    match light {
        Light::Green => say(
            "すべて正常です。今あなたがすることはありません。",
            "Everything works. There is nothing for you to do now.",
        ),
        Light::Yellow => say(
            "確認中または切り替え中のものがあります。授業や仕事は続けられます。今あなたがすることはありません。",
            "Something is being examined or moved. Lessons and work can go on. There is nothing for you to do now.",
        ),
        Light::Red => say(
            "使えない通信があります。教育委員会のネットワーク担当に知らせてください。",
            "Some traffic cannot get through. Please tell the network office of the education board.",
        ),
    }
}
