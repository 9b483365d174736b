//! A central server and one agent in a scratch directory on loopback, with free ports.

use super::cast::Act;
use super::process::Process;
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How soon platform-agent starts network-processor again here.
pub(super) const RESTART_DELAY: &str = "2s";

/// The longest that anything is waited for.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// How long the processes have to stop before they are killed.
const STOP_MAX: Duration = Duration::from_secs(10);

/// The agent's name.
const AGENT: &str = "host1";

/// The running system.
pub(super) struct Site {
    scratch: PathBuf,
    programs: PathBuf,
    url: String,
    server: Mutex<Child>,
    agent: Mutex<Child>,
    agent_pid: u32,
}

/// Waits for a condition.
pub(super) fn wait_for(
    what: &str,
    pause: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + WAIT_MAX;
    while !condition()? {
        if Instant::now() >= deadline {
            bail!("waited {} s in vain for {what}", WAIT_MAX.as_secs());
        }
        std::thread::sleep(pause);
    }
    Ok(())
}

impl Site {
    /// Starts both and waits until the agent is connected.
    pub(super) fn start(programs: &Path, keep: bool) -> Result<Site> {
        let scratch = std::env::temp_dir().join(format!("lastword-demo-{}", std::process::id()));
        DirBuilder::new()
            .mode(0o700)
            .create(&scratch)
            .with_context(|| format!("cannot create {}", scratch.display()))?;
        std::fs::create_dir(scratch.join("results"))?;
        println!("==> demo: a central server and an agent in {}", scratch.display());
        write_server_config(&scratch)?;
        let mut server = spawn(programs, "central-server", "server", &scratch, keep)?;
        match addresses(&scratch, &mut server).and_then(|(http, agents)| {
            write_agent_config(programs, &scratch, &agents)?;
            let agent = spawn(programs, "platform-agent", "agent", &scratch, keep)?;
            Ok((format!("http://{http}"), agent))
        }) {
            Ok((url, agent)) => {
                let agent_pid = agent.id();
                let (scratch, programs) = (scratch, programs.to_owned());
                let (server, agent) = (Mutex::new(server), Mutex::new(agent));
                let site = Site { scratch, programs, url, server, agent, agent_pid };
                match site.introduce() {
                    Ok(()) => Ok(site),
                    Err(error) => {
                        site.stop_after_failure();
                        Err(error)
                    }
                }
            }
            Err(error) => {
                stop(&mut server);
                println!("    everything that was written is in {}", scratch.display());
                Err(error)
            }
        }
    }

    /// Tells the server about the agent.
    fn introduce(&self) -> Result<()> {
        let secret = self.scratch.join("agent.secret");
        let secret = secret.to_string_lossy();
        wait_for("the server to answer", Duration::from_millis(50), || {
            self.check_alive()?;
            Ok(self.lastword(&["server", "status"]).is_ok())
        })?;
        self.lastword(&["agent", "add", AGENT, "--dials-in", "--secret-file", &secret])?;
        wait_for("the agent to be connected", Duration::from_millis(50), || {
            self.check_alive()?;
            self.agent_is_connected()
        })?;
        println!("    the server answers at {}, the agent {AGENT} is connected\n", self.url);
        Ok(())
    }

    /// Where the jobs write what they make.
    pub(super) fn results(&self) -> PathBuf {
        self.scratch.join("results")
    }

    pub(super) fn agent_pid(&self) -> u32 {
        self.agent_pid
    }

    /// Runs the command line program; its stdout.
    pub(super) fn lastword(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(self.programs.join("lastword"));
        command.args(arguments).env("LASTWORD_URL", &self.url).env("LASTWORD_TOKEN_FILE", self.token_file());
        let output = command.stdin(Stdio::null()).output().context("cannot run lastword")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("`lastword {}` failed ({}): {}", arguments.join(" "), output.status, said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn token_file(&self) -> PathBuf {
        self.scratch.join("server/admin.token")
    }

    /// Submits a job; its number.
    pub(super) fn submit(&self, act: &Act) -> Result<u64> {
        let mut arguments = vec!["job", "submit", "--name", act.name];
        arguments.extend(act.options.iter().map(String::as_str));
        arguments.extend(["--", "/bin/sh", "-c", &act.script]);
        let said = self.lastword(&arguments)?;
        said.trim()
            .parse()
            .with_context(|| format!("lastword did not print a job's number but \"{}\"", said.trim()))
    }

    /// A job as the server has it.
    pub(super) fn job(&self, number: u64) -> Result<Value> {
        let json = self.lastword(&["job", "show", &number.to_string(), "-o", "json"])?;
        serde_json::from_str(&json).context("lastword did not print JSON")
    }

    pub(super) fn agent_is_connected(&self) -> Result<bool> {
        let json = self.lastword(&["api", "GET", &format!("/api/v1/agents/{AGENT}")])?;
        let agent: Value = serde_json::from_str(&json).context("lastword did not print JSON")?;
        Ok(agent["connected"] == true)
    }

    /// The agent's network-processor, if it has one now.
    pub(super) fn network_processor(&self) -> Result<Option<Process>> {
        let children = Process::descendants(self.agent_pid);
        Ok(children.into_iter().find(|child| child.program == "network-processor"))
    }

    /// The job-processor of a running job, and the job's own process.
    pub(super) fn supervised(&self, number: u64) -> Result<Option<(Process, Process)>> {
        let job = self.job(number)?;
        let Some(run) = job["runs"][0]["run_id"].as_str() else { return Ok(None) };
        if job["status"] != "Running" {
            return Ok(None);
        }
        let all = Process::descendants(self.agent_pid);
        let supervisor =
            all.iter().find(|process| process.program == "job-processor" && process.concerns(run));
        let Some(supervisor) = supervisor else { return Ok(None) };
        let main =
            all.iter().find(|process| process.parent == supervisor.pid && process.program != "job-processor");
        Ok(main.map(|main| (supervisor.clone(), main.clone())))
    }

    /// The file on the agent into which a job prints.
    pub(super) fn output_file(&self, number: u64) -> Result<PathBuf> {
        let job = self.job(number)?;
        let run = job["runs"][0]["run_id"].as_str().context("the job has no run")?;
        Ok(self.scratch.join("agent/runs").join(run).join("out"))
    }

    /// Fails if the server or the monitor has ended, which nobody asked for.
    pub(super) fn check_alive(&self) -> Result<()> {
        for (name, child) in [("central-server", &self.server), ("platform-agent", &self.agent)] {
            if let Ok(Some(status)) = lock(child).try_wait() {
                bail!("{name} ended by itself ({status})");
            }
        }
        Ok(())
    }

    /// Says how to use what goes on running.
    pub(super) fn leave_running(&self) {
        let scratch = self.scratch.display();
        println!("\nEverything is left running, in {scratch}. To use it:\n");
        println!("    export PATH=\"{}:$PATH\"", self.programs.display());
        println!("    export LASTWORD_URL={} LASTWORD_TOKEN_FILE={}", self.url, self.token_file().display());
        println!("    lastword job list");
        println!(
            "    lastword job submit --follow -- sh -c 'for i in 1 2 3; do echo $i; sleep 1; done; exit 3'\n"
        );
        println!("To stop it:\n");
        let (server, agent) = (lock(&self.server).id(), self.agent_pid);
        println!(
            "    kill {agent} {server}; while kill -0 {agent} || kill -0 {server}; do sleep 0.2; done 2>/dev/null; rm -r {scratch}"
        );
    }

    /// Stops everything, which has to work by a polite request, and removes what was written.
    pub(super) fn stop_and_remove(&self) -> Result<()> {
        if !self.stop() {
            bail!(
                "a process did not stop within {} s and was killed; see {}",
                STOP_MAX.as_secs(),
                self.scratch.display()
            );
        }
        std::fs::remove_dir_all(&self.scratch)
            .with_context(|| format!("cannot remove {}", self.scratch.display()))
    }

    /// Stops everything and shows where the traces are.
    pub(super) fn stop_after_failure(&self) {
        self.stop();
        for name in ["server.out", "agent.out"] {
            let text = std::fs::read_to_string(self.scratch.join(name)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            println!("\nthe last lines of {name}:");
            lines.iter().skip(lines.len().saturating_sub(15)).for_each(|line| println!("    {line}"));
        }
        println!("\neverything that was written is in {}", self.scratch.display());
    }

    /// The agent first, so that it can say goodbye; then what it may have left; then the server.
    /// Whether all of it went by itself.
    fn stop(&self) -> bool {
        let below = Process::descendants(self.agent_pid);
        let agent = stop(&mut lock(&self.agent));
        // Gone by itself as a rule, and then there is nothing to kill.
        below.iter().for_each(|process| drop(process.kill()));
        let server = stop(&mut lock(&self.server));
        agent && server
    }
}

/// The mutex is only there because a child can be asked by `&mut` alone; nobody panics while holding it.
fn lock(child: &Mutex<Child>) -> std::sync::MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// SIGTERM, then, if it does not help, SIGKILL. Whether it helped.
fn stop(child: &mut Child) -> bool {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw)
        && matches!(child.try_wait(), Ok(None))
    {
        // Gone meanwhile: so much the better.
        let _ = kill_process(pid, Signal::TERM);
    }
    let deadline = Instant::now() + STOP_MAX;
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() >= deadline {
            drop(child.kill());
            drop(child.wait());
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

fn write_server_config(scratch: &Path) -> Result<()> {
    let text = format!(
        "[node]\nname = \"a\"\ndata_root = \"{}/server\"\n\n[http]\nlisten = \"127.0.0.1:0\"\n\n[agents]\nlisten = \"127.0.0.1:0\"\n",
        scratch.display()
    );
    std::fs::write(scratch.join("server.toml"), text).context("cannot write server.toml")
}

fn write_agent_config(programs: &Path, scratch: &Path, agents_address: &str) -> Result<()> {
    let secret = scratch.join("agent.secret");
    let made = Command::new(programs.join("lastword")).args(["secret", "new"]).arg(&secret).output();
    let made = made.context("cannot run lastword")?;
    if !made.status.success() {
        bail!("`lastword secret new` failed: {}", String::from_utf8_lossy(&made.stderr).trim());
    }
    let text = format!(
        "name = \"{AGENT}\"\ndata_root = \"{}/agent\"\nsecret_file = \"{}\"\nconnect = [\"{agents_address}\"]\nrestart_delay = \"{RESTART_DELAY}\"\n",
        scratch.display(),
        secret.display()
    );
    std::fs::write(scratch.join("agent.toml"), text).context("cannot write agent.toml")
}

/// Starts one of the two programs; what it prints goes to `<what>.out`.
fn spawn(programs: &Path, program: &str, what: &str, scratch: &Path, keep: bool) -> Result<Child> {
    let out =
        File::create(scratch.join(format!("{what}.out"))).context("cannot create a file for its output")?;
    let mut command = Command::new(programs.join(program));
    command.arg("--config").arg(scratch.join(format!("{what}.toml")));
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
    if keep {
        // Outlives us and our terminal's Ctrl-C.
        command.process_group(0);
    }
    command.spawn().with_context(|| format!("cannot start {program}"))
}

/// The addresses that the server took: for HTTP and for agents.
fn addresses(scratch: &Path, server: &mut Child) -> Result<(String, String)> {
    let read = |name: &str| {
        let text = std::fs::read_to_string(scratch.join("server").join(name)).unwrap_or_default();
        text.trim().to_owned()
    };
    let mut found = (String::new(), String::new());
    wait_for("central-server to listen", Duration::from_millis(20), || {
        if let Some(status) = server.try_wait()? {
            let said = std::fs::read_to_string(scratch.join("server.out")).unwrap_or_default();
            bail!("central-server ended at once ({status}): {}", said.trim());
        }
        found = (read("http.addr"), read("agents.addr"));
        Ok(!found.0.is_empty() && !found.1.is_empty())
    })?;
    Ok(found)
}
