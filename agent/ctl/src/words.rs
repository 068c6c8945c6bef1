//! The words for people, in both languages. Words that a newer agent uses and this tool does not know stay as they are.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use seimon_ipc::control::{Bilingual, GroupStatus, Light};

use crate::args::Lang;
use crate::client::{Allowed, ClientError};
use crate::screen::clean;

/// As the locale says.
pub(crate) fn lang_of_environment() -> Lang {
    let said = ["LC_ALL", "LC_MESSAGES", "LANG"]
        .iter()
        .find_map(|key| std::env::var(key).ok().filter(|value| !value.is_empty()));
    if said.is_some_and(|locale| locale.starts_with("ja")) { Lang::Ja } else { Lang::En }
}

/// In one line.
pub(crate) fn pick(lang: Lang, text: &Bilingual) -> String {
    clean(as_written(lang, text))
}

/// With the lines that it was given, each of them cleaned; never empty.
pub(crate) fn pick_lines(lang: Lang, text: &Bilingual) -> Vec<String> {
    as_written(lang, text).trim_end().split('\n').map(clean).collect()
}

fn as_written(lang: Lang, text: &Bilingual) -> &str {
    let (first, second) = match lang {
        Lang::Ja => (&text.ja, &text.en),
        Lang::En => (&text.en, &text.ja),
    };
    if first.is_empty() { second } else { first }
}

pub(crate) fn say(lang: Lang, ja: &str, en: &str) -> String {
    match lang {
        Lang::Ja => ja.to_owned(),
        Lang::En => en.to_owned(),
    }
}

pub(crate) fn light(lang: Lang, light: Light) -> &'static str {
    match (lang, light) {
        (Lang::Ja, Light::Green) => "緑",
        (Lang::Ja, Light::Yellow) => "黄",
        (Lang::Ja, Light::Red) => "赤",
        (Lang::En, Light::Green) => "GREEN",
        (Lang::En, Light::Yellow) => "YELLOW",
        (Lang::En, Light::Red) => "RED",
    }
}

pub(crate) fn state(lang: Lang, state: &str) -> String {
    let (ja, en) = match state {
        "Steady" => ("安定", "steady"),
        "Qualifying" => ("移行先を確認中", "testing the new path"),
        "Canary" => ("一部の端末で試行中", "a few devices try it"),
        "CuttingOver" => ("切替中", "moving"),
        "Soaking" => ("様子見", "watching after the move"),
        "RollingBack" => ("切り戻し中", "going back"),
        "Blocked" => ("停止（使える経路なし）", "blocked: no usable path"),
        other => return clean(other),
    };
    say(lang, ja, en)
}

/// What an event of this kind goes from or to: a group's state, a path's or a service's health.
pub(crate) fn of_event(lang: Lang, kind: &str, word: &str) -> String {
    match kind {
        "path" => path_health(lang, word),
        "check" => service_health(lang, word),
        _ => state(lang, word),
    }
}

pub(crate) fn path_health(lang: Lang, health: &str) -> String {
    let (ja, en) = match health {
        "up" => ("使える", "up"),
        "down" => ("不通", "down"),
        "unknown" => ("確認中", "not known yet"),
        "lossy" => ("通信の一部が失われる", "loses packets"),
        "slow" => ("遅い", "slow"),
        "large-stall" => ("大きなデータが止まる", "long messages stall"),
        "well" => ("不調がおさまった", "well again"),
        "ipv6-up" => ("IPv6 が使える", "IPv6 works"),
        "ipv6-down" => ("IPv6 だけ不通", "IPv6 is broken"),
        other => return clean(other),
    };
    say(lang, ja, en)
}

pub(crate) fn service_health(lang: Lang, health: &str) -> String {
    let (ja, en) = match health {
        // The status says good, an event well.
        "good" | "well" => ("正常", "good"),
        "ill" => ("異常", "ill"),
        "unknown" => ("確認中", "not known yet"),
        other => return clean(other),
    };
    say(lang, ja, en)
}

/// What the reader should do about a group, commands on lines of their own; `None`: nothing.
pub(crate) fn to_do(lang: Lang, group: &GroupStatus) -> Option<String> {
    let name = format!("{}/{}", group.zone, group.group);
    let (ja, en) = match group.state.as_str() {
        _ if group.paused => (
            format!("再開するには:\n  seimonctl migrate resume {name}"),
            format!("to go on:\n  seimonctl migrate resume {name}"),
        ),
        "Qualifying" | "Canary" | "CuttingOver" | "Soaking" => (
            format!("自動で進みます。待っていてください。元に戻すには:\n  seimonctl migrate rollback {name}"),
            format!("it goes on by itself; wait. To go back:\n  seimonctl migrate rollback {name}"),
        ),
        "RollingBack" => (
            "自動で元の経路に戻ります。待っていてください。".to_owned(),
            "it goes back by itself; wait.".to_owned(),
        ),
        "Blocked" => (
            "回線の機器の電源とケーブルを確かめ、直らなければ教育委員会の担当に連絡してください。".to_owned(),
            "check power and cables of the lines' boxes; if that does not help, call the municipality."
                .to_owned(),
        ),
        _ => return None,
    };
    Some(say(lang, &ja, &en))
}

/// Rounded to what matters: `3 h 20 min`, `45 s`.
pub(crate) fn duration(lang: Lang, ms: u64) -> String {
    let seconds = ms.div_ceil(1000);
    let (d, h, min, s) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let units = match lang {
        Lang::Ja => [(d, "日"), (h, "時間"), (min, "分"), (s, "秒")],
        Lang::En => [(d, " d"), (h, " h"), (min, " min"), (s, " s")],
    };
    let first = units.iter().position(|(n, _)| *n > 0).unwrap_or(units.len() - 1);
    let shown = units[first..].iter().take(2).enumerate().filter(|(i, (n, _))| *i == 0 || *n > 0);
    let parts: Vec<String> = shown.map(|(_, (n, unit))| format!("{n}{unit}")).collect();
    parts.join(if lang == Lang::Ja { "" } else { " " })
}

/// In this machine's time zone.
pub(crate) fn time(wall_ms: i64) -> String {
    Timestamp::from_millisecond(wall_ms).map_or_else(
        |_| "----".to_owned(),
        |at| at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
    )
}

pub(crate) fn client_error(lang: Lang, error: &ClientError) -> String {
    match (lang, error) {
        (Lang::Ja, ClientError::NoAgent { socket, why }) => format!(
            "ゲートウェイのエージェントに接続できません（{}: {why}）。\n\
             動いているか確かめてください: systemctl status seimon-agent\n\
             ソケットが別の場所にあるときは、--socket か環境変数 SEIMON_SOCKET で指定します。",
            socket.display()
        ),
        (Lang::En, ClientError::NoAgent { socket, why }) => format!(
            "the gateway's agent cannot be reached ({}: {why})\n\
             see whether it runs: systemctl status seimon-agent\n\
             if it listens elsewhere, say where with --socket or the environment variable SEIMON_SOCKET",
            socket.display()
        ),
        (_, ClientError::NotAllowed { socket, allowed }) => {
            not_allowed(lang, allowed, &socket.display().to_string())
        }
        (Lang::Ja, ClientError::NoAnswer { socket }) => format!(
            "エージェントが応答しません（{}）。\n状態を確かめてください: systemctl status seimon-agent、\
             journalctl -u seimon-agent -n 50",
            socket.display()
        ),
        (Lang::En, ClientError::NoAnswer { socket }) => format!(
            "the agent hung up or does not answer ({})\nsee how it is: systemctl status seimon-agent, \
             journalctl -u seimon-agent -n 50",
            socket.display()
        ),
        (Lang::Ja, ClientError::TooLong) => {
            "送る内容が大きすぎます。整備計画のファイルか確かめてください。".to_owned()
        }
        (Lang::En, ClientError::TooLong) => {
            "that is too large to be sent: is it the right plan file?".to_owned()
        }
        (Lang::Ja, ClientError::Nonsense(error)) => format!(
            "エージェントの返答を解釈できません（{error}）。seimonctl と seimon-agent の版が同じか確かめてください。"
        ),
        (Lang::En, ClientError::Nonsense(error)) => format!(
            "the agent's answer makes no sense ({error}): are seimonctl and seimon-agent of the same version?"
        ),
    }
}

pub(crate) fn not_allowed(lang: Lang, allowed: &Allowed, why: &str) -> String {
    let why = clean(why);
    let group = match allowed {
        Allowed::Root => None,
        Allowed::Group(name) => Some(name.as_str()),
        Allowed::Unknown => Some("seimon"),
    };
    match (lang, group) {
        (Lang::Ja, Some(group)) => format!(
            "この操作は許可されていません（{why}）。\n\
             管理者に、グループ {group} へ加えてもらってください: sudo usermod -aG {group} $USER\n\
             加わったら、ログインし直してください。"
        ),
        (Lang::En, Some(group)) => format!(
            "you are not allowed to do this ({why})\n\
             have an administrator add you to the group {group}: sudo usermod -aG {group} $USER\n\
             then log in again"
        ),
        (Lang::Ja, None) => format!(
            "この操作は許可されていません（{why}）。\n\
             このゲートウェイでは管理者 (root) だけが使えます: sudo seimonctl …"
        ),
        (Lang::En, None) => format!(
            "you are not allowed to do this ({why})\n\
             on this gateway only the administrator (root) is: sudo seimonctl …"
        ),
    }
}
