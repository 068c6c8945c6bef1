//! Two ends and real packets: a school's gateway under the shipped one-line plan, and a hub, in namespaces of their own.
//! Each test starts itself again under `unshare`; where that is not permitted it says `skipped`.

mod by_hand;
mod carrying;
mod far_end;
mod traffic;
mod world;
