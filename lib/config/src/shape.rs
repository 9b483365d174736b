//! What a configuration type may contain, asked of its own `Deserialize`: the probe offers one key after the other and notes
//! what is expected there, so no list of keys stands beside the struct.

use serde::Deserializer;
use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;
use std::cell::Cell;
use std::fmt;

/// Deeper tables are not asked for.
const DEPTH_MAX: usize = 8;

/// What may stand in one place of a configuration.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A table with these keys and no other.
    Table(Vec<(&'static str, Shape)>),
    /// Text.
    Text,
    /// Something that only its reader knows: a number, a list, a free table.
    Any,
}

impl Shape {
    /// What stands below that path, if the path is known.
    pub(crate) fn at(&self, path: &[&str]) -> Option<&Shape> {
        let Some((first, rest)) = path.split_first() else { return Some(self) };
        let Shape::Table(known) = self else { return None };
        known.iter().find(|(known, _)| known == first).and_then(|(_, below)| below.at(rest))
    }
}

/// The shape of `T`.
pub(crate) fn of<T: DeserializeOwned>() -> Shape {
    shape_at::<T>(&mut Vec::new())
}

fn shape_at<T: DeserializeOwned>(path: &mut Vec<&'static str>) -> Shape {
    let found = Cell::new(Found::Any);
    // Always an error: the probe stops where it has seen enough.
    drop(T::deserialize(Probe { path, found: &found }));
    match found.get() {
        Found::Text => Shape::Text,
        Found::Fields(fields) if path.len() < DEPTH_MAX => {
            let below = |field: &&'static str| {
                path.push(field);
                let shape = shape_at::<T>(path);
                path.pop();
                (*field, shape)
            };
            Shape::Table(fields.iter().map(below).collect())
        }
        Found::Fields(_) | Found::Any => Shape::Any,
    }
}

#[derive(Clone, Copy)]
enum Found {
    Fields(&'static [&'static str]),
    Text,
    Any,
}

#[derive(Clone, Copy)]
struct Probe<'a> {
    path: &'a [&'static str],
    found: &'a Cell<Found>,
}

impl Probe<'_> {
    fn stop<T>(self, found: Found) -> Result<T, Stop> {
        if self.path.is_empty() {
            self.found.set(found);
        }
        Err(Stop)
    }
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Stop;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        self.stop(Found::Any)
    }

    fn deserialize_str<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        self.stop(Found::Text)
    }

    fn deserialize_string<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        self.stop(Found::Text)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        match self.path {
            [] => self.stop(Found::Fields(fields)),
            [key, path @ ..] => visitor.visit_map(OneKey { key: Some(key), value: Probe { path, ..self } }),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct seq tuple tuple_struct
        map enum identifier ignored_any
    }
}

/// A table with one key, whose value is asked for.
struct OneKey<'a> {
    key: Option<&'static str>,
    value: Probe<'a>,
}

impl<'de> MapAccess<'de> for OneKey<'_> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Stop> {
        let Some(key) = self.key.take() else { return Ok(None) };
        let key: StrDeserializer<'_, Stop> = key.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        seed.deserialize(self.value)
    }
}

/// The probe has seen what it was sent for.
#[derive(Debug)]
struct Stop;

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("probed")
    }
}

impl std::error::Error for Stop {}

impl de::Error for Stop {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Stop
    }
}
