//! Every answer that an agent may give, sensible or hostile, and what `seimonctl` makes of it.

use crate::common::{FakeAgent, Outcome, both, golden, outcome, seimonctl};
use anyhow::Result;
use seimon_ipc::control::{
    Command as Ask, DataplaneStatus, Event, Explanation, Follow, GroupStatus, Light, MeteredStatus,
    MigrateAction, PathStatus, ProxyStatus, Response, ServiceStatus, Status,
};
use seimon_plan::{GroupId, LineId, PathId, ServiceId, SiteId, ZoneId};

fn ask(response: &Response, arguments: &[&str]) -> Result<(Outcome, Option<Ask>)> {
    let agent = FakeAgent::answering(response)?;
    let outcome = outcome(seimonctl().arg("--socket").arg(agent.socket()).args(arguments).output()?);
    Ok((outcome, agent.request().map(|request| request.request)))
}

fn path(id: &str) -> PathId {
    PathId::new(id).expect("an id")
}

fn group(zone: &str, state: &str, light: Light) -> GroupStatus {
    GroupStatus {
        zone: ZoneId::new(zone).expect("an id"),
        group: GroupId::new(zone).expect("an id"),
        state: state.to_owned(),
        path: Some(path("closed")),
        target: None,
        clients: vec![(path("closed"), 12)],
        flows: vec![(path("closed"), 34)],
        paused: false,
        forced_by_deadline: 0,
        remaining_ms: None,
        light,
        sentence: both("閉域網を使っています。", "It uses the closed network."),
        vetoes: Vec::new(),
    }
}

fn status() -> Status {
    let moving = GroupStatus {
        path: Some(path("direct")),
        target: Some(path("direct")),
        clients: vec![(path("closed"), 7), (path("direct"), 41)],
        flows: vec![(path("closed"), 9), (path("direct"), 230)],
        remaining_ms: Some(754_000),
        forced_by_deadline: 1,
        sentence: both(
            "新しい接続は直接インターネットへ出ています。使用中の接続は、終わるまで閉域網のまま残り、先生方の作業は途切れません。",
            "New connections go straight to the internet. Those in use stay on the closed network until they end, so nobody's work is cut off.",
        ),
        ..group("learning", "CuttingOver", Light::Yellow)
    };
    let vetoed = GroupStatus {
        vetoes: vec![both(
            "移行できる時間帯の外です（平日 18:00〜翌 6:00）。",
            "Outside the window (weekdays 18:00 to 6:00).",
        )],
        ..group("affairs", "Steady", Light::Green)
    };
    let blocked = GroupStatus {
        path: None,
        clients: Vec::new(),
        flows: Vec::new(),
        sentence: both("使える経路がありません。", "There is no usable path."),
        ..group("staff", "Blocked", Light::Red)
    };
    Status {
        version: 1,
        site: SiteId::new("hinode").expect("an id"),
        site_name: "日の出小学校".to_owned(),
        agent_version: "0.1.0".to_owned(),
        generation: 3,
        wall_ms: 1_795_395_600_000,
        clock_trusted: true,
        overall: Light::Red,
        sentence: both(
            "staff ゾーンがインターネットを使えません。ほかは動いています。",
            "The staff zone cannot use the internet. Everything else works.",
        ),
        paths: vec![
            PathStatus {
                path: path("closed"),
                health: "up".to_owned(),
                loss: 0.0,
                rtt_ms: Some(12.34),
                egress: vec!["198.51.100.7".parse().expect("an address")],
                tunnel: None,
            },
            PathStatus {
                path: path("direct"),
                health: "down".to_owned(),
                loss: 1.0,
                rtt_ms: None,
                egress: Vec::new(),
                tunnel: None,
            },
        ],
        groups: vec![vetoed, moving, blocked],
        services: vec![
            ServiceStatus {
                zone: ZoneId::new("affairs").expect("an id"),
                service: ServiceId::new("saas").expect("an id"),
                path: path("closed"),
                health: "good".to_owned(),
                median_ms: Some(48.0),
                failing: None,
            },
            ServiceStatus {
                zone: ZoneId::new("affairs").expect("an id"),
                service: ServiceId::new("saas").expect("an id"),
                path: path("direct"),
                health: "ill".to_owned(),
                median_ms: None,
                failing: Some("tcp: no answer in time".to_owned()),
            },
        ],
        dataplane: DataplaneStatus {
            verified: true,
            verified_ms_ago: Some(2_000),
            repairs: 2,
            problems: vec!["table inet seimon was flushed".to_owned()],
        },
        proxy: vec![ProxyStatus {
            zone: ZoneId::new("affairs").expect("an id"),
            clients: 12,
            flows: 340,
            looked_for_pac: 0,
            pac_served: false,
            uninformed: 0,
            sentence: both(
                "「affairs」の端末が、まだ庁舎のプロキシを使っています（この 1 時間に 12 台、340 件）。",
                "Clients of zone affairs still use the town's proxy: 12 clients, 340 flows in the last hour.",
            ),
        }],
        metered: vec![MeteredStatus {
            line: LineId::new("lte").expect("an id"),
            in_use: false,
            today: 1_200_000,
            month: 31_000_000,
            month_included: Some(3_000_000_000),
            sentence: both(
                "lte：待機中です。今日 1.2 MB、今月 31.0 MB（契約 3000 MB）。",
                "lte: waiting; 1.2 MB today, 31.0 MB of 3000 MB this month.",
            ),
        }],
    }
}

fn event(seq: u64) -> Event {
    Event {
        seq,
        wall_ms: 1_795_395_600_000,
        mono_us: 5,
        kind: "state".to_owned(),
        zone: Some(ZoneId::new("affairs").expect("an id")),
        group: Some(GroupId::new("affairs").expect("an id")),
        path: Some(path("direct")),
        from: Some("Qualifying".to_owned()),
        to: Some("CuttingOver".to_owned()),
        reason: both("確認が終わりました。", "All checks passed."),
    }
}

#[test]
fn the_status_screen_says_everything_in_both_languages() -> Result<()> {
    let response = Response::Status(Box::new(status()));
    for lang in ["ja", "en"] {
        let (shown, asked) = ask(&response, &["--lang", lang, "status"])?;
        assert_eq!((shown.code, shown.err.as_str(), asked), (Some(0), "", Some(Ask::Status)));
        golden(&format!("tests/golden/status.{lang}.txt"), &shown.out);
        let (shown, _) = ask(&response, &["--lang", lang, "migrate", "status"])?;
        golden(&format!("tests/golden/migrate-status.{lang}.txt"), &shown.out);
    }
    Ok(())
}

#[test]
fn the_language_follows_the_environment() -> Result<()> {
    for (variables, japanese) in [
        (vec![("LANG", "ja_JP.UTF-8")], true),
        (vec![("LANG", "en_US.UTF-8")], false),
        (vec![("LANG", "ja_JP.UTF-8"), ("LC_ALL", "C.UTF-8")], false),
        (vec![("LANG", "ja_JP.UTF-8"), ("LC_ALL", "")], true),
        (vec![], false),
    ] {
        let agent = FakeAgent::answering(&Response::Diff { changes: Vec::new() })?;
        let mut command = seimonctl();
        command.envs(variables.clone()).arg("--socket").arg(agent.socket()).args([
            "plan",
            "diff",
            "Cargo.toml",
        ]);
        let shown = outcome(command.current_dir(env!("CARGO_MANIFEST_DIR")).output()?);
        assert_eq!(shown.out.contains("変わるものはありません"), japanese, "{variables:?}: {}", shown.out);
    }
    Ok(())
}

#[test]
fn json_is_the_answer_as_it_came() -> Result<()> {
    for (response, arguments, code) in [
        (Response::Status(Box::new(status())), vec!["status"], 0),
        (Response::Plan { toml: "version = 1\n".to_owned(), generation: 3 }, vec!["plan", "show"], 0),
        (Response::Refused { reasons: vec![both("窓", "window")] }, vec!["migrate", "start", "a/a"], 1),
        (Response::NotAllowed { reason: "uid 7".to_owned() }, vec!["status"], 4),
        (Response::Malformed { reason: "version".to_owned() }, vec!["status"], 1),
    ] {
        let (shown, _) = ask(&response, &[&["--json"], arguments.as_slice()].concat())?;
        assert_eq!(shown.code, Some(code), "{response:?}");
        assert_eq!(shown.out.as_bytes(), seimon_ipc::frame::encode(&response)?);
        assert_eq!(serde_json::from_str::<Response>(&shown.out)?, response);
    }
    Ok(())
}

#[test]
fn every_command_asks_what_it_says_and_shows_the_answer() -> Result<()> {
    let done = Response::Done { message: both("始めました。", "Begun.") };
    let zone = ZoneId::new("affairs")?;
    let named = GroupId::new("saas")?;
    let migrate = |action| Ask::Migrate { zone: zone.clone(), group: named.clone(), action };
    for (arguments, action) in [
        (vec!["migrate", "start", "affairs/saas"], MigrateAction::Start { to: None }),
        (
            vec!["migrate", "start", "affairs/saas", "--to", "direct"],
            MigrateAction::Start { to: Some(path("direct")) },
        ),
        (vec!["migrate", "pause", "affairs/saas"], MigrateAction::Pause),
        (vec!["migrate", "resume", "affairs/saas"], MigrateAction::Resume),
        (vec!["migrate", "rollback", "affairs/saas"], MigrateAction::Rollback),
    ] {
        let (shown, asked) = ask(&done, &arguments)?;
        assert_eq!((shown.code, shown.out.as_str()), (Some(0), "Begun.\n"));
        assert_eq!(asked, Some(migrate(action)));
    }

    let (shown, asked) =
        ask(&Response::Plan { toml: "version = 1\n".to_owned(), generation: 3 }, &["plan", "show"])?;
    assert_eq!((shown.out.as_str(), asked), ("version = 1\n", Some(Ask::PlanShow)));

    let directory = tempfile::tempdir()?;
    let file = directory.path().join("site.toml");
    std::fs::write(&file, "version = 1\n")?;
    let file = file.display().to_string();
    let plan = "version = 1\n".to_owned();
    let diff = Response::Diff { changes: vec!["- line a".to_owned(), "+ line b".to_owned()] };
    for arguments in [vec!["plan", "diff", &file], vec!["apply", &file, "--dry-run"]] {
        let (shown, asked) = ask(&diff, &arguments)?;
        assert_eq!((shown.code, shown.out.as_str()), (Some(0), "- line a\n+ line b\n"));
        assert_eq!(asked, Some(Ask::PlanDiff { plan: plan.clone(), file: file.clone() }));
    }
    let (_, asked) = ask(&done, &["apply", &file])?;
    assert_eq!(asked, Some(Ask::Apply { plan, file }));

    let explanation = Explanation {
        allowed: true,
        rule: "permits: from = \"affairs\", to = \"service:saas\"".to_owned(),
        zone: Some(zone.clone()),
        service: Some(ServiceId::new("saas")?),
        group: Some(named.clone()),
        path: Some(path("direct")),
        inside: vec!["100.127.0.5".parse()?],
        real: vec!["203.0.113.10".parse()?],
        egress: vec!["198.51.100.7".parse()?],
        why: vec![both("この端末は direct を使っています。", "This machine uses direct.")],
    };
    let (shown, asked) = ask(
        &Response::Explanation(Box::new(explanation)),
        &["--lang", "ja", "explain", "--from", "10.1.0.23", "--to", "saas.example.jp:443"],
    )?;
    assert_eq!(
        asked,
        Some(Ask::Explain { from: "10.1.0.23".to_owned(), to: "saas.example.jp:443".to_owned() })
    );
    golden("tests/golden/explain.ja.txt", &shown.out);
    Ok(())
}

#[test]
fn a_refusal_names_every_reason_and_exits_with_1() -> Result<()> {
    let refused = Response::Refused {
        reasons: vec![both("時間外", "outside the window"), both("時計", "the clock")],
    };
    let (shown, _) = ask(&refused, &["migrate", "start", "affairs/affairs"])?;
    assert_eq!((shown.code, shown.out.as_str()), (Some(1), ""));
    assert!(shown.err.contains("outside the window") && shown.err.contains("the clock"), "{}", shown.err);
    Ok(())
}

/// What somebody is told whom the agent turned away, where the socket belongs to this group.
fn turned_away(gid: u32, lang: &str) -> Result<Option<String>> {
    let agent = FakeAgent::answering(&Response::NotAllowed { reason: "uid 1000".to_owned() })?;
    let mut command = seimonctl();
    command.arg("--socket").arg(agent.socket()).args(["--lang", lang, "status"]);
    if std::os::unix::fs::chown(agent.socket(), None, Some(gid)).is_err() {
        eprintln!("skipped: this user may not give a file to group {gid}");
        // So that the agent ends.
        command.output()?;
        return Ok(None);
    }
    let shown = outcome(command.output()?);
    assert_eq!((shown.code, shown.out.as_str()), (Some(4), ""));
    assert!(shown.err.contains("uid 1000"), "{}", shown.err);
    Ok(Some(shown.err))
}

#[test]
fn the_reasons_of_a_refusal_are_a_list_that_keeps_their_lines() -> Result<()> {
    let vetoes = vec![
        both(
            "今は切り替えてよい時間帯ではありません。次に始められるのは 2026-11-26 18:00 です。それまで待つか、計画の時間帯を変えてください。",
            "This is outside the hours in which a move may begin. They next open at 2026-11-26 18:00: wait, or change the plan's windows.",
        ),
        both("時計が正しいと確かめられていません。", "The clock is not known to be right."),
    ];
    // As the agent sends a plan's errors.
    let defects = vec![
        both(
            "/etc/seimon/site.toml:2:1: エラー[plan/unknown-key]: 「foo」という項目はありません\n  2 | foo = 1\n  対処: 綴りを確かめるか、この行を消してください",
            "/etc/seimon/site.toml:2:1: error[plan/unknown-key]: there is no key `foo`\n  2 | foo = 1\n  to do: check its spelling, or remove the line",
        ),
        both(
            "/etc/seimon/site.toml:7:9: エラー[plan/permit-over]: 許可の期限が過ぎています\n  7 | until = \"2025-03-31\"  # 年度の終わりに、学校教育課が毎年確かめてから一年延ばすことになっている\n  対処: まだ要るなら期限を延ばし、要らないなら許可を消してください",
            "/etc/seimon/site.toml:7:9: error[plan/permit-over]: the permit's last day is past\n  7 | until = \"2025-03-31\"  # a comment longer than the screen is wide, which is not to be broken\n  to do: extend it if it is still needed, else remove the permit",
        ),
        both("一行だけの理由です。", "A reason of one line."),
        both("前の計画\x1b[2J\n  のまま\x07です", "the plan before\x1b[2J\n  stays\x07"),
    ];
    for (name, reasons) in [("vetoes", vetoes), ("defects", defects)] {
        for lang in ["ja", "en"] {
            let refused = Response::Refused { reasons: reasons.clone() };
            let (shown, _) = ask(&refused, &["--lang", lang, "migrate", "start", "affairs/affairs"])?;
            assert_eq!((shown.code, shown.out.as_str()), (Some(1), ""));
            assert!(!shown.err.contains(['\x1b', '\x07']), "{}", shown.err);
            golden(&format!("tests/golden/refused-{name}.{lang}.txt"), &shown.err);
        }
    }
    Ok(())
}

#[test]
fn whoever_may_not_ask_is_told_which_group_to_join() -> Result<()> {
    for lang in ["ja", "en"] {
        if let Some(told) = turned_away(4_000_000, lang)? {
            assert!(told.contains("sudo usermod -aG 4000000 $USER"), "{told}");
        }
    }
    Ok(())
}

#[test]
fn nobody_is_told_to_join_the_group_of_root() -> Result<()> {
    for lang in ["ja", "en"] {
        if let Some(told) = turned_away(0, lang)? {
            assert!(told.contains("sudo seimonctl …") && !told.contains("usermod"), "{told}");
        }
    }
    Ok(())
}

#[test]
fn without_an_agent_the_socket_is_named_and_what_to_look_at() -> Result<()> {
    let shown = outcome(seimonctl().args(["--socket", "/nonexistent/control.sock", "status"]).output()?);
    assert_eq!((shown.code, shown.out.as_str()), (Some(3), ""));
    for words in ["/nonexistent/control.sock", "systemctl status seimon-agent"] {
        assert!(shown.err.contains(words), "{}", shown.err);
    }
    let agent = FakeAgent::saying(Vec::new())?;
    let shown = outcome(seimonctl().arg("--socket").arg(agent.socket()).arg("status").output()?);
    assert_eq!(shown.code, Some(3), "{}", shown.err);
    Ok(())
}

#[test]
fn the_socket_is_the_options_else_the_environments_else_the_usual_one() -> Result<()> {
    let done = Response::Plan { toml: "version = 1\n".to_owned(), generation: 1 };
    let agent = FakeAgent::answering(&done)?;
    let shown = outcome(seimonctl().env("SEIMON_SOCKET", agent.socket()).args(["plan", "show"]).output()?);
    assert_eq!((shown.code, shown.out.as_str()), (Some(0), "version = 1\n"), "{}", shown.err);

    let agent = FakeAgent::answering(&done)?;
    let mut command = seimonctl();
    command.env("SEIMON_SOCKET", "/nonexistent/environment.sock").arg("--socket").arg(agent.socket());
    assert_eq!(outcome(command.args(["plan", "show"]).output()?).code, Some(0));

    let unreachable = |socket: &str| -> Result<Outcome> {
        Ok(outcome(seimonctl().env("SEIMON_SOCKET", socket).args(["plan", "show"]).output()?))
    };
    let shown = unreachable("/nonexistent/environment.sock")?;
    assert_eq!(shown.code, Some(3));
    assert!(shown.err.contains("(/nonexistent/environment.sock: "), "{}", shown.err);
    if std::path::Path::new("/run/seimon").exists() {
        eprintln!("skipped: the usual socket, because a real agent may listen there");
    } else {
        let shown = unreachable("")?;
        assert!(shown.err.contains("(/run/seimon/control.sock: "), "{}", shown.err);
    }
    Ok(())
}

#[test]
fn a_hostile_agent_is_an_error_and_nothing_worse() -> Result<()> {
    let endless = vec![b'x'; 2 * seimon_ipc::frame::MAX_LINE];
    let deep = [vec![b'['; 100_000], b"\n".to_vec()].concat();
    let another = seimon_ipc::frame::encode(&Response::Done { message: both("", "") })?;
    for bytes in [
        b"hello\n".to_vec(),
        b"\xff\xfe\n".to_vec(),
        b"{\"result\":\"new\"}\n".to_vec(),
        endless,
        deep,
        another,
    ] {
        let agent = FakeAgent::saying(bytes.clone())?;
        let shown = outcome(seimonctl().arg("--socket").arg(agent.socket()).arg("status").output()?);
        let begin = String::from_utf8_lossy(&bytes[..bytes.len().min(20)]).into_owned();
        assert_eq!((shown.code, shown.out.as_str()), (Some(1), ""), "{begin}: {}", shown.err);
        assert!(!shown.err.contains("panicked"), "{}", shown.err);
    }
    let mut steering = status();
    steering.site_name = "\x1b[2Jschool".to_owned();
    steering.sentence = both("", "all \x1b]0;x\x07 well");
    steering.paths[0].loss = f64::MAX;
    steering.groups[0].state = "New\x1b[31m".to_owned();
    steering.groups[0].remaining_ms = Some(u64::MAX);
    steering.wall_ms = i64::MIN;
    for lang in ["ja", "en"] {
        let (shown, _) = ask(&Response::Status(Box::new(steering.clone())), &["--lang", lang, "status"])?;
        assert_eq!(shown.code, Some(0));
        assert!(!shown.out.contains('\x1b') && !shown.out.contains('\x07'), "{}", shown.out);
    }
    Ok(())
}

#[test]
fn events_come_as_lines_until_the_agent_hangs_up() -> Result<()> {
    let events = Response::Events { events: vec![event(1), event(2)] };
    let (shown, asked) = ask(&events, &["events", "--since", "7"])?;
    assert_eq!(asked, Some(Ask::Events { follow: Follow::No, since: 7 }));
    assert_eq!(
        shown.out.lines().next(),
        Some(
            "2026-11-23 10:00:00 #1 state affairs/affairs testing the new path → moving [direct] All checks passed."
        )
    );
    let mut bytes = seimon_ipc::frame::encode(&events)?;
    bytes.extend(seimon_ipc::frame::encode(&event(3))?);
    let agent = FakeAgent::saying(bytes)?;
    let shown = outcome(
        seimonctl().arg("--socket").arg(agent.socket()).args(["--json", "events", "--follow"]).output()?,
    );
    let seen: Vec<Event> = shown.out.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!(seen, [event(1), event(2), event(3)]);
    assert_eq!(shown.code, Some(3), "hanging up is not how following ends");
    assert_eq!(agent.request().map(|r| r.request), Some(Ask::Events { follow: Follow::Yes, since: 0 }));
    Ok(())
}

#[test]
fn the_words_of_events_are_the_readers() -> Result<()> {
    let of = |kind: &str, to: &str| Event {
        kind: kind.to_owned(),
        from: None,
        to: Some(to.to_owned()),
        reason: both("", ""),
        ..event(1)
    };
    for (kind, word, ja, en) in [
        ("path", "up", "使える", "up"),
        ("path", "down", "不通", "down"),
        ("path", "unknown", "確認中", "not known yet"),
        ("check", "well", "正常", "good"),
        ("check", "ill", "異常", "ill"),
        ("check", "unknown", "確認中", "not known yet"),
        ("state", "Blocked", "停止（使える経路なし）", "blocked: no usable path"),
        ("egress", "192.0.2.2", "192.0.2.2", "192.0.2.2"),
        ("newer", "Sideways", "Sideways", "Sideways"),
    ] {
        for (lang, expected) in [("ja", ja), ("en", en)] {
            let events = Response::Events { events: vec![of(kind, word)] };
            let (shown, _) = ask(&events, &["--lang", lang, "events"])?;
            let line = format!("2026-11-23 10:00:00 #1 {kind} affairs/affairs {expected} [direct]\n");
            assert_eq!(shown.out, line);
        }
    }
    Ok(())
}

#[test]
fn wrong_usage_is_exit_code_2_and_help_has_examples() -> Result<()> {
    for arguments in
        [vec!["migrate", "start", "affairs"], vec!["frobnicate"], vec![], vec!["migrate", "start", "A/b"]]
    {
        let shown = outcome(seimonctl().args(&arguments).output()?);
        assert_eq!(shown.code, Some(2), "{arguments:?}: {}", shown.err);
    }
    for arguments in [
        vec!["--help"],
        vec!["migrate", "--help"],
        vec!["explain", "--help"],
        vec!["plan", "check", "--help"],
    ] {
        let shown = outcome(seimonctl().args(&arguments).output()?);
        assert_eq!(shown.code, Some(0));
        assert!(shown.out.contains("Example"), "{arguments:?}: {}", shown.out);
        assert!(shown.out.contains("SEIMON_SOCKET"), "{arguments:?}: {}", shown.out);
    }
    Ok(())
}
