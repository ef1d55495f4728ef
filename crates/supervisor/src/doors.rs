//! Which connections reach the Runtime API: those of an instance's own processes to its own address,
//! and of each instance only so many (I10, I11).
//!
//! The address alone proves nothing: every process of the machine can connect to it.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{http::Ends, peer::SocketTables, spec::FunctionSpec};

/// Connections of one instance beyond those for its requests: polls, answers on their way, reconnects.
const SPARE_CONNECTIONS: usize = 64;
/// Connections for each request an instance may hold: a worker polls, answers, and listens.
const CONNECTIONS_PER_REQUEST: usize = 4;
/// Answers of one instance that are read at once beyond its requests; each may take 6 MiB.
const SPARE_ANSWERS: usize = 2;

/// Connections that an instance of so many requests may have.
pub(crate) fn connections_of(concurrency: u32) -> usize {
    let requests = usize::try_from(concurrency).unwrap_or(usize::MAX);
    let connections = requests.saturating_mul(CONNECTIONS_PER_REQUEST).saturating_add(SPARE_CONNECTIONS);
    connections.min(Semaphore::MAX_PERMITS)
}

/// The doors of all live instances. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Doors(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    doors: Mutex<HashMap<Ipv4Addr, Door>>,
    /// `None` where the kernel does not tell: then the address is believed.
    tables: Option<SocketTables>,
}

#[derive(Debug)]
struct Door {
    /// The cgroup of the instance's processes; `None` if it has none of its own.
    cgroup: Option<u64>,
    connections: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    /// A refusal was logged: one line an instance, however often it tries.
    told: AtomicBool,
    /// What the instance runs.
    function: Option<Arc<FunctionSpec>>,
}

impl Doors {
    pub(crate) fn new() -> Self {
        let tables = SocketTables::open().inspect_err(|error| {
            tracing::warn!(%error, "runtimes are told apart by their address only");
        });
        Self(Arc::new(Shared { doors: Mutex::default(), tables: tables.ok() }))
    }

    fn doors(&self) -> MutexGuard<'_, HashMap<Ipv4Addr, Door>> {
        self.0.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets an instance of so many requests in. To be called before anything of it is executed.
    pub(crate) fn open(&self, address: Ipv4Addr, cgroup: Option<u64>, concurrency: u32) {
        let requests = usize::try_from(concurrency).unwrap_or(usize::MAX);
        let door = Door {
            cgroup,
            connections: Arc::new(Semaphore::new(connections_of(concurrency))),
            answers: Arc::new(Semaphore::new(requests.saturating_add(SPARE_ANSWERS))),
            told: AtomicBool::new(false),
            function: None,
        };
        self.doors().insert(address, door);
    }

    /// Says what an instance that was let in runs.
    pub(crate) fn name(&self, address: Ipv4Addr, function: Arc<FunctionSpec>) {
        if let Some(door) = self.doors().get_mut(&address) {
            door.function = Some(function);
        }
    }

    /// What the instance at this address runs.
    pub(crate) fn function(&self, address: Ipv4Addr) -> Option<Arc<FunctionSpec>> {
        self.doors().get(&address)?.function.clone()
    }

    /// The instance is gone.
    pub(crate) fn close(&self, address: Ipv4Addr) {
        self.doors().remove(&address);
    }

    /// Whether a connection is one of the instance whose address it came to; it is counted for as long
    /// as what is returned lives.
    pub(crate) fn admit(&self, ends: Ends) -> Option<OwnedSemaphorePermit> {
        let (SocketAddr::V4(local), SocketAddr::V4(peer)) = (ends.local, ends.peer) else { return None };
        let doors = self.doors();
        let door = doors.get(local.ip())?;
        let refuse = |why: &str| {
            if !door.told.swap(true, Ordering::Relaxed) {
                tracing::warn!(address = %local.ip(), why, "a connection to the Runtime API was refused");
            }
            None
        };
        if let (Some(cgroup), Some(tables)) = (door.cgroup, &self.0.tables) {
            match tables.cgroup_of(peer, local) {
                Ok(Some(of)) if of == cgroup => {}
                Ok(Some(_)) => return refuse("it is not of this instance"),
                Ok(None) => return None, // gone already
                Err(error) => return refuse(&error.to_string()),
            }
        }
        match Arc::clone(&door.connections).try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => refuse("it has too many"),
        }
    }

    /// The same for one that came to a listener in the instance's own network.
    pub(crate) fn admit_inside(&self, ends: Ends) -> Option<OwnedSemaphorePermit> {
        let SocketAddr::V4(local) = ends.local else { return None };
        let connections = self.doors().get(local.ip()).map(|door| Arc::clone(&door.connections))?;
        connections.try_acquire_owned().ok()
    }

    /// Whether the far end of a connection of the node is a socket of the instance at this address, as far as
    /// can be told: without a cgroup of its own, or a kernel that tells, it is believed.
    pub(crate) fn is_of(&self, address: Ipv4Addr, far: SocketAddrV4, own: SocketAddrV4) -> bool {
        let doors = self.doors();
        let Some(door) = doors.get(&address) else { return false };
        match (door.cgroup, &self.0.tables) {
            (Some(cgroup), Some(tables)) => {
                matches!(tables.cgroup_of(far, own), Ok(Some(of)) if of == cgroup)
            }
            _ => true,
        }
    }

    /// Resolves when another answer of this instance may be read; `None` if the instance is gone.
    pub(crate) async fn answer(&self, address: Ipv4Addr) -> Option<OwnedSemaphorePermit> {
        let answers = self.doors().get(&address).map(|door| Arc::clone(&door.answers))?;
        answers.acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn connect(listener: &TcpListener) -> (TcpStream, Ends) {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, peer) = listener.accept().unwrap();
        (client, Ends { local: accepted.local_addr().unwrap(), peer })
    }

    #[test]
    fn only_the_instances_own_processes_come_in_and_only_so_many() {
        let listener = TcpListener::bind("127.1.0.9:0").unwrap();
        let address = Ipv4Addr::new(127, 1, 0, 9);
        let doors = Doors::new();
        let (_client, ends) = connect(&listener);
        assert!(doors.admit(ends).is_none(), "no such instance");
        doors.open(address, Some(u64::MAX), 1);
        assert!(doors.admit(ends).is_none(), "of another cgroup");
        doors.open(address, None, 1);
        let most = SPARE_CONNECTIONS + CONNECTIONS_PER_REQUEST;
        let mut held: Vec<_> = (0..most).map(|_| doors.admit(ends).unwrap()).collect();
        assert!(doors.admit(ends).is_none(), "one too many");
        held.pop();
        assert!(doors.admit(ends).is_some());
        doors.close(address);
        assert!(doors.admit(ends).is_none(), "it is gone");
    }
}
