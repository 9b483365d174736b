//! The environment variables that set keys.

use crate::error::{self, ConfigError};
use crate::shape::Shape;
use std::ffi::OsString;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A variable that sets a key of this configuration.
pub(crate) struct Variable {
    pub(crate) name: String,
    value: String,
    path: Vec<String>,
    is_text: bool,
}

/// The variables that are of this configuration, in the order of their names, so that the result never depends on the order in
/// which the environment stands.
pub(crate) fn select(
    shape: &Shape,
    prefix: &str,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Vec<Variable>, ConfigError> {
    let mut selected = Vec::new();
    for (name, value) in variables {
        let Some(name) = name.to_str() else { continue };
        let Some(key) = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('_')) else { continue };
        let path: Vec<String> = key.split("__").map(str::to_ascii_lowercase).collect();
        let wrong = |message| ConfigError::InVariable { name: name.to_owned(), message };
        let Some(is_text) = is_text_at(shape, &path).map_err(wrong)? else { continue };
        let value = value.into_string().map_err(|_| wrong("the value is not UTF-8".to_owned()))?;
        selected.push(Variable { name: name.to_owned(), value, path, is_text });
    }
    selected.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(selected)
}

/// Whether the key of that path is text; `None` if the path is not of this configuration.
fn is_text_at(root: &Shape, path: &[String]) -> Result<Option<bool>, String> {
    let mut shape = root;
    for (depth, name) in path.iter().enumerate() {
        let known = match shape {
            Shape::Table(known) => known,
            Shape::Any => return Ok(Some(false)),
            Shape::Text => {
                return Err(format!("\"{}\" is a text and has no keys of its own", path[..depth].join(".")));
            }
        };
        match known.iter().find(|(known, _)| known == name) {
            Some((_, below)) => shape = below,
            None if depth == 0 => return Ok(None),
            None => {
                return Err(error::unknown_key(name, &path[..depth], known.iter().map(|(known, _)| *known)));
            }
        }
    }
    Ok(Some(*shape == Shape::Text))
}

/// Puts the variable's value into the table, with `place` as its span.
pub(crate) fn lay_over<'i>(root: &mut DeTable<'i>, variable: &'i Variable, place: Range<usize>) {
    let Some((last, above)) = variable.path.split_last() else { return };
    let mut table = root;
    for name in above {
        let key = Spanned::new(place.clone(), name.as_str().into());
        let below =
            table.entry(key).or_insert_with(|| Spanned::new(place.clone(), DeValue::Table(DeTable::new())));
        if !below.get_ref().is_table() {
            *below = Spanned::new(place.clone(), DeValue::Table(DeTable::new()));
        }
        let DeValue::Table(next) = below.get_mut() else { return };
        table = next;
    }
    let key = Spanned::new(place.clone(), last.as_str().into());
    table.remove(last.as_str());
    table.insert(key, value_of(variable, &place));
}

fn value_of<'i>(variable: &'i Variable, place: &Range<usize>) -> Spanned<DeValue<'i>> {
    let text = || Spanned::new(place.clone(), DeValue::String(variable.value.as_str().into()));
    match DeValue::parse(&variable.value) {
        Ok(value) if !variable.is_text || value.get_ref().is_str() => placed(value.into_inner(), place),
        Ok(_) | Err(_) => text(),
    }
}

/// Gives a value and everything in it the place of its variable.
fn placed<'i>(value: DeValue<'i>, place: &Range<usize>) -> Spanned<DeValue<'i>> {
    let value = match value {
        DeValue::Array(items) => {
            DeValue::Array(items.into_iter().map(|item| placed(item.into_inner(), place)).collect())
        }
        DeValue::Table(entries) => {
            let entry = |(key, value): (Spanned<_>, Spanned<DeValue<'i>>)| {
                (Spanned::new(place.clone(), key.into_inner()), placed(value.into_inner(), place))
            };
            DeValue::Table(entries.into_iter().map(entry).collect())
        }
        leaf @ (DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)) => leaf,
    };
    Spanned::new(place.clone(), value)
}
