//! A program's configuration: one TOML file, over which environment variables are laid.
//!
//! What a configuration may contain is asked of its own type (see `shape`), so every unknown key, in the file or in the
//! environment, is an error that names its place and the nearest known key. Nothing is written, nothing is watched: a
//! program that reloads calls [`load`] again.

#![forbid(unsafe_code)]

mod agent;
mod duration;
mod environment;
mod error;
mod shape;
mod size;

pub use agent::{AgentConfig, CgroupMode, Changed, Effect, Retention, UserSwitch, Users};
pub use duration::Duration;
pub use error::ConfigError;
pub use size::{ParseSizeError, Size};

use error::Origin;
use serde::de::DeserializeOwned;
use shape::Shape;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::DeTable;

/// A configuration file larger than this is refused: it is some other file.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Reads the TOML file at `path` into a `T`, with the variables `<env_prefix>_…` of the process's environment laid over it.
///
/// A variable names a key in capitals, with two underscores between levels: `LASTWORD_HTTP__LISTEN` is `listen` in `[http]`. Its
/// value is read as TOML where the key is no text and it parses, else as text. A variable whose first level is not of this
/// configuration belongs to somebody else and is ignored.
///
/// # Errors
/// Says which file, line and column, or which variable, and what to write instead.
pub fn load<T: DeserializeOwned>(path: &Path, env_prefix: &str) -> Result<T, ConfigError> {
    let text = read(path)?;
    parse(path, &text, env_prefix, std::env::vars_os())
}

/// A path of the configuration: a relative one is relative to `data_root`.
pub fn resolve(data_root: &Path, path: &Path) -> PathBuf {
    data_root.join(path)
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > CONFIG_BYTES_MAX {
        return Err(ConfigError::TooLong { path: path.to_owned() });
    }
    String::from_utf8(bytes).map_err(|e| {
        let valid = e.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(&e.as_bytes()[..valid]).into_owned();
        Origin { path, text: &text, variables: &[] }
            .error(valid, "not UTF-8; a configuration is UTF-8 text".to_owned())
    })
}

/// The same of a text that was read already; `path` is only named in errors, `variables` are laid over it.
///
/// # Errors
/// As [`load`].
pub fn parse<T: DeserializeOwned>(
    path: &Path,
    text: &str,
    env_prefix: &str,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<T, ConfigError> {
    let shape = shape::of::<T>();
    let variables = environment::select(&shape, env_prefix, variables)?;
    let origin = Origin { path, text, variables: &variables };
    let mut table = DeTable::parse(text).map_err(|e| origin.syntax_error(&e))?;
    check_keys(&origin, &shape, table.get_ref(), &mut Vec::new())?;
    for (index, variable) in variables.iter().enumerate() {
        environment::lay_over(table.get_mut(), variable, origin.place_of(index));
    }
    check_keys(&origin, &shape, table.get_ref(), &mut Vec::new())?;
    let paths = table_paths(&table);
    T::deserialize(toml::de::Deserializer::from(table))
        .map_err(|e| origin.value_error(&e, env_prefix, &shape, &paths))
}

/// Refuses the first key that `shape` does not know.
fn check_keys(
    origin: &Origin<'_>,
    shape: &Shape,
    table: &DeTable<'_>,
    above: &mut Vec<String>,
) -> Result<(), ConfigError> {
    let Shape::Table(known) = shape else { return Ok(()) };
    for (key, value) in table {
        let name: &str = key.get_ref();
        let Some((_, below)) = known.iter().find(|(known, _)| *known == name) else {
            let message = error::unknown_key(name, above, known.iter().map(|(known, _)| *known));
            return Err(origin.error(key.span().start, message));
        };
        if let Some(table) = value.get_ref().as_table() {
            above.push(name.to_owned());
            check_keys(origin, below, table, above)?;
            above.pop();
        }
    }
    Ok(())
}

/// Where each table begins and what it is called, so that a missing key can be named whole.
fn table_paths(root: &Spanned<DeTable<'_>>) -> Vec<(usize, Vec<String>)> {
    fn walk(table: &DeTable<'_>, above: &mut Vec<String>, paths: &mut Vec<(usize, Vec<String>)>) {
        for (key, value) in table {
            if let Some(table) = value.get_ref().as_table() {
                above.push(key.get_ref().to_string());
                paths.push((value.span().start, above.clone()));
                walk(table, above, paths);
                above.pop();
            }
        }
    }
    let mut paths = Vec::new();
    walk(root.get_ref(), &mut Vec::new(), &mut paths);
    paths
}

#[cfg(test)]
mod tests;
