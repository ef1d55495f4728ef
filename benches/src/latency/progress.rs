//! What is being measured right now, for whoever watches.

use std::io::{IsTerminal as _, Write as _};

/// One line that overwrites itself on a terminal; nothing elsewhere.
pub(crate) fn show(what: &str, round: usize, of: usize) {
    write(&format!("\r\x1b[K{what}: {round} of {of}"));
}

/// Leaves the line empty for what is printed next.
pub(crate) fn clear() {
    write("\r\x1b[K");
}

fn write(text: &str) {
    let mut stderr = std::io::stderr().lock();
    if stderr.is_terminal() {
        // A watcher who is gone needs no progress.
        drop(stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush()));
    }
}
