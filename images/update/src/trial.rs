//! The trial of an image: are users as well as they were before the update?
//!
//! Before the restart a [`Picture`] is taken and kept. After it, pictures are compared with that one ([`judge`]), and
//! [`Trial`] waits until the answer has been the same for long enough:
//!
//! | the comparison says | for | then |
//! |---|---|---|
//! | well | [`Timing::soak`] without a break | confirm |
//! | worse | [`Timing::patience`] without a break | go back |
//! | cannot tell | – | wait |
//!
//! What was ill before the update proves nothing about it. A cable that is out proves nothing either: that is "cannot
//! tell", never "bad image". A port that is gone altogether is the image's fault: its driver is.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use seimon_board::Instant;
use seimon_ipc::control::Bilingual;
use serde::{Deserialize, Serialize};

/// How users' services are, as the agent's own checks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    Well,
    Ill,
    /// Not checked yet, or not lately.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    Up,
    /// The port is there; nothing answers at the cable's other end.
    NoCarrier,
    /// The kernel knows no such port.
    Missing,
}

/// Whether the gateway's rules are what the plan says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    InForce,
    NotInForce,
    /// The agent does not answer.
    #[default]
    NoAnswer,
    /// The box has no plan yet: there is nobody to be well.
    NoPlan,
}

/// How users are at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Picture {
    pub policy: Policy,
    /// By zone and service, e.g. `affairs/saas`, over the path that its users take now.
    pub services: BTreeMap<String, Health>,
    /// By the words on the case.
    pub links: BTreeMap<String, Link>,
}

/// What makes a picture worse than the one before the update.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Worse {
    AgentSilent,
    PolicyNotInForce,
    PortMissing(String),
    ServiceIll(String),
}

/// Why nothing can be said.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unsure {
    Unplugged(String),
    NotChecked(String),
    PlanGone,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    Well,
    /// Never empty.
    Worse(Vec<Worse>),
    /// Never empty.
    CannotTell(Vec<Unsure>),
}

/// Compares a picture with the one taken before the update.
pub fn judge(before: &Picture, now: &Picture) -> Judgement {
    match (before.policy, now.policy) {
        (_, Policy::NoAnswer) => return Judgement::Worse(vec![Worse::AgentSilent]),
        (_, Policy::NotInForce) => return Judgement::Worse(vec![Worse::PolicyNotInForce]),
        (Policy::InForce | Policy::NotInForce, Policy::NoPlan) => {
            return Judgement::CannotTell(vec![Unsure::PlanGone]);
        }
        (Policy::NoAnswer | Policy::NoPlan, Policy::NoPlan) | (_, Policy::InForce) => {}
    }
    let was_up = |port: &&String| before.links.get(*port) == Some(&Link::Up);
    let with = |link: Link| {
        before
            .links
            .keys()
            .filter(was_up)
            .filter(move |port| now.links.get(*port).unwrap_or(&Link::Missing) == &link)
    };
    let missing: Vec<Worse> = with(Link::Missing).cloned().map(Worse::PortMissing).collect();
    if !missing.is_empty() {
        return Judgement::Worse(missing);
    }
    let mut unsure: Vec<Unsure> = with(Link::NoCarrier).cloned().map(Unsure::Unplugged).collect();
    let was_well = before.services.iter().filter(|(_, health)| **health == Health::Well);
    let mut worse = Vec::new();
    for (service, _) in was_well {
        match now.services.get(service) {
            Some(Health::Well) => {}
            Some(Health::Ill) => worse.push(Worse::ServiceIll(service.clone())),
            Some(Health::Unknown) | None => unsure.push(Unsure::NotChecked(service.clone())),
        }
    }
    // With a cable out, an ill service is that cable's fault until proved otherwise.
    let unplugged = unsure.iter().any(|why| matches!(why, Unsure::Unplugged(_)));
    match (worse.is_empty(), unplugged) {
        (false, false) => Judgement::Worse(worse),
        (true, _) if unsure.is_empty() => Judgement::Well,
        (true | false, _) => Judgement::CannotTell(unsure),
    }
}

/// How long an answer must stay the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    pub soak: Duration,
    pub patience: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { soak: Duration::from_secs(120), patience: Duration::from_secs(300) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Look again; the sentence is for people.
    Wait(Bilingual),
    Confirm,
    GoBack(Bilingual),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Well,
    Worse,
    CannotTell,
}

/// One image on trial.
#[derive(Clone, Debug)]
pub struct Trial {
    before: Picture,
    timing: Timing,
    /// What the comparison has said without a break, and since when.
    row: Option<(Kind, Instant)>,
}

impl Trial {
    pub fn new(before: Picture, timing: Timing) -> Self {
        Self { before, timing, row: None }
    }

    pub fn handle(&mut self, picture: &Picture, now: Instant) -> Decision {
        let judgement = judge(&self.before, picture);
        let kind = match &judgement {
            Judgement::Well => Kind::Well,
            Judgement::Worse(_) => Kind::Worse,
            Judgement::CannotTell(_) => Kind::CannotTell,
        };
        let since = match self.row {
            Some((same, since)) if same == kind => since,
            Some(_) | None => now,
        };
        self.row = Some((kind, since));
        let lasted = now.since(since);
        match judgement {
            Judgement::Well if lasted >= self.timing.soak => Decision::Confirm,
            Judgement::Well => Decision::Wait(Bilingual {
                ja: "新しいイメージで、利用者の通信は更新前と同じく良好です。もうしばらく様子を見ています。"
                    .into(),
                en: "Users are as well with the new image as before; this is being watched a little longer."
                    .into(),
            }),
            Judgement::Worse(why) if lasted >= self.timing.patience => Decision::GoBack(worse_in_words(&why)),
            Judgement::Worse(why) => Decision::Wait(worse_in_words(&why)),
            Judgement::CannotTell(why) => Decision::Wait(unsure_in_words(&why)),
        }
    }
}

fn joined(each: impl Iterator<Item = Bilingual>) -> Bilingual {
    let (ja, en): (Vec<String>, Vec<String>) = each.map(|one| (one.ja, one.en)).unzip();
    Bilingual { ja: ja.join("、"), en: en.join("; ") }
}

fn worse_in_words(why: &[Worse]) -> Bilingual {
    let all = joined(why.iter().map(|one| {
        let (ja, en) = match one {
            Worse::AgentSilent => ("エージェントが応答しません".into(), "the agent does not answer".into()),
            Worse::PolicyNotInForce => {
                ("通信の規則が計画どおりになりません".into(), "the rules are not what the plan says".into())
            }
            Worse::PortMissing(port) => {
                (format!("ポート {port} がありません"), format!("port {port} is gone"))
            }
            Worse::ServiceIll(service) => {
                (format!("{service} が使えません"), format!("{service} does not work"))
            }
        };
        Bilingual { ja, en }
    }));
    Bilingual {
        ja: format!("更新前より悪くなっています：{}。", all.ja),
        en: format!("Worse than before the update: {}.", all.en),
    }
}

fn unsure_in_words(why: &[Unsure]) -> Bilingual {
    let all = joined(why.iter().map(|one| {
        let (ja, en) = match one {
            Unsure::Unplugged(port) => {
                (format!("ポート {port} のケーブルが抜けています"), format!("port {port} is unplugged"))
            }
            Unsure::NotChecked(service) => {
                (format!("{service} をまだ確認していません"), format!("{service} is not checked yet"))
            }
            Unsure::PlanGone => ("計画がありません".into(), "there is no plan".into()),
        };
        Bilingual { ja, en }
    }));
    Bilingual {
        ja: format!("まだ判断できません：{}。", all.ja), en: format!("Cannot tell yet: {}.", all.en)
    }
}

impl fmt::Display for Worse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&worse_in_words(std::slice::from_ref(self)).en)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL_HEALTH: [Health; 3] = [Health::Well, Health::Ill, Health::Unknown];

    fn picture(policy: Policy, saas: Option<Health>, wan: Option<Link>) -> Picture {
        Picture {
            policy,
            services: saas.map(|health| ("affairs/saas".to_owned(), health)).into_iter().collect(),
            links: wan.map(|link| ("WAN1".to_owned(), link)).into_iter().collect(),
        }
    }

    fn good() -> Picture {
        picture(Policy::InForce, Some(Health::Well), Some(Link::Up))
    }

    fn kind(judgement: &Judgement) -> &'static str {
        match judgement {
            Judgement::Well => "well",
            Judgement::Worse(_) => "worse",
            Judgement::CannotTell(_) => "cannot tell",
        }
    }

    /// The whole table of one service behind one cable that were well before.
    #[test]
    fn a_cable_that_is_out_is_never_the_images_fault() {
        let table = [
            (Health::Well, Link::Up, "well"),
            (Health::Ill, Link::Up, "worse"),
            (Health::Unknown, Link::Up, "cannot tell"),
            (Health::Well, Link::NoCarrier, "cannot tell"),
            (Health::Ill, Link::NoCarrier, "cannot tell"),
            (Health::Unknown, Link::NoCarrier, "cannot tell"),
            (Health::Well, Link::Missing, "worse"),
            (Health::Ill, Link::Missing, "worse"),
            (Health::Unknown, Link::Missing, "worse"),
        ];
        for (health, link, expected) in table {
            let now = picture(Policy::InForce, Some(health), Some(link));
            assert_eq!(kind(&judge(&good(), &now)), expected, "{health:?} {link:?}");
        }
        assert_eq!(
            kind(&judge(&good(), &picture(Policy::InForce, None, None))),
            "worse",
            "a port that nobody names is gone"
        );
    }

    #[test]
    fn what_was_ill_or_unplugged_before_proves_nothing() {
        for before in [Health::Ill, Health::Unknown] {
            for link in [Link::NoCarrier, Link::Missing] {
                let before = picture(Policy::InForce, Some(before), Some(link));
                for now in ALL_HEALTH {
                    let now = picture(Policy::InForce, Some(now), Some(Link::NoCarrier));
                    assert_eq!(judge(&before, &now), Judgement::Well, "{before:?} {now:?}");
                }
            }
        }
    }

    #[test]
    fn the_policy_comes_before_everything() {
        for before in [Policy::InForce, Policy::NotInForce, Policy::NoAnswer, Policy::NoPlan] {
            let with = |policy| picture(policy, Some(Health::Well), Some(Link::Up));
            let verdict = |now| kind(&judge(&with(before), &with(now)));
            assert_eq!(verdict(Policy::NoAnswer), "worse");
            assert_eq!(verdict(Policy::NotInForce), "worse");
            assert_eq!(verdict(Policy::InForce), "well");
            let had_a_plan = matches!(before, Policy::InForce | Policy::NotInForce);
            assert_eq!(verdict(Policy::NoPlan), if had_a_plan { "cannot tell" } else { "well" });
        }
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1_000)
    }

    #[test]
    fn well_for_the_whole_soak_confirms_and_a_break_begins_it_anew() {
        let mut trial = Trial::new(good(), Timing::default());
        let ill = picture(Policy::InForce, Some(Health::Ill), Some(Link::Up));
        assert!(matches!(trial.handle(&good(), at(0)), Decision::Wait(_)));
        assert!(matches!(trial.handle(&good(), at(119)), Decision::Wait(_)));
        assert!(matches!(trial.handle(&ill, at(120)), Decision::Wait(_)));
        assert!(matches!(trial.handle(&good(), at(121)), Decision::Wait(_)));
        assert!(matches!(trial.handle(&good(), at(240)), Decision::Wait(_)));
        assert_eq!(trial.handle(&good(), at(241)), Decision::Confirm);
    }

    #[test]
    fn worse_for_the_whole_patience_goes_back_and_says_why() {
        let mut trial = Trial::new(good(), Timing::default());
        let ill = picture(Policy::InForce, Some(Health::Ill), Some(Link::Up));
        assert!(matches!(trial.handle(&ill, at(0)), Decision::Wait(_)));
        assert!(matches!(trial.handle(&ill, at(299)), Decision::Wait(_)));
        let Decision::GoBack(why) = trial.handle(&ill, at(300)) else { panic!("it stays") };
        assert!(why.en.contains("affairs/saas") && why.ja.contains("affairs/saas"));
    }

    #[test]
    fn unplugged_for_a_week_neither_confirms_nor_goes_back() {
        let mut trial = Trial::new(good(), Timing::default());
        let out = picture(Policy::InForce, Some(Health::Ill), Some(Link::NoCarrier));
        for hour in 0..168 {
            assert!(matches!(trial.handle(&out, at(hour * 3_600)), Decision::Wait(_)));
        }
    }

    fn any_picture() -> impl Strategy<Value = Picture> {
        let health = prop_oneof![Just(Health::Well), Just(Health::Ill), Just(Health::Unknown)];
        let link = prop_oneof![Just(Link::Up), Just(Link::NoCarrier), Just(Link::Missing)];
        let policy = prop_oneof![
            Just(Policy::InForce),
            Just(Policy::NotInForce),
            Just(Policy::NoAnswer),
            Just(Policy::NoPlan)
        ];
        (
            policy,
            proptest::collection::btree_map("[a-c]", health, 0..3),
            proptest::collection::btree_map("[x-z]", link, 0..3),
        )
            .prop_map(|(policy, services, links)| Picture { policy, services, links })
    }

    proptest! {
        /// Never confirmed while anything that was well is known to be ill.
        #[test]
        fn well_means_that_all_that_was_well_is_well(before in any_picture(), now in any_picture()) {
            if judge(&before, &now) == Judgement::Well {
                for (service, health) in &before.services {
                    prop_assert!(*health != Health::Well || now.services.get(service) == Some(&Health::Well));
                }
                prop_assert!(!matches!(now.policy, Policy::NoAnswer | Policy::NotInForce));
            }
        }

        #[test]
        fn a_picture_is_as_well_as_itself(picture in any_picture()) {
            let unknown_is_fine = !matches!(judge(&picture, &picture), Judgement::Worse(_));
            prop_assert!(unknown_is_fine || matches!(picture.policy, Policy::NoAnswer | Policy::NotInForce));
        }
    }
}
