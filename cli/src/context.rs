//! Contexts: which server, with which token, under a name. They are kept in `contexts.toml` of the user's configuration.
//!
//! | named by                                | which server                                                        |
//! |-----------------------------------------|---------------------------------------------------------------------|
//! | `--url` or `LASTWORD_URL`               | that one; together with a context that is named as well: an error   |
//! | `--context` or `LASTWORD_CONTEXT`       | the one of that context                                             |
//! | neither                                 | the one of the context that `context use` chose, else the local one |

use crate::client::Place;
use crate::exit::{CANNOT_CREATE, CONFIG, NOT_FOUND, USAGE, failure};
use crate::output::{Output, Row, or_empty};
use clap::Subcommand;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where a server is if nobody said anything.
const URL_DEFAULT: &str = "http://127.0.0.1:7410";

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List the contexts.
    #[command(after_help = "Example:\n  lastword context list")]
    List,
    /// Take this context from now on, wherever none is named.
    #[command(after_help = "Example:\n  lastword context use prod")]
    Use {
        /// Its name.
        context: String,
    },
    /// Make a context of --url, --token-file and --ca-file.
    #[command(after_help = "\
Example:
  lastword context add prod --url https://lastword.example:7410 --token-file ~/prod.token")]
    Add {
        /// Its name.
        context: String,
    },
    /// Forget a context. Its token file stays.
    #[command(after_help = "Example:\n  lastword context remove prod")]
    Remove {
        /// Its name.
        context: String,
    },
}

/// What was said of the place on the command line or in the environment.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) url: Option<String>,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) context: Option<String>,
}

/// One context.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Context {
    url: String,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
}

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Contexts {
    current: Option<String>,
    contexts: BTreeMap<String, Context>,
}

impl Named {
    /// The place that is meant.
    pub(crate) fn place(self) -> anyhow::Result<Place> {
        self.place_by(file().as_deref())
    }

    fn place_by(self, file: Option<&Path>) -> anyhow::Result<Place> {
        let context = match (&self.url, &self.context) {
            (Some(_), Some(context)) => {
                let text = format!(
                    "--url (LASTWORD_URL) and --context {context} (LASTWORD_CONTEXT) may mean two servers; give only one of them"
                );
                return Err(failure(USAGE, text));
            }
            (Some(_), None) => None,
            (None, Some(name)) => Some(read(file)?.find(name)?.clone()),
            (None, None) => {
                let contexts = read(file)?;
                contexts.current.as_ref().map(|name| contexts.find(name).cloned()).transpose()?
            }
        };
        let (url, token_file, ca_file) = match context {
            Some(context) => (Some(context.url), context.token_file, context.ca_file),
            None => (self.url, None, None),
        };
        Ok(Place {
            urls: url.unwrap_or_else(|| URL_DEFAULT.to_owned()),
            token_file: self.token_file.or(token_file),
            ca_file: self.ca_file.or(ca_file),
        })
    }
}

impl Verb {
    pub(crate) fn run(self, named: Named, output: &Output) -> anyhow::Result<u8> {
        let file = file().ok_or_else(|| {
            failure(CONFIG, "there is no place for contexts: neither XDG_CONFIG_HOME nor HOME is set")
        })?;
        let mut contexts = read(Some(&file))?;
        match self {
            Verb::List => {
                output.list(&contexts.rows())?;
                return Ok(0);
            }
            Verb::Use { context } => {
                contexts.find(&context)?;
                contexts.current = Some(context);
            }
            Verb::Add { context } => contexts.add(context, named)?,
            Verb::Remove { context } => {
                contexts.find(&context)?;
                contexts.contexts.remove(&context);
                contexts.current = contexts.current.filter(|current| *current != context);
            }
        }
        contexts.write(&file)?;
        Ok(0)
    }
}

/// `$XDG_CONFIG_HOME/lastword/contexts.toml`, else below `~/.config`.
fn file() -> Option<PathBuf> {
    let from = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = from("XDG_CONFIG_HOME").or_else(|| from("HOME").map(|home| home.join(".config")))?;
    Some(folder.join("lastword").join("contexts.toml"))
}

fn read(file: Option<&Path>) -> anyhow::Result<Contexts> {
    let Some(file) = file else { return Ok(Contexts::default()) };
    match fs::read_to_string(file) {
        Ok(text) => toml::from_str(&text)
            .map_err(|e| failure(CONFIG, format!("the contexts in {} cannot be read: {e}", file.display()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Contexts::default()),
        Err(e) => Err(failure(CONFIG, format!("cannot read the contexts in {}: {e}", file.display()))),
    }
}

impl Contexts {
    fn find(&self, name: &str) -> anyhow::Result<&Context> {
        let known: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
        let missing = || {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            failure(NOT_FOUND, format!("there is no context \"{name}\"; there are: {known}"))
        };
        self.contexts.get(name).ok_or_else(missing)
    }

    fn add(&mut self, name: String, named: Named) -> anyhow::Result<()> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if name.is_empty() || !name.chars().all(legal) {
            let text =
                format!("\"{name}\" cannot be the name of a context: letters, digits, - and _ are allowed");
            return Err(failure(USAGE, text));
        }
        let whole = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let url = named.url.ok_or_else(|| failure(USAGE, "a context needs --url"))?;
        let context =
            Context { url, token_file: named.token_file.map(whole), ca_file: named.ca_file.map(whole) };
        self.current.get_or_insert_with(|| name.clone());
        self.contexts.insert(name, context);
        Ok(())
    }

    /// The file's text. A JSON string is a TOML string.
    fn text(&self) -> String {
        let quoted = |text: &str| serde_json::to_string(text).unwrap_or_default();
        let mut text = String::new();
        let mut put = |key: &str, value: Option<&str>| {
            if let Some(value) = value {
                let _ = writeln!(text, "{key} = {}", quoted(value)); // a String takes everything
            }
        };
        put("current", self.current.as_deref());
        for (name, context) in &self.contexts {
            let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
            put(&format!("\n[contexts.{name}]\nurl"), Some(&context.url));
            put("token_file", path(&context.token_file).as_deref());
            put("ca_file", path(&context.ca_file).as_deref());
        }
        text
    }

    /// Complete or not at all.
    fn write(&self, file: &Path) -> anyhow::Result<()> {
        let folder = file.parent().unwrap_or(Path::new("."));
        let temporary = file.with_extension("toml.new");
        let write = || {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            let mut options = fs::OpenOptions::new();
            let mut new = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            new.write_all(self.text().as_bytes())?;
            new.sync_all()?;
            fs::rename(&temporary, file)
        };
        write().map_err(|e: std::io::Error| {
            failure(CANNOT_CREATE, format!("cannot write the contexts to {}: {e}", file.display()))
        })
    }

    fn rows(&self) -> Vec<Shown> {
        let shown = |(name, context): (&String, &Context)| Shown {
            name: name.clone(),
            current: self.current.as_ref() == Some(name),
            url: context.url.clone(),
            token_file: context.token_file.as_ref().map(|path| path.display().to_string()),
        };
        self.contexts.iter().map(shown).collect()
    }
}

/// A context in a list.
#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    current: bool,
    url: String,
    token_file: Option<String>,
}

impl Row for Shown {
    fn heads(_wide: bool) -> Vec<&'static str> {
        vec!["CONTEXT", "CURRENT", "URL", "TOKEN FILE"]
    }

    fn cells(&self, _wide: bool) -> Vec<String> {
        let current = if self.current { "*".to_owned() } else { String::new() };
        vec![self.name.clone(), current, self.url.clone(), or_empty(&self.token_file)]
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(url: Option<&str>, context: Option<&str>) -> Named {
        let own = |text: Option<&str>| text.map(str::to_owned);
        Named { url: own(url), token_file: None, ca_file: None, context: own(context) }
    }

    #[test]
    fn contexts_are_kept_and_the_one_in_use_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("lastword").join("contexts.toml");
        let mut contexts = read(Some(&file)).unwrap();
        let prod = Named { token_file: Some("/t \"ü".into()), ..named(Some("https://prod"), None) };
        contexts.add("prod".into(), prod).unwrap();
        contexts.add("lab".into(), named(Some("http://lab"), None)).unwrap();
        contexts.write(&file).unwrap();
        assert_eq!(read(Some(&file)).unwrap(), contexts);
        let place = |named: Named| named.place_by(Some(&file)).map(|place| (place.urls, place.token_file));
        assert_eq!(place(named(None, None)).unwrap(), ("https://prod".into(), Some("/t \"ü".into())));
        assert_eq!(place(named(None, Some("lab"))).unwrap(), ("http://lab".into(), None));
        assert_eq!(place(named(Some("http://x"), None)).unwrap(), ("http://x".into(), None));
        assert!(place(named(Some("http://x"), Some("lab"))).is_err());
        assert!(place(named(None, Some("nix"))).unwrap_err().to_string().contains("there are: lab, prod"));
        assert_eq!(named(None, None).place_by(None).unwrap().urls, URL_DEFAULT);
    }
}
