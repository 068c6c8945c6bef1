//! Names of the gateway itself, and clients that look for a PAC file by one (WPAD).

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::rr::{RData, RecordType};
use seimon_board::Instant;
use seimon_ipc::resolver::{FromResolver, OwnName};
use seimon_plan::ZoneId;

use super::question::Question;
use super::reply::Reply;
use super::{Action, Resolver};

/// A client is told of once in so long.
const TOLD_AGAIN: Duration = Duration::from_secs(600);
/// Clients that are remembered; more are not told of.
const MOST_LOOKING: usize = 4_096;

/// The gateway's address in the zone, in the family that was asked for; nothing else.
pub(super) fn reply(own: &OwnName, question: &Question) -> Reply {
    let OwnName { ipv4, ipv6 } = own;
    let data = if question.kind == RecordType::A {
        Some(RData::A((*ipv4).into()))
    } else if question.kind == RecordType::AAAA {
        ipv6.map(|address| RData::AAAA(address.into()))
    } else {
        None
    };
    match data {
        Some(data) => Reply::address(&question.name, data),
        None => Reply::no_data(&question.name),
    }
}

impl Resolver {
    /// Whether or not anybody answers, the agent is to know who looks.
    pub(super) fn note_wpad(&mut self, zone: &ZoneId, client: IpAddr, question: &Question, now: Instant) {
        if question.key != "wpad" && !question.key.starts_with("wpad.") {
            return;
        }
        self.looking.retain(|_, at| now.since(*at) < TOLD_AGAIN);
        if self.looking.len() >= MOST_LOOKING || self.looking.contains_key(&client) {
            return;
        }
        self.looking.insert(client, now);
        self.actions.push_back(Action::Tell(FromResolver::Wpad { zone: zone.clone(), client }));
    }
}
