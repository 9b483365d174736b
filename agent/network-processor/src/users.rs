//! Who a run's job becomes, decided before the run is accepted and again before every start of a job-processor. Asks the host's databases, which
//! may be slow: never in the event loop.

use config::{UserSwitch, Users};
use job::users::User;
use protocol::RunSpec;
use spool::users::{HostNames, check_allowed, look_up};

/// Why a run cannot have its user.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotResolved {
    /// It is not to be: the same tomorrow, until somebody changes something.
    #[error("{0}")]
    Refused(String),
    /// The host's databases cannot be asked now.
    #[error("the host's list of users cannot be asked: {0}")]
    NotNow(std::io::Error),
}

/// The user to switch to; `None`: the job runs as the agent's own user.
pub(crate) fn resolve(agent: &str, users: &Users, spec: &RunSpec) -> Result<Option<User>, NotResolved> {
    let own = os::process::effective_uid();
    let wanted = spec.user.as_ref().or(users.default.as_ref());
    let found = match wanted {
        Some(name) => look_up(name).map_err(NotResolved::NotNow)?.ok_or_else(|| {
            NotResolved::Refused(format!("there is no user \"{name}\" on the host of agent {agent}"))
        })?,
        // Root's jobs need root's line in the list, whether they name it or not.
        None if users.switch == UserSwitch::Root => {
            look_up("root").map_err(NotResolved::NotNow)?.unwrap_or_else(|| numbered(own))
        }
        // A job-processor with more rights forgets its caller's environment: it is told who the agent's own user is.
        None if users.switch.is_job_processors() => {
            match look_up(&own.to_string()).map_err(NotResolved::NotNow)? {
                Some(found) => found,
                None => return Ok(None),
            }
        }
        None => return Ok(None),
    };
    match users.switch {
        UserSwitch::None if found.uid == own => Ok(None),
        UserSwitch::None => Err(NotResolved::Refused(format!(
            "agent {agent} does not switch users, so it cannot run a job as \"{}\": set [users] switch in its agent.toml, or run the job elsewhere",
            found.name
        ))),
        UserSwitch::Setuid | UserSwitch::Sudo if found.uid == own => Ok(Some(found)),
        UserSwitch::Root | UserSwitch::Setuid | UserSwitch::Sudo => {
            let allowed = check_allowed(&users.allow_file, &found, &HostNames);
            let hint = if wanted.is_none() {
                " (the job names no user: give it one, or set [users] default)"
            } else {
                ""
            };
            allowed.map_err(|e| NotResolved::Refused(format!("{e}{hint}")))?;
            Ok(Some(found))
        }
    }
}

/// A user that no database names.
fn numbered(uid: u32) -> User {
    User {
        name: uid.to_string(),
        uid,
        gid: uid,
        groups: Vec::new(),
        home: "/".into(),
        shell: "/bin/sh".into(),
    }
}
