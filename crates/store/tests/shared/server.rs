//! A PostgreSQL server for the tests of one process, and a database for each test.
//!
//! It listens on a Unix socket in a folder of its own, so that no port can be taken. A shell of its own session holds it:
//! when this process is gone, however it went, the shell reads the end of its input, stops the server that it started and removes the
//! folder.

use std::{
    env, fs,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Where distributions put the server's programs, if they are not in the PATH.
const DISTRIBUTIONS: &str = "/usr/lib/postgresql";

/// `$1` is the program, `$2` the data, `$3` the folder. A line on its input restarts the server.
const HOLD: &str = r#"
programs=$1 data=$2 folder=$3
start() {
    "$programs/pg_ctl" -D "$data" -w -t 60 -s -l "$folder/log" -o "-k $folder -c fsync=off \
        -c max_connections=200 -c shared_buffers=16MB -c autovacuum=off -c deadlock_timeout=1s" start
}
start && echo up
while read -r what; do
    case "$what" in
        restart) "$programs/pg_ctl" -D "$data" -w -s -m fast stop; start ;;
        kill) "$programs/pg_ctl" -D "$data" -w -s -m immediate stop ;;
        start) start ;;
    esac
    echo done
done
"$programs/pg_ctl" -D "$data" -w -s -m immediate stop
rm -rf "$folder"
"#;

/// The running server.
pub(crate) struct Server {
    folder: PathBuf,
    databases: AtomicUsize,
    orders: Mutex<(ChildStdin, std::io::BufReader<std::process::ChildStdout>)>,
    _holder: Child,
}

static SERVER: LazyLock<Server> = LazyLock::new(Server::start);

/// The folder of the server's programs.
pub(crate) fn programs() -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let installed =
        fs::read_dir(DISTRIBUTIONS).into_iter().flatten().flatten().map(|found| found.path().join("bin"));
    let mut folders: Vec<PathBuf> = env::split_paths(&path).chain(installed).collect();
    folders.retain(|folder| folder.join("initdb").exists() && folder.join("pg_ctl").exists());
    let found = folders.first().expect("the tests of the shared store need the server of PostgreSQL");
    // A link in the PATH may stand alone: the others are beside what it means.
    let whole = fs::canonicalize(found.join("initdb")).unwrap();
    whole.parent().unwrap().to_owned()
}

/// The server refuses to run as root: then as the user its package made.
fn as_its_user(program: &str) -> Command {
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let mut command = Command::new(if root { "setpriv" } else { "env" });
    if root {
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
    }
    command.arg(program).current_dir("/");
    command
}

/// The owner that the folder must have.
fn owner() -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:"))?;
    let mut fields = line.split(':').skip(2).map(|field| field.parse().unwrap());
    Some((fields.next()?, fields.next()?))
}

impl Server {
    /// One of its own for a test that does things to it; it ends with the value.
    pub(crate) fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("quell-pg-").tempdir().unwrap().keep();
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            let (user, group) = owner().expect("a user postgres");
            chown(&folder, Some(user), Some(group)).unwrap();
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let (programs, data) = (programs(), folder.join("data"));
        let made = as_its_user(programs.join("initdb").to_str().unwrap())
            .args(["--no-sync", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-U", "quell", "-D"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let configured = data.join("postgresql.auto.conf");
        fs::write(configured, "listen_addresses = ''\n").unwrap(); // root may, and the file is there
        let mut holder = as_its_user("setsid")
            .args(["sh", "-c", HOLD, "hold"])
            .args([programs.as_path(), data.as_path(), folder.as_path()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null()) // it outlives this process, and must not hold what reads its words
            .spawn()
            .unwrap();
        let input = holder.stdin.take().unwrap();
        let mut output = std::io::BufReader::new(holder.stdout.take().unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut output, &mut line).unwrap();
        let log = || fs::read_to_string(folder.join("log")).unwrap_or_default();
        assert!(line == "up\n", "{}", log());
        Self { folder, databases: AtomicUsize::new(0), orders: Mutex::new((input, output)), _holder: holder }
    }

    fn order(&self, what: &str) {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(orders.0, "{what}").unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut orders.1, &mut line).unwrap();
        assert_eq!(line, "done\n");
    }

    /// Stops it in order and starts it again.
    pub(crate) fn restart(&self) {
        self.order("restart");
    }

    /// Stops it, as a crash does.
    pub(crate) fn kill(&self) {
        self.order("kill");
    }

    /// Starts it again.
    pub(crate) fn again(&self) {
        self.order("start");
    }

    /// Where its socket is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A connection string for a database that was not there before.
    pub(crate) fn database(&self) -> String {
        let name = format!("t{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let folder = self.folder.display();
        sql(&format!("host={folder} user=quell dbname=postgres"), &format!("CREATE DATABASE {name}"));
        format!("host={folder} user=quell dbname={name}")
    }
}

/// Does something to a database behind the store's back.
pub(crate) fn sql(config: &str, text: &str) {
    let mut psql = Command::new(programs().join("psql"));
    let done = psql.args(["-qX", "-v", "ON_ERROR_STOP=1", "-c", text, config]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// One value of a query, as text.
pub(crate) fn value(config: &str, query: &str) -> String {
    let asked = Command::new(programs().join("psql")).args(["-qAtX", "-c", query, config]).output().unwrap();
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    String::from_utf8_lossy(&asked.stdout).trim().to_owned()
}

/// The server of all tests that leave it alone.
pub(crate) fn shared() -> &'static Server {
    &SERVER
}
