//! Users and their tokens.

use crate::{Span, Time};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A user: the name that owns tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct User {
    /// The name.
    pub name: String,
    /// None of its tokens opens anything.
    pub disabled: bool,
    /// When it was made.
    pub created_at: Time,
    /// How many tokens of it are neither revoked nor expired.
    pub tokens: u64,
}

/// A page of users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserList {
    /// By name.
    pub items: Vec<User>,
    /// Ask again with this as `cursor` for the next page; absent on the last one.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// Makes a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserAdd {
    /// The name.
    pub name: String,
}

/// A token as it is shown: never what opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// The part of it by which it is found.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// Whose it is.
    pub user: String,
    /// What it may do: `viewer`, `operator` or `admin`.
    pub role: String,
    /// `valid`, `expired`, `revoked` or `disabled` (its user is).
    pub state: String,
    /// When it was made.
    pub created_at: Time,
    /// From then on it opens nothing.
    pub expires_at: Option<Time>,
    /// When it was revoked.
    pub revoked_at: Option<Time>,
    /// When it was last used.
    pub used_at: Option<Time>,
}

/// A page of tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenList {
    /// By name.
    pub items: Vec<Token>,
    /// Ask again with this as `cursor` for the next page; absent on the last one.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// Makes a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenNew {
    /// What it is to be called.
    pub name: String,
    /// What it may do: `viewer` (look), `operator` (submit, kill, hold) or `admin` (everything).
    pub role: String,
    /// Whose it is, a user that is there; if absent, a user of the token's own name, who is made if need be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// It opens nothing after this long; without end if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Span>,
}

/// A new token: the only time that it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenMade {
    /// The token itself, to be sent as `Authorization: Bearer …`.
    pub secret: String,
    /// What is on record of it.
    pub token: Token,
}
