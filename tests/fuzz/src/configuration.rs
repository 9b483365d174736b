//! What a person writes: configurations and allow-lists.

use config::AgentConfig;
use job::users::{AllowList, Names, User};
use std::path::Path;

/// A host where every name is that of a user and a group.
struct Everybody;

impl Names for Everybody {
    fn uid_of(&self, user: &str) -> Option<u32> {
        u32::try_from(user.len()).ok()
    }
    fn gid_of(&self, group: &str) -> Option<u32> {
        u32::try_from(group.len()).ok()
    }
}

/// `agent.toml`, and the list of users beside it. What is refused is refused in words.
pub(crate) fn agent(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match AgentConfig::parse(Path::new("agent.toml"), &text) {
        Ok(config) => assert!(config.changes(&config).is_empty(), "a configuration differs from itself"),
        Err(error) => {
            assert!(error.to_string().contains("agent.toml"), "an error that names no file: {error}")
        }
    }
    if let Ok(list) = AllowList::read(&text)
        && let Some(user) = text.lines().find_map(User::read)
    {
        let _ = list.decide(&user, &Everybody);
    }
}

/// `server.toml`.
pub(crate) fn server(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Err(error) = central_server::check_text(Path::new("server.toml"), &text) {
        assert!(format!("{error:#}").contains("server.toml"), "an error that names no file: {error:#}");
    }
}
