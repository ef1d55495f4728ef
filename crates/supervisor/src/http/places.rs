//! Who may have how many connections.
//!
//! A newcomer takes the place of the oldest connection of its own address that never asked anything, or that
//! has nothing under way: who floods the node loses his own connections and nobody else's, and whoever asks
//! something at once gets in even beside a flood from the same address.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use tokio_util::sync::CancellationToken;

use super::activity::Activity;

/// Of four places, this machine itself may have three: a proxy on it brings the connections of everybody, and
/// the command line is on it. The fourth stays for others, whatever runs wild here.
const LOOPBACK_QUARTERS: usize = 3;

/// Who counts as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Peer {
    /// This machine. All of it: a program on it may choose among 16 million addresses.
    Loopback,
    /// One address; of IPv6 its /64, the least that one customer has.
    Address(IpAddr),
}

impl Peer {
    fn of(address: IpAddr) -> Self {
        let address = address.to_canonical();
        match address {
            _ if address.is_loopback() => Self::Loopback,
            IpAddr::V4(_) => Self::Address(address),
            IpAddr::V6(address) => {
                let network = u128::from(address) >> 64 << 64;
                Self::Address(IpAddr::V6(Ipv6Addr::from(network)))
            }
        }
    }
}

/// One connection.
#[derive(Debug)]
struct Taken {
    activity: Arc<Activity>,
    lost: CancellationToken,
}

/// The connections of each peer, in the order in which they came.
#[derive(Debug, Default)]
struct Table {
    next: u64,
    peers: HashMap<Peer, BTreeMap<u64, Taken>>,
}

/// The places of one listener. There are never more of them than the listener has connections.
#[derive(Debug)]
pub(super) struct Places {
    /// `None`: no bounds, and nothing to keep.
    bounds: Option<Bounds>,
    table: Arc<Mutex<Table>>,
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    peer: usize,
    loopback: usize,
}

/// A place that is taken. Free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    lost: CancellationToken,
    of: Option<(Arc<Mutex<Table>>, Peer, u64)>,
}

impl Places {
    /// At most `peer` for each address, of `most` in all.
    pub(super) fn new(peer: usize, most: usize) -> Self {
        let loopback = (most * LOOPBACK_QUARTERS / 4).max(1);
        Self { bounds: Some(Bounds { peer: peer.min(loopback), loopback }), table: Arc::default() }
    }

    /// As many as anybody likes.
    pub(super) fn unbounded() -> Self {
        Self { bounds: None, table: Arc::default() }
    }

    /// A place, perhaps another's of the same address. `None`: all of those are at work.
    pub(super) fn enter(&self, address: IpAddr, activity: &Arc<Activity>) -> Option<Place> {
        let lost = CancellationToken::new();
        let Some(bounds) = self.bounds else { return Some(Place { lost, of: None }) };
        let peer = Peer::of(address);
        let most = if peer == Peer::Loopback { bounds.loopback } else { bounds.peer };
        let mut table = lock(&self.table);
        let number = table.next;
        table.next += 1;
        let places = table.peers.entry(peer).or_default();
        if places.len() >= most && !give_up_one(places) {
            return None;
        }
        places.insert(number, Taken { activity: Arc::clone(activity), lost: lost.clone() });
        Some(Place { lost, of: Some((Arc::clone(&self.table), peer, number)) })
    }

    /// Ends one connection that has nothing under way, of whoever has the most. Nothing if there is none.
    pub(super) fn free_one(&self) {
        let mut table = lock(&self.table);
        let mut all: Vec<_> = table.peers.values_mut().collect();
        all.sort_unstable_by_key(|places| std::cmp::Reverse(places.len()));
        let _one = all.into_iter().any(give_up_one);
    }
}

/// Takes the place of the oldest that never asked anything, else of the oldest with nothing under way.
fn give_up_one(places: &mut BTreeMap<u64, Taken>) -> bool {
    let oldest = |fits: fn(&Activity) -> bool| {
        places.iter().find(|(_, taken)| fits(&taken.activity)).map(|(number, _)| *number)
    };
    let number = oldest(Activity::is_silent).or_else(|| oldest(Activity::is_idle));
    let Some(taken) = number.and_then(|number| places.remove(&number)) else { return false };
    taken.lost.cancel();
    true
}

fn lock(table: &Mutex<Table>) -> std::sync::MutexGuard<'_, Table> {
    // Nothing panics under it, and a table is right after every step.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Place {
    /// Resolves when a newer connection has it.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((table, peer, number)) = &self.of else { return };
        let mut table = lock(table);
        let Some(places) = table.peers.get_mut(peer) else { return };
        places.remove(number);
        if places.is_empty() {
            table.peers.remove(peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(places: &Places, address: &str) -> Option<(Place, Arc<Activity>)> {
        let activity = Arc::default();
        places.enter(address.parse().unwrap(), &activity).map(|place| (place, activity))
    }

    fn lost((place, _): &(Place, Arc<Activity>)) -> bool {
        place.lost.is_cancelled()
    }

    #[test]
    fn who_has_too_many_loses_the_oldest_silent_one_and_nobody_elses() {
        let places = Places::new(3, 16);
        let other = enter(&places, "192.0.2.2").unwrap();
        let first = enter(&places, "192.0.2.1").unwrap();
        drop(first.1.begin()); // asked, and was answered
        let second = enter(&places, "192.0.2.1").unwrap();
        let third = enter(&places, "192.0.2.1").unwrap();
        let at_work = third.1.begin();
        let fourth = enter(&places, "::ffff:192.0.2.1").unwrap();
        assert_eq!([&first, &second, &third, &fourth].map(lost), [false, true, false, false]);
        let _work = fourth.1.begin();
        let fifth = enter(&places, "192.0.2.1").unwrap();
        assert_eq!([&first, &third, &fourth, &fifth].map(lost), [true, false, false, false]);
        let _more = fifth.1.begin();
        assert!(enter(&places, "192.0.2.1").is_none(), "all are at work");
        assert!(!lost(&other));
        drop((at_work, third));
        assert!(enter(&places, "192.0.2.1").is_some(), "an end makes room");
    }

    #[test]
    fn this_machine_is_one_peer_and_leaves_a_quarter_to_others() {
        let places = Places::new(3, 16);
        let mine: Vec<_> = (1..=13).map(|at| enter(&places, &format!("127.0.0.{at}")).unwrap()).collect();
        assert_eq!(mine.iter().filter(|one| lost(one)).count(), 1);
        assert!(lost(&mine[0]));
        let _v6 = enter(&places, "::1").unwrap();
        assert!(lost(&mine[1]));
    }

    #[test]
    fn a_network_of_ipv6_is_one_peer() {
        let places = Places::new(1, 16);
        let first = enter(&places, "2001:db8::1").unwrap();
        let second = enter(&places, "2001:db8::ffff:2").unwrap();
        let third = enter(&places, "2001:db8:0:1::1").unwrap();
        assert_eq!([&first, &second, &third].map(lost), [true, false, false]);
    }

    #[test]
    fn when_all_is_full_whoever_has_the_most_gives_one_up() {
        let places = Places::new(3, 16);
        let one = enter(&places, "192.0.2.1").unwrap();
        let _busy = one.1.begin();
        let many: Vec<_> = (0..2).map(|_| enter(&places, "192.0.2.2").unwrap()).collect();
        let _busy_too = many[0].1.begin();
        let few = enter(&places, "192.0.2.3").unwrap();
        places.free_one();
        assert_eq!([&one, &many[0], &many[1], &few].map(lost), [false, false, true, false]);
        places.free_one();
        assert!(lost(&few));
        places.free_one();
        assert!(!lost(&one) && !lost(&many[0]), "nobody is at rest");
    }

    #[test]
    fn what_has_ended_leaves_nothing() {
        let places = Places::new(3, 16);
        drop(enter(&places, "192.0.2.1"));
        assert!(lock(&places.table).peers.is_empty());
        let _held: Vec<_> = (0..100).map(|_| enter(&Places::unbounded(), "192.0.2.1").unwrap()).collect();
    }
}
