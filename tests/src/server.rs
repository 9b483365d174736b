//! A central server in a scratch directory.

use crate::{Client, Process, crash_point, program, wait_for};
use anyhow::{Context, Result, bail};
use os::pidfd::Pidfd;
use os::signal::Signal;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// For a server whose data root is on a small file system: its file store may use all of it.
pub const STORE_ALL: [(&str, &str); 1] = [("LASTWORD_FILES__FREE_BYTES_MIN", "0")];

/// A server, running or not.
pub struct Server {
    scratch: PathBuf,
    child: Option<Child>,
    http: String,
    agents: String,
    client: Client,
    entry: Vec<String>,
}

impl Server {
    /// Starts one on free ports and waits until it is ready.
    pub fn start(scratch: &Path) -> Result<Server> {
        let nowhere = "127.0.0.1:0".to_owned();
        let client = Client::new(&nowhere, "");
        let mut server = Server {
            scratch: scratch.to_owned(),
            child: None,
            http: nowhere.clone(),
            agents: nowhere,
            client,
            entry: Vec::new(),
        };
        server.restart()?;
        Ok(server)
    }

    /// Lets it be started by this command, which is given the server's own words, and lets agents dial in at any address of this host. From the
    /// next start on.
    pub fn open_to_hosts(&mut self, entry: Vec<String>) -> Result<()> {
        self.entry = entry;
        self.agents = "0.0.0.0:0".to_owned();
        Ok(std::fs::remove_file(self.data_root().join("agents.addr"))?)
    }

    /// Starts it again where it was, and waits until it is ready.
    pub fn restart(&mut self) -> Result<()> {
        self.restart_with(&[])
    }

    /// The same with these variables in its environment.
    pub fn restart_with(&mut self, environment: &[(String, String)]) -> Result<()> {
        self.spawn(environment)?;
        self.wait_ready()
    }

    /// Starts it and does not wait.
    pub fn spawn(&mut self, environment: &[(String, String)]) -> Result<()> {
        anyhow::ensure!(self.child.is_none(), "the server runs already");
        let (data_root, config) = (self.data_root(), self.scratch.join("server.toml"));
        let text = format!(
            "[node]\nname = \"a\"\ndata_root = \"{}\"\n[http]\nlisten = \"{}\"\n[agents]\nlisten = \"{}\"\n",
            data_root.display(),
            self.http,
            self.agents
        );
        std::fs::write(&config, text)?;
        let mut command = entered(&self.entry, &program("central-server")?);
        command.arg("--config").arg(config).envs([crash_point::environment(&self.scratch)]);
        command.envs(environment.iter().cloned());
        self.child = Some(spawn(command, &self.scratch.join("server.out"))?);
        Ok(())
    }

    fn wait_ready(&mut self) -> Result<()> {
        let root = self.data_root();
        let read = |name: &str| {
            let text = std::fs::read_to_string(root.join(name)).unwrap_or_default();
            text.strip_suffix('\n').map(str::to_owned)
        };
        let child = self.child.as_mut().context("the server was not started")?;
        let (http, agents, client) = wait_for("the server to be ready", || {
            if let Some(status) = child.try_wait()? {
                bail!("the server ended at once ({status})");
            }
            let (Some(http), Some(agents), Some(token)) =
                (read("http.addr"), read("agents.addr"), read("admin.token"))
            else {
                return Ok(None);
            };
            let client = Client::new(&http, token.trim());
            let ready = client.try_call("GET", "/readyz", None).is_ok_and(|answer| answer.status == 200);
            Ok(ready.then_some((http, agents, client)))
        })?;
        (self.http, self.agents, self.client) = (http, agents, client);
        Ok(())
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the server does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// A controlled stop.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        let child = self.child.as_mut().context("the server does not run")?;
        let status = terminate(child, "the server")?;
        self.child = None;
        Ok(status)
    }

    /// How it ended, if it did by itself. It can be started again then.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let Some(child) = self.child.as_mut() else { return Ok(None) };
        let status = child.try_wait()?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// Its process.
    pub fn process(&self) -> Option<Process> {
        self.child.as_ref().and_then(|child| Process::find(child.id()))
    }

    /// Whether it was started and not ended by us.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Its data root.
    pub fn data_root(&self) -> PathBuf {
        self.scratch.join("server")
    }

    /// The client of its REST interface.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Where agents dial in.
    pub fn agents_address(&self) -> &str {
        &self.agents
    }

    /// Where HTTP is served.
    pub fn http_address(&self) -> &str {
        &self.http
    }

    /// The file with the administrator's token.
    pub fn token_file(&self) -> PathBuf {
        self.data_root().join("admin.token")
    }

    /// What it wrote into its trace so far.
    pub fn trace(&self) -> String {
        read_lossy(&self.data_root().join("trace/central-server.log"))
    }
}

/// The program, started by the words of `entry` if there are any.
pub(crate) fn entered(entry: &[String], program: &Path) -> Command {
    match entry {
        [] => Command::new(program),
        [first, more @ ..] => {
            let mut command = Command::new(first);
            command.args(more).arg(program);
            command
        }
    }
}

/// Starts a program whose output is appended to `out`.
pub(crate) fn spawn(mut command: Command, out: &Path) -> Result<Child> {
    let out = File::options().append(true).create(true).open(out)?;
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
    command.spawn().with_context(|| format!("cannot start {command:?}"))
}

/// SIGTERM, and then its end.
pub(crate) fn terminate(child: &mut Child, what: &str) -> Result<ExitStatus> {
    // Our child and not waited for yet: the pid is its own.
    if let Some(pidfd) = Pidfd::open(child.id())? {
        pidfd.signal(Signal::TERM)?;
    }
    wait_for(&format!("{what} to stop"), || Ok(child.try_wait()?))
}

pub(crate) fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
