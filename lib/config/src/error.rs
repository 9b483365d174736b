//! What can be wrong with a configuration, and how its place is named.

use crate::environment::Variable;
use crate::shape::Shape;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Why a configuration cannot be used. Its text is one line that says where, what, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A value that is well-formed, but that cannot be.
    #[error("{}: \"{key}\": {what}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong and what is needed.
        what: String,
    },
    /// The file is longer than [`crate::CONFIG_BYTES_MAX`].
    #[error("{}: longer than {} bytes; this is no configuration file", path.display(), crate::CONFIG_BYTES_MAX)]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// Something in the file is wrong.
    #[error("{}:{line}:{column}: {message}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What is wrong and what to do.
        message: String,
    },
    /// Something in an environment variable is wrong.
    #[error("environment variable {name}: {message}")]
    InVariable {
        /// The variable.
        name: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// A key, or a whole table, that has no default is set nowhere.
    #[error("{}: {key} is missing; set it there or in the environment as {variable}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// `the key "a.b"` or `the table [a]`.
        key: String,
        /// The variable that would set it.
        variable: String,
    },
}

/// Where the parts of a configuration came from. A span below the text's length is of the file; above it, of a variable.
pub(crate) struct Origin<'a> {
    pub(crate) path: &'a Path,
    pub(crate) text: &'a str,
    pub(crate) variables: &'a [Variable],
}

impl Origin<'_> {
    /// The span that stands for a variable.
    pub(crate) fn place_of(&self, index: usize) -> Range<usize> {
        let start = self.text.len() + 1 + index;
        start..start + 1
    }

    /// The error of the thing at `start`.
    pub(crate) fn error(&self, start: usize, message: String) -> ConfigError {
        if let Some(variable) =
            start.checked_sub(self.text.len() + 1).and_then(|index| self.variables.get(index))
        {
            return ConfigError::InVariable { name: variable.name.clone(), message };
        }
        let before = self.text.get(..start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        ConfigError::InFile { path: self.path.to_owned(), line, column, message }
    }

    /// The file is no TOML.
    pub(crate) fn syntax_error(&self, error: &toml::de::Error) -> ConfigError {
        let start = error.span().map_or(0, |span| span.start);
        self.error(start, error.message().trim_end().replace('\n', ", "))
    }

    /// A value is not what its key needs, or a key is missing.
    pub(crate) fn value_error(
        &self,
        error: &toml::de::Error,
        env_prefix: &str,
        shape: &Shape,
        tables: &[(usize, Vec<String>)],
    ) -> ConfigError {
        let message = error.message().trim_end();
        let start = error.span().map_or(0, |span| span.start);
        if let Some(missing) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'))
        {
            let above = tables
                .iter()
                .find(|(place, _)| *place == start && start != 0)
                .map(|(_, above)| above.as_slice());
            let whole: Vec<&str> = above.unwrap_or(&[]).iter().map(String::as_str).chain([missing]).collect();
            let mut variable = format!("{env_prefix}_{}", whole.join("__").to_uppercase());
            let mut key = format!("the key \"{}\"", whole.join("."));
            if let Some(Shape::Table(known)) = shape.at(&whole) {
                let first = known.first().map_or("…", |(first, _)| first);
                variable = format!("{variable}__{} (and its other keys)", first.to_uppercase());
                key = format!("the table [{}]", whole.join("."));
            }
            return ConfigError::Missing { path: self.path.to_owned(), key, variable };
        }
        self.error(start, with_nearest(message))
    }
}

/// The text for a key that is not known in the table `above`.
pub(crate) fn unknown_key<'k>(
    name: &str,
    above: &[impl AsRef<str>],
    known: impl Iterator<Item = &'k str> + Clone,
) -> String {
    let above: Vec<&str> = above.iter().map(AsRef::as_ref).collect();
    let table = if above.is_empty() { String::new() } else { format!(" in [{}]", above.join(".")) };
    format!("unknown key \"{name}\"{table}; {}", suggestion(name, known))
}

/// serde's own text for an unknown field (inside a list, where the shape is not known), with the nearest name.
fn with_nearest(message: &str) -> String {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match quoted.split_first() {
        Some((name, known)) if message.starts_with("unknown field `") && !known.is_empty() => {
            format!("unknown key \"{name}\"; {}", suggestion(name, known.iter().copied()))
        }
        Some(_) | None => message.replace('\n', ", "),
    }
}

/// The nearest known name if one is near enough to be a slip of the fingers, else all of them.
fn suggestion<'k>(name: &str, known: impl Iterator<Item = &'k str> + Clone) -> String {
    let near = known
        .clone()
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .min()
        .filter(|(distance, known)| *distance <= 1 + known.len().max(name.len()) / 4);
    match near {
        Some((_, near)) => format!("did you mean \"{near}\"?"),
        None => format!("known here: {}", known.collect::<Vec<_>>().join(", ")),
    }
}
