//! Queues.

use crate::client::{Client, encode};
use crate::output::{Output, Row, pairs};
use api::{Attachment, Queue, QueueChange, QueueCreate, QueueList};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List the queues.
    #[command(after_help = "Example:\n  lastword queue list")]
    List,
    /// Show a queue.
    #[command(after_help = "Example:\n  lastword queue show nightly")]
    Show {
        /// Its name.
        queue: String,
    },
    /// Create a queue.
    #[command(after_help = "Example:\n  lastword queue create nightly --agent host1 --agent host2")]
    Create {
        /// Its name.
        queue: String,
        /// An agent that serves it; may be given several times.
        #[arg(long = "agent", value_name = "AGENT")]
        agents: Vec<String>,
        /// Hold it from the start.
        #[arg(long)]
        held: bool,
    },
    /// Change a queue's slots and its priority.
    #[command(after_help = "\
Examples:
  lastword queue set nightly --slots 20 --priority 5
  lastword queue set nightly --no-slots")]
    #[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["slots", "no_slots", "priority"]))]
    Set {
        /// Its name.
        queue: String,
        /// So many of its jobs may be with agents at once.
        #[arg(long, value_name = "N", conflicts_with = "no_slots")]
        slots: Option<u32>,
        /// No limit of its own any more.
        #[arg(long)]
        no_slots: bool,
        /// Among queues that share an agent the higher goes first; 0 is usual.
        #[arg(long, value_name = "P", allow_negative_numbers = true)]
        priority: Option<i32>,
    },
    /// Let an agent serve a queue. A queue may have many agents, an agent many queues.
    #[command(after_help = "Example:\n  lastword queue attach nightly host1")]
    Attach {
        /// The queue.
        queue: String,
        /// The agent.
        agent: String,
    },
    /// No longer let an agent serve a queue. What it runs goes on.
    #[command(after_help = "Example:\n  lastword queue detach nightly host1")]
    Detach {
        /// The queue.
        queue: String,
        /// The agent.
        agent: String,
    },
    /// Take nothing from a queue until it is released. What runs goes on.
    #[command(after_help = "Example:\n  lastword queue hold nightly --reason 'database is being moved'")]
    Hold {
        /// Its name.
        queue: String,
    },
    /// End the hold of a queue.
    #[command(after_help = "Example:\n  lastword queue release nightly")]
    Release {
        /// Its name.
        queue: String,
    },
    /// Remove an empty queue.
    #[command(after_help = "Example:\n  lastword queue remove nightly")]
    Remove {
        /// Its name.
        queue: String,
    },
}

impl Verb {
    pub(crate) fn run(self, client: &Client, output: &Output) -> anyhow::Result<u8> {
        let changed: Queue = match self {
            Verb::List => {
                output.list(&client.get::<QueueList>("/api/v1/queues")?.items)?;
                return Ok(0);
            }
            Verb::Remove { queue } => {
                client.delete(&path(&queue, ""))?;
                return Ok(0);
            }
            Verb::Show { queue } => client.get(&path(&queue, ""))?,
            Verb::Create { queue, agents, held } => {
                client.post("/api/v1/queues", &QueueCreate { name: queue, held, agents }, false)?
            }
            Verb::Set { queue, slots, no_slots, priority } => {
                client.post(&path(&queue, "/set"), &QueueChange { slots, no_slots, priority }, true)?
            }
            Verb::Attach { queue, agent } => {
                client.post(&path(&queue, "/attach"), &Attachment { agent }, true)?
            }
            Verb::Detach { queue, agent } => {
                client.post(&path(&queue, "/detach"), &Attachment { agent }, true)?
            }
            Verb::Hold { queue } => client.post(&path(&queue, "/hold"), &serde_json::json!({}), true)?,
            Verb::Release { queue } => {
                client.post(&path(&queue, "/release"), &serde_json::json!({}), true)?
            }
        };
        output.one(&changed, &changed.name, |_| for_people(&changed))?;
        Ok(0)
    }
}

fn path(queue: &str, rest: &str) -> String {
    format!("/api/v1/queues/{}{rest}", encode(queue))
}

fn for_people(queue: &Queue) -> String {
    let agents = if queue.agents.is_empty() {
        "none: nothing of it can run".to_owned()
    } else {
        queue.agents.join(", ")
    };
    pairs(&[
        ("Queue", queue.name.clone()),
        ("Held", yes_no(queue.held)),
        ("Slots", queue.slots.map_or_else(|| "those of its agents".to_owned(), |slots| slots.to_string())),
        ("Priority", queue.priority.to_string()),
        ("Agents", agents),
        ("Waiting", queue.waiting.to_string()),
        ("Active", queue.active.to_string()),
    ])
}

fn yes_no(yes: bool) -> String {
    if yes { "yes".into() } else { "no".into() }
}

impl Row for Queue {
    fn heads(_wide: bool) -> Vec<&'static str> {
        vec!["QUEUE", "HELD", "WAITING", "ACTIVE", "SLOTS", "PRIORITY", "AGENTS"]
    }

    fn cells(&self, _wide: bool) -> Vec<String> {
        vec![
            self.name.clone(),
            yes_no(self.held),
            self.waiting.to_string(),
            self.active.to_string(),
            self.slots.map(|slots| slots.to_string()).unwrap_or_default(),
            self.priority.to_string(),
            self.agents.join(","),
        ]
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}
