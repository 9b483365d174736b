//! The two parts that are played on a connection, whoever dialled.

use crate::message::RoleKind;
use std::fmt;

/// The part that one side plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A network-processor.
    Agent,
    /// A central server.
    Server,
}

impl Role {
    /// The part of the peer.
    pub fn other(self) -> Role {
        match self {
            Role::Agent => Role::Server,
            Role::Server => Role::Agent,
        }
    }

    /// As the wire has it.
    pub fn kind(self) -> RoleKind {
        match self {
            Role::Agent => RoleKind::Agent,
            Role::Server => RoleKind::Server,
        }
    }

    /// Reads the wire's field.
    pub fn from_field(field: Option<i32>) -> Option<Role> {
        match RoleKind::try_from(field?).ok()? {
            RoleKind::Agent => Some(Role::Agent),
            RoleKind::Server => Some(Role::Server),
            RoleKind::Unspecified => None,
        }
    }

    /// The name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Role::Agent => "agent",
            Role::Server => "server",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
