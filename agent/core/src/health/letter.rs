//! What to send to a service's provider when the school's addresses have changed: a text that is ready to be sent.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::status::{Sentence, list};

/// What is known of one service's registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    pub site: String,
    /// As the plan calls it, and its names.
    pub service: String,
    pub names: Vec<String>,
    pub registered: BTreeSet<IpAddr>,
    /// Seen lately on the paths that this service's traffic may use.
    pub seen: BTreeSet<IpAddr>,
}

impl Registration {
    /// To be registered.
    pub fn missing(&self) -> BTreeSet<IpAddr> {
        self.seen.difference(&self.registered).copied().collect()
    }

    /// Registered and not seen now. That does not make them wrong: a line may be down.
    pub fn unseen(&self) -> BTreeSet<IpAddr> {
        self.registered.difference(&self.seen).copied().collect()
    }

    /// The letter; when nothing is missing, a sentence that says so.
    pub fn letter(&self) -> Sentence {
        let Self { site, service, names, registered, seen: _ } = self;
        if registered.is_empty() {
            return Sentence::new(
                format!(
                    "計画では、「{service}」は送信元の番号を問わないことになっています。送るものはありません。"
                ),
                format!("In the plan {service} admits any address. There is nothing to send."),
            );
        }
        let missing = self.missing();
        if missing.is_empty() {
            return Sentence::new(
                format!("「{service}」から見える番号は、すべて登録済みです。送るものはありません。"),
                format!("Every address that {service} sees is registered. There is nothing to send."),
            );
        }
        let lines = |addresses: &BTreeSet<IpAddr>| {
            addresses.iter().map(|address| format!("  ・{address}\n")).collect::<String>()
        };
        let (names, unseen) = (list(names), self.unseen());
        let old_ja = if unseen.is_empty() {
            String::new()
        } else {
            format!(
                "\n■ 登録済みで、現在は確認できていない送信元IPアドレス（削除はまだ不要です）\n{}",
                lines(&unseen)
            )
        };
        let old_en = if unseen.is_empty() {
            String::new()
        } else {
            format!("\nRegistered, not seen at present (please keep them for now):\n{}", lines(&unseen))
        };
        Sentence::new(
            format!(
                "件名：送信元IPアドレスの追加登録のお願い（{site}）\n\n\
                 ご担当者様\n\n\
                 いつもお世話になっております。\n\
                 {site}で利用している貴サービス（{names}）について、回線の変更により送信元IPアドレスが変わりました。\n\
                 お手数ですが、次のアドレスを追加で登録していただけますでしょうか。\n\n\
                 ■ 追加をお願いする送信元IPアドレス\n{}{old_ja}\n\
                 登録が済みましたら、ご一報ください。\n\
                 よろしくお願いいたします。\n\n\
                 （差出人の所属・氏名・連絡先をここに書いてください）\n",
                lines(&missing)
            ),
            format!(
                "Subject: Please register further source addresses ({site})\n\n\
                 To whom it may concern,\n\n\
                 {site} uses your service ({names}). With a change of its internet line its source addresses have changed.\n\
                 Please register these in addition:\n{}{old_en}\n\
                 Please tell us when that is done.\n\n\
                 (name, office and telephone of the sender)\n",
                lines(&missing)
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(addresses: &[&str]) -> BTreeSet<IpAddr> {
        addresses.iter().map(|a| a.parse().expect("an address")).collect()
    }

    fn of(registered: &[&str], seen: &[&str]) -> Registration {
        Registration {
            site: "日の出小学校".into(),
            service: "affairs".into(),
            names: vec!["affairs.school.example".into()],
            registered: set(registered),
            seen: set(seen),
        }
    }

    #[test]
    fn the_letter_names_what_is_to_be_registered_and_keeps_what_is() {
        let letter =
            of(&["192.0.2.2", "198.51.100.10"], &["192.0.2.77", "2001:db8::77", "198.51.100.10"]).letter();
        for text in [&letter.ja, &letter.en] {
            for address in
                ["192.0.2.77", "2001:db8::77", "192.0.2.2\n", "affairs.school.example", "日の出小学校"]
            {
                assert!(text.contains(address), "{address} in {text}");
            }
            assert!(!text.contains("198.51.100.10"), "registered and in use: {text}");
        }
        assert!(letter.ja.starts_with("件名："));
    }

    #[test]
    fn nothing_is_to_be_sent_when_nothing_is_missing_or_nobody_asks() {
        for registration in
            [of(&["192.0.2.2"], &["192.0.2.2"]), of(&["192.0.2.2"], &[]), of(&[], &["192.0.2.9"])]
        {
            assert!(registration.letter().ja.contains("送るものはありません"), "{registration:?}");
        }
    }
}
