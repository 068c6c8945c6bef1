//! Sentences for what happens and for what is checked, in both languages.

/// What was done to the town.
pub(super) fn event(what: &str, target: Option<&str>) -> (String, String) {
    let target = target.unwrap_or("");
    let line = match target {
        "carrier" => ("閉域網の回線", "the closed network's line (carrier)"),
        "internet" => ("インターネット回線", "the internet line"),
        "hub" => ("VPN センター", "the hub"),
        other => (other, other),
    };
    let (ja, en) = match what {
        "line.cut" => (format!("{}が抜けた（回線 {target}）", line.0), format!("{} was unplugged", line.1)),
        "line.blackhole" => (
            format!("{}が黙って通じなくなった（回線 {target}）", line.0),
            format!("{} silently swallows everything", line.1),
        ),
        "line.set" => (format!("{}の品質が変わった", line.0), format!("the quality of {} changed", line.1)),
        "service.ill" => {
            (format!("サービス {target} が不調になった"), format!("service {target} became ill"))
        }
        "service.register" => (
            format!("サービス {target} の登録 IP アドレスが変わった"),
            format!("service {target} changed whom it admits"),
        ),
        "egress.change" => (
            format!("{}の出口アドレスが、登録されていないものに変わった", line.0),
            format!("the egress address of {} became one that is registered nowhere", line.1),
        ),
        "dns.fault" => {
            (format!("DNS サーバー {target} が異常になった"), format!("DNS server {target} misbehaves"))
        }
        "hub.silence" => (
            "VPN センターが黙って応答しなくなった".to_owned(),
            "the hub swallows everything and tells nobody".to_owned(),
        ),
        "hub.kill" => (
            "VPN センターのトンネルが異常終了した".to_owned(),
            "the tunnel's process at the hub was killed (kill -9)".to_owned(),
        ),
        "hub.move" => {
            ("VPN センターの IP アドレスが変わった".to_owned(), "the hub's address became another".to_owned())
        }
        "wireguard.rotate" => (
            format!("経路 {target} の次の鍵を作り、VPN センターに登録した"),
            format!("the next key of path {target} was made and registered at the hub"),
        ),
        "wireguard.switch" => (
            format!("経路 {target} で次の鍵を使うよう指示"),
            format!("told to use the next key of path {target}"),
        ),
        "gateway.flush" => (
            "別のプログラムがファイアウォールの設定をすべて消した".to_owned(),
            "somebody else flushed the gateway's firewall".to_owned(),
        ),
        "gateway.kill" => (format!("{target} を強制終了した"), format!("{target} was killed (kill -9)")),
        "gateway.restart" => (
            "エージェントを強制終了し、再起動した".to_owned(),
            "the agent was killed (kill -9) and started again".to_owned(),
        ),
        "gateway.start" => ("エージェントを起動した".to_owned(), "the agent was started".to_owned()),
        "gateway.terminate" => {
            ("エージェントに停止を求めた".to_owned(), "the agent was asked to stop".to_owned())
        }
        "migrate.start" => {
            (format!("{target} の移行を始めるよう指示"), format!("told to begin the move of {target}"))
        }
        "migrate.rollback" => (format!("{target} を元へ戻すよう指示"), format!("told to roll {target} back")),
        "migrate.pause" => {
            (format!("{target} の移行を一時停止するよう指示"), format!("told to pause {target}"))
        }
        "migrate.resume" => {
            (format!("{target} の移行を再開するよう指示"), format!("told to resume {target}"))
        }
        "plan.apply" => ("新しい設定を適用するよう指示".to_owned(), "told to apply a plan".to_owned()),
        other => (format!("{other} {target}"), format!("{other} {target}")),
    };
    (ja, en)
}

/// What a check of the demo means; None: its name says it.
pub(super) fn check(name: &str) -> Option<(&'static str, &'static str)> {
    Some(match name {
        "move.lost" => ("失われた操作・パケット", "operations and packets lost during the moves"),
        "move.resets" => ("切断された接続", "connections reset during the moves"),
        "move.logouts" => ("意図しないログアウト", "log-ins that the service ended before their time"),
        "move.two_addresses" => ("途中で送信元が変わったログイン", "log-ins seen from two source addresses"),
        "move.checksum_errors" => ("内容が壊れたダウンロード", "downloads whose content was damaged"),
        "move.moved_share" => {
            ("移行後、新しい経路から来た新規ログインの割合", "new log-ins from the new egress once moved")
        }
        "move.on_new" => ("新しい経路で始まったログイン", "log-ins begun on the new path"),
        "move.on_vpn" => ("インターネットVPNで始まったログイン", "log-ins begun on the internet VPN"),
        "move.on_old" => ("元の経路で始まったログイン", "log-ins begun on the old path"),
        "move.forced_by_deadline" => {
            ("期限により強制的に移った端末", "clients forced over by the drain deadline")
        }
        "silent_death_ms" => (
            "回線が黙って切れてから、利用が戻るまで",
            "silent death of the line until users are served again",
        ),
        _ => return None,
    })
}
