//! Whether jobs can run as the users that the configuration promises: asked by `--check`, and at every start for the trace.

use config::{AgentConfig, UserSwitch};
use os::helper::{self, Ended, Helped};
use os::process::effective_uid;
use rustix::fs::{Access, StatVfsMountFlags};
use spool::users::{HostNames, check_allowed, list_of_elevated, look_up, read_list, sudoers_line};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long sudo may take.
const SUDO_MAX: Duration = Duration::from_secs(20);

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// It will not work like this.
    pub(crate) faults: Vec<String>,
    /// Worth knowing.
    pub(crate) notes: Vec<String>,
}

impl Findings {
    fn fault(&mut self, what: impl Into<String>) {
        self.faults.push(what.into());
    }
}

/// Looks at everything that the way of switching needs.
pub(crate) fn users(config: &AgentConfig) -> Findings {
    let mut found = Findings::default();
    match config.users.switch {
        UserSwitch::None => {
            found.notes.push(format!("jobs run as the agent's own user (user id {} now)", effective_uid()));
            return found;
        }
        UserSwitch::Root => root(&mut found),
        UserSwitch::Setuid => setuid(config, &mut found),
        UserSwitch::Sudo => sudo(config, &mut found),
    }
    if let Err(e) = read_list(&config.users.allow_file) {
        found.fault(format!("nobody may be switched to: {e}"));
    }
    default_user(config, &mut found);
    reachable(&config.data_root, &mut found);
    found
}

fn root(found: &mut Findings) {
    if effective_uid() != 0 {
        found.fault(format!(
            "[users] switch = \"root\" needs an agent that runs as root, and this is user id {}: start it as root, or use \"setuid\" or \"sudo\"",
            effective_uid()
        ));
    } else if !os::privilege::can_switch() {
        found.fault("root has not the capabilities to switch users here (CAP_SETUID, CAP_SETGID, CAP_CHOWN): the container or unit takes them away");
    }
}

fn setuid(config: &AgentConfig, found: &mut Findings) {
    const SETUID: u32 = 0o4000;
    const OTHERS: u32 = 0o7;
    const GROUP_WRITES: u32 = 0o20;
    let Some(program) = job_processor(config, found) else { return };
    let shown = program.display();
    let metadata = match std::fs::symlink_metadata(&program) {
        Ok(metadata) => metadata,
        Err(e) => return found.fault(format!("{shown}: {e}")),
    };
    let (uid, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if !metadata.is_file() || uid != 0 || mode & SETUID == 0 {
        found.fault(format!("{shown} is not setuid root (owner {uid}, mode {mode:o}): chown root:AGENTS-GROUP it, then chmod 4750"));
    } else if mode & (OTHERS | GROUP_WRITES) != 0 {
        found.fault(format!(
            "{shown} is setuid root and open to others than the agent's group (mode {mode:o}): chmod 4750"
        ));
    }
    if rustix::fs::statvfs(&program).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::NOSUID)) {
        found.fault(format!("{shown} is on a file system that is mounted nosuid: put the programs elsewhere and set \"libexec\""));
    }
    if effective_uid() == 0 {
        found.notes.push(
            "asked as root: ask as the agent's own user to see whether that may execute job-processor"
                .to_owned(),
        );
    } else if rustix::fs::access(&program, Access::EXEC_OK).is_err() {
        found.fault(format!(
            "{shown} may not be executed by user id {}: its group must be the agent's (group id {} now)",
            effective_uid(),
            metadata.gid()
        ));
    }
    believed_list(config, &program, found);
}

fn sudo(config: &AgentConfig, found: &mut Findings) {
    let Some(program) = job_processor(config, found) else { return };
    if let Err(e) = os::trusted::verify(&program) {
        found.fault(format!("sudo would start as root what others can replace: {e}"));
    }
    believed_list(config, &program, found);
}

/// Whether sudo starts job-processor for this user, if that is the chosen way. Only for who asks by `--check`: it takes as long as sudo takes, and sudo
/// may write down what it refuses.
pub(crate) fn sudo_starts(config: &AgentConfig) -> Findings {
    let mut found = Findings::default();
    if config.users.switch != UserSwitch::Sudo {
        return found;
    }
    let Some(program) = job_processor(config, &mut found) else { return found };
    let own = effective_uid();
    if own == 0 {
        found.notes.push(
            "asked as root: ask as the agent's own user to see whether sudo starts job-processor for it"
                .to_owned(),
        );
        return found;
    }
    let what = format!("job-processor as root for user id {own}");
    match sudo_asked(&program, None) {
        Ok(()) => found.notes.push(format!("sudo starts {what}")),
        Err(e) => {
            let line = sudoers_line(own, &program);
            found.fault(format!("sudo does not start {what}: {e}; in sudoers there must be: {line}"));
            return found;
        }
    }
    // What sudo says of its caller is worth nothing if the caller says it.
    if sudo_asked(&program, Some(&format!("SUDO_UID={own}"))).is_ok() {
        found.fault(format!(
            "sudo lets user id {own} set variables for job-processor, SUDO_UID too, so that it can pass for another user: take SETENV away in sudoers, and set env_reset"
        ));
    }
    found
}

/// Lets sudo start job-processor, for nothing.
fn sudo_asked(program: &Path, variable: Option<&str>) -> Result<(), String> {
    let mut command = Command::new("sudo");
    command.arg("-n").args(variable).arg("--").arg(program).args(["--sudo", "--version"]);
    command.stdin(Stdio::null());
    os::process::in_new_session(&mut command);
    match helper::run(&mut command, SUDO_MAX) {
        Ok(Helped::Ended(Ended { status, .. })) if status.success() => Ok(()),
        Ok(Helped::Ended(Ended { status, said, .. })) => Err(format!("{status}, it says \"{said}\"")),
        Ok(Helped::Hangs(_)) => Err(format!("no answer within {} s", SUDO_MAX.as_secs())),
        Err(e) => Err(format!("it cannot be executed: {e}")),
    }
}

/// A job-processor with more rights than its caller chooses its list itself.
fn believed_list(config: &AgentConfig, program: &Path, found: &mut Findings) {
    let list = list_of_elevated(program);
    if list != config.users.allow_file {
        found.fault(format!(
            "job-processor believes {} and not allow_file: set [users] allow_file to that",
            list.display()
        ));
    }
}

fn job_processor(config: &AgentConfig, found: &mut Findings) -> Option<PathBuf> {
    let beside = std::env::current_exe().ok();
    let directory = config.libexec.as_deref().or(beside.as_deref().and_then(Path::parent));
    if directory.is_none() {
        found.fault("where job-processor is cannot be told: set \"libexec\"");
    }
    Some(directory?.join("job-processor"))
}

fn default_user(config: &AgentConfig, found: &mut Findings) {
    let Some(name) = &config.users.default else {
        if config.users.switch == UserSwitch::Root {
            found.notes.push(
                "a job that names no user counts as root's: set [users] default to run it as somebody else"
                    .to_owned(),
            );
        }
        return;
    };
    match look_up(name) {
        Ok(Some(user)) => {
            if let Err(e) = check_allowed(&config.users.allow_file, &user, &HostNames) {
                found.fault(format!("[users] default: {e}"));
            }
        }
        Ok(None) => found.fault(format!("[users] default: there is no user \"{name}\" on this host")),
        Err(e) => found.fault(format!("[users] default: the host's list of users cannot be asked: {e}")),
    }
}

/// Jobs of other users go through every directory above the data root.
fn reachable(data_root: &Path, found: &mut Findings) {
    const OTHERS_PASS: u32 = 0o1;
    for above in data_root.ancestors().skip(1) {
        // What is not there yet is made, and what cannot be seen is seen at the start.
        let Ok(metadata) = std::fs::metadata(above) else { continue };
        if metadata.mode() & OTHERS_PASS == 0 {
            found.fault(format!(
                "{} does not let other users pass (mode {:o}), so their jobs cannot reach their directories: chmod o+x, or choose another data_root",
                above.display(),
                metadata.mode() & 0o7777
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn config(dir: &Path, users: &str) -> AgentConfig {
        let path = dir.join("agent.toml");
        let text = format!(
            "name = \"a\"\nlisten = \"127.0.0.1:0\"\nsecret_file = \"s\"\ndata_root = \"{0}/data\"\nlibexec = \"{0}\"\n[users]\nallow_file = \"{0}/users.allow\"\n{users}\n",
            dir.display()
        );
        std::fs::write(&path, text).unwrap();
        AgentConfig::load(&path).unwrap()
    }

    fn mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    #[test]
    fn an_agent_that_does_not_switch_has_nothing_to_mend() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(users(&config(dir.path(), "switch = \"none\"")).faults, [""; 0]);
    }

    #[test]
    fn everything_that_root_needs_is_named_until_it_is_there() {
        if effective_uid() != 0 {
            return eprintln!("skipped: needs root");
        }
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("users.allow");
        mode(dir.path(), 0o700);
        let faults = |users_table: &str| users(&config(dir.path(), users_table)).faults;
        let first = faults("switch = \"root\"\ndefault = \"no-such-user\"");
        assert_eq!(first.len(), 3, "{first:?}");
        assert!(
            first[0].contains("users.allow does not exist") && first[1].contains("no-such-user"),
            "{first:?}"
        );
        assert!(first[2].contains("does not let other users pass"), "{first:?}");
        mode(dir.path(), 0o711);
        std::fs::write(&list, "nobody\n").unwrap();
        mode(&list, 0o644);
        assert_eq!(faults("switch = \"root\"\ndefault = \"nobody\""), [""; 0]);
        assert!(faults("switch = \"root\"\ndefault = \"root\"")[0].contains("root is never allowed"));
    }

    #[test]
    fn a_job_processor_that_is_not_setuid_or_open_to_all_is_a_fault() {
        if effective_uid() != 0 {
            return eprintln!("skipped: needs root");
        }
        let dir = tempfile::tempdir().unwrap();
        let (program, list) = (dir.path().join("job-processor"), dir.path().join("users.allow"));
        mode(dir.path(), 0o711);
        std::fs::write(&list, "nobody\n").unwrap();
        mode(&list, 0o644);
        let faults = || users(&config(dir.path(), "switch = \"setuid\"")).faults;
        assert!(faults()[0].contains("No such file"), "{:?}", faults());
        std::fs::write(&program, "").unwrap();
        for (bits, said) in
            [(0o755, "is not setuid root"), (0o4755, "open to others"), (0o4770, "open to others")]
        {
            mode(&program, bits);
            assert!(faults().len() == 1 && faults()[0].contains(said), "{bits:o}: {:?}", faults());
        }
        mode(&program, 0o4750);
        assert_eq!(faults(), [""; 0]);
        std::fs::remove_file(&list).unwrap();
        let said = faults();
        assert!(
            said.iter().any(|fault| fault.contains("/etc/lastword/users.allow and not allow_file")),
            "{said:?}"
        );
    }

    #[test]
    fn a_job_processor_that_others_can_replace_is_not_for_sudo() {
        if effective_uid() != 0 {
            return eprintln!("skipped: needs root");
        }
        let dir = tempfile::tempdir().unwrap();
        let (program, list) = (dir.path().join("job-processor"), dir.path().join("users.allow"));
        mode(dir.path(), 0o711);
        std::fs::write(&list, "nobody\n").unwrap();
        mode(&list, 0o644);
        let config = config(dir.path(), "switch = \"sudo\"");
        assert!(users(&config).faults[0].contains("does not exist"), "{:?}", users(&config));
        std::fs::write(&program, "").unwrap();
        mode(&program, 0o755);
        assert_eq!(users(&config).faults, [""; 0]);
        mode(&program, 0o775);
        assert!(
            users(&config).faults[0].contains("job-processor is not root's alone"),
            "{:?}",
            users(&config)
        );
        mode(&program, 0o755);
        std::os::unix::fs::chown(dir.path(), Some(12_345), None).unwrap();
        assert!(users(&config).faults[0].contains("(owner 12345"), "{:?}", users(&config));
        assert!(sudo_starts(&config).notes[0].contains("asked as root"));
    }
}
