//! Is a path alive, does a service work over it, whose fault is it, and from which address does the world see us.
//!
//! ```text
//!  echo answers ──▶ PathLiveness (k of n, hysteresis, hold-down) ──▶ Up | Down | Unknown, loss, round trip
//!       ├─ losses, times, full-size echoes ──▶ PathQuality ──▶ Ailment: lossy, slow, long answers stall
//!       └─ source seen ──▶ EgressTracker ──▶ Registered | NotRegistered | Unknown
//!  service checks ──▶ ServiceHealth by (zone, service, path) ──▶ Well | Ill | Unknown ──▶ blame()
//!  users' flows ──▶ PassiveShare by (zone, group, path): the share of new flows that were answered
//!                                        │
//!                                        ▼
//!                        PathFacts by path = what migration decides on
//! ```
//! [`Health`] puts them together and says which echoes are to be sent all the time ([`Health::echo_orders`]) and when to
//! check which service ([`Health::poll_check`]). Nothing here sends a packet or
//! reads a clock.

mod blame;
mod egress;
mod facts;
mod letter;
mod liveness;
mod passive;
mod quality;
mod schedule;
mod service;
mod tracker;

pub use blame::{Blame, blame};
pub use egress::{EgressTracker, EgressVerdict, Families};
pub use facts::PathFacts;
pub use letter::Registration;
pub use liveness::{Liveness, LivenessConfig, PathLiveness};
pub use passive::{FlowCount, PassiveShare};
pub use quality::{Ailment, PathQuality};
pub use schedule::{CheckTarget, Pace, Schedule, ScheduleConfig};
pub use service::{CheckOutcome, ServiceFacts, ServiceHealth, ServiceVerdict, Stage};
pub use tracker::{EchoFamily, EchoOrder, EchoOutcome, EchoSize, Health, HealthConfig, HealthEvent};
