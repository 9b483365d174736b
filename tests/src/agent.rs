//! An agent in a scratch directory: the monitor is our child; its other processes are found by their locks.

use crate::server::{entered, read_lossy, spawn, terminate};
use crate::{Process, crash_point, program, wait_for, wait_until};
use anyhow::{Context, Result};
use job::RunId;
use spool::{DataRoot, Shelf};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output};

/// Who dials whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialling {
    /// The agent dials the server.
    In,
    /// The server dials the agent.
    Out,
}

/// How soon the monitor starts the network-processor again.
const RESTART_DELAY: &str = "300ms";

/// An agent, running or not.
pub struct Agent {
    name: String,
    scratch: PathBuf,
    data_root: PathBuf,
    listen: Option<String>,
    connect: Option<String>,
    programs: Option<PathBuf>,
    more: String,
    monitor: Option<Child>,
    own: Option<(u32, u32, PathBuf)>,
    entry: Vec<String>,
}

impl Agent {
    /// Writes down an agent that is not started yet. `connect`: the server that it dials; if absent, it listens.
    pub fn prepare(scratch: &Path, name: &str, connect: Option<&str>) -> Result<Agent> {
        let listen = connect.is_none().then(|| "127.0.0.1:0".to_owned());
        let connect = connect.map(str::to_owned);
        let agent = Agent {
            name: name.to_owned(),
            scratch: scratch.to_owned(),
            data_root: scratch.join(name),
            listen,
            connect,
            programs: None,
            more: String::new(),
            monitor: None,
            own: None,
            entry: Vec::new(),
        };
        agent.write_secret(&random_hex()?)?;
        Ok(agent)
    }

    /// Lets it run as that user and group, with the programs in `libexec`. The test must be root, and the agent not started yet.
    pub fn run_as(&mut self, uid: u32, gid: u32, libexec: &Path) -> Result<()> {
        std::fs::create_dir_all(&self.data_root)?;
        for path in [self.data_root.clone(), self.secret_file()] {
            std::os::unix::fs::chown(path, Some(uid), Some(gid))?;
        }
        self.own = Some((uid, gid, libexec.to_owned()));
        Ok(())
    }

    /// Lets it be started by this command, which is given the agent's own words: so it comes into a namespace.
    pub fn set_entry(&mut self, words: Vec<String>) {
        self.entry = words;
    }

    /// Where it listens, port 0 for any, or whom it dials.
    pub fn set_address(&mut self, dialling: Dialling, address: &str) {
        let address = Some(address.to_owned());
        (self.connect, self.listen) = match dialling {
            Dialling::In => (address, None),
            Dialling::Out => (None, address),
        };
    }

    /// Gives it another data root.
    pub fn set_data_root(&mut self, path: &Path) {
        self.data_root = path.to_owned();
    }

    /// Gives it programs of its own, which a test can replace: copies of the real ones in a directory beside its data root.
    pub fn set_own_programs(&mut self) -> Result<PathBuf> {
        let folder = self.scratch.join(format!("{}.programs", self.name));
        std::fs::create_dir_all(&folder)?;
        for name in ["platform-agent", "network-processor", "job-processor"] {
            std::fs::copy(program(name)?, folder.join(name))?;
        }
        self.programs = Some(folder.clone());
        Ok(folder)
    }

    /// Lines for its configuration, written at the next start or by [`Agent::write_config`].
    pub fn configure(&mut self, more: &str) {
        self.more = more.to_owned();
    }

    /// Replaces its secret: hexadecimal digits.
    pub fn write_secret(&self, hex: &str) -> Result<()> {
        let path = self.secret_file();
        let _ = std::fs::remove_file(&path); // the first time there is none
        let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(writeln!(file, "{hex}")?)
    }

    /// Starts the monitor.
    pub fn start(&mut self) -> Result<()> {
        self.start_with(&[])
    }

    /// The same with these variables in its environment, which all its processes inherit.
    pub fn start_with(&mut self, environment: &[(String, String)]) -> Result<()> {
        anyhow::ensure!(self.monitor.is_none(), "the monitor runs already");
        let mut command = self.command()?;
        command.envs(environment.iter().cloned());
        self.monitor = Some(spawn(command, &self.scratch.join(format!("{}.out", self.name)))?);
        if self.listen.is_some() {
            let address = wait_for("the agent to listen", || {
                let text = std::fs::read_to_string(self.data_root.join("listen.addr")).unwrap_or_default();
                Ok(text.strip_suffix('\n').map(str::to_owned))
            })?;
            // So that it is found there again after a restart.
            self.listen = Some(address);
            self.write_config()?;
        }
        Ok(())
    }

    /// Starts it in the foreground, until it ends by itself.
    pub fn try_start(&self) -> Result<Output> {
        Ok(self.command()?.output()?)
    }

    fn command(&self) -> Result<Command> {
        let program = match &self.programs {
            Some(folder) => folder.join("platform-agent"),
            None => program("platform-agent")?,
        };
        let mut command = entered(&self.entry, &program);
        command.arg("--config").arg(self.write_config()?).envs([crash_point::environment(&self.scratch)]);
        if let Some((uid, gid, _)) = &self.own {
            command.uid(*uid).gid(*gid);
        }
        Ok(command)
    }

    /// Writes its configuration as it would be at the next start.
    pub fn write_config(&self) -> Result<PathBuf> {
        let mut text = format!(
            "name = \"{}\"\ndata_root = \"{}\"\nsecret_file = \"{}\"\nrestart_delay = \"{RESTART_DELAY}\"\n",
            self.name,
            self.data_root.display(),
            self.secret_file().display()
        );
        if let Some((_, _, libexec)) = &self.own {
            text += &format!("libexec = \"{}\"\n", libexec.display());
        }
        if let Some(address) = &self.listen {
            text += &format!("listen = \"{address}\"\n");
        }
        if let Some(address) = &self.connect {
            text += &format!("connect = [\"{address}\"]\n");
        }
        text += &self.more;
        let path = self.scratch.join(format!("{}.toml", self.name));
        // Replaced at once: a program that starts at this moment reads the old one or the new one.
        os::disk::replace(&path, text.as_bytes(), 0o644)?;
        Ok(path)
    }

    /// `kill -9` for the monitor alone.
    pub fn kill_monitor(&mut self) -> Result<()> {
        let entered = self.monitor().filter(|_| !self.entry.is_empty());
        let mut child = self.monitor.take().context("the monitor does not run")?;
        if let Some(monitor) = entered {
            monitor.kill()?;
        }
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// A controlled stop.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        let entered = self.monitor().filter(|_| !self.entry.is_empty());
        let child = self.monitor.as_mut().context("the monitor does not run")?;
        let status = match entered {
            Some(monitor) => {
                monitor.signal(os::signal::Signal::TERM)?;
                wait_for("the agent to stop", || Ok(child.try_wait()?))?
            }
            None => terminate(child, "the agent")?,
        };
        self.monitor = None;
        Ok(status)
    }

    /// How the monitor ended, if it did by itself. It can be started again then.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let Some(child) = self.monitor.as_mut() else { return Ok(None) };
        let status = child.try_wait()?;
        if status.is_some() {
            self.monitor = None;
        }
        Ok(status)
    }

    /// The agent goes away at once, as if nothing of it but job-processors and jobs were left: `kill -9` for monitor and network-processor.
    pub fn vanish(&mut self) -> Result<()> {
        self.kill_monitor()?;
        wait_until("the network-processor to be gone", || match self.network_processor()? {
            Some(process) => Ok(!process.kill()?),
            None => Ok(true),
        })
    }

    /// The monitor.
    pub fn monitor(&self) -> Option<Process> {
        if self.entry.is_empty() {
            return self.monitor.as_ref().and_then(|child| Process::find(child.id()));
        }
        // Our child may be the command that let it in.
        self.root().lock_holder("agent").ok().flatten().and_then(Process::find)
    }

    /// The holder of the network-processor's lock.
    pub fn network_processor(&self) -> Result<Option<Process>> {
        let pid = self.root().lock_holder("network-processor")?;
        Ok(pid.and_then(Process::find).filter(|process| process.program == "network-processor"))
    }

    /// Kills the network-processor as soon as there is one.
    pub fn kill_network_processor(&self) -> Result<Process> {
        wait_for("a network-processor to kill", || {
            Ok(match self.network_processor()? {
                Some(process) => process.kill()?.then_some(process),
                None => None,
            })
        })
    }

    /// The job-processor that holds that run's lock.
    pub fn job_processor(&self, run_id: &str) -> Result<Option<Process>> {
        let run_id: RunId = run_id.parse().context("a run id")?;
        let holder = match self.root().run(Shelf::Live, run_id).lock_holder() {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
            Ok(holder) => holder,
            Err(_) => None,
        };
        Ok(holder.and_then(Process::find).filter(|process| process.program == "job-processor"))
    }

    /// The job-processors of all runs that have one.
    pub fn job_processors(&self) -> Result<Vec<Process>> {
        let mut found = Vec::new();
        for run_id in self.root().list(Shelf::Live).unwrap_or_default() {
            found.extend(self.job_processor(&run_id.to_string())?);
        }
        Ok(found)
    }

    /// How many run directories are on a shelf.
    pub fn count(&self, shelf: Shelf) -> usize {
        self.root().list(shelf).map_or(0, |runs| runs.len())
    }

    /// Its data root.
    pub fn root(&self) -> DataRoot {
        DataRoot::at(&self.data_root)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens, if it does.
    pub fn listen_address(&self) -> Option<&str> {
        self.listen.as_deref()
    }

    /// The file with its secret.
    pub fn secret_file(&self) -> PathBuf {
        self.scratch.join(format!("{}.secret", self.name))
    }

    /// What its processes said so far.
    pub fn trace(&self) -> String {
        read_lossy(&self.scratch.join(format!("{}.out", self.name)))
    }
}

/// 32 random bytes.
pub(crate) fn random_hex() -> Result<String> {
    use std::io::Read;
    let mut bytes = [0u8; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
