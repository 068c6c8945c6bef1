//! The hub's network as it should be, and making the kernel agree: a school that comes, goes or changes its key is a peer,
//! some elements and a route, and touches nobody else.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};

use anyhow::Result;
use seimon_board::{Instant, InterfaceName};
use seimon_core::hub::{Roster, TUNNEL, Today, compile};
use seimon_core::network_plan::{
    ApplyError, Change, ChangeSet, Dataplane as _, Generation, LinkKind, NetworkPlan, Observed, TunnelState,
    diff, render_replacement, verify,
};
use seimon_dataplane::{Linux, Made, PrivateKey, Watch};
use seimon_plan::{SiteId, ValidHubPlan, WireguardKey};

use super::whereabouts::Whereabouts;
use crate::clock::Reading;
use crate::network::{Convergence, describe, digests, without};

/// `discard`: what is sent there is not wanted by anybody.
const DISCARD: u16 = 9;

#[derive(Debug)]
pub(super) struct HubNetwork {
    dataplane: Linux,
    tunnel: InterfaceName,
    plan: ValidHubPlan,
    roster: Roster,
    today: Today,
    /// Schools that use another key than before, and nobody was told yet.
    moved: Vec<SiteId>,
    whereabouts: Whereabouts,
    compiled: NetworkPlan,
    /// Key files of the plan are in this folder, where the plan does not say an absolute name.
    folder: PathBuf,
    own: Option<WireguardKey>,
    made: Option<WireguardKey>,
    /// The plan that the kernel was last seen to agree with.
    verified: Option<NetworkPlan>,
    verified_at: Option<Instant>,
    /// Of every chain's rules, as the kernel read them back after our last change.
    digests: BTreeMap<String, String>,
    missing: Vec<InterfaceName>,
    /// Why there is no tunnel.
    unusable: Option<String>,
    problems: Vec<String>,
    repairs: u64,
}

fn today(plan: &ValidHubPlan, now: Reading) -> Today {
    Today { date: plan.today(now.calendar), trusted: now.trusted }
}

impl HubNetwork {
    pub(super) fn new(
        dataplane: Linux,
        plan: ValidHubPlan,
        generation: Generation,
        folder: &Path,
        now: Reading,
    ) -> Result<Self> {
        let today = today(&plan, now);
        let mut roster = Roster::default();
        let whereabouts = Whereabouts::in_folder(folder);
        roster.recall(whereabouts.read());
        roster.forget_strangers(&plan);
        let compiled = compile(&plan, &roster, today, None, generation)?;
        Ok(Self {
            dataplane,
            tunnel: InterfaceName::new(TUNNEL)?,
            plan,
            roster,
            today,
            moved: Vec::new(),
            whereabouts,
            compiled,
            folder: folder.to_owned(),
            own: None,
            made: None,
            verified: None,
            verified_at: None,
            digests: BTreeMap::new(),
            missing: Vec::new(),
            unusable: None,
            problems: Vec::new(),
            repairs: 0,
        })
    }

    pub(super) fn plan(&self) -> &ValidHubPlan {
        &self.plan
    }

    pub(super) fn roster(&self) -> &Roster {
        &self.roster
    }

    pub(super) fn today(&self) -> Today {
        self.today
    }

    pub(super) fn generation(&self) -> Generation {
        self.compiled.generation
    }

    pub(super) fn repairs(&self) -> u64 {
        self.repairs
    }

    pub(super) fn own_key(&self) -> Option<WireguardKey> {
        self.own
    }

    pub(super) fn unusable(&self) -> Option<&str> {
        self.unusable.as_deref()
    }

    pub(super) fn problems(&self) -> &[String] {
        &self.problems
    }

    pub(super) fn is_verified(&self) -> bool {
        self.verified_at.is_some() && self.problems.is_empty()
    }

    pub(super) fn verified_at(&self) -> Option<Instant> {
        self.verified_at
    }

    /// What is not as planned, in one line.
    pub(super) fn trouble(&self) -> Option<String> {
        (!self.problems.is_empty()).then(|| self.problems.join("; "))
    }

    pub(super) fn watch(&self) -> Result<Watch> {
        Ok(self.dataplane.watch()?)
    }

    pub(super) fn dataplane(&mut self) -> &mut Linux {
        &mut self.dataplane
    }

    /// The key that was made since the last call, for people to be told.
    pub(super) fn take_made_key(&mut self) -> Option<WireguardKey> {
        self.made.take()
    }

    /// Whether some school has two keys that count.
    pub(super) fn is_anyone_changing(&self) -> bool {
        Roster::is_anyone_changing(&self.plan, self.today)
    }

    /// Another day, or a clock that is trusted now: other keys may count.
    pub(super) fn new_day(&mut self, now: Reading) -> bool {
        let today = today(&self.plan, now);
        std::mem::replace(&mut self.today, today) != today
    }

    /// Looks at the tunnel alone. True where a school uses another key than before.
    pub(super) fn look(&mut self, now: Reading) -> Result<bool> {
        let states = self.dataplane.tunnels()?;
        let Some(state) = states.get(&self.tunnel) else { return Ok(false) };
        let moved = self.roster.note(&self.plan, state, self.today, now.mono);
        let any = !moved.is_empty();
        self.moved.extend(moved);
        self.whereabouts.write(&self.roster.endpoints());
        Ok(any)
    }

    /// Schools that use another key than before, since the last call.
    pub(super) fn take_moved(&mut self) -> Vec<SiteId> {
        std::mem::take(&mut self.moved)
    }

    /// Compiles another plan; the kernel is changed by the next [`Self::converge`]. On an error nothing has changed.
    pub(super) fn adopt_plan(&mut self, plan: ValidHubPlan, now: Reading) -> Result<()> {
        let (parent, today) = (self.compiled.generation, today(&plan, now));
        let generation = Generation(parent.0 + 1);
        let mut compiled = compile(&plan, &self.roster, today, Some(parent), generation)?;
        self.ground(&mut compiled);
        (self.plan, self.today, self.compiled) = (plan, today, compiled);
        self.roster.forget_strangers(&self.plan);
        Ok(())
    }

    /// What another plan would change in the kernel, in words; nothing is changed.
    pub(super) fn preview(&mut self, plan: &ValidHubPlan, now: Reading) -> Result<Vec<String>> {
        let parent = self.compiled.generation;
        let generation = Generation(parent.0 + 1);
        let mut wanted = compile(plan, &self.roster, today(plan, now), Some(parent), generation)?;
        let (file, own) = match self.compiled.tunnels.get(&self.tunnel) {
            Some(tunnel) => (tunnel.private_key_file.clone(), tunnel.own),
            None => (PathBuf::new(), None),
        };
        if let Some(tunnel) = wanted.tunnels.get_mut(&self.tunnel) {
            tunnel.private_key_file = self.folder.join(&tunnel.private_key_file);
            tunnel.own = own.filter(|_| tunnel.private_key_file == file);
        }
        let observed = self.observe()?;
        let mut words: Vec<String> = Vec::new();
        for change in &diff(&observed, self.verified.as_ref(), &wanted).changes {
            if let Change::TunnelSet { .. } = change {
                words.extend(self.peers_that_differ(&observed, plan, &wanted));
            } else {
                words.push(describe(change));
            }
        }
        Ok(words)
    }

    /// Whose tunnels come, go or change.
    fn peers_that_differ(
        &self,
        observed: &Observed,
        plan: &ValidHubPlan,
        wanted: &NetworkPlan,
    ) -> Vec<String> {
        let (none, empty) = (TunnelState::default(), BTreeMap::new());
        let seen = observed.tunnels.get(&self.tunnel).unwrap_or(&none);
        let peers = wanted.tunnels.get(&self.tunnel).map_or(&empty, |tunnel| &tunnel.peers);
        let whose = |key: &WireguardKey| {
            let all = plan.schools.iter().chain(&self.plan.schools);
            all.into_iter()
                .find(|(_, school)| school.keys.iter().any(|own| own.public_key == *key))
                .map_or_else(|| "?".to_owned(), |(id, _)| id.to_string())
        };
        let gone = seen.peers.keys().filter(|key| !peers.contains_key(*key));
        let gone = gone.map(|key| format!("school {}: key {key} out", whose(key)));
        let other = peers.iter().filter_map(|(key, peer)| match seen.peers.get(key) {
            None => Some(format!("school {}: key {key} in", whose(key))),
            Some(seen) if !peer.is_met_by(seen) => Some(format!("school {}: key {key} changed", whose(key))),
            Some(_) => None,
        });
        gone.chain(other).collect()
    }

    fn observe(&mut self) -> Result<Observed> {
        let sysctls: Vec<String> = self.compiled.sysctls.iter().map(|sysctl| sysctl.path.clone()).collect();
        Ok(self.dataplane.observe(&sysctls)?)
    }

    /// Puts into the plan what only this machine knows: the private key's place and its public half.
    fn ground(&mut self, compiled: &mut NetworkPlan) {
        self.unusable = None;
        let Some(tunnel) = compiled.tunnels.get_mut(&self.tunnel) else { return };
        tunnel.private_key_file = self.folder.join(&tunnel.private_key_file);
        match PrivateKey::load_or_make(&tunnel.private_key_file) {
            Ok((key, made)) => {
                tunnel.own = Some(key.public());
                self.own = tunnel.own;
                if made == Made::Now {
                    self.made = tunnel.own;
                }
            }
            Err(error) => {
                self.own = None;
                self.unusable = Some(error.to_string());
            }
        }
    }

    /// Makes the kernel agree with the plan and looks again. Nothing is touched where nothing differs.
    pub(super) fn converge(&mut self, now: Reading) -> Result<Convergence> {
        let outcome = self.try_converge(now);
        if let Err(error) = &outcome {
            self.problems = vec![format!("{error:#}")];
        }
        outcome
    }

    fn try_converge(&mut self, now: Reading) -> Result<Convergence> {
        let observed = self.observe()?;
        if let Some(state) = observed.tunnels.get(&self.tunnel) {
            self.moved.extend(self.roster.note(&self.plan, state, self.today, now.mono));
        }
        let (parent, generation) = (self.compiled.parent, self.compiled.generation);
        let mut compiled = compile(&self.plan, &self.roster, self.today, parent, generation)?;
        self.ground(&mut compiled);
        self.compiled = compiled;
        let mut wanted = self.possible(&observed);
        let mut changes = diff(&observed, self.verified.as_ref(), &wanted);
        if self.was_edited(&observed, &wanted) {
            let script = render_replacement(&wanted.ruleset);
            changes.changes.insert(0, Change::Nft { script });
        }
        if changes.changes.is_empty() {
            self.settle(&observed, &wanted, now)?;
            return Ok(Convergence::InForce);
        }
        let summary: Vec<String> = changes.changes.iter().map(describe).collect();
        tracing::info!(
            changes = summary.len(),
            "changing the network: {}",
            summary[..summary.len().min(4)].join("; ")
        );
        let anew = self.made_anew(&observed, &wanted);
        match self.dataplane.apply(&changes) {
            Ok(()) => {}
            Err(ApplyError::Tunnel { interface: _, why }) => {
                // Closed is better than half: the rest is put in force without it.
                self.unusable = Some(why);
                let observed = self.observe()?;
                wanted = self.possible(&observed);
                self.dataplane.apply(&diff(&observed, self.verified.as_ref(), &wanted))?;
            }
            // What is there is not what the difference was made for: one whole table fits everything.
            Err(ApplyError::NftRefused { message }) if observed.table.is_some() => {
                tracing::warn!(message, "the difference was refused, the whole table is made anew");
                let script = render_replacement(&wanted.ruleset);
                self.dataplane.apply(&ChangeSet { changes: vec![Change::Nft { script }] })?;
                let rest = diff(&self.observe()?, None, &wanted);
                self.dataplane.apply(&rest)?;
            }
            Err(error) => return Err(error.into()),
        }
        let same_rules = self.verified.as_ref().is_some_and(|seen| {
            seen.ruleset == wanted.ruleset && seen.routes == wanted.routes && seen.rules == wanted.rules
        });
        // A tunnel in user space takes its addresses and routes with it.
        let by_others = |change: &Change| !matches!(change, Change::TunnelSet { .. }) && !is_tunnel(change);
        if same_rules && changes.changes.iter().any(by_others) && !changes.changes.iter().any(is_tunnel) {
            self.repairs += 1;
        }
        let observed = self.observe()?;
        self.digests = digests(&observed);
        self.settle(&observed, &wanted, now)?;
        self.wake(&anew);
        Ok(Convergence::Changed)
    }

    /// Schools whose peer is made anew where it was known: in user space the session is lost with it.
    fn made_anew(&self, observed: &Observed, wanted: &NetworkPlan) -> Vec<Ipv4Addr> {
        let none = TunnelState::default();
        let seen = observed.tunnels.get(&self.tunnel).unwrap_or(&none);
        let Some(tunnel) = wanted.tunnels.get(&self.tunnel) else { return Vec::new() };
        let is_lost = |key: &WireguardKey| {
            tunnel.peers.get(key).is_some_and(|peer| {
                let was_met = seen.peers.get(key).is_some_and(|seen| peer.is_met_by(seen));
                peer.endpoint.is_some() && !peer.allowed.is_empty() && !was_met
            })
        };
        let schools = self.plan.schools.values();
        let lost = schools.filter(|school| school.keys.iter().any(|key| is_lost(&key.public_key)));
        lost.map(|school| school.ipv4).collect()
    }

    /// Sends each a packet that it will throw away: WireGuard shakes hands for it, and does not wait until the school
    /// notices that its session is gone.
    fn wake(&self, schools: &[Ipv4Addr]) {
        if schools.is_empty() {
            return;
        }
        match UdpSocket::bind((self.plan.tunnel.ipv4.addr(), 0)) {
            Ok(socket) => {
                for school in schools {
                    if let Err(error) = socket.send_to(&[0], (*school, DISCARD)) {
                        tracing::debug!(%school, %error, "not woken");
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "nobody is woken"),
        }
    }

    fn settle(&mut self, observed: &Observed, wanted: &NetworkPlan, now: Reading) -> Result<()> {
        let differences: Vec<String> = verify(observed, wanted).iter().map(ToString::to_string).collect();
        if !differences.is_empty() {
            anyhow::bail!("the kernel does not show what was set: {}", differences.join("; "))
        }
        let missing = self.missing.iter().map(|name| ApplyError::NoSuchInterface(name.clone()).to_string());
        self.problems = missing.chain(self.unusable.iter().map(|why| format!("{TUNNEL}: {why}"))).collect();
        if self.digests.is_empty() {
            self.digests = digests(observed);
        }
        self.verified = Some(wanted.clone());
        self.verified_at = Some(now.mono);
        Ok(())
    }

    /// Somebody changed a rule of ours and left its tag on.
    fn was_edited(&self, observed: &Observed, wanted: &NetworkPlan) -> bool {
        let same_rules = self.verified.as_ref().is_some_and(|v| v.ruleset.chains == wanted.ruleset.chains);
        same_rules
            && observed.table.is_some()
            && !self.digests.is_empty()
            && self.digests != digests(observed)
    }

    /// The plan without lines that are not there, and without a tunnel that cannot be had.
    fn possible(&mut self, observed: &Observed) -> NetworkPlan {
        let uplinks = self.compiled.links.iter().filter(|link| matches!(link.kind, LinkKind::Uplink));
        let absent = uplinks.filter(|link| !observed.interfaces.contains_key(&link.name));
        self.missing = absent.map(|link| link.name.clone()).collect();
        let tunnel = self.unusable.is_some().then(|| self.tunnel.clone());
        without(&self.compiled, &self.missing.iter().cloned().chain(tunnel).collect())
    }
}

fn is_tunnel(change: &Change) -> bool {
    matches!(change, Change::LinkUp(link) if link.kind == LinkKind::Tunnel)
}
