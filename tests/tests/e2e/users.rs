//! Jobs of other users than the agent's. Everything here needs root, and is skipped without.

use crate::outcomes::{command, shell, wait_for_line};
use anyhow::{Context, Result};
use api::{Job, JobSubmit, Status};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tests::{Agent, Dialling, End, Site, is_root, on_empty_site};

/// What every job of another user must find, in the order of the lines.
const LOOK_AROUND: &str = "id -u; id -un; echo $HOME $USER $LOGNAME $SHELL; pwd; echo $LASTWORD_DIR; stat -c '%U %a' .
echo one > mine; echo two > $LASTWORD_DIR/other; ls
until [ -S ../ctl.sock ]; do sleep 0.01; done; sleep 0.05
for file in log out err script ctl.sock; do stat -c '%n %U %a' ../$file 2>&1 | head -1; done
cat ../log >/dev/null 2>&1 && echo the log is readable; ls .. >/dev/null 2>&1 && echo the directory can be listed
grep -E '^Cap(Inh|Prm|Eff|Amb)' /proc/self/status | grep -v 0000000000000000
echo to the file itself >> /dev/stdout; exit 7";

/// Who the agent is where it is not root.
pub(crate) const AGENT_USER: &str = "games";

fn on_users_site(switch: &str, list: &str, test: impl FnOnce(&mut Site) -> Result<()>) {
    if !is_root() {
        return eprintln!("skipped: only root can switch users");
    }
    on_empty_site(|site| {
        let prepare = |site: &Site, agent: &mut Agent| match switch {
            "setuid" => {
                let gid = os::account::by_name(AGENT_USER)?.context("no such user here")?.gid;
                run_as_nobody_special(agent, &install(site, gid, 0o4750)?)
            }
            _ => Ok(()),
        };
        add_users_agent(site, switch, list, &[], prepare)?;
        test(site)
    });
}

/// An agent that switches users in that way, with the list of those who may be. Its environment is full of what is nobody's business, and it looks as
/// if an admin had started it through sudo.
pub(crate) fn add_users_agent(
    site: &mut Site,
    switch: &str,
    list: &str,
    environment: &[(&str, String)],
    prepare: impl FnOnce(&Site, &mut Agent) -> Result<()>,
) -> Result<()> {
    mode(site.path(), 0o755)?;
    write_list(&list_of(site), list)?;
    let all = [
        ("LASTWORD_USERS__SWITCH", switch.to_owned()),
        ("LASTWORD_USERS__ALLOW_FILE", list_of(site).display().to_string()),
        ("LASTWORD_TOKEN", "a secret".to_owned()),
        ("SOMEBODYS_PASSWORD", "a secret".to_owned()),
        ("SUDO_UID", "1".to_owned()),
        ("SUDO_GID", "1".to_owned()),
    ];
    let all = all.iter().chain(environment);
    let environment: Vec<_> = all.map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let mut agent = site.prepare_agent("host1", Dialling::In)?;
    prepare(site, &mut agent)?;
    site.add_prepared_agent(agent, Dialling::In, &environment)
}

pub(crate) fn run_as_nobody_special(agent: &mut Agent, libexec: &Path) -> Result<()> {
    let own = os::account::by_name(AGENT_USER)?.context("no such user here")?;
    agent.run_as(own.uid, own.gid, libexec)
}

/// The agent's programs, with a job-processor that is root's and has that group and mode; beside it the list that it believes.
pub(crate) fn install(site: &Site, gid: u32, bits: u32) -> Result<PathBuf> {
    let libexec = site.path().join("libexec");
    std::fs::create_dir(&libexec)?;
    mode(&libexec, 0o755)?;
    std::os::unix::fs::symlink(tests::program("network-processor")?, libexec.join("network-processor"))?;
    let job_processor = libexec.join("job-processor");
    std::fs::copy(tests::program("job-processor")?, &job_processor)?;
    std::os::unix::fs::chown(&job_processor, Some(0), Some(gid))?;
    mode(&job_processor, bits)?;
    std::fs::copy(list_of(site), libexec.join("users.allow"))?;
    Ok(libexec)
}

pub(crate) fn list_of(site: &Site) -> PathBuf {
    site.path().join("users.allow")
}

pub(crate) fn write_list(path: &Path, list: &str) -> Result<()> {
    std::fs::write(path, list)?;
    mode(path, 0o644)
}

pub(crate) fn mode(path: &Path, mode: u32) -> Result<()> {
    Ok(std::fs::set_permissions(path, PermissionsExt::from_mode(mode))?)
}

pub(crate) fn of(user: &str, job: JobSubmit) -> JobSubmit {
    JobSubmit { user: Some(user.to_owned()), ..job }
}

pub(crate) fn ended(site: &Site, job: &JobSubmit) -> Result<Job> {
    site.client().wait(site.client().submit(job)?)
}

fn script(text: &str) -> JobSubmit {
    JobSubmit { script: Some(format!("#!/bin/sh\n{text}\n")), ..JobSubmit::default() }
}

pub(crate) fn is_refused(site: &Site, job: &JobSubmit, said: &str) -> Result<()> {
    let job = ended(site, job)?;
    anyhow::ensure!((job.status.0, job.exit_code, job.started_at) == (Status::Error, None, None), "{job:#?}");
    anyhow::ensure!(job.reason.as_ref().is_some_and(|reason| reason.contains(said)), "{said}: {job:#?}");
    Ok(())
}

/// The whole look around, as `nobody` must see it.
pub(crate) fn looks_as_it_should(site: &Site, agent_user: &str) -> Result<()> {
    let job = ended(site, &of("nobody", script(LOOK_AROUND)))?;
    let text = site.client().stdout(job.id)?;
    let run_id = &job.runs[0].run_id;
    anyhow::ensure!(End::Code(7).fits(&job), "{job:#?}\n{text}");
    let work = site.agents[0].root().path().join("runs").join(run_id).join("work").display().to_string();
    let uid = os::account::by_name("nobody")?.map(|account| account.uid.to_string());
    let lines: Vec<&str> = text.lines().collect();
    let passwd = os::account::by_name("nobody")?.map(|a| format!("{} nobody nobody {}", a.home, a.shell));
    assert_eq!((lines[0], lines[1]), (uid.unwrap_or_default().as_str(), "nobody"), "{text}");
    assert_eq!(lines[2], passwd.unwrap_or_default());
    assert_eq!(lines[3..6], [&work, &work, "nobody 750"], "{text}");
    assert_eq!(lines[6..8], ["mine", "other"], "{text}");
    let log = format!("../log {agent_user} 600");
    let owned = [
        log.as_str(),
        "../out nobody 640",
        "../err nobody 640",
        "../script nobody 500",
        "../ctl.sock nobody 660",
    ];
    assert_eq!(lines[8..13], owned, "{text}");
    assert_eq!(lines[13..], ["to the file itself"], "{text}");
    Ok(())
}

#[test]
fn root_runs_jobs_as_the_users_of_its_list_and_they_reach_their_own_only() {
    on_users_site("root", "nobody\n", |site| looks_as_it_should(site, "root"));
}

#[test]
fn nothing_of_the_agents_own_environment_reaches_a_job() {
    on_users_site("root", "nobody\nroot\n", |site| {
        for user in ["nobody", "root"] {
            let job = ended(site, &of(user, command(&["/usr/bin/env"])))?;
            let text = site.client().stdout(job.id)?;
            assert!(job.status.0 == Status::Completed && !text.contains("a secret"), "{text}");
            let known = ["HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG", "LC_ALL", "TZ"];
            let strange = |line: &&str| {
                let name = line.split('=').next().unwrap_or_default();
                !known.contains(&name) && !name.starts_with("LASTWORD_")
            };
            assert_eq!(text.lines().filter(strange).collect::<Vec<_>>(), [""; 0], "{text}");
            let mut given: Vec<&str> =
                text.lines().filter_map(|l| l.strip_prefix("LASTWORD_")?.split('=').next()).collect();
            given.sort_unstable();
            let contract = [
                "AGENT",
                "ATTEMPT",
                "DIR",
                "IDEMPOTENCY_KEY",
                "JOB_ID",
                "JOB_NAME",
                "PREVIOUS_OUTCOME",
                "QUEUE",
                "RUN_ID",
                "SCHEDULED_AT",
                "SOCKET",
                "SUBMITTED_BY",
            ];
            assert_eq!(given, contract, "{text}");
            let path = text.lines().find_map(|line| line.strip_prefix("PATH=")).unwrap_or_default();
            let tools = tests::program("job-processor")?;
            assert!(path.starts_with(&format!("{}:", tools.parent().unwrap().display())), "{path}");
        }
        Ok(())
    });
}

#[test]
fn who_is_not_on_the_list_is_refused_and_told_why() {
    on_users_site("root", "nobody\n!daemon\nuid:0-99\n", |site| {
        is_refused(site, &of("daemon", shell("true")), "users.allow line 2 (\"!daemon\") denies it")?;
        is_refused(site, &of("root", shell("true")), "root is never allowed by a group or a range")?;
        is_refused(site, &shell("true"), "the job names no user")?;
        is_refused(site, &of("no-such-user", shell("true")), "there is no user \"no-such-user\"")?;
        assert_eq!(ended(site, &of("bin", shell("true")))?.status.0, Status::Completed, "uid:0-99");
        // The list is read anew for every run.
        write_list(&list_of(site), "daemon\n")?;
        is_refused(site, &of("nobody", shell("true")), "no line allows it")?;
        assert_eq!(ended(site, &of("daemon", shell("true")))?.status.0, Status::Completed);
        write_list(&list_of(site), "daemon\ntwo words\n")?;
        is_refused(site, &of("daemon", shell("true")), "line 2 (\"two words\") is not understood")?;
        write_list(&list_of(site), "daemon\n")?;
        mode(&list_of(site), 0o666)?;
        is_refused(site, &of("daemon", shell("true")), "is not root's alone")?;
        std::fs::remove_file(list_of(site))?;
        is_refused(site, &of("daemon", shell("true")), "does not exist")
    });
}

#[test]
fn an_agent_that_does_not_switch_says_what_to_change() {
    on_users_site("none", "nobody\n", |site| {
        is_refused(site, &of("nobody", shell("true")), "set [users] switch")?;
        let own = ended(site, &of("root", shell("env")))?;
        assert_eq!(own.status.0, Status::Completed, "its own user");
        assert!(!site.client().stdout(own.id)?.contains("a secret"));
        Ok(())
    });
}

#[test]
fn a_directory_that_the_user_may_not_enter_is_named() {
    on_users_site("root", "nobody\n", |site| {
        let closed = site.path().join("closed");
        std::fs::create_dir(&closed)?;
        mode(&closed, 0o700)?;
        let cwd = closed.display().to_string();
        let job = ended(site, &of("nobody", JobSubmit { cwd: Some(cwd.clone()), ..shell("true") }))?;
        assert_eq!((job.status.0, job.exit_code), (Status::Error, None), "{job:#?}");
        let said = format!("{cwd}: cannot change to the working directory: Permission denied");
        assert!(job.reason.as_ref().is_some_and(|reason| reason.contains(&said)), "{job:#?}");
        Ok(())
    });
}

/// A job of `nobody` is killed, by its job-processor and after that died.
pub(crate) fn can_be_ended(site: &mut Site) -> Result<()> {
    for adopted in [false, true] {
        let id = site
            .client()
            .submit(&of("nobody", shell("trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done")))?;
        wait_for_line(site, id, "ready")?;
        let run_id = site.client().job(id)?.runs[0].run_id.clone();
        if adopted {
            site.agents[0].job_processor(&run_id)?.map(|process| process.kill()).transpose()?;
        }
        site.client().kill(id, Some(60_000))?;
        let job = site.client().wait(id)?;
        assert_eq!((job.status.0, job.exit_code), (Status::Killed, Some(3)), "{job:#?}");
    }
    Ok(())
}

#[test]
fn a_job_of_another_user_can_be_ended() {
    on_users_site("root", "nobody\n", can_be_ended);
}

#[test]
fn with_a_setuid_job_processor_an_agent_that_is_nobody_special_runs_jobs_as_others() {
    on_users_site("setuid", "nobody\n", |site| {
        looks_as_it_should(site, AGENT_USER)?;
        can_be_ended(site)?;
        // A limit beyond the agent's own, a niceness below it, and its own jobs.
        let favoured = JobSubmit { nice: Some(-5), ..of("nobody", shell("nice")) };
        let id = ended(site, &favoured)?.id;
        assert_eq!(site.client().stdout(id)?, "-5\n");
        let own = ended(site, &shell("id -un; echo $HOME; grep CapEff /proc/self/status; echo out"))?;
        let text = site.client().stdout(own.id)?;
        assert!(
            text.starts_with(&format!("{AGENT_USER}\n/")) && text.contains("\t0000000000000000\n"),
            "{text}"
        );
        is_refused(site, &of("daemon", shell("true")), "no line allows it")
    });
}

#[test]
fn a_setuid_job_processor_believes_its_own_list_only() {
    on_users_site("setuid", "nobody\n", |site| {
        write_list(&list_of(site), "nobody\ndaemon\n")?; // the agent's own, which lets more pass
        is_refused(site, &of("daemon", shell("true")), "libexec/users.allow no line allows it")?;
        assert_eq!(ended(site, &of("nobody", shell("true")))?.status.0, Status::Completed);
        Ok(())
    });
}

#[test]
fn a_setuid_job_processor_does_nothing_for_a_directory_that_is_not_its_callers() {
    on_users_site("setuid", "nobody\n", |site| {
        let stranger = os::account::by_name("nobody")?.context("no such user here")?;
        let own = os::account::by_name(AGENT_USER)?.context("no such user here")?;
        let job_processor = site.path().join("libexec/job-processor");
        let run = |uid: u32, gid: u32, arguments: &[&str]| {
            use std::os::unix::process::CommandExt;
            std::process::Command::new(&job_processor).args(arguments).uid(uid).gid(gid).output()
        };
        // Not of the agent's group: it cannot even be executed.
        assert!(run(stranger.uid, stranger.gid, &["x"]).is_err());
        // Of the group, but not the owner of the data root: it cannot read the log, and is given nothing.
        let id = site.client().submit(&of("nobody", shell("sleep 1000")))?;
        let run_id = site.client().wait_running(id)?.runs[0].run_id.clone();
        let dir = site.agents[0].root().path().join("runs").join(&run_id).display().to_string();
        let line = format!("nobody:{}:{}::/:/bin/sh", stranger.uid, stranger.gid);
        assert!(!run(stranger.uid, own.gid, &["--user", &line, &dir])?.status.success());
        assert!(!run(stranger.uid, own.gid, &["--empty", "--user", &line, &dir])?.status.success());
        // The agent itself cannot signal those who are not on the list: this test's own process is root's.
        let pid = std::process::id();
        let ticks = os::procfs::stat(pid)?.context("this process")?.start_ticks;
        let target = format!("{pid}:{ticks}");
        for line in ["root:0:0::/:/bin/sh", line.as_str()] {
            let output = run(own.uid, own.gid, &["--signal", "9", "--user", line, &target])?;
            assert!(!output.status.success(), "{output:?}");
        }
        site.client().kill(id, Some(0))?;
        assert_eq!(site.client().wait(id)?.status.0, Status::Killed);
        Ok(())
    });
}

#[test]
fn what_a_job_of_another_user_left_in_its_directory_can_be_removed() {
    on_users_site("setuid", "nobody\n", |site| {
        let job =
            ended(site, &of("nobody", shell("mkdir -m 700 closed; touch closed/file file; ln -s / link")))?;
        let run_id: job::RunId = job.runs[0].run_id.parse()?;
        let dir = site.agents[0].root().run(spool::Shelf::Settled, run_id);
        tests::wait_until("the run to be settled", || Ok(dir.work().exists()))?;
        let (agent, user) = (os::account::by_name(AGENT_USER)?, os::account::by_name("nobody")?);
        let (agent, user) = (agent.context("no such user")?, user.context("no such user")?);
        let line = format!("nobody:{}:{}::/:/bin/sh", user.uid, user.gid);
        let mut command = std::process::Command::new(site.path().join("libexec/job-processor"));
        command.args(["--empty", "--user", &line]).arg(dir.path());
        let output = {
            use std::os::unix::process::CommandExt;
            command.uid(agent.uid).gid(agent.gid).output()?
        };
        assert!(output.status.success(), "{output:?}");
        assert_eq!(std::fs::read_dir(dir.work())?.count(), 0);
        Ok(())
    });
}
