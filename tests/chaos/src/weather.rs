//! What happens to a node from outside besides being killed: a disk that is slow or fails, and a clock that
//! jumps. A small library in C, loaded into the node, makes it so; the harness says when.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};

use crate::draw::Draw;

const SOURCE: &str = include_str!("weather.c");
/// The C compiler: the one that building SQLite needs too.
const COMPILER: &str = "cc";

/// Numbers of the shared file, in the order of the C side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    Failing,
    SlowMs,
    ClockS,
    Failed,
    Delayed,
}
const CELLS: usize = 5;

/// A change of the weather, from a moment of a life on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Every sync fails, for so long.
    Failing(Duration),
    /// Every sync takes so much longer, for so long.
    Slow(Duration, Duration),
    /// The wall clock is so many seconds off from now on, over all lives until the next jump.
    Clock(i64),
}

/// When and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// From the moment the node listens.
    pub at: Duration,
    /// What.
    pub change: Change,
}

impl Turn {
    /// The weather of one round: mostly fair.
    pub(crate) fn draw(draw: &mut Draw, within_ms: u64) -> Option<Self> {
        let change = match draw.between(1, 100) {
            1..=14 => Change::Failing(draw.ms(20, 400)),
            15..=26 => Change::Slow(draw.ms(2, 120), draw.ms(50, 600)),
            // From one end to the other is less than the age at which a request is given up.
            27..=44 => Change::Clock(draw.weighted(&[(2, 0), (1, 2), (1, -2), (2, 1_500), (2, -1_500)])),
            _ => return None,
        };
        Some(Self { at: draw.ms(0, within_ms), change })
    }
}

/// The library and the file it is ruled by.
#[derive(Debug)]
pub struct Weather {
    library: PathBuf,
    file: PathBuf,
    cells: File,
}

impl Weather {
    /// Builds the library in this folder. The weather is fair.
    ///
    /// # Errors
    /// When there is no C compiler, or the folder cannot be written to.
    pub fn prepare(folder: &Path) -> anyhow::Result<Self> {
        let (source, library, file) =
            (folder.join("weather.c"), folder.join("weather.so"), folder.join("weather"));
        std::fs::write(&source, SOURCE)?;
        let mut build = Command::new(COMPILER);
        build.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library).arg(&source);
        let built = build.arg("-ldl").stdin(Stdio::null()).status().context("cc cannot be run")?;
        ensure!(built.success(), "{} cannot be built: {built}", source.display());
        let cells = File::options().read(true).write(true).create(true).truncate(true).open(&file)?;
        cells.set_len((CELLS * size_of::<i64>()) as u64)?;
        Ok(Self { library, file, cells })
    }

    /// Has a node live in it.
    pub fn rule(&self, node: &mut Command) {
        node.env("LD_PRELOAD", &self.library).env("QUELL_CHAOS_WEATHER", &self.file);
    }

    /// The disk works; the clock stays as it is.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn clear(&self) -> anyhow::Result<()> {
        self.set(Cell::Failing, 0)?;
        self.set(Cell::SlowMs, 0)
    }

    /// Makes it so, and undoes it when its time is over; the clock is left as it is.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn turn(&self, change: Change) -> anyhow::Result<()> {
        let lasts = match change {
            Change::Failing(lasts) => {
                self.set(Cell::Failing, 1)?;
                lasts
            }
            Change::Slow(by, lasts) => {
                self.set(Cell::SlowMs, i64::try_from(by.as_millis())?)?;
                lasts
            }
            Change::Clock(seconds) => return self.set(Cell::ClockS, seconds),
        };
        tokio::time::sleep(lasts).await;
        self.clear()
    }

    /// Syncs that failed and that were delayed so far.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn felt(&self) -> anyhow::Result<[u64; 2]> {
        let read = |cell: Cell| {
            let mut bytes = [0; size_of::<i64>()];
            self.cells.read_exact_at(&mut bytes, place(cell))?;
            anyhow::Ok(u64::from_ne_bytes(bytes))
        };
        Ok([read(Cell::Failed)?, read(Cell::Delayed)?])
    }

    fn set(&self, cell: Cell, value: i64) -> anyhow::Result<()> {
        Ok(self.cells.write_all_at(&value.to_ne_bytes(), place(cell))?)
    }
}

fn place(cell: Cell) -> u64 {
    (cell as usize * size_of::<i64>()) as u64
}

#[cfg(test)]
mod tests {
    use std::{io::ErrorKind, time::SystemTime};

    use super::*;

    #[tokio::test]
    async fn a_program_that_lives_in_it_feels_it() {
        let folder = tempfile::tempdir().unwrap();
        let weather = Weather::prepare(folder.path()).unwrap();
        let sync = || {
            let mut program = Command::new("python3");
            program
                .args(["-c", "import os, sys, time; print(int(time.time())); os.fsync(sys.stdin.fileno())"]);
            program.stdin(File::create(folder.path().join("file")).unwrap());
            weather.rule(&mut program);
            let output = program.output().unwrap();
            let clock: i64 = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
            (output.status.success(), clock - i64::try_from(now).unwrap())
        };
        assert!(matches!(sync(), (true, -5..=5)));
        weather.turn(Change::Clock(-7_200)).await.unwrap();
        assert!(matches!(sync(), (true, -7_205..=-7_195)));
        weather.set(Cell::Failing, 1).unwrap();
        weather.set(Cell::SlowMs, 3).unwrap();
        assert!(!sync().0);
        weather.clear().unwrap();
        assert!(matches!(sync(), (true, -7_205..=-7_195)));
        assert_eq!(weather.felt().unwrap(), [1, 1]);
    }

    #[test]
    fn without_a_place_to_write_there_is_none() {
        let error = Weather::prepare(Path::new("/proc/nowhere")).unwrap_err();
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        assert_eq!(kind, Some(ErrorKind::NotFound));
    }
}
