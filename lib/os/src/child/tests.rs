//! The gate, the farewells, and what cannot be executed.

use super::*;
use crate::wait;
use std::fs::File;
use std::io::Read;
use std::path::Path;

fn program(path: &str, arguments: &[&str], directory: &Path, out: &Path) -> Program {
    let c = |s: &str| CString::new(s).unwrap();
    let file = |p: &str| OwnedFd::from(File::options().read(true).write(true).open(p).unwrap());
    Program {
        paths: vec![c(path)],
        arguments: [path].iter().chain(arguments).map(|s| c(s)).collect(),
        environment: vec![c("GREETING=hello")],
        directory: c(directory.to_str().unwrap()),
        attributes: Attributes::default(),
        stdio: [file("/dev/null"), File::create(out).unwrap().into(), file("/dev/null")],
        cgroup: None,
        farewell: None,
    }
}

fn end(pid: u32, pidfd: &Pidfd) -> i32 {
    rustix::event::poll(&mut [rustix::event::PollFd::new(pidfd, rustix::event::PollFlags::IN)], None)
        .unwrap();
    let seen = wait::peek(pidfd).unwrap().unwrap();
    assert_eq!(wait::reap(pid).unwrap().unwrap().wait_status, seen.wait_status);
    seen.wait_status
}

#[test]
fn nothing_is_executed_before_the_gate_opens() {
    let dir = tempfile::tempdir().unwrap();
    let (mark, out) = (dir.path().join("mark"), dir.path().join("out"));
    let touch = format!("echo $GREETING; : > {}; exit 7", mark.display());
    let (gated, _) = Gated::spawn(&program("/bin/sh", &["-c", &touch], dir.path(), &out)).unwrap();
    // Its own end of the socket shows that it waits: it sleeps in read, and the mark is not there.
    assert!(!mark.exists());
    let pid = gated.pid;
    let pidfd = gated.open().unwrap();
    assert_eq!(end(pid, &pidfd), 7 << 8);
    assert!(mark.exists());
    let mut text = String::new();
    File::open(out).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello\n");
}

#[test]
fn a_gate_that_closes_without_a_word_ends_the_child_unexecuted() {
    let dir = tempfile::tempdir().unwrap();
    let (mark, out) = (dir.path().join("mark"), dir.path().join("out"));
    let touch = format!(": > {}", mark.display());
    let (gated, _) = Gated::spawn(&program("/bin/sh", &["-c", &touch], dir.path(), &out)).unwrap();
    let (pid, pidfd) = (gated.pid, Pidfd::open(gated.pid).unwrap().unwrap());
    drop(gated);
    assert_eq!(end(pid, &pidfd), 125 << 8);
    assert!(!mark.exists());
}

/// The process that is announced in the note.
enum Announces {
    Nobody,
    TheChild,
    Another,
}

/// What stands in the note after a child with farewells went, with what stood there `before`.
fn farewell_of(
    path: &str,
    attributes: Attributes,
    announces: Announces,
    before: &[u8],
    open: bool,
) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    const AT: u64 = ANNOUNCEMENT_BYTES as u64;
    let dir = tempfile::tempdir().unwrap();
    let (out, note_path) = (dir.path().join("out"), dir.path().join("note"));
    let note = File::options().read(true).write(true).create_new(true).open(&note_path).unwrap();
    note.set_len(2 * AT).unwrap();
    let farewell = Farewell {
        file: note.as_raw_fd(),
        announced_at: 0,
        announced: Announced(Box::new(|block, pid| block[..4] == pid.to_le_bytes())),
        at: AT,
        unexecuted: b"unexecuted".to_vec(),
        failed: b"failed".to_vec(),
    };
    let program = Program { farewell: Some(farewell), attributes, ..program(path, &[], dir.path(), &out) };
    let (gated, _) = Gated::spawn(&program).unwrap();
    match announces {
        Announces::Nobody => {}
        Announces::TheChild => note.write_all_at(&gated.pid.to_le_bytes(), 0).unwrap(),
        Announces::Another => note.write_all_at(&(gated.pid + 1).to_le_bytes(), 0).unwrap(),
    }
    note.write_all_at(before, AT).unwrap();
    let (pid, watcher) = (gated.pid, Pidfd::open(gated.pid).unwrap().unwrap());
    if open {
        // The error holds the child until it is dropped: as if the parent died before it wrote anything down.
        assert!(!gated.open().unwrap_err().1.has_ended().unwrap());
    } else {
        drop(gated);
    }
    assert_eq!(end(pid, &watcher), 125 << 8);
    let text = std::fs::read(&note_path).unwrap()[ANNOUNCEMENT_BYTES..].to_vec();
    text.into_iter().take_while(|b| *b != 0).collect()
}

#[test]
fn a_child_whose_gate_closes_writes_that_it_never_executed_if_it_was_announced() {
    let of = |announces, before| farewell_of("/bin/true", Attributes::default(), announces, before, false);
    assert_eq!(of(Announces::TheChild, b""), b"unexecuted");
    assert_eq!(of(Announces::Nobody, b""), b"");
    assert_eq!(of(Announces::TheChild, b"ended"), b"ended");
}

#[test]
fn a_child_whose_gate_closes_says_nothing_of_a_later_child_that_was_announced() {
    assert_eq!(farewell_of("/bin/true", Attributes::default(), Announces::Another, b"", false), b"");
}

#[test]
fn a_child_that_cannot_execute_writes_so_if_its_parent_did_not() {
    let of =
        |before| farewell_of("/no/such/program", Attributes::default(), Announces::TheChild, before, true);
    assert_eq!(of(b""), b"failed");
    assert_eq!(of(b"ended"), b"ended");
}

#[test]
fn a_limit_of_the_size_of_files_does_not_keep_a_child_from_its_farewell() {
    let limits = vec![Limit::new("fsize", Some(0), Some(0)).unwrap()];
    let attributes = Attributes { limits, ..Attributes::default() };
    assert_eq!(farewell_of("/no/such/program", attributes, Announces::TheChild, b"", true), b"failed");
}

#[test]
fn a_process_that_executes_nothing_yet_is_told_from_one_that_does_even_when_it_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let spawn = || Gated::spawn(&program("/bin/sleep", &["600"], dir.path(), &out)).unwrap().0;
    let unexecuted = |pid| crate::procfs::stat(pid).unwrap().unwrap().unexecuted;
    let (executes, goes) = (spawn(), spawn());
    let (pid, gone) = (executes.pid, goes.pid);
    assert!(unexecuted(pid) && unexecuted(gone));
    let pidfd = executes.open().unwrap();
    assert!(!unexecuted(pid));
    let watcher = Pidfd::open(gone).unwrap().unwrap();
    drop(goes);
    rustix::event::poll(&mut [rustix::event::PollFd::new(&watcher, rustix::event::PollFlags::IN)], None)
        .unwrap();
    assert!(unexecuted(gone), "a zombie");
    end(gone, &watcher);
    pidfd.signal(crate::signal::Signal::KILL).unwrap();
    end(pid, &pidfd);
}

#[test]
fn what_cannot_be_executed_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let (gated, _) = Gated::spawn(&program("/no/such/program", &[], dir.path(), &out)).unwrap();
    let (error, _) = gated.open().unwrap_err();
    assert_eq!((error.stage, error.source.raw_os_error()), ("execute", Some(libc::ENOENT)));
    let (gated, _) = Gated::spawn(&program("/bin/true", &[], Path::new("/no/such/dir"), &out)).unwrap();
    let (error, _) = gated.open().unwrap_err();
    assert_eq!(
        (error.stage, error.source.raw_os_error()),
        ("change to the working directory", Some(libc::ENOENT))
    );
}

#[test]
fn a_file_without_an_interpreter_line_is_run_by_the_shell() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (script, out) = (dir.path().join("script"), dir.path().join("out"));
    std::fs::write(&script, "exit $1\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    let (gated, _) = Gated::spawn(&program(script.to_str().unwrap(), &["9"], dir.path(), &out)).unwrap();
    let pid = gated.pid;
    let pidfd = gated.open().unwrap();
    assert_eq!(end(pid, &pidfd), 9 << 8);
}

/// What a shell prints, given those attributes; or the stage that failed and its errno.
fn printed(text: &str, attributes: Attributes) -> Result<String, (&'static str, Option<i32>)> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let out = dir.path().join("out");
    let program = Program { attributes, ..program("/bin/sh", &["-c", text], dir.path(), &out) };
    let (gated, _) = Gated::spawn(&program).unwrap();
    let pid = gated.pid;
    let pidfd = gated.open().map_err(|(error, _)| (error.stage, error.source.raw_os_error()))?;
    assert_eq!(end(pid, &pidfd), 0);
    Ok(std::fs::read_to_string(&out).unwrap())
}

#[test]
fn mask_niceness_and_every_limit_are_those_that_were_asked_for() {
    let limits = [
        ("nofile", 64, "Max open files"),
        ("core", 0, "Max core file size"),
        ("as", 1 << 33, "Max address space"),
    ];
    let attributes = Attributes {
        umask: Some(0o27),
        nice: Some(19),
        limits: limits
            .iter()
            .map(|(name, soft, _)| Limit::new(name, Some(*soft), Some(soft + 1)).unwrap())
            .collect(),
        user: None,
    };
    let text = printed("umask; nice; cat /proc/self/limits", attributes).unwrap();
    let mut lines = text.lines();
    assert_eq!((lines.next(), lines.next()), (Some("0027"), Some("19")), "{text}");
    for (_, soft, title) in limits {
        let line = lines.clone().find(|line| line.starts_with(title)).unwrap();
        let numbers: Vec<&str> = line[title.len()..].split_ascii_whitespace().take(2).collect();
        assert_eq!(numbers, [soft.to_string(), (soft + 1).to_string()]);
    }
    assert!(LIMIT_NAMES.iter().all(|name| Limit::new(name, None, None).is_some()));
    assert_eq!(Limit::new("files", None, None), None);
}

const LIMIT_NAMES: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

#[test]
fn a_limit_that_this_host_cannot_set_is_named() {
    let beyond = Limit::new("nofile", None, None).unwrap(); // there is no unlimited number of open files on Linux
    let failed = printed("true", Attributes { limits: vec![beyond], ..Attributes::default() });
    assert_eq!(failed, Err(("set the limit \"nofile\"", Some(libc::EPERM))));
}

#[test]
fn a_child_that_becomes_a_user_has_his_ids_and_groups_and_no_capability() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: only root may become another user");
    }
    let user = Credentials { uid: 12_345, gid: 23_456, groups: vec![23_456, 34_567] };
    let attributes = Attributes { user: Some(user), nice: Some(-3), ..Attributes::default() };
    let text =
        printed("id -u; id -g; id -G; nice; grep -E '^Cap(Inh|Prm|Eff|Amb)' /proc/self/status", attributes)
            .unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..4], ["12345", "23456", "23456 34567", "-3"]);
    assert_eq!(lines[4..].len(), 4);
    assert!(lines[4..].iter().all(|line| line.ends_with("0000000000000000")), "{text}");
}

#[test]
fn a_directory_is_entered_as_the_user() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: only root may become another user");
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let out = dir.path().join("out");
    let user = Credentials { uid: 12_345, gid: 12_345, groups: Vec::new() };
    let attributes = Attributes { user: Some(user), ..Attributes::default() };
    let program = Program { attributes, ..program("/bin/true", &[], dir.path(), &out) };
    let (error, _) = Gated::spawn(&program).unwrap().0.open().unwrap_err();
    assert_eq!((error.stage, error.source.raw_os_error()), (STAGE_NAME_DIRECTORY, Some(libc::EACCES)));
}
