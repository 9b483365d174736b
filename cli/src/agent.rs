//! Agents.

use crate::agent_logs;
use crate::client::{Client, encode};
use crate::output::{Output, Row, hint, moment, or_empty, pairs};
use crate::secret;
use api::{Agent, AgentAdd, AgentChange, AgentDrainRequest, AgentList, Ping};
use clap::{ArgGroup, Args, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List the agents.
    #[command(after_help = "Example:\n  lastword agent list -o wide")]
    List,
    /// Show an agent.
    #[command(after_help = "Example:\n  lastword agent show host1")]
    Show {
        /// Its name.
        agent: String,
    },
    /// Make an agent known to the server.
    Add(Add),
    /// Change an agent's number of slots, or give it a new secret (the one before stays valid beside it).
    #[command(after_help = "Example:\n  lastword agent set host1 --slots 20")]
    Set {
        /// Its name.
        agent: String,
        /// How many runs it may have at once.
        #[arg(long, required_unless_present = "secret_file")]
        slots: Option<u32>,
        /// The file with the new secret.
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
    },
    /// Place no new runs on an agent; what runs there goes on, and the agent stays connected. Who asks why a job waits reads the --reason.
    #[command(after_help = "\
Example, before maintenance of the host:
  lastword agent drain host1 --reason 'new kernel' --wait && ssh host1 reboot; lastword agent resume host1")]
    Drain {
        /// Its name.
        agent: String,
        /// Return when it has no run any more.
        #[arg(long)]
        wait: bool,
    },
    /// Place runs on an agent again; trouble that was reported of it is taken for cleared up.
    #[command(after_help = "Example:\n  lastword agent resume host1")]
    Resume {
        /// Its name.
        agent: String,
    },
    /// Rotate an agent's secret: make a new one valid beside the old one, or the old one invalid.
    #[command(after_help = "\
Example, without a gap and without a restart:
  lastword secret new host1.new
  lastword agent secret host1 --file host1.new      the server takes both from now on
  (put host1.new in the place of the agent's secret_file; the agent reads it by itself)
  lastword agent secret host1 --retire-old          the old one is worth nothing any more")]
    Secret {
        /// Its name.
        agent: String,
        /// The file with the new secret.
        #[arg(
            long,
            value_name = "FILE",
            required_unless_present = "retire_old",
            conflicts_with = "retire_old"
        )]
        file: Option<PathBuf>,
        /// Only the newest secret stays valid; links in use are not cut.
        #[arg(long)]
        retire_old: bool,
    },
    /// Forget an agent. Refused while it has runs without an outcome.
    #[command(after_help = "Example:\n  lastword agent remove host1")]
    Remove {
        /// Its name.
        agent: String,
        /// Forget it even so: its runs become Unknown.
        #[arg(long)]
        force: bool,
    },
    /// Print what an agent's programs traced, also while it is written.
    Logs(agent_logs::Logs),
    /// Measure the way to an agent and back.
    #[command(after_help = "Example:\n  lastword agent ping host1")]
    Ping {
        /// Its name.
        agent: String,
    },
}

/// The description of an agent.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lastword secret new host1.secret
  lastword agent add host1 --host host1.example --secret-file host1.secret          the server dials the agent
  lastword agent add host2 --dials-in --secret-file host2.secret --slots 20         the agent dials the server")]
#[command(group = ArgGroup::new("way").args(["host", "dials_in"]).required(true))]
pub(crate) struct Add {
    /// Its name, as in its agent.toml.
    agent: String,
    /// The host that the server dials.
    #[arg(long)]
    host: Option<String>,
    /// The port that the server dials.
    #[arg(long, default_value_t = 7412, conflicts_with = "dials_in")]
    port: u16,
    /// The agent dials the server.
    #[arg(long)]
    dials_in: bool,
    /// The file with the shared secret (see `lastword secret new`).
    #[arg(long, value_name = "FILE")]
    secret_file: PathBuf,
    /// A queue that it serves; may be given several times.
    #[arg(long = "queue", default_value = "default", value_name = "QUEUE")]
    queues: Vec<String>,
    /// How many runs it may have at once.
    #[arg(long, default_value_t = 100)]
    slots: u32,
}

impl Verb {
    pub(crate) fn run(self, client: &Client, output: &Output) -> anyhow::Result<u8> {
        match self {
            Verb::List => output.list(&client.get::<AgentList>("/api/v1/agents")?.items)?,
            Verb::Show { agent } => show(&client.get(&path(&agent, ""))?, output)?,
            Verb::Add(add) => show(&client.post("/api/v1/agents", &add.request()?, false)?, output)?,
            Verb::Set { agent, slots, secret_file } => {
                let secret_hex = secret_file.as_deref().map(secret::read_hex).transpose()?;
                let change = AgentChange { slots, secret_hex, ..AgentChange::default() };
                show(&client.post(&path(&agent, "/set"), &change, true)?, output)?;
            }
            Verb::Drain { agent, wait } => drain(client, output, &agent, wait)?,
            Verb::Resume { agent } => {
                show(&client.post(&path(&agent, "/resume"), &serde_json::json!({}), true)?, output)?;
            }
            Verb::Secret { agent, file, retire_old } => {
                let secret_hex = file.as_deref().map(secret::read_hex).transpose()?;
                let change =
                    AgentChange { secret_hex, retire_old_secret: retire_old, ..AgentChange::default() };
                show(&client.post(&path(&agent, "/set"), &change, true)?, output)?;
            }
            Verb::Remove { agent, force } => {
                client.delete(&path(&agent, if force { "?force=true" } else { "" }))?;
            }
            Verb::Logs(logs) => return logs.run(client),
            Verb::Ping { agent } => {
                let ping: Ping = client.post(&path(&agent, "/ping"), &serde_json::json!({}), true)?;
                let text = format!("{} answered in {:.2} ms", ping.name, ping.round_trip_ms);
                output.one(&ping, &ping.name, |_| text)?;
            }
        }
        Ok(0)
    }
}

/// Between two looks whether an agent has runs.
const DRAIN_PAUSE: Duration = Duration::from_millis(500);

fn drain(client: &Client, output: &Output, name: &str, wait: bool) -> anyhow::Result<()> {
    let request = AgentDrainRequest { reason: client.reason() };
    let mut agent: Agent = client.post(&path(name, "/drain"), &request, true)?;
    while wait && agent.slots_used > 0 {
        hint(&format!("{name} still has {} runs", agent.slots_used));
        std::thread::sleep(DRAIN_PAUSE);
        agent = client.get(&path(name, ""))?;
        anyhow::ensure!(agent.drain.is_some(), "somebody let agent \"{name}\" take runs again");
    }
    show(&agent, output)
}

fn path(agent: &str, rest: &str) -> String {
    format!("/api/v1/agents/{}{rest}", encode(agent))
}

impl Add {
    fn request(self) -> anyhow::Result<AgentAdd> {
        let secret_hex = Some(secret::read_hex(&self.secret_file)?);
        Ok(AgentAdd {
            name: self.agent,
            port: self.host.is_some().then_some(self.port),
            host: self.host,
            dials_in: self.dials_in,
            secret: None,
            secret_hex,
            queues: Some(self.queues),
            slots: Some(self.slots),
        })
    }
}

fn show(agent: &Agent, output: &Output) -> anyhow::Result<()> {
    output.one(agent, &agent.name, |_| for_people(agent))
}

fn for_people(agent: &Agent) -> String {
    pairs(&[
        ("Agent", agent.name.clone()),
        ("State", state(agent)),
        ("Since", moment(agent.since, true)),
        ("Last seen", moment(agent.last_seen_at, true)),
        ("Link", link(agent)),
        ("Slots", format!("{} of {} taken", agent.slots_used, agent.slots)),
        ("Queues", if agent.queues.is_empty() { "none".into() } else { agent.queues.join(", ") }),
        ("Drained", drained(agent)),
        ("Refusing", or_empty(&agent.refusing)),
        ("Trouble", or_empty(&agent.trouble)),
        ("Noticed", moment(agent.trouble_at, true)),
        ("Failed try", failed_try(agent)),
        ("Paused until", moment(agent.paused_until, true)),
        ("Address", or_empty(&agent.address)),
        ("Identity", or_empty(&agent.agent_id)),
        ("Software", or_empty(&agent.software)),
        ("Protocol", agent.protocol.map(|version| version.to_string()).unwrap_or_default()),
        ("Platform", or_empty(&agent.platform)),
    ])
}

fn state(agent: &Agent) -> String {
    let link = match (agent.connected, agent.refusing.is_some()) {
        (true, false) => "connected",
        (true, true) => "connected, refusing",
        (false, _) if agent.stopped => "stopped",
        (false, _) if agent.software.is_none() => "never connected",
        (false, _) => "lost",
    };
    let drained = match agent.drain {
        Some(_) if agent.slots_used > 0 => ", draining",
        Some(_) => ", drained",
        None => "",
    };
    let trouble = if agent.trouble.is_some() { ", trouble" } else { "" };
    let failed = if agent.failed_proof.is_some() && !agent.connected { ", tries fail" } else { "" };
    format!("{link}{drained}{trouble}{failed}")
}

fn failed_try(agent: &Agent) -> String {
    let Some(failed) = &agent.failed_proof else { return String::new() };
    let way = if agent.dials_in { "from" } else { "at" };
    format!("{} {way} {}: {}", moment(Some(failed.at), true), failed.address, failed.reason)
}

fn drained(agent: &Agent) -> String {
    let Some(drain) = &agent.drain else { return String::new() };
    let reason = drain.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("by {} since {}{reason}", drain.by, moment(Some(drain.since), true))
}

fn link(agent: &Agent) -> String {
    match (&agent.host, agent.port) {
        (Some(host), Some(port)) => format!("server dials {host}:{port}"),
        (Some(host), None) => format!("server dials {host}"),
        (None, _) => "agent dials in".to_owned(),
    }
}

impl Row for Agent {
    fn heads(wide: bool) -> Vec<&'static str> {
        let mut heads = vec!["AGENT", "STATE", "SLOTS", "QUEUES", "LAST SEEN"];
        if wide {
            heads.extend(["LINK", "SOFTWARE", "PROTOCOL", "PLATFORM", "REFUSING"]);
        }
        heads
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let mut cells = vec![
            self.name.clone(),
            state(self),
            format!("{}/{}", self.slots_used, self.slots),
            self.queues.join(","),
            moment(self.last_seen_at, wide),
        ];
        if wide {
            cells.extend([
                link(self),
                or_empty(&self.software),
                or_empty(&self.protocol),
                or_empty(&self.platform),
                or_empty(&self.refusing),
            ]);
        }
        cells
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}
