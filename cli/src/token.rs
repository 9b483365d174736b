//! Tokens: what opens the server, for whom, and for what.

use crate::client::{Client, encode};
use crate::exit::{CANNOT_CREATE, IO, failure};
use crate::output::{Output, Row, hint, line, moment, pairs};
use api::{Span, Token, TokenList, TokenMade, TokenNew};
use clap::{Subcommand, ValueEnum};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Look.
    Viewer,
    /// Look, submit, kill, hold.
    Operator,
    /// Everything.
    Admin,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a token. It is shown once, here or in the file, and nowhere else ever.
    #[command(after_help = "\
Examples:
  lastword token new ci --role operator --expires 90d --out ci.token
  lastword token new laptop --role admin --user anna > laptop.token")]
    New {
        /// What it is to be called.
        name: String,
        /// What it may do: viewer (look), operator (submit, kill, hold), admin (everything).
        #[arg(long, value_enum)]
        role: Role,
        /// Whose it is (`lastword user add`); if absent, a user of the token's own name, who is made if need be
        #[arg(long)]
        user: Option<String>,
        /// It opens nothing after this long: 90d. Without end if absent.
        #[arg(long, value_name = "SPAN")]
        expires: Option<Span>,
        /// Write it into this new file (mode 0600) instead of standard output.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// List the tokens.
    #[command(after_help = "Example:\n  lastword token list --all -o wide")]
    List {
        /// Also those that are revoked or expired.
        #[arg(long)]
        all: bool,
        /// Only those of this user.
        #[arg(long)]
        user: Option<String>,
    },
    /// Revoke a token: it opens nothing any more, from now on.
    #[command(after_help = "Example:\n  lastword token revoke 0a1b2c3d --reason 'laptop lost'")]
    Revoke {
        /// Its identifier, as the list shows it.
        id: String,
        /// Even if no token with the role admin is left.
        #[arg(long)]
        force: bool,
    },
}

impl Verb {
    pub(crate) fn run(self, client: &Client, output: &Output) -> anyhow::Result<u8> {
        match self {
            Verb::New { name, role, user, expires, out } => {
                let request = TokenNew { name, role: role.name().to_owned(), user, expires };
                make(client, output, &request, out.as_deref())?;
            }
            Verb::List { all, user } => output.list(&list(client, all, user.as_deref())?)?,
            Verb::Revoke { id, force } => {
                let force = if force { "?force=true" } else { "" };
                client.delete(&format!("/api/v1/tokens/{}{force}", encode(&id)))?;
            }
        }
        Ok(0)
    }
}

fn list(client: &Client, all: bool, user: Option<&str>) -> anyhow::Result<Vec<Token>> {
    let user = user.map(|user| format!("&user={}", encode(user))).unwrap_or_default();
    Ok(client.get::<TokenList>(&format!("/api/v1/tokens?all={all}{user}"))?.items)
}

/// The file first: a token that cannot be kept is not made.
fn make(client: &Client, output: &Output, request: &TokenNew, out: Option<&Path>) -> anyhow::Result<()> {
    let file = out.map(|path| create(path).map(|file| (path, file))).transpose()?;
    let made: Result<TokenMade, _> = client.post("/api/v1/tokens", request, false);
    let Some((path, mut file)) = file else {
        let made = made?;
        if output.is_json() {
            return output.one(&made, &made.token.id, |_| made.secret.clone());
        }
        hint(&format!("token {} of {}; it cannot be shown again", made.token.id, made.token.user));
        return line(&made.secret);
    };
    let written = made.map_err(anyhow::Error::from).and_then(|made| {
        let text = format!("{}\n", made.secret);
        let done = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        done.map_err(|e| {
            failure(
                IO,
                format!("cannot write the token to {}: {e}; revoke token {}", path.display(), made.token.id),
            )
        })?;
        Ok(made.token)
    });
    match written {
        Ok(token) => output.one(&token, &token.id, |_| for_people(&token)),
        Err(error) => {
            let _ = fs::remove_file(path); // an empty file would only confuse; the message tells the rest
            Err(error)
        }
    }
}

fn create(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|e| {
        let shown = path.display();
        failure(
            CANNOT_CREATE,
            format!("cannot make the token file {shown}: {e}; an existing file is never replaced"),
        )
    })
}

fn for_people(token: &Token) -> String {
    let expires = token.expires_at.map_or_else(|| "never".to_owned(), |at| at.to_seconds());
    pairs(&[
        ("Token", token.id.clone()),
        ("Name", token.name.clone()),
        ("User", token.user.clone()),
        ("Role", token.role.clone()),
        ("Expires", expires),
    ])
}

impl Row for Token {
    fn heads(wide: bool) -> Vec<&'static str> {
        let mut heads = vec!["ID", "NAME", "USER", "ROLE", "STATE", "USED", "EXPIRES"];
        if wide {
            heads.extend(["CREATED", "REVOKED"]);
        }
        heads
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let mut cells = vec![
            self.id.clone(),
            self.name.clone(),
            self.user.clone(),
            self.role.clone(),
            self.state.clone(),
            moment(self.used_at, wide),
            moment(self.expires_at, true),
        ];
        if wide {
            cells.extend([moment(Some(self.created_at), true), moment(self.revoked_at, true)]);
        }
        cells
    }

    fn name(&self) -> String {
        self.id.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Place;
    use crate::fake;
    use crate::output::Format;
    use std::os::unix::fs::PermissionsExt;

    fn made() -> String {
        let token = Token {
            id: "0a".into(),
            name: "ci".into(),
            user: "ci".into(),
            role: "operator".into(),
            state: "valid".into(),
            created_at: api::Time { ms: 0 },
            expires_at: None,
            revoked_at: None,
            used_at: None,
        };
        serde_json::to_string(&TokenMade { secret: "lw_0a_s".into(), token }).unwrap()
    }

    fn new(answers: Vec<String>, out: &Path) -> anyhow::Result<()> {
        let (urls, _asked) = fake::server(answers);
        let client = Client::new(&Place { urls, token_file: None, ca_file: None }).unwrap();
        let request = TokenNew { name: "ci".into(), role: "operator".into(), user: None, expires: None };
        make(&client, &Output::new(Format::Name), &request, Some(out))
    }

    #[test]
    fn a_token_goes_into_a_new_file_of_its_owner_or_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("ci.token");
        new(vec![fake::answer(201, &made())], &out).unwrap();
        assert_eq!(fs::read_to_string(&out).unwrap(), "lw_0a_s\n");
        assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(new(Vec::new(), &out).unwrap_err().to_string().contains("never replaced"));
        let other = dir.path().join("other.token");
        assert!(new(vec![fake::problem(409, "name-taken", "there is already one")], &other).is_err());
        assert!(!other.exists());
    }
}
