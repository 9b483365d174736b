//! The system under measurement: a central server and one agent on loopback, in a scratch directory on a real disk.

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use ureq::http;

/// More than any measurement has in flight.
const SLOTS: u32 = 512;

/// The longest that anything is waited for.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// The agent's name.
const AGENT: &str = "host1";

/// The final statuses that a short job may not have.
const BAD_ENDS: [&str; 5] = ["Error", "Killed", "Canceled", "Unknown", "Abandoned"];

/// The running system.
pub(crate) struct Site {
    scratch: TempDir,
    programs: PathBuf,
    processes: Vec<Child>,
    url: String,
    token: String,
    http: ureq::Agent,
}

/// Waits for a condition.
pub(crate) fn wait_for(
    what: &str,
    pause: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + WAIT_MAX;
    while !condition()? {
        if Instant::now() >= deadline {
            bail!("waited {} s in vain for {what}", WAIT_MAX.as_secs());
        }
        thread::sleep(pause);
    }
    Ok(())
}

impl Site {
    /// Starts server and agent and waits until they are connected.
    pub(crate) fn start(programs: &Path) -> Result<Site> {
        let programs =
            programs.canonicalize().with_context(|| format!("no folder {}", programs.display()))?;
        let scratch =
            tempfile::Builder::new().prefix("lastword-bench-").tempdir().context("no scratch directory")?;
        println!(
            "==> a server and an agent in {} ({})",
            scratch.path().display(),
            file_system(scratch.path())
        );
        let config =
            ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(WAIT_MAX)).build();
        let mut site = Site {
            scratch,
            programs,
            processes: Vec::new(),
            url: String::new(),
            token: String::new(),
            http: config.into(),
        };
        match site.start_all() {
            Ok(()) => Ok(site),
            Err(error) => {
                site.stop(false);
                Err(error)
            }
        }
    }

    fn start_all(&mut self) -> Result<()> {
        let dir = self.scratch().to_owned();
        let server = format!(
            "[node]\nname = \"a\"\ndata_root = \"{}/server\"\n[http]\nlisten = \"127.0.0.1:0\"\n[agents]\nlisten = \"127.0.0.1:0\"\n",
            dir.display()
        );
        self.spawn("central-server", "server", &server)?;
        let read = |name: &str| std::fs::read_to_string(dir.join("server").join(name)).unwrap_or_default();
        let pause = Duration::from_millis(20);
        wait_for("the server to listen", pause, || {
            Ok(!read("http.addr").is_empty()
                && !read("agents.addr").is_empty()
                && !read("admin.token").is_empty())
        })?;
        self.url = format!("http://{}", read("http.addr").trim());
        self.token = format!("Bearer {}", read("admin.token").trim());
        let secret = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let secret_file = dir.join("agent.secret");
        write_private(&secret_file, &format!("{secret}\n"))?;
        self.add_agent(&secret_file)?;
        let agent = format!(
            "name = \"{AGENT}\"\ndata_root = \"{}/agent\"\nsecret_file = \"{}\"\nconnect = [\"{}\"]\n",
            dir.display(),
            secret_file.display(),
            read("agents.addr").trim()
        );
        self.spawn("platform-agent", "agent", &agent)?;
        wait_for("the agent to be connected", pause, || {
            Ok(self.get(&format!("/api/v1/agents/{AGENT}"))?["connected"] == true)
        })
    }

    fn spawn(&mut self, program: &str, what: &str, config: &str) -> Result<()> {
        let dir = self.scratch().to_owned();
        let path = dir.join(format!("{what}.toml"));
        std::fs::write(&path, config).context("cannot write a configuration")?;
        let out = File::create(dir.join(format!("{what}.out")))?;
        let mut command = Command::new(self.programs.join(program));
        command.arg("--config").arg(path).stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        self.processes.push(command.spawn().with_context(|| format!("cannot start {program}"))?);
        Ok(())
    }

    /// Through the command line program, which reads the secret as its users have it.
    fn add_agent(&self, secret_file: &Path) -> Result<()> {
        let mut command = Command::new(self.programs.join("lastword"));
        command.args(["agent", "add", AGENT, "--dials-in", "--slots", &SLOTS.to_string(), "--secret-file"]);
        command.arg(secret_file).env("LASTWORD_URL", &self.url);
        command.env("LASTWORD_TOKEN_FILE", self.scratch().join("server/admin.token"));
        let output = command.stdin(Stdio::null()).output().context("cannot run lastword")?;
        if !output.status.success() {
            bail!("the agent could not be added: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    pub(crate) fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// Submits `/bin/true` and returns when its committed outcome is known.
    pub(crate) fn run_true(&self) -> Result<()> {
        let job = self.post("/api/v1/jobs", &json!({"command": ["/bin/true"]}))?;
        let id = job["id"].as_u64().context("the server gave the job no number")?;
        let deadline = Instant::now() + WAIT_MAX;
        while Instant::now() < deadline {
            let job = self.get(&format!("/api/v1/jobs/{id}?wait=30s"))?;
            match job["status"].as_str() {
                Some("Completed") => return Ok(()),
                Some(bad) if BAD_ENDS.contains(&bad) => bail!("job {id} ended as {job}"),
                Some(_) | None => {}
            }
        }
        bail!("job {id} did not end within {} s", WAIT_MAX.as_secs())
    }

    /// Submits jobs that sleep until they are killed; their numbers.
    pub(crate) fn submit_sleepers(&self, count: usize) -> Result<Vec<u64>> {
        let jobs = vec![json!({"command": ["/bin/sleep", "3600"]}); count];
        let answer = self.post("/api/v1/jobs/batch", &json!({"jobs": jobs}))?;
        let ids = answer["ids"].as_array().context("the server gave no numbers")?;
        Ok(ids.iter().filter_map(Value::as_u64).collect())
    }

    pub(crate) fn count_running(&self) -> Result<u64> {
        Ok(self.get("/api/v1/jobs/counts")?["Running"].as_u64().unwrap_or(0))
    }

    /// Kills those jobs and waits until none runs.
    pub(crate) fn kill_all(&self, ids: &[u64]) -> Result<()> {
        ids.iter().try_for_each(|id| {
            self.post(&format!("/api/v1/jobs/{id}/kill"), &json!({"grace": "0s"})).map(drop)
        })?;
        wait_for("the jobs to end", Duration::from_millis(100), || Ok(self.count_running()? == 0))
    }

    /// The processes of the agent that run that program.
    pub(crate) fn pids_of(&self, program: &str) -> Vec<u32> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        // Ours and nobody else's: the very file in our folder, and our scratch directory in its arguments.
        let path = self.programs.join(program);
        let scratch = self.scratch().to_string_lossy().into_owned();
        let is_ours = |pid: &u32| {
            let exe = std::fs::read_link(format!("/proc/{pid}/exe"));
            let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            exe.is_ok_and(|exe| exe == path) && String::from_utf8_lossy(&arguments).contains(&scratch)
        };
        pids.filter(is_ours).collect()
    }

    fn get(&self, path: &str) -> Result<Value> {
        let request = self.http.get(format!("{}{path}", self.url)).header("Authorization", &self.token);
        read_json(path, request.call())
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let request = self.http.post(format!("{}{path}", self.url)).header("Authorization", &self.token);
        read_json(path, request.header("Content-Type", "application/json").send(body.to_string()))
    }

    /// Stops what was started; after a failure the scratch directory is kept.
    pub(crate) fn stop(mut self, well: bool) {
        // The agent first, so that it can say goodbye.
        for process in self.processes.iter_mut().rev() {
            stop(process);
        }
        if !well {
            println!("    everything that was written is in {}", self.scratch.keep().display());
        }
    }
}

fn stop(process: &mut Child) {
    if let Some(pid) = i32::try_from(process.id()).ok().and_then(Pid::from_raw)
        && matches!(process.try_wait(), Ok(None))
    {
        // Gone meanwhile: so much the better.
        let _ = kill_process(pid, Signal::TERM);
    }
    let ended = wait_for("a process to stop", Duration::from_millis(20), || {
        Ok(!matches!(process.try_wait(), Ok(None)))
    });
    if ended.is_err() {
        drop(process.kill());
        drop(process.wait());
    }
}

fn read_json(path: &str, answer: Result<http::Response<ureq::Body>, ureq::Error>) -> Result<Value> {
    let mut answer = answer.with_context(|| format!("the server did not answer {path}"))?;
    let text =
        answer.body_mut().read_to_string().with_context(|| format!("the answer to {path} broke off"))?;
    if !answer.status().is_success() {
        bail!("the server answered {path} with {}: {text}", answer.status());
    }
    if text.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&text).with_context(|| format!("the answer to {path} is not JSON"))
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .context("cannot write a secret")?;
    file.write_all(text.as_bytes()).context("cannot write a secret")
}

/// The kind of file system, for whoever reads the figures: syncing to memory costs nothing and proves nothing.
fn file_system(path: &Path) -> String {
    let stat = Command::new("stat").args(["-f", "-c", "%T"]).arg(path).output();
    stat.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
