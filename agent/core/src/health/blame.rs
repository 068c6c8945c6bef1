//! Who is at fault when a service is ill: the service itself, or the way to it.

use std::collections::BTreeMap;

use seimon_plan::PathId;

use super::service::ServiceVerdict;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blame {
    /// It works over every path that was asked.
    Nobody,
    /// Ill over these, well over another: moving helps.
    Paths(Vec<PathId>),
    /// Ill over every path that was asked, and more than one was: moving would not help.
    Service,
    /// Ill over the only path that was asked.
    Undecided,
}

/// `verdicts`: of one service, by *living* path. A dead path says nothing about a service.
pub fn blame(verdicts: &BTreeMap<PathId, ServiceVerdict>) -> Blame {
    let of = |wanted| verdicts.iter().filter(move |&(_, &v)| v == wanted).map(|(path, _)| path.clone());
    let ill: Vec<PathId> = of(ServiceVerdict::Ill).collect();
    if ill.is_empty() {
        Blame::Nobody
    } else if of(ServiceVerdict::Well).next().is_some() {
        Blame::Paths(ill)
    } else if ill.len() > 1 {
        Blame::Service
    } else {
        Blame::Undecided
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ServiceVerdict::{Ill, Unknown, Well};

    fn judge(closed: ServiceVerdict, direct: ServiceVerdict) -> Blame {
        let path = |id: &str| PathId::new(id).expect("an identifier");
        blame(&BTreeMap::from([(path("closed"), closed), (path("direct"), direct)]))
    }

    #[test]
    fn the_whole_table_of_two_paths() {
        let direct = || Blame::Paths(vec![PathId::new("direct").expect("an identifier")]);
        let closed = || Blame::Paths(vec![PathId::new("closed").expect("an identifier")]);
        for (on_closed, on_direct, expected) in [
            (Well, Well, Blame::Nobody),
            (Well, Ill, direct()),
            (Well, Unknown, Blame::Nobody),
            (Ill, Well, closed()),
            (Ill, Ill, Blame::Service),
            (Ill, Unknown, Blame::Undecided),
            (Unknown, Well, Blame::Nobody),
            (Unknown, Ill, Blame::Undecided),
            (Unknown, Unknown, Blame::Nobody),
        ] {
            assert_eq!(judge(on_closed, on_direct), expected, "{on_closed:?} {on_direct:?}");
        }
    }
}
