//! A disk that takes requests and never answers them: a FUSE file system of our own, served by a thread.
//! SIGKILL does not end who waits for it until its connection is aborted.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::fd::AsRawFd as _,
    sync::mpsc::{Receiver, Sender, channel},
    time::Duration,
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Not below `/tmp`: instances in a namespace have another one.
const PLACE: &str = "/var/tmp";
/// No request takes a hundredth of this to come.
const LIMIT: Duration = Duration::from_secs(20);

// From linux/fuse.h. Each number is in the machine's own order.
const IN_HEADER_BYTES: usize = 40;
const OPCODE_AT: usize = 4;
const UNIQUE_AT: usize = 8;
const PID_AT: usize = 32;
const INIT: u32 = 26;
/// FORGET, INTERRUPT, DESTROY, BATCH_FORGET: nobody waits for an answer to these.
const WITHOUT_ANSWER: [u32; 4] = [2, 36, 38, 42];
const INIT_OUT_BYTES: usize = 64;
/// The kernel gives a request only to a buffer of at least this size.
const REQUEST_BYTES: usize = 8_192;
const MAX_WRITE: u32 = 4_096;

/// Mounted; dropping it aborts the connection, so that whoever waits for it gets an error, and unmounts it.
pub(crate) struct DeafDisk {
    asked: Receiver<u32>,
    dir: tempfile::TempDir,
}

impl DeafDisk {
    /// `None`, and says so, where none can be mounted.
    pub(crate) fn mount() -> Option<Self> {
        match Self::try_to_mount() {
            Ok(disk) => Some(disk),
            Err(error) => {
                println!("no FUSE here, so nothing is tested: {error}");
                None
            }
        }
    }

    fn try_to_mount() -> io::Result<Self> {
        let connection = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
        let dir = tempfile::Builder::new().prefix("quell-deaf-disk-").tempdir_in(PLACE)?;
        let fd = connection.as_raw_fd();
        let data = format!("fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other");
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("quell-deaf-disk"), dir.path(), Some("fuse"), flags, Some(data.as_str()))?;
        let (tell, asked) = channel();
        // Mounted from here on: it is unmounted whatever comes.
        let disk = Self { asked, dir };
        std::thread::Builder::new().name("deaf disk".to_owned()).spawn(move || serve(connection, &tell))?;
        Ok(disk)
    }

    /// A file on it.
    pub(crate) fn file(&self) -> String {
        self.dir.path().join("file").to_str().unwrap().to_owned()
    }

    /// Waits until somebody waits for it; returns which thread.
    pub(crate) fn asked(&self) -> u32 {
        self.asked.recv_timeout(LIMIT).expect("a request to the disk")
    }
}

impl Drop for DeafDisk {
    fn drop(&mut self) {
        // By force means that the connection is aborted first, which ends its thread as well.
        if let Err(error) = umount2(self.dir.path(), MntFlags::MNT_FORCE | MntFlags::MNT_DETACH) {
            println!("{} stays mounted: {error}", self.dir.path().display());
        }
    }
}

/// Shakes hands, and from then on only tells who asks. Ends when the connection is aborted.
fn serve(mut connection: File, tell: &Sender<u32>) {
    let mut request = [0; REQUEST_BYTES];
    while let Ok(size) = connection.read(&mut request) {
        assert!(size >= IN_HEADER_BYTES, "a request of {size} bytes");
        let number = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
        match number(OPCODE_AT) {
            INIT => connection.write_all(&shake_hands(&request[UNIQUE_AT..UNIQUE_AT + 8])).unwrap(),
            opcode if WITHOUT_ANSWER.contains(&opcode) => {}
            // Nobody listens any more while the disk is being dropped.
            _ => drop(tell.send(number(PID_AT))),
        }
    }
}

/// The answer to INIT: version 7.31, nothing special.
fn shake_hands(unique: &[u8]) -> Vec<u8> {
    let size = u32::try_from(16 + INIT_OUT_BYTES).unwrap();
    let mut answer = [size.to_ne_bytes(), 0_u32.to_ne_bytes()].concat();
    answer.extend_from_slice(unique);
    // Version, read-ahead and flags, two limits of what is in the background, the largest write.
    let body = [7, 31, 0, 0, 0, MAX_WRITE];
    answer.extend(body.iter().flat_map(|number: &u32| number.to_ne_bytes()));
    answer.resize(16 + INIT_OUT_BYTES, 0);
    answer
}
