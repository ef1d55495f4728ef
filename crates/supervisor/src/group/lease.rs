//! Until when what the node runs may run: a clock that the node sets and every helper reads by itself.
//!
//! Nodes that share a database run each other's requests again once a lease is over. A node that is stopped
//! (SIGSTOP, a hung disk) can end nothing then, so its helpers do: each has a page in common with the node, in
//! which stands the end of the lease in nanoseconds of CLOCK_BOOTTIME, which goes on while a machine sleeps.
//! A helper has a timer for the end it read last, and reads again when that is over: it wakes once in a
//! lease, however often the lease is renewed.

use std::{
    ffi::c_void,
    io,
    num::NonZeroUsize,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    libc,
    sys::{
        memfd::{MFdFlags, memfd_create},
        mman::{MapFlags, ProtFlags, mmap, munmap},
        timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
    time::clock_gettime,
    unistd::ftruncate,
};

use super::handing;

/// The byte with which a helper is handed the page.
const LEASE: u8 = b'l';
/// What is in the page.
const BYTES: usize = size_of::<u64>();

/// The node's side: until when what it runs may run. Clones are the same clock; it goes on as long as one is
/// held, and helpers heed the last value after that.
#[derive(Clone, Debug)]
pub struct LeaseClock(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    page: Page,
    fd: OwnedFd,
}

impl LeaseClock {
    /// A clock that runs until this moment of CLOCK_BOOTTIME, [`LeaseClock::boottime_now`]. There is none
    /// without a limit: who has no lease has no clock.
    ///
    /// # Errors
    /// When there is no memory to be shared.
    pub fn starting_with(boottime: Duration) -> io::Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let fd = memfd_create("quell-lease", flags)?;
        ftruncate(&fd, BYTES as libc::off_t)?;
        let page = Page::map(fd.as_fd(), ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
        // From here on only the mapping above writes: not even root in a namespace that is handed the
        // descriptor does, and nobody can make the page go away under a reader.
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_FUTURE_WRITE | libc::F_SEAL_SEAL;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(SealFlag::from_bits_retain(seals)))?;
        let clock = Self(Arc::new(Shared { page, fd }));
        clock.run_until(boottime);
        Ok(clock)
    }

    /// What the node runs may run until this moment of CLOCK_BOOTTIME. A moment that is earlier than one that
    /// was set changes nothing: helpers look again only when what they know is over. Never blocks.
    pub fn run_until(&self, boottime: Duration) {
        let nanoseconds = u64::try_from(boottime.as_nanos()).unwrap_or(u64::MAX);
        self.0.page.cell().fetch_max(nanoseconds, Ordering::SeqCst);
    }

    /// Until when, as it was set.
    pub fn runs_until(&self) -> Duration {
        self.0.page.read()
    }

    /// The time by CLOCK_BOOTTIME: since the machine started, the time it slept included.
    ///
    /// # Errors
    /// When the kernel has no such clock.
    pub fn boottime_now() -> io::Result<Duration> {
        let now = clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)?;
        Ok(now.into())
    }

    /// Hands it to a helper, ahead of any order on its line. By the line, not by inheritance: so no other
    /// process that is started meanwhile has it, and what is executed after the helper neither.
    pub(super) fn hand_to(&self, line: impl AsFd) -> io::Result<()> {
        handing::send(line, &[LEASE], &[self.0.fd.as_fd()])
    }
}

/// A helper's side. Nothing of it outlives exec, neither the mapping nor the timer.
pub(super) struct Lease {
    page: Page,
}

impl Lease {
    /// What was handed over ahead of all orders. The descriptor is closed: what is needed of it is mapped.
    pub(super) fn receive(line: impl AsFd) -> Result<Self, String> {
        let mut byte = [0];
        let (size, handed) =
            handing::receive(line, &mut byte).map_err(|error| format!("the lease: {error}"))?;
        match handed.first() {
            Some(fd) if (size, byte[0]) == (1, LEASE) => {
                let page = Page::map(fd.as_fd(), ProtFlags::PROT_READ);
                Ok(Self { page: page.map_err(|error| format!("the lease: {error}"))? })
            }
            _ => Err("the lease was not handed over".to_owned()),
        }
    }

    /// The timer of this process.
    pub(super) fn into_timer(self) -> io::Result<LeaseTimer> {
        let timer =
            TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        Ok(LeaseTimer { page: self.page, timer })
    }
}

/// Readable when the lease was over by what is known of it. To be asked with [`LeaseTimer::is_over`], once
/// before it is waited for, and each time that it is readable.
pub(super) struct LeaseTimer {
    page: Page,
    timer: TimerFd,
}

impl LeaseTimer {
    /// Whether the lease is over; if it was renewed, the timer is set to its new end.
    pub(super) fn is_over(&self) -> io::Result<bool> {
        let until = self.page.read();
        if LeaseClock::boottime_now()? >= until {
            return Ok(true);
        }
        // (A time of zero would unset it, and is over.)
        self.timer.set(Expiration::OneShot(until.into()), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
        Ok(false)
    }
}

impl AsFd for LeaseTimer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

/// A mapping of the page.
#[derive(Debug)]
struct Page(NonNull<c_void>);

// SAFETY: the mapping belongs to no thread, and what is in it is only ever used as an atomic.
#[expect(unsafe_code, reason = "memory that processes share is a pointer")]
unsafe impl Send for Page {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "memory that processes share is a pointer")]
unsafe impl Sync for Page {}

impl Page {
    const LENGTH: NonZeroUsize = NonZeroUsize::new(BYTES).expect("it is not zero");

    fn map(fd: BorrowedFd<'_>, protection: ProtFlags) -> io::Result<Self> {
        // SAFETY: the kernel chooses where, so nothing else is mapped there; the length is that of the file.
        #[expect(unsafe_code, reason = "memory that processes share has no safe form")]
        let page = unsafe { mmap(None, Self::LENGTH, protection, MapFlags::MAP_SHARED, fd, 0) };
        Ok(Self(page?))
    }

    fn cell(&self) -> &AtomicU64 {
        // SAFETY: mapped as long as `self` is, at the start of a page and so aligned; the file cannot be made
        // shorter (it is sealed), and everybody who has it uses these bytes as an atomic. A helper only loads,
        // which a mapping that is not to be written allows for what fits a register.
        #[expect(unsafe_code, reason = "memory that processes share is a pointer")]
        unsafe {
            self.0.cast::<AtomicU64>().as_ref()
        }
    }

    fn read(&self) -> Duration {
        Duration::from_nanos(self.cell().load(Ordering::SeqCst))
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, and used by nobody any more.
        #[expect(unsafe_code, reason = "the other half of mmap")]
        let unmapped = unsafe { munmap(self.0, BYTES) };
        if let Err(error) = unmapped {
            tracing::warn!(%error, "the page of a lease stays mapped");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        os::{fd::AsRawFd as _, unix::fs::FileExt as _, unix::net::UnixStream},
    };

    use super::*;

    const FAR: Duration = Duration::from_secs(1 << 32);

    #[test]
    fn what_the_node_sets_a_helper_reads_and_only_forward() {
        let clock = LeaseClock::starting_with(Duration::from_nanos(1)).unwrap();
        let (here, there) = UnixStream::pair().unwrap();
        clock.hand_to(&here).unwrap();
        let timer = Lease::receive(&there).unwrap().into_timer().unwrap();
        assert!(timer.is_over().unwrap());
        clock.run_until(FAR);
        assert!(!timer.is_over().unwrap());
        clock.run_until(Duration::from_nanos(7));
        assert_eq!((clock.runs_until(), timer.page.read()), (FAR, FAR));
    }

    #[test]
    fn whoever_is_handed_the_page_cannot_write_it_or_cut_it() {
        let clock = LeaseClock::starting_with(FAR).unwrap();
        // Opened anew, so that it is the seal that forbids it and not the way it was opened.
        let path = format!("/proc/self/fd/{}", clock.0.fd.as_raw_fd());
        let file = File::options().read(true).write(true).open(path).unwrap();
        assert!(file.write_at(&[0; BYTES], 0).is_err());
        assert!(file.set_len(0).is_err());
        assert!(Page::map(file.as_fd(), ProtFlags::PROT_READ | ProtFlags::PROT_WRITE).is_err());
        assert_eq!(clock.runs_until(), FAR);
    }

    #[test]
    fn a_line_without_the_page_is_an_error() {
        let (here, there) = UnixStream::pair().unwrap();
        handing::send(&here, b"g", &[]).unwrap();
        assert!(Lease::receive(&there).is_err());
        drop(here);
        assert!(Lease::receive(&there).is_err());
    }
}
