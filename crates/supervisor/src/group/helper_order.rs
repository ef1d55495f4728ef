//! What a helper is told in its arguments: written by the node, read by the helper, in one place.

use std::{ffi::OsString, fmt::Display, net::SocketAddrV4, path::PathBuf, str::FromStr};

use super::{init::HelperMode, network::MAX_LISTENERS};

/// Stands for what is not said.
const NOTHING: &str = "-";
/// Folders that can be named: more are a mistake.
const MAX_FOLDERS: usize = 64;

/// A helper's orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HelperOrder {
    /// Who must be its parent: the node.
    pub(super) parent: u32,
    pub(super) mode: HelperMode,
    /// As whom the runtime runs; `None`: as the node.
    pub(super) user: Option<u32>,
    /// Bytes of a `/tmp` of its own.
    pub(super) tmp: u64,
    /// Bytes that each process may map to write; `None`: others see to that.
    pub(super) mapped: Option<u64>,
    /// Processes of the user; `None`: others see to that.
    pub(super) processes: Option<u64>,
    /// Control groups that it joins before anything else.
    pub(super) groups: Vec<PathBuf>,
    /// Folders that must be seen although `/tmp` is another.
    pub(super) keep: Vec<PathBuf>,
    /// Where the node is reached in a network of its own; nowhere: it has the node's.
    pub(super) listen: Vec<SocketAddrV4>,
    /// Whether it is handed a lease, ahead of all that comes on its line.
    pub(super) leased: bool,
    pub(super) program: OsString,
    pub(super) args: Vec<OsString>,
}

impl HelperOrder {
    pub(super) fn into_args(self) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec![
            self.parent.to_string().into(),
            self.mode.word().into(),
            said(self.user),
            self.tmp.to_string().into(),
            said(self.mapped),
            said(self.processes),
            u8::from(self.leased).to_string().into(),
        ];
        for folders in [self.groups, self.keep] {
            args.push(folders.len().to_string().into());
            args.extend(folders.into_iter().map(OsString::from));
        }
        args.push(self.listen.len().to_string().into());
        args.extend(self.listen.iter().map(|at| at.to_string().into()));
        args.push(self.program);
        args.extend(self.args);
        args
    }

    /// # Errors
    /// The name of what cannot be understood.
    pub(super) fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Self, &'static str> {
        let parent = number(&mut args, "parent")?;
        let mode = args.next().ok_or("mode")?;
        Ok(Self {
            parent,
            mode: HelperMode::ALL.into_iter().find(|known| mode == known.word()).ok_or("mode")?,
            user: number_or_nothing(&mut args, "user")?,
            tmp: number(&mut args, "size of /tmp")?,
            mapped: number_or_nothing(&mut args, "bytes to map")?,
            processes: number_or_nothing(&mut args, "processes")?,
            leased: yes_or_no(&mut args, "lease")?,
            groups: folders(&mut args, "groups")?,
            keep: folders(&mut args, "folders")?,
            listen: listeners(&mut args)?,
            program: args.next().ok_or("program")?,
            args: args.collect(),
        })
    }
}

fn said(value: Option<impl Display>) -> OsString {
    value.map_or_else(|| NOTHING.to_owned(), |value| value.to_string()).into()
}

fn number_or_nothing<T: FromStr>(
    args: &mut impl Iterator<Item = OsString>,
    what: &'static str,
) -> Result<Option<T>, &'static str> {
    let text = args.next().ok_or(what)?;
    if text == NOTHING {
        return Ok(None);
    }
    text.to_str().and_then(|text| text.parse().ok()).map(Some).ok_or(what)
}

fn number<T: FromStr>(
    args: &mut impl Iterator<Item = OsString>,
    what: &'static str,
) -> Result<T, &'static str> {
    number_or_nothing(args, what)?.ok_or(what)
}

fn yes_or_no(args: &mut impl Iterator<Item = OsString>, what: &'static str) -> Result<bool, &'static str> {
    match number(args, what)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(what),
    }
}

fn folders(
    args: &mut impl Iterator<Item = OsString>,
    what: &'static str,
) -> Result<Vec<PathBuf>, &'static str> {
    let count: usize = number(args, what)?;
    let folders: Vec<PathBuf> = args.take(count.min(MAX_FOLDERS)).map(PathBuf::from).collect();
    if folders.len() == count { Ok(folders) } else { Err(what) }
}

fn listeners(args: &mut impl Iterator<Item = OsString>) -> Result<Vec<SocketAddrV4>, &'static str> {
    const WHAT: &str = "listeners";
    match number(args, WHAT)? {
        count @ 0..=MAX_LISTENERS => (0..count).map(|_| number(args, WHAT)).collect(),
        _ => Err(WHAT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> HelperOrder {
        HelperOrder {
            parent: 17,
            mode: HelperMode::Namespace,
            user: Some(65_534),
            tmp: 1 << 20,
            mapped: None,
            processes: Some(3),
            leased: true,
            groups: vec!["/a".into(), "/b c".into()],
            keep: Vec::new(),
            listen: vec![SocketAddrV4::new([127, 1, 0, 1].into(), 80)],
            program: "-".into(),
            args: vec!["2".into(), "-".into()],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(HelperOrder::parse(order().into_args().into_iter()), Ok(order()));
    }

    #[test]
    fn orders_that_are_cut_short_or_garbled_are_refused() {
        let args = order().into_args();
        for length in 0..args.len() - order().args.len() {
            assert!(HelperOrder::parse(args.clone().into_iter().take(length)).is_err(), "{length}");
        }
        // (Folders may have any name.)
        for at in [0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12] {
            let mut garbled = args.clone();
            garbled[at] = "x".into();
            assert!(HelperOrder::parse(garbled.into_iter()).is_err(), "{at}");
        }
    }
}
