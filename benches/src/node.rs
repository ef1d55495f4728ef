//! A node for a figure: the built binary on a scratch folder.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use nix::{sys::signal::Signal, unistd::Pid};
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};

/// What has not come after this will not.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A node of its own in a scratch folder; killed if the bench fails.
pub(crate) struct BenchNode {
    child: Child,
    pub(crate) http: Client,
    pub(crate) endpoint: String,
    pub(crate) token: String,
    /// From the start of the process to the line that says where it listens.
    pub(crate) started_in: Duration,
    /// Nothing comes, and it closes when the node has no more to say: it is at its end.
    log: Mutex<Receiver<()>>,
    data: Arc<tempfile::TempDir>,
}

impl Drop for BenchNode {
    fn drop(&mut self) {
        // Killed it would leave its cgroups behind. What fails here has been told by what failed before.
        drop(self.end());
    }
}

impl BenchNode {
    pub(crate) fn start() -> anyhow::Result<Self> {
        Self::start_in(Arc::new(tempfile::tempdir()?))
    }

    /// Starts one in a folder that others may pass through, so that runtimes of a node that is root are somebody
    /// else's, as they are in earnest.
    pub(crate) fn start_with(options: &[&str]) -> anyhow::Result<Self> {
        let passable = std::fs::Permissions::from_mode(0o711);
        Self::begin(Arc::new(tempfile::Builder::new().permissions(passable).tempdir()?), options)
    }

    /// Starts one on a data folder that is there.
    pub(crate) fn start_in(data: Arc<tempfile::TempDir>) -> anyhow::Result<Self> {
        Self::begin(data, &[])
    }

    fn begin(data: Arc<tempfile::TempDir>, options: &[&str]) -> anyhow::Result<Self> {
        let quell = std::env::current_exe()?.with_file_name("quell");
        ensure!(quell.is_file(), "{} is not built: cargo build --release --workspace", quell.display());
        let start = Instant::now();
        let mut child = Command::new(quell)
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(data.path())
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stderr.take().context("no stderr")?).lines();
        let endpoint = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.split_once("listening on ").map(|(_, endpoint)| endpoint.to_owned()));
        // The node must never wait for its log to be read.
        let (at_end, log) = std::sync::mpsc::sync_channel(0);
        std::thread::spawn(move || {
            lines.for_each(drop);
            drop(at_end);
        });
        let endpoint = endpoint.context("the node did not start")?;
        let (started_in, token) = (start.elapsed(), token(data.path())?);
        // The client wants one, TLS or not; Err: there is one.
        drop(rustls::crypto::ring::default_provider().install_default());
        let http = Client::builder().no_proxy().timeout(LIMIT).build()?;
        Ok(Self { child, http, endpoint, token, started_in, log: Mutex::new(log), data })
    }

    /// Starts a request and returns once a runtime has it.
    pub(crate) async fn running(&self, function: &str, event: &Value) -> anyhow::Result<String> {
        let id = self.accepted(function, event).await?;
        let deadline = Instant::now() + LIMIT;
        // Looking, not waiting for an end: only the start of the measured part depends on it.
        while Instant::now() < deadline {
            let row = self.send(Method::GET, &format!("/quell/v1/requests/{id}"), None).await?;
            if row.json::<Value>().await?["state"] == "running" {
                return Ok(id);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        anyhow::bail!("{id} does not run")
    }

    /// Has a request accepted.
    pub(crate) async fn accepted(&self, function: &str, event: &Value) -> anyhow::Result<String> {
        let path = format!("/v2/default/fgs/functions/{function}/invocations-async");
        let reply = self.send(Method::POST, &path, Some(event.clone())).await?;
        ensure!(reply.status() == 202, "{}", reply.text().await?);
        Ok(reply.json::<Value>().await?["request_id"].as_str().context("no id")?.to_owned())
    }

    /// Cancels a request; from the ask to the answer, which must be that it is stopped. And the id of the
    /// cancel.
    pub(crate) async fn cancel(
        &self,
        function: &str,
        id: &str,
        kind: &Value,
    ) -> anyhow::Result<(Duration, String)> {
        let mut body = json!({ "request_id": id });
        if let (Some(body), Some(kind)) = (body.as_object_mut(), kind.as_object()) {
            body.extend(kind.clone());
        }
        let path = format!("/v2/default/fgs/functions/{function}/cancel");
        let start = Instant::now();
        let reply = self.send(Method::POST, &path, Some(body)).await?;
        let headers = reply.headers();
        let word =
            |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let (status, stop, cancel) = (reply.status(), word("x-quell-stop"), word("x-quell-cancel-id"));
        let text = reply.text().await?;
        let took = start.elapsed();
        ensure!(status == 200 && stop == "stopped" && text == "null", "{status} {stop} {text}");
        Ok((took, cancel))
    }

    /// Deploys a package whose `bootstrap` is this program.
    pub(crate) async fn deploy_custom(
        &self,
        name: &str,
        bootstrap: &[u8],
        more: Value,
    ) -> anyhow::Result<()> {
        let mut package = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default().unix_permissions(0o755);
        package.start_file("bootstrap", options)?;
        package.write_all(bootstrap)?;
        let package = base64::engine::general_purpose::STANDARD.encode(package.finish()?.into_inner());
        let mut body = json!({ "runtime": "Custom", "code_type": "zip", "func_code": { "file": package } });
        if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
            body.extend(more);
        }
        self.deploy(name, "", body).await
    }

    /// Ends it in the orderly way; its data stays.
    pub(crate) fn stop(mut self) -> anyhow::Result<Arc<tempfile::TempDir>> {
        self.end()?;
        Ok(Arc::clone(&self.data))
    }

    /// Tells it to stop now, and kills it if it has not within [`LIMIT`].
    #[expect(clippy::disallowed_methods, reason = "our own child, not reaped yet")]
    fn end(&mut self) -> anyhow::Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            nix::sys::signal::kill(Pid::from_raw(self.child.id().cast_signed()), signal)?;
        }
        let log = self.log.get_mut().unwrap_or_else(PoisonError::into_inner);
        let late = log.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout);
        if late {
            self.child.kill()?;
        }
        self.child.wait()?;
        ensure!(!late, "the node did not end within {LIMIT:?}");
        Ok(())
    }

    /// Resident memory, in MiB.
    pub(crate) fn resident_mib(&self) -> anyhow::Result<u64> {
        Ok(self.resident_kib()? >> 10)
    }

    pub(crate) fn resident_kib(&self) -> anyhow::Result<u64> {
        self.status("VmRSS:")
    }

    pub(crate) fn threads(&self) -> anyhow::Result<u64> {
        self.status("Threads:")
    }

    /// Open files, sockets and the like.
    pub(crate) fn descriptors(&self) -> anyhow::Result<u64> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count() as u64)
    }

    fn status(&self, name: &str) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
        Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
    }

    pub(crate) fn data(&self) -> &Path {
        self.data.path()
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<Response> {
        let mut request = self.http.request(method, format!("{}{path}", self.endpoint));
        request = request.header("X-Auth-Token", &self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        Ok(request.send().await?)
    }

    pub(crate) async fn deploy(&self, name: &str, source: &str, more: Value) -> anyhow::Result<()> {
        let mut body = json!({
            "func_name": name, "package": "default", "runtime": "Python3.10",
            "handler": "index.handler", "timeout": 600, "memory_size": 128, "code_type": "inline",
            "func_code": { "file": base64::engine::general_purpose::STANDARD.encode(source) },
        });
        if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
            body.extend(more);
        }
        let reply = self.send(Method::POST, "/v2/default/fgs/functions", Some(body)).await?;
        ensure!(reply.status().is_success(), "{}", reply.text().await?);
        Ok(())
    }
}

fn token(data: &Path) -> anyhow::Result<String> {
    let config: Value = serde_json::from_slice(&std::fs::read(data.join("client.json"))?)?;
    Ok(config["token"].as_str().context("client.json holds no token")?.to_owned())
}
