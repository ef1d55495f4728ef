//! Handing descriptors over through a socket.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};

/// Descriptors in one message at most: an instance's line, its two outputs and the helper's program.
pub(super) const MAX_HANDED: usize = 4;

/// Sends all of the bytes with the descriptors, in one message.
pub(super) fn send(socket: impl AsFd, bytes: &[u8], handed: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_HANDED))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !handed.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(handed)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    loop {
        match sendmsg(&socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL) {
            Ok(sent) if sent == bytes.len() => return Ok(()),
            Ok(_) => return Err(io::Error::other("a message was sent in part")),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives what is there, waiting for it as the socket is set to: how many bytes, and at most `MAX_HANDED`
/// descriptors, closed by exec. Nothing at all is the end of the line.
pub(super) fn receive(socket: impl AsFd, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_HANDED))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut buffers = [IoSliceMut::new(bytes)];
        match recvmsg(&socket, &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => break received,
            Err(Errno::INTR) => {}
            // A line that was reset has ended.
            Err(Errno::CONNRESET) => return Ok((0, Vec::new())),
            Err(error) => return Err(error.into()),
        }
    };
    let mut handed = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            handed.extend(descriptors);
        }
    }
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::Error::other("a message was longer than allowed"));
    }
    Ok((received.bytes, handed))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_descriptor_arrives_with_its_bytes_and_works() {
        let (here, there) = UnixStream::pair().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        send(&here, b"x", &[writer.as_fd()]).unwrap();
        drop((writer, here));
        let mut bytes = [0; 8];
        let (size, handed) = receive(&there, &mut bytes).unwrap();
        assert_eq!((&bytes[..size], handed.len()), (b"x".as_slice(), 1));
        io::Write::write_all(&mut std::fs::File::from(handed.into_iter().next().unwrap()), b"y").unwrap();
        assert_eq!(io::read_to_string(reader).unwrap(), "y");
        assert_eq!(receive(&there, &mut bytes).unwrap().0, 0, "the end of the line");
    }
}
