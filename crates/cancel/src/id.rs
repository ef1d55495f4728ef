//! Names of things. None is ever reused, which is what makes them fences (I8).

use core::fmt;

/// One invocation. On the wire a lower-case UUID with dashes, minted outside this crate.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u128);

/// One live runtime. Counted up for the life of a node and never reused: a late fact about an
/// instance can therefore not be taken for a fact about a newer one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(pub u64);

/// One cancel, and the name of its receipt. Minted outside this crate with each ask; an ask that
/// joins a running cancel is answered with the id of that one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CancelId(pub u128);

/// One asker waiting for the answer to a cancel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Ticket(pub u64);

/// One delivery of a request to a runtime, counted from 1 within the request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Attempt(pub u32);

/// Writes 128 bits in the 8-4-4-4-12 form of RFC 9562.
fn write_uuid(f: &mut fmt::Formatter<'_>, bits: u128) -> fmt::Result {
    let part = |shift: u32, mask: u128| (bits >> shift) & mask;
    write!(
        f,
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        part(96, 0xffff_ffff),
        part(80, 0xffff),
        part(64, 0xffff),
        part(48, 0xffff),
        part(0, 0xffff_ffff_ffff)
    )
}

/// Reads the 36-character lower- or upper-case form; anything else is `None`.
fn parse_uuid(text: &str) -> Option<u128> {
    let bytes = text.as_bytes();
    if bytes.len() != 36 {
        return None;
    }
    let mut bits: u128 = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let digit = match (at, byte) {
            (8 | 13 | 18 | 23, b'-') => continue,
            (8 | 13 | 18 | 23, _) => return None,
            (_, b'0'..=b'9') => byte - b'0',
            (_, b'a'..=b'f') => byte - b'a' + 10,
            (_, b'A'..=b'F') => byte - b'A' + 10,
            _ => return None,
        };
        bits = (bits << 4) + u128::from(digit);
    }
    Some(bits)
}

impl RequestId {
    /// Reads the wire form; `None` if `text` is not a UUID of 36 characters.
    pub fn parse(text: &str) -> Option<Self> {
        parse_uuid(text).map(Self)
    }
}

impl CancelId {
    /// Reads the wire form; `None` if `text` is not a UUID of 36 characters.
    pub fn parse(text: &str) -> Option<Self> {
        parse_uuid(text).map(Self)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_uuid(f, self.0)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_uuid(f, self.0)
    }
}

impl fmt::Display for CancelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_uuid(f, self.0)
    }
}

impl fmt::Debug for CancelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_uuid(f, self.0)
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i{}", self.0)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_request_id_reads_back_what_it_writes() {
        let text = "1167bf8c-87b0-43ab-8f5f-26b16c64f252";
        assert_eq!(RequestId::parse(text).unwrap().to_string(), text);
        assert_eq!(RequestId::parse(&text.to_uppercase()).unwrap().to_string(), text);
        assert_eq!(CancelId::parse(text).unwrap().to_string(), text);
        assert_eq!(InstanceId(7).to_string(), "i7");
        assert_eq!(
            std::format!("{:?} {:?} {:?}", RequestId(1), CancelId(2), InstanceId(3)),
            "00000000-0000-0000-0000-000000000001 00000000-0000-0000-0000-000000000002 i3"
        );
    }

    #[test]
    fn what_is_no_uuid_is_no_request_id() {
        for bad in [
            "",
            "1167bf8c87b043ab8f5f26b16c64f252",
            "1167bf8c-87b0-43ab-8f5f-26b16c64f25",
            "1167bf8c-87b0-43ab-8f5f-26b16c64f2522",
            "1167bf8cx87b0-43ab-8f5f-26b16c64f252",
            "1167bf8c087b0-43ab-8f5f-26b16c64f252",
            "1167bf8c-87b0-43ab-8f5f-26b16c64f25g",
            "1167bf8-c87b0-43ab-8f5f-26b16c64f252",
            "1167bf8c-87b0-43ab-8f5f-26b16c64f25é",
        ] {
            assert!(RequestId::parse(bad).is_none(), "{bad}");
        }
    }
}
