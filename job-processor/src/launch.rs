//! From a run's spec to a program behind its gate: files, environment, arguments.

use job::Never;
use job::users::User;
use os::child::{Attributes, Credentials, Limit, Program};
use os::give::give;
use protocol::RunSpec;
use spool::{CONTROL_SOCKET, RunDir};
use std::ffi::{CString, OsStr, OsString};
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The modes of what is the job's in a run's directory. Its user owns it; the group is the agent's, which reads the output.
const WORK_MODE: u32 = 0o750;
const OUTPUT_MODE: u32 = 0o640;
const SCRIPT_MODE: u32 = 0o500;
const SOCKET_MODE: u32 = 0o660;
/// What a job inherits of the agent's own environment; one of another user only what is no user's own.
const INHERITED: [&str; 8] = ["HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR"];
const INHERITED_BY_OTHERS: [&str; 3] = ["LANG", "LC_ALL", "TZ"];

/// Why a run cannot be started.
#[derive(Debug)]
pub(crate) struct NotReady {
    /// For people.
    pub(crate) reason: String,
    /// Whether it may be otherwise in a while.
    pub(crate) why: Never,
}

impl From<String> for NotReady {
    fn from(reason: String) -> NotReady {
        NotReady { reason, why: Never::Failed }
    }
}

impl NotReady {
    fn io(what: &str, path: &Path, e: &io::Error) -> NotReady {
        let why = if os::disk::is_no_room(e) { Never::NoRoom } else { Never::Failed };
        NotReady { reason: format!("cannot {what} {}: {e}", path.display()), why }
    }
}

/// Builds what the child needs. The error says what could not be done; nothing was started.
pub(crate) fn program(dir: &RunDir, spec: &RunSpec, user: Option<&User>) -> Result<Program, NotReady> {
    let text = |what: &str, path: &Path, e: io::Error| NotReady::io(what, path, &e);
    // It was accepted by an agent that honours it; the programs may have been replaced by older ones since.
    spec.check_needs().map_err(|e| e.to_string())?;
    match DirBuilder::new().mode(0o700).create(dir.work()) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(text("create", &dir.work(), e)),
        _ => {}
    }
    let output = |path: &Path| {
        if user.is_some() {
            // One that a launch gave away before it died half-way; nothing was executed, so nothing is in it.
            remove(path).map_err(|e| text("remove", path, e))?;
        }
        let file = File::options().append(true).create(true).mode(0o600).open(path);
        file.map(OwnedFd::from).map_err(|e| text("create", path, e))
    };
    let null = Path::new("/dev/null");
    let stdin = File::open(null).map_err(|e| text("open", null, e))?;
    let stdio = [stdin.into(), output(&dir.out())?, output(&dir.err())?];
    if user.is_some() {
        dir.make_passable().map_err(|e| text("open the way through", dir.path(), e))?;
    }
    give_to(user, &dir.work(), WORK_MODE)?;
    give_to(user, &dir.out(), OUTPUT_MODE)?;
    give_to(user, &dir.err(), OUTPUT_MODE)?;
    let search = search_path(spec);
    let mut arguments: Vec<Vec<u8>> = spec.command.clone();
    let paths = match &spec.script {
        Some(script) => {
            write_script(&dir.script(), script).map_err(|e| {
                let _ = remove(&dir.script()); // half of it takes room for nothing
                text("write", &dir.script(), e)
            })?;
            give_to(user, &dir.script(), SCRIPT_MODE)?;
            let path = dir.script().into_os_string().into_vec();
            arguments.insert(0, path.clone());
            vec![path]
        }
        None => candidates(spec.command.first().map_or(&[][..], Vec::as_slice), &search),
    };
    let directory = spec.cwd.as_ref().map_or_else(|| dir.work().into_os_string(), OsString::from);
    Ok(Program {
        paths: c_strings(paths)?,
        arguments: c_strings(arguments)?,
        environment: c_strings(environment(dir, spec, &search, user))?,
        directory: c_string(directory.into_vec())?,
        attributes: attributes(spec, user)?,
        stdio,
        cgroup: None,
        farewell: None,
    })
}

/// Makes the control socket the job's too, so that its tools reach it.
pub(crate) fn give_socket(dir: &RunDir, user: Option<&User>) -> Result<(), String> {
    give_to(user, &dir.path().join(CONTROL_SOCKET), SOCKET_MODE)
}

fn give_to(user: Option<&User>, path: &Path, mode: u32) -> Result<(), String> {
    let Some(user) = user else { return Ok(()) };
    give(path, user.uid, mode).map_err(|e| format!("cannot give {} to {}: {e}", path.display(), user.name))
}

fn attributes(spec: &RunSpec, user: Option<&User>) -> Result<Attributes, String> {
    let limit = |limit: &protocol::message::Limit| {
        let known = Limit::new(&limit.resource, limit.soft, limit.hard);
        known.ok_or_else(|| format!("this agent knows no limit \"{}\"", limit.resource))
    };
    let limits = spec.limits.iter().map(limit).collect::<Result<_, _>>()?;
    Ok(Attributes { umask: spec.umask, nice: spec.nice, limits, user: user.map(credentials) })
}

fn credentials(user: &User) -> Credentials {
    Credentials { uid: user.uid, gid: user.gid, groups: user.groups.clone() }
}

/// Removes a file of an earlier launch, if there is one. Nobody has it open: nothing was started.
fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn write_script(path: &Path, script: &[u8]) -> io::Result<()> {
    remove(path)?; // a launch that died half-way may have left one
    let mut file = File::options().write(true).create_new(true).mode(0o700).open(path)?;
    io::Write::write_all(&mut file, script)
}

/// `PATH` of the job: the directory of the agent's tools, then the spec's, or the agent's own.
fn search_path(spec: &RunSpec) -> OsString {
    let own = spec.env.iter().find(|pair| pair.name == "PATH").map(|pair| OsString::from(&pair.value));
    let rest = own.or_else(|| std::env::var_os("PATH")).unwrap_or_else(|| PATH_DEFAULT.into());
    match std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned())) {
        Some(tools) => [tools.as_os_str(), OsStr::new(":"), &rest].into_iter().collect(),
        None => rest,
    }
}

/// The files that `name` may mean, as execvp(3) searches.
fn candidates(name: &[u8], search: &OsStr) -> Vec<Vec<u8>> {
    if name.contains(&b'/') {
        return vec![name.to_vec()];
    }
    let directories = search.as_bytes().split(|b| *b == b':');
    directories.filter(|d| !d.is_empty()).map(|d| [d, b"/", name].concat()).collect()
}

fn environment(dir: &RunDir, spec: &RunSpec, search: &OsStr, user: Option<&User>) -> Vec<Vec<u8>> {
    let mut found: Vec<(OsString, OsString)> = vec![("PATH".into(), search.to_owned())];
    let inherited = if user.is_some() { &INHERITED_BY_OTHERS[..] } else { &INHERITED[..] };
    found.extend(inherited.iter().filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?))));
    if let Some(User { name, home, shell, .. }) = user {
        let own = [("HOME", home), ("USER", name), ("LOGNAME", name), ("SHELL", shell)];
        found.extend(own.map(|(name, value)| (name.into(), value.into())));
    }
    let mut set = |name: &str, value: OsString| {
        found.retain(|(n, _)| n != name);
        found.push((name.into(), value));
    };
    for pair in spec.env.iter().filter(|pair| pair.name != "PATH") {
        set(&pair.name, OsString::from(&pair.value));
    }
    for pair in &spec.params {
        set(&protocol::params::variable(&pair.name), OsString::from(&pair.value));
    }
    let scheduled_at = spec.scheduled_at_ms.map_or_else(String::new, |ms| ms.to_string());
    for (name, value) in [
        ("JOB_ID", spec.job_id.unwrap_or(0).to_string().into()),
        ("RUN_ID", dir.run_id().to_string().into()),
        ("ATTEMPT", spec.attempt.unwrap_or(1).to_string().into()),
        ("JOB_NAME", OsString::from(&spec.job_name)),
        ("QUEUE", OsString::from(&spec.queue)),
        ("AGENT", OsString::from(&spec.agent)),
        ("SUBMITTED_BY", OsString::from(&spec.submitted_by)),
        ("SCHEDULED_AT", scheduled_at.into()),
        ("DIR", dir.work().into_os_string()),
        ("SOCKET", dir.path().join(CONTROL_SOCKET).into_os_string()),
        ("IDEMPOTENCY_KEY", OsString::from(&spec.idempotency_key)),
        ("PREVIOUS_OUTCOME", OsString::from(&spec.previous_outcome)),
    ] {
        set(&format!("LASTWORD_{name}"), value);
    }
    found.into_iter().map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat()).collect()
}

fn c_strings(strings: Vec<Vec<u8>>) -> Result<Vec<CString>, String> {
    strings.into_iter().map(c_string).collect()
}

fn c_string(string: Vec<u8>) -> Result<CString, String> {
    CString::new(string).map_err(|e| format!("a zero byte in {:?}", String::from_utf8_lossy(&e.into_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_searched_and_a_path_is_not() {
        let search = OsStr::new("/tools::/bin");
        assert_eq!(candidates(b"ls", search), [b"/tools/ls".to_vec(), b"/bin/ls".to_vec()]);
        assert_eq!(candidates(b"./ls", search), [b"./ls".to_vec()]);
    }

    #[test]
    fn the_specs_environment_goes_before_the_agents_and_after_our_own_names() {
        use protocol::message::Pair;
        let pair = |name: &str, value: &str| Pair { name: name.into(), value: value.into() };
        let spec = RunSpec {
            job_id: Some(7),
            env: vec![pair("LANG", "xx"), pair("LASTWORD_JOB_ID", "forged")],
            params: vec![pair("region", "eu")],
            ..RunSpec::default()
        };
        let dir = RunDir::at(Path::new("/data/runs/01890000-0000-7000-8000-000000000000")).unwrap();
        let env = environment(&dir, &spec, OsStr::new("/bin"), None);
        let has = |line: &str| env.iter().filter(|e| e.as_slice() == line.as_bytes()).count();
        assert_eq!((has("LANG=xx"), has("LASTWORD_JOB_ID=7"), has("LASTWORD_PARAM_REGION=eu")), (1, 1, 1));
        assert_eq!(has("LASTWORD_JOB_ID=forged"), 0);
        let user = User::read("ann:1000:1000:50:/var/ann:/bin/ksh").unwrap();
        let env = environment(&dir, &spec, OsStr::new("/bin"), Some(&user));
        let has = |line: &str| env.iter().filter(|e| e.as_slice() == line.as_bytes()).count();
        for line in ["HOME=/var/ann", "USER=ann", "LOGNAME=ann", "SHELL=/bin/ksh"] {
            assert_eq!(has(line), 1, "{line}");
        }
    }
}
