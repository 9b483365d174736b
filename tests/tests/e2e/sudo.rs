//! Jobs of other users through sudo: the agent is nobody special, and sudoers lets it start job-processor as root. Needs root and sudo, and is skipped
//! without root.

use crate::control::{BUSY, stands_still, stands_still_and_goes_on, wait_status};
use crate::outcomes::{shell, wait_for_line};
use crate::users::{
    AGENT_USER, add_users_agent, can_be_ended, ended, install, is_refused, list_of, looks_as_it_should, mode,
    of, run_as_nobody_special, write_list,
};
use anyhow::{Context, Result};
use api::{Job, JobSubmit, Span, Status};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tests::{End, Process, Site, Sudoers, is_root, on_empty_site, wait_until};

/// The whole rule: what the documentation asks for.
const ALLOWED: &str = "games ALL=(root) NOPASSWD: PROGRAM";

/// A site whose agent goes through sudo, with those lines in sudoers; `PROGRAM` in them is its job-processor.
fn on_sudo_site(lines: &str, list: &str, test: impl FnOnce(&mut Site, &Sudoers) -> Result<()>) {
    on_sudo_site_with(lines, list, |_| Ok(Vec::new()), test);
}

fn on_sudo_site_with(
    lines: &str,
    list: &str,
    environment: impl FnOnce(&Site) -> Result<Vec<(&'static str, String)>>,
    test: impl FnOnce(&mut Site, &Sudoers) -> Result<()>,
) {
    if !is_root() {
        return eprintln!("skipped: only root can write sudoers");
    }
    on_empty_site(|site| {
        let sudoers = Sudoers::new(&rule(site, lines))?;
        let environment = environment(site)?;
        add_users_agent(site, "sudo", list, &environment, |site, agent| {
            run_as_nobody_special(agent, &install(site, 0, 0o755)?)
        })?;
        test(site, &sudoers)
    });
}

fn rule(site: &Site, lines: &str) -> String {
    lines.replace("PROGRAM", &program(site).display().to_string())
}

fn program(site: &Site) -> PathBuf {
    site.path().join("libexec/job-processor")
}

/// Runs a program as the agent's user does.
fn as_agent(command: &mut Command) -> Result<Output> {
    let own = os::account::by_name(AGENT_USER)?.context("no such user here")?;
    Ok(command.uid(own.uid).gid(own.gid).stdin(std::process::Stdio::null()).output()?)
}

fn job_processor_of(site: &Site, job: &Job) -> Result<Process> {
    site.agents[0].job_processor(&job.runs[0].run_id)?.context("it has no job-processor")
}

/// A job that exits with 7 when there is a file `go`.
fn waits_for(go: &Path) -> JobSubmit {
    of("nobody", shell(&format!("echo ready; while [ ! -e {} ]; do sleep 0.02; done; exit 7", go.display())))
}

#[test]
fn through_sudo_an_agent_that_is_nobody_special_runs_jobs_as_others() {
    on_sudo_site(ALLOWED, "nobody\n", |site, _| {
        looks_as_it_should(site, AGENT_USER)?;
        for code in [0, 1, 3, 64, 127, 255] {
            let job = ended(site, &of("nobody", shell(&format!("exit {code}"))))?;
            assert!(End::Code(code).fits(&job), "exit {code}: {job:#?}");
            assert_eq!(job.runs[0].witness.as_deref(), Some("job-processor"));
        }
        let job = ended(site, &of("nobody", shell("kill -9 $$")))?;
        assert!(End::Signal(9).fits(&job), "{job:#?}");
        let favoured = JobSubmit { nice: Some(-5), ..of("nobody", shell("nice")) };
        let id = ended(site, &favoured)?.id;
        assert_eq!(site.client().stdout(id)?, "-5\n");
        let own = ended(site, &shell("id -un; id -Gn; grep CapEff /proc/self/status; env; echo out"))?;
        let text = site.client().stdout(own.id)?;
        assert!(text.starts_with(&format!("{AGENT_USER}\n{AGENT_USER}\n")), "{text}");
        assert!(text.contains("\t0000000000000000\n") && !text.contains("SUDO_"), "{text}");
        assert!(!text.contains("a secret"), "{text}");
        Ok(())
    });
}

#[test]
fn without_a_terminal_of_its_own_sudo_starts_the_same() {
    let lines = format!("Defaults!PROGRAM !use_pty, !pam_session\n{ALLOWED}");
    on_sudo_site(&lines, "nobody\n", |site, _| {
        looks_as_it_should(site, AGENT_USER)?;
        can_be_ended(site)
    });
}

#[test]
fn sudo_is_gone_while_a_job_runs_and_the_job_processor_is_the_network_processors_child() {
    on_sudo_site(ALLOWED, "nobody\n", |site, _| {
        let id = site.client().submit(&waits_for(&site.go()))?;
        wait_for_line(site, id, "ready")?;
        let job_processor = job_processor_of(site, &site.client().job(id)?)?;
        wait_until("sudo to be gone", || Ok(children(site)? == [job_processor.pid]))?;
        site.open_gate()?;
        assert!(End::Code(7).fits(&site.client().wait(id)?));
        wait_until("it to be reaped", || Ok(children(site)?.is_empty()))
    });
}

/// The children of the network-processor, zombies too.
fn children(site: &Site) -> Result<Vec<u32>> {
    let network_processor = site.agents[0].network_processor()?.context("it runs")?;
    Ok(os::procfs::children(network_processor.pid))
}

#[test]
fn who_is_not_on_the_list_is_refused_by_both_lists() {
    on_sudo_site(ALLOWED, "nobody\n!daemon\n", |site, _| {
        is_refused(site, &of("daemon", shell("true")), "users.allow line 2 (\"!daemon\") denies it")?;
        is_refused(site, &of("root", shell("true")), "\"root\" (user id 0): in ")?;
        write_list(&list_of(site), "nobody\ndaemon\n")?; // the agent's own, which lets more pass
        is_refused(site, &of("daemon", shell("true")), "libexec/users.allow line 2 (\"!daemon\") denies it")?;
        assert_eq!(ended(site, &of("nobody", shell("true")))?.status.0, Status::Completed);
        Ok(())
    });
}

#[test]
fn a_sudo_that_refuses_is_told_in_its_own_words_and_with_what_to_do() {
    on_sudo_site("", "nobody\n", |site, sudoers| {
        let job = of("nobody", shell("true"));
        let line = format!("{AGENT_USER} ALL=(root) NOPASSWD: {}", program(site).display());
        for (lines, words) in [
            ("", "sudo: a password is required"),
            ("games ALL=(root) PROGRAM", "sudo: a password is required"),
            ("games ALL=(root) NOPASSWD: !PROGRAM", "Sorry, user games is not allowed to execute"),
            (
                "Defaults!PROGRAM requiretty\ngames ALL=(root) NOPASSWD: PROGRAM",
                "sudo: sorry, you must have a tty to run sudo",
            ),
            ("games ALL=(nobody) NOPASSWD: PROGRAM", "sudo: "),
            (
                "Defaults!PROGRAM intercept\ngames ALL=(root) NOPASSWD: PROGRAM",
                "sudo follows what job-processor executes",
            ),
        ] {
            sudoers.write(&rule(site, lines))?;
            is_refused(site, &job, words)?;
            is_refused(site, &job, &line)?;
        }
        sudoers.write(&rule(site, ALLOWED))?;
        assert_eq!(ended(site, &job)?.status.0, Status::Completed, "nothing was restarted");
        Ok(())
    });
}

#[test]
fn a_host_without_sudo_is_an_agent_that_says_so() {
    let nowhere = |site: &Site| Ok(vec![("PATH", site.path().join("nowhere").display().to_string())]);
    on_sudo_site_with(ALLOWED, "nobody\n", nowhere, |site, _| {
        is_refused(site, &of("nobody", shell("true")), "sudo cannot be executed: No such file or directory")
    });
}

#[test]
fn a_job_through_sudo_can_be_ended_by_its_job_processor_and_without() {
    on_sudo_site(ALLOWED, "nobody\n", |site, _| {
        can_be_ended(site)?;
        let timeout = Some(Span { ms: 300 });
        let job = ended(site, &JobSubmit { timeout, ..of("nobody", shell("exec sleep 1000")) })?;
        assert_eq!((job.status.0, job.timed_out, job.signal), (Status::Killed, true, Some(15)), "{job:#?}");
        Ok(())
    });
}

#[test]
fn a_job_through_sudo_can_be_suspended_by_its_job_processor_and_without() {
    on_sudo_site(ALLOWED, "nobody\n", |site, _| {
        let busy = of("nobody", shell(BUSY));
        stands_still_and_goes_on(site, &busy)?;
        let id = site.client().submit(&busy)?;
        wait_for_line(site, id, "child")?;
        job_processor_of(site, &site.client().job(id)?)?.kill()?;
        wait_until("the adoption", || Ok(site.agents[0].trace().contains("adopted")))?;
        site.client().change(id, "suspend")?;
        wait_status(site, id, Status::Suspended)?;
        stands_still(site, id)?;
        site.client().change(id, "resume")?;
        wait_status(site, id, Status::Running)?;
        site.client().kill(id, Some(60_000))?;
        let job = site.client().wait(id)?;
        assert_eq!((job.status.0, job.signal), (Status::Killed, Some(15)), "{job:#?}");
        Ok(())
    });
}

#[test]
fn when_its_job_processor_is_killed_the_network_processor_tells_the_exit_code() {
    on_sudo_site(ALLOWED, "nobody\n", |site, _| {
        let id = site.client().submit(&waits_for(&site.go()))?;
        wait_for_line(site, id, "ready")?;
        job_processor_of(site, &site.client().job(id)?)?.kill()?;
        wait_until("the adoption", || Ok(site.agents[0].trace().contains("adopted")))?;
        site.open_gate()?;
        let job = site.client().wait(id)?;
        assert!(End::Code(7).fits(&job), "{job:#?}");
        assert_eq!(job.runs[0].witness.as_deref(), Some("pidfd"));
        wait_until("all to be reaped", || Ok(children(site)?.is_empty()))
    });
}

#[test]
fn when_both_processors_are_killed_the_monitor_tells_the_exit_code() {
    on_sudo_site(ALLOWED, "nobody\n", |site, _| {
        let id = site.client().submit(&waits_for(&site.go()))?;
        wait_for_line(site, id, "ready")?;
        let job_processor = job_processor_of(site, &site.client().job(id)?)?;
        site.agents[0].kill_network_processor()?;
        job_processor.kill()?;
        wait_until("the monitor to reap it", || Ok(job_processor.state().is_none()))?;
        site.open_gate()?;
        let job = site.client().wait(id)?;
        assert!(End::Code(7).fits(&job), "{job:#?}");
        assert_eq!(job.runs[0].witness.as_deref(), Some("monitor"));
        Ok(())
    });
}

#[test]
fn a_network_processor_that_was_killed_finds_the_job_processor_again() {
    on_sudo_site(ALLOWED, "nobody\n", |site, _| {
        let id = site.client().submit(&waits_for(&site.go()))?;
        wait_for_line(site, id, "ready")?;
        let before = job_processor_of(site, &site.client().job(id)?)?;
        let killed = site.agents[0].kill_network_processor()?;
        wait_until("another network-processor", || {
            Ok(site.agents[0].network_processor()?.is_some_and(|found| found != killed))
        })?;
        site.wait_connected("host1")?;
        assert_eq!(job_processor_of(site, &site.client().job(id)?)?, before);
        site.open_gate()?;
        let job = site.client().wait(id)?;
        assert!(End::Code(7).fits(&job), "{job:#?}");
        assert_eq!(job.runs[0].witness.as_deref(), Some("job-processor"));
        assert!(!site.agents[0].trace().contains("adopted"));
        Ok(())
    });
}

/// A program `sudo` in the place of the real one: it waits for a file `let-sudo-go` before it becomes that, and says in `sudo.asked` and
/// `sudo.over` how often it was asked and had an answer.
fn slow_sudo(site: &Site) -> Result<Vec<(&'static str, String)>> {
    let bin = site.path().join("bin");
    std::fs::create_dir(&bin)?;
    let text = "#!/bin/sh\nH=HERE\necho asked >> $H/sudo.asked\nwhile [ ! -e $H/let-sudo-go ]; do sleep 0.02; done\n\
                /usr/bin/sudo \"$@\"; code=$?\necho $code >> $H/sudo.over\nexit $code\n";
    std::fs::write(bin.join("sudo"), text.replace("HERE", &bin.display().to_string()))?;
    mode(&bin.join("sudo"), 0o755)?;
    mode(&bin, 0o777)?;
    Ok(vec![("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display()))])
}

fn lines_of(site: &Site, name: &str) -> usize {
    let text = std::fs::read_to_string(site.path().join("bin").join(name)).unwrap_or_default();
    text.lines().count()
}

/// A job of `nobody` that leaves a line wherever it is executed.
fn leaves_a_line(site: &Site) -> JobSubmit {
    of("nobody", shell(&format!("echo executed >> {}/executed; exit 7", site.path().join("bin").display())))
}

#[test]
fn a_sudo_that_hangs_has_its_time_and_what_it_starts_later_executes_nothing() {
    on_sudo_site_with(ALLOWED, "nobody\n", slow_sudo, |site, _| {
        let id = site.client().submit(&leaves_a_line(site))?;
        wait_until("the second sudo, after the first one's time", || Ok(lines_of(site, "sudo.asked") == 2))?;
        let first = site.client().job(id)?.runs[0].clone();
        let said =
            first.reason.as_ref().is_some_and(|reason| reason.contains("sudo hangs: it did not answer"));
        assert!(said && first.started_at.is_none(), "{first:#?}");
        std::fs::write(site.path().join("bin/let-sudo-go"), "")?;
        let job = site.client().wait(id)?;
        assert!(End::Code(7).fits(&job) && job.runs.len() == 2, "{job:#?}");
        wait_until("the late sudo to end", || Ok(lines_of(site, "sudo.over") == 2))?;
        wait_until("all job-processors to be gone", || Ok(site.agents[0].job_processors()?.is_empty()))?;
        assert_eq!((lines_of(site, "sudo.asked"), lines_of(site, "executed")), (2, 1));
        wait_until("all to be reaped", || Ok(children(site)?.is_empty()))
    });
}

#[test]
fn of_two_job_processors_that_two_network_processors_asked_for_one_executes_the_job() {
    on_sudo_site_with(ALLOWED, "nobody\n", slow_sudo, |site, _| {
        let id = site.client().submit(&leaves_a_line(site))?;
        wait_until("the first sudo", || Ok(lines_of(site, "sudo.asked") == 1))?;
        site.agents[0].kill_network_processor()?;
        wait_until("the second sudo", || Ok(lines_of(site, "sudo.asked") == 2))?;
        std::fs::write(site.path().join("bin/let-sudo-go"), "")?;
        let job = site.client().wait(id)?;
        assert!(End::Code(7).fits(&job), "{job:#?}");
        wait_until("both to end", || Ok(lines_of(site, "sudo.over") == 2))?;
        wait_until("all job-processors to be gone", || Ok(site.agents[0].job_processors()?.is_empty()))?;
        assert_eq!((lines_of(site, "executed"), job.runs.len()), (1, 1));
        wait_until("all to be reaped", || Ok(children(site)?.is_empty()))
    });
}

#[test]
fn a_run_that_is_killed_while_sudo_thinks_is_never_started() {
    on_sudo_site_with(ALLOWED, "nobody\n", slow_sudo, |site, sudoers| {
        let id = site.client().submit(&leaves_a_line(site))?;
        wait_until("sudo to be asked", || Ok(lines_of(site, "sudo.asked") == 1))?;
        site.client().kill(id, Some(60_000))?;
        // The agent gets its orders one after the other.
        site.client().submit(&of("nobody", shell("true")))?;
        wait_until("sudo to be asked again", || Ok(lines_of(site, "sudo.asked") == 2))?;
        sudoers.write("")?; // so that nothing but a refusal can come
        std::fs::write(site.path().join("bin/let-sudo-go"), "")?;
        let job = site.client().wait(id)?;
        assert_eq!((job.status.0, job.started_at, job.runs.len()), (Status::Canceled, None, 1), "{job:#?}");
        assert_eq!(lines_of(site, "executed"), 0);
        assert!(job.reason.is_some_and(|reason| reason.contains("before it started")));
        Ok(())
    });
}

#[test]
fn whoever_may_start_it_through_sudo_gains_nothing_but_what_the_list_says() {
    on_sudo_site(ALLOWED, "nobody\n", |site, _| {
        let program = program(site).display().to_string();
        let id = site.client().submit(&of("nobody", shell("sleep 1000")))?;
        let run = site.client().wait_running(id)?.runs[0].run_id.clone();
        let dir = site.agents[0].root().path().join("runs").join(run).display().to_string();
        let sudo = |arguments: &[&str]| as_agent(Command::new("sudo").args(["-n", &program]).args(arguments));
        let says = |output: Output, words: &str| {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            anyhow::ensure!(!output.status.success() && said.contains(words), "{words}: {output:?}");
            Ok(())
        };
        // Without the argument it would be root's own.
        for arguments in [&["--user", "root:0:0::/:/bin/sh", &dir][..], &["--nursery", &dir], &[&dir]] {
            says(sudo(arguments)?, "without --sudo")?;
        }
        says(sudo(&["--sudo", "--nursery", &dir])?, "usage:")?;
        // Variables that nobody but sudo set.
        let mut forged = Command::new(&program);
        forged.args(["--sudo", &dir]).env("SUDO_UID", "0").env("SUDO_GID", "0");
        says(as_agent(&mut forged)?, "only what sudo started as root")?;
        let mut forged = Command::new("sudo");
        says(as_agent(forged.args(["-n", "SUDO_UID=1", &program, "--sudo", &dir]))?, "sudo: ")?;
        // Users that the list does not have, and processes of theirs: this test's own is root's.
        let pid = std::process::id();
        let target = format!("{pid}:{}", os::procfs::stat(pid)?.context("this process")?.start_ticks);
        let root = ["--sudo", "--signal", "9", "--user", "root:0:0::/:/bin/sh", &target];
        says(sudo(&root)?, "root is never allowed")?;
        let nobody = os::account::by_name("nobody")?.context("no such user")?;
        let line = format!("nobody:{}:{}::/:/bin/sh", nobody.uid, nobody.gid);
        says(sudo(&["--sudo", "--signal", "9", "--user", &line, &target])?, "0 of 1 processes")?;
        // Directories that are not the caller's own.
        says(
            sudo(&["--sudo", "--empty", "--user", &line, "/etc/01890000-0000-7000-8000-000000000000"])?,
            "/",
        )?;
        site.client().kill(id, Some(0))?;
        assert_eq!(site.client().wait(id)?.status.0, Status::Killed);
        Ok(())
    });
}

#[test]
fn what_a_job_of_another_user_left_in_its_directory_can_be_removed_through_sudo() {
    on_sudo_site(ALLOWED, "nobody\n", |site, _| {
        let job =
            ended(site, &of("nobody", shell("mkdir -m 700 closed; touch closed/file file; ln -s / link")))?;
        let run_id: job::RunId = job.runs[0].run_id.parse()?;
        let dir = site.agents[0].root().run(spool::Shelf::Settled, run_id);
        wait_until("the run to be settled", || Ok(dir.work().exists()))?;
        let user = os::account::by_name("nobody")?.context("no such user")?;
        let line = format!("nobody:{}:{}::/:/bin/sh", user.uid, user.gid);
        let mut command = Command::new("sudo");
        command.arg("-n").arg(program(site)).args(["--sudo", "--empty", "--user", &line]).arg(dir.path());
        let output = as_agent(&mut command)?;
        assert!(output.status.success(), "{output:?}");
        assert_eq!(std::fs::read_dir(dir.work())?.count(), 0);
        Ok(())
    });
}

#[test]
fn the_check_says_whether_sudo_starts_job_processor_and_what_to_mend() {
    on_sudo_site(ALLOWED, "nobody\n", |site, sudoers| {
        let list = site.path().join("libexec/users.allow").display().to_string();
        let config = site.path().join("host1.toml");
        let check = || {
            let mut command = Command::new(tests::program("platform-agent")?);
            command.arg("--config").arg(&config).arg("--check");
            command.env("LASTWORD_USERS__SWITCH", "sudo").env("LASTWORD_USERS__ALLOW_FILE", &list);
            let output = as_agent(&mut command)?;
            anyhow::Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
        };
        let (code, said) = check()?;
        assert!(
            code == Some(0) && said.contains("note   users: sudo starts job-processor as root"),
            "{said}"
        );
        for (lines, words) in [
            ("games ALL=(root) PROGRAM", "sudo: a password is required"),
            ("games ALL=(root) NOPASSWD: SETENV: PROGRAM", "take SETENV away"),
            ("Defaults!PROGRAM !env_reset\ngames ALL=(root) NOPASSWD: PROGRAM", "set env_reset"),
        ] {
            sudoers.write(&rule(site, lines))?;
            let (code, said) = check()?;
            assert!(code == Some(78) && said.contains(words), "{words}: {said}");
        }
        sudoers.write(&rule(site, ALLOWED))?;
        mode(&program(site), 0o775)?;
        let (code, said) = check()?;
        assert!(
            code == Some(78) && said.contains("sudo would start as root what others can replace"),
            "{said}"
        );
        Ok(())
    });
}

#[test]
fn many_short_jobs_through_sudo_end_as_they_did_and_at_once() {
    on_sudo_site(ALLOWED, "nobody\n", |site, _| {
        let jobs: Vec<JobSubmit> = (0..40).map(|n| of("nobody", shell(&format!("exit {n}")))).collect();
        let ids = site.client().submit_batch(&jobs)?;
        for (id, code) in ids.into_iter().zip(0u8..) {
            let job = site.client().wait(id)?;
            assert!(End::Code(code).fits(&job) && job.runs.len() == 1, "exit {code}: {job:#?}");
        }
        wait_until("no run to be left", || Ok(site.agents[0].count(spool::Shelf::Live) == 0))?;
        wait_until("all to be reaped", || Ok(children(site)?.is_empty()))
    });
}
