//! A tracer outside of every group that holds a process at its exit: SIGKILL parks it there until the
//! tracer is gone.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

/// Seizes a process with a stop at its exit.
const TRACER: &str = "\
import ctypes, sys\n\
libc = ctypes.CDLL(None, use_errno=True)\n\
SEIZE, TRACEEXIT = 0x4206, 0x40\n\
if libc.ptrace(SEIZE, int(sys.argv[1]), None, ctypes.c_void_p(TRACEEXIT)) != 0:\n    \
    print('refused', ctypes.get_errno(), flush=True)\n\
else:\n    \
    print('seized', flush=True)\n\
sys.stdin.read()";

/// It ends when its stdin is closed. `None` where nobody may be traced.
pub(crate) fn tracer(pid: u32) -> Option<Child> {
    let mut child = Command::new("python3")
        .args(["-c", TRACER, &pid.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
    if said.starts_with("seized") {
        return Some(child);
    }
    println!("no tracing here, so nothing is tested: {said}");
    drop(child.stdin.take());
    child.wait().unwrap();
    None
}
