//! A server and agents that know each other.

use crate::{Agent, Client, Dialling, End, Ledger, Scratch, Server, gated_job, wait_until};
use anyhow::{Context, Result};
use api::{AgentAdd, JobSubmit};
use std::path::{Path, PathBuf};

/// More than any test has at once.
const SLOTS: u32 = 200;

/// The system under test. Ends with the test.
pub struct Site {
    /// The server.
    pub server: Server,
    /// The agents; the first one is `host1`.
    pub agents: Vec<Agent>,
    scratch: Scratch,
}

/// Runs a test on a site with one agent that dials in and serves the queue `default`.
pub fn on_site(test: impl FnOnce(&mut Site) -> Result<()>) {
    on_empty_site(|site| site.add_agent("host1", Dialling::In).and_then(|()| test(site)));
}

/// Runs a test on a site with a server and no agent.
pub fn on_empty_site(test: impl FnOnce(&mut Site) -> Result<()>) {
    on_prepared_site(|_| Ok(()), test);
}

/// The same; `prepare` is given the directory before the server is started in `server` there.
pub fn on_prepared_site(
    prepare: impl FnOnce(&Path) -> Result<()>,
    test: impl FnOnce(&mut Site) -> Result<()>,
) {
    let done = Site::empty(prepare).and_then(|mut site| {
        let done = test(&mut site);
        if done.is_err() {
            site.scratch.fail();
        }
        done
    });
    if let Err(error) = done {
        panic!("{error:?}");
    }
}

impl Site {
    fn empty(prepare: impl FnOnce(&Path) -> Result<()>) -> Result<Site> {
        let scratch = Scratch::new()?;
        prepare(scratch.path())?;
        let server = Server::start(scratch.path())?;
        Ok(Site { server, agents: Vec::new(), scratch })
    }

    /// Adds an agent for the queue `default` and waits until it is connected.
    pub fn add_agent(&mut self, name: &str, dialling: Dialling) -> Result<()> {
        self.add_agent_with(name, dialling, &[])
    }

    /// The same with these variables in the environment of all its processes.
    pub fn add_agent_with(
        &mut self,
        name: &str,
        dialling: Dialling,
        environment: &[(String, String)],
    ) -> Result<()> {
        let agent = self.prepare_agent(name, dialling)?;
        self.add_prepared_agent(agent, dialling, environment)
    }

    /// The same with an agent that was prepared.
    pub fn add_prepared_agent(
        &mut self,
        mut agent: Agent,
        dialling: Dialling,
        environment: &[(String, String)],
    ) -> Result<()> {
        let name = agent.name().to_owned();
        match dialling {
            Dialling::In => {
                self.introduce(&agent)?;
                agent.start_with(environment)?;
            }
            Dialling::Out => {
                agent.start_with(environment)?;
                self.introduce(&agent)?;
            }
        }
        self.agents.push(agent);
        self.wait_connected(&name)
    }

    /// An agent that neither runs nor is known to the server.
    pub fn prepare_agent(&self, name: &str, dialling: Dialling) -> Result<Agent> {
        let connect = (dialling == Dialling::In).then_some(self.server.agents_address());
        Agent::prepare(self.scratch.path(), name, connect)
    }

    /// Makes the agent known to the server, with the secret that it has now.
    pub fn introduce(&self, agent: &Agent) -> Result<()> {
        self.introduce_at(agent, agent.listen_address())
    }

    /// The same; the server dials it at this address, if at any.
    pub fn introduce_at(&self, agent: &Agent, address: Option<&str>) -> Result<()> {
        let address = address.and_then(|address| address.rsplit_once(':'));
        let secret = std::fs::read_to_string(agent.secret_file())?;
        self.client().add_agent(&AgentAdd {
            name: agent.name().to_owned(),
            host: address.map(|(host, _)| host.to_owned()),
            port: address.map(|(_, port)| port.parse()).transpose()?,
            dials_in: address.is_none(),
            secret: Some(secret.trim().to_owned()),
            secret_hex: None,
            queues: None,
            slots: Some(SLOTS),
        })?;
        Ok(())
    }

    /// Waits until the agent has a link.
    pub fn wait_connected(&self, name: &str) -> Result<()> {
        wait_until(&format!("agent {name} to be connected"), || Ok(self.client().agent(name)?.connected))
    }

    /// Waits until the server sees that the agent is away.
    pub fn wait_away(&self, name: &str) -> Result<()> {
        wait_until(&format!("agent {name} to be away"), || Ok(!self.client().agent(name)?.connected))
    }

    /// Starts again what nothing of the system itself does: a monitor, and the server. Whether there was anything.
    pub fn revive(&mut self) -> Result<bool> {
        let mut any = self.server.ended()?.is_some() || !self.server.runs();
        if any {
            self.server.restart()?;
        }
        for agent in &mut self.agents {
            if agent.ended()?.is_some() {
                any = true;
                agent.start()?;
            }
        }
        Ok(any)
    }

    /// The REST client.
    pub fn client(&self) -> &Client {
        self.server.client()
    }

    /// The first agent.
    pub fn agent(&mut self) -> Result<&mut Agent> {
        self.agents.first_mut().context("this site has no agent")
    }

    /// The directory of all this.
    pub fn path(&self) -> &Path {
        self.scratch.path()
    }

    /// The file for which the jobs of [`Site::gated`] wait.
    pub fn go(&self) -> PathBuf {
        self.path().join("go")
    }

    /// Lets the jobs of [`Site::gated`] end.
    pub fn open_gate(&self) -> Result<()> {
        Ok(std::fs::write(self.go(), "")?)
    }

    /// A job that writes the ledger and exits with 7 when the gate is opened.
    pub fn gated(&self) -> Result<JobSubmit> {
        gated_job(self.ledger().path(), &self.go(), End::Code(7))
    }

    /// The ledger of the jobs here.
    pub fn ledger(&self) -> Ledger {
        Ledger::new(self.path())
    }

    /// The command line program, set up for this server.
    pub fn lastword(&self, arguments: &[&str]) -> Result<std::process::Command> {
        let mut command = crate::lastword()?;
        command.args(arguments).env("LASTWORD_URL", self.client().url());
        command.env("LASTWORD_TOKEN_FILE", self.server.token_file());
        Ok(command)
    }
}
