//! What people see of a hub.

use anyhow::Result;
use seimon_ipc::control::{Command as Ask, DataplaneStatus, Light, Response};
use seimon_ipc::hub::{HubAsk, HubExplanation, HubStatus, SchoolEnd};
use seimon_plan::SiteId;

use crate::common::{FakeAgent, Outcome, both, golden, outcome, seimonctl};

fn ask(response: &Response, arguments: &[&str]) -> Result<(Outcome, Option<Ask>)> {
    let agent = FakeAgent::answering(response)?;
    let outcome = outcome(seimonctl().arg("--socket").arg(agent.socket()).args(arguments).output()?);
    Ok((outcome, agent.request().map(|request| request.request)))
}

fn end(id: &str, light: Light) -> Result<SchoolEnd> {
    Ok(SchoolEnd {
        school: SiteId::new(id)?,
        name: "あさひ小学校".to_owned(),
        light,
        sentence: both("つながっています。", "connected"),
        key: Some("AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned()),
        keys: 1,
        endpoint: Some("192.0.2.2:51820".parse()?),
        handshake_s: Some(73),
        heard_s: Some(4),
        received: 12_345_678,
        sent: 987,
        egress: vec!["198.51.100.10".parse()?],
        cap_kbit: None,
    })
}

fn status() -> Result<HubStatus> {
    let silent = SchoolEnd {
        sentence: both(
            "応答がありません。学校の機器の電源と回線を確かめてください。",
            "silent: are the school's gateway and its line up?",
        ),
        handshake_s: Some(7_300),
        heard_s: None,
        ..end("yuhi-es", Light::Yellow)?
    };
    let expired = SchoolEnd {
        sentence: both(
            "期限内の鍵がないため、つながりません。計画に新しい公開鍵を書いてください。",
            "none of its keys counts today, so it is not let in: write its new public key into the plan",
        ),
        key: None,
        keys: 0,
        endpoint: None,
        handshake_s: None,
        heard_s: None,
        received: 0,
        sent: 0,
        ..end("misaki-jhs", Light::Red)?
    };
    Ok(HubStatus {
        hub: SiteId::new("sakura-hub")?,
        name: "さくら市センター".to_owned(),
        agent_version: "0.1.0".to_owned(),
        generation: 7,
        wall_ms: 1_795_395_600_000,
        clock_trusted: true,
        overall: Light::Red,
        sentence: both(
            "3 校のうち 1 校とつながっています。1 校は鍵の期限が切れています。",
            "1 of 3 schools are connected; without a key that counts today: 1",
        ),
        public_key: Some("CQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned()),
        listen_port: 51820,
        problem: None,
        schools: vec![end("asahi-es", Light::Green)?, silent, expired],
        dataplane: DataplaneStatus {
            verified: true,
            verified_ms_ago: Some(9_000),
            repairs: 0,
            problems: Vec::new(),
        },
    })
}

#[test]
fn a_hubs_screen_has_one_line_a_school_in_both_languages() -> Result<()> {
    let response = Response::Hub(Box::new(status()?));
    for lang in ["ja", "en"] {
        let (shown, asked) = ask(&response, &["--lang", lang, "hub", "status"])?;
        assert_eq!((shown.code, shown.err.as_str()), (Some(0), ""));
        assert_eq!(asked, Some(Ask::Hub { ask: HubAsk::Status }));
        golden(&format!("tests/golden/hub-status.{lang}.txt"), &shown.out);
        for school in ["asahi-es", "yuhi-es", "misaki-jhs"] {
            assert_eq!(shown.out.matches(school).count(), 1, "{}", shown.out);
        }
    }
    let (shown, _) = ask(&response, &["--json", "hub", "status"])?;
    assert_eq!(serde_json::from_str::<Response>(&shown.out)?, response);
    Ok(())
}

#[test]
fn an_explanation_says_whose_where_to_and_as_whom() -> Result<()> {
    let answer = HubExplanation {
        allowed: true,
        school: Some(SiteId::new("asahi-es")?),
        school_name: Some("あさひ小学校".to_owned()),
        way: Some("internet".to_owned()),
        rule: "egress".to_owned(),
        seen_as: Some("198.51.100.10".parse()?),
        why: vec![both("相手からは 198.51.100.10 に見えます。", "the far side sees 198.51.100.10")],
    };
    let response = Response::HubExplanation(Box::new(answer));
    let arguments = ["hub", "explain", "--from", "asahi-es", "--to", "203.0.113.9"];
    for lang in ["ja", "en"] {
        let (shown, asked) = ask(&response, &[&["--lang", lang], arguments.as_slice()].concat())?;
        let wanted = HubAsk::Explain { from: "asahi-es".to_owned(), to: "203.0.113.9".to_owned() };
        assert_eq!((shown.code, asked), (Some(0), Some(Ask::Hub { ask: wanted })));
        golden(&format!("tests/golden/hub-explain.{lang}.txt"), &shown.out);
    }
    // A school's gateway that answers something else is not believed.
    let (shown, _) = ask(&Response::Diff { changes: Vec::new() }, &arguments)?;
    assert_eq!(shown.code, Some(1));
    Ok(())
}
