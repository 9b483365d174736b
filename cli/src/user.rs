//! Users: the names that own tokens.

use crate::client::{Client, encode};
use crate::output::{Output, Row, moment, pairs};
use api::{User, UserAdd, UserList};
use clap::Subcommand;
use serde_json::json;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a user; its tokens are made with `lastword token new … --user`.
    #[command(after_help = "Example:\n  lastword user add anna")]
    Add {
        /// Its name.
        user: String,
    },
    /// List the users.
    #[command(after_help = "Example:\n  lastword user list")]
    List,
    /// Disable a user: none of its tokens opens anything, from now on, until it is enabled.
    #[command(after_help = "Example:\n  lastword user disable anna --reason 'left'")]
    Disable {
        /// Its name.
        user: String,
        /// Even if no token with the role admin is left.
        #[arg(long)]
        force: bool,
    },
    /// Enable a user again.
    #[command(after_help = "Example:\n  lastword user enable anna")]
    Enable {
        /// Its name.
        user: String,
    },
    /// Remove a user. All of its tokens are revoked.
    #[command(after_help = "Example:\n  lastword user remove anna --reason 'left'")]
    Remove {
        /// Its name.
        user: String,
        /// Even if no token with the role admin is left.
        #[arg(long)]
        force: bool,
    },
}

impl Verb {
    pub(crate) fn run(self, client: &Client, output: &Output) -> anyhow::Result<u8> {
        let path = |user: &str, rest: &str| format!("/api/v1/users/{}{rest}", encode(user));
        let changed: User = match self {
            Verb::List => {
                output.list(&client.get::<UserList>("/api/v1/users")?.items)?;
                return Ok(0);
            }
            Verb::Remove { user, force } => {
                client.delete(&path(&user, if force { "?force=true" } else { "" }))?;
                return Ok(0);
            }
            Verb::Add { user } => client.post("/api/v1/users", &UserAdd { name: user }, false)?,
            Verb::Disable { user, force } => {
                let rest = if force { "/disable?force=true" } else { "/disable" };
                client.post(&path(&user, rest), &json!({}), true)?
            }
            Verb::Enable { user } => client.post(&path(&user, "/enable"), &json!({}), true)?,
        };
        output.one(&changed, &changed.name, |_| for_people(&changed))?;
        Ok(0)
    }
}

fn state(user: &User) -> String {
    if user.disabled { "disabled".into() } else { "enabled".into() }
}

fn for_people(user: &User) -> String {
    pairs(&[("User", user.name.clone()), ("State", state(user)), ("Tokens", user.tokens.to_string())])
}

impl Row for User {
    fn heads(_wide: bool) -> Vec<&'static str> {
        vec!["USER", "STATE", "TOKENS", "CREATED"]
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        vec![self.name.clone(), state(self), self.tokens.to_string(), moment(Some(self.created_at), wide)]
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}
