//! The program itself: what it leaves behind, and what it finds again, whatever ended it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(30);

/// A running server; killed when the test is over.
struct Server {
    child: Child,
    root: PathBuf,
}

impl Server {
    fn start(dir: &Path) -> Server {
        let root = dir.join("root");
        let _ = std::fs::remove_file(root.join("http.addr"));
        let child = command(&config(dir, "")).stderr(Stdio::null()).spawn().expect("the server starts");
        let server = Server { child, root };
        until(|| server.root.join("http.addr").exists());
        server
    }

    fn get(&self, path: &str) -> String {
        let address = std::fs::read_to_string(self.root.join("http.addr")).expect("http.addr is there");
        let mut stream = std::net::TcpStream::connect(address.trim()).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a time-out can be set");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        std::io::Write::write_all(&mut stream, request.as_bytes()).expect("it reads");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("it answers");
        line
    }

    fn terminate(mut self) -> ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it lives");
        self.child.wait().expect("it ends")
    }

    fn kill(mut self) {
        self.child.kill().expect("it lives");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn config(dir: &Path, more: &str) -> PathBuf {
    let path = dir.join("server.toml");
    let root = dir.join("root");
    let text = format!(
        "{more}\n[node]\nname = \"a\"\ndata_root = {root:?}\n[http]\nlisten = \"127.0.0.1:0\"\n[agents]\nlisten = \"127.0.0.1:0\"\n"
    );
    std::fs::write(&path, text).expect("the folder takes a file");
    path
}

fn command(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_central-server"));
    command.arg("--config").arg(config);
    command
}

fn run(mut command: Command) -> (Output, String) {
    let output = command.output().expect("the program runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, text)
}

fn until(holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < DEADLINE, "not in time");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn the_first_start_makes_a_token_and_says_where_it_listens() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    assert!(server.get("/readyz").contains("200"), "{}", server.get("/readyz"));
    assert!(server.get("/api/v1/jobs").contains("401"));
    let token = server.root.join("admin.token");
    assert_eq!(std::fs::metadata(&token).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&token).unwrap();
    assert!(text.starts_with("lw_") && text.ends_with('\n'));
    assert!(server.root.join("agents.addr").exists());
    assert!(server.terminate().success());
    let again = Server::start(dir.path());
    assert_eq!(std::fs::read_to_string(&token).unwrap(), text, "the token stays");
    assert!(again.terminate().success());
}

#[test]
fn a_server_that_was_killed_is_found_in_order() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        Server::start(dir.path()).kill();
    }
    let server = Server::start(dir.path());
    assert!(server.get("/readyz").contains("200"));
    let trace = std::fs::read_to_string(server.root.join("trace/central-server.log")).unwrap();
    assert!(trace.contains("epoch=4"), "{trace}");
}

#[test]
fn a_hang_up_says_what_needs_a_restart_and_ends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let pid = rustix::process::Pid::from_child(&server.child);
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("it lives");
    let trace = || std::fs::read_to_string(server.root.join("trace/central-server.log")).unwrap_or_default();
    until(|| trace().contains("SIGHUP"));
    assert!(trace().contains("[agents] allow") && trace().contains("open files"), "{}", trace());
    assert!(server.get("/readyz").contains("200"));
    assert!(server.terminate().success());
}

#[test]
fn two_servers_never_run_on_one_data_root() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let (output, text) = run(command(&config(dir.path(), "")));
    assert!(!output.status.success());
    assert!(
        text.contains("another central-server") && text.contains(&server.child.id().to_string()),
        "{text}"
    );
    assert!(server.get("/readyz").contains("200"), "the first is not disturbed");
}

#[test]
fn two_data_roots_never_share_one_database() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let other = tempfile::tempdir().unwrap();
    let mut second = command(&config(other.path(), ""));
    second.env("LASTWORD_DATABASE__URL", format!("sqlite:{}", server.root.join("server.db").display()));
    let (output, text) = run(second);
    assert!(!output.status.success() && text.contains("another central-server"), "{text}");
}

#[test]
fn a_wrong_configuration_is_named_and_checked_without_starting() {
    let dir = tempfile::tempdir().unwrap();
    let check = |more: &str| {
        let mut command = command(&config(dir.path(), more));
        command.arg("--check");
        run(command)
    };
    let (output, _) = check("");
    assert!(output.status.success() && !dir.path().join("root").exists());
    let (output, text) = check("[database]\nurl = \"postgres://me:secret@db/x\"");
    assert_eq!(output.status.code(), Some(78));
    assert!(text.contains("cannot use PostgreSQL yet") && !text.contains("secret"), "{text}");
    let (output, text) = check("[database]\nurk = \"sqlite:x\"");
    assert_eq!(output.status.code(), Some(78));
    assert!(text.contains("urk") && text.contains("url") && text.contains("server.toml"), "{text}");
}

#[test]
fn wrong_arguments_are_answered_with_the_usage() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_central-server"));
    command.arg("--konfig");
    let (output, text) = run(command);
    assert_eq!(output.status.code(), Some(64));
    assert!(text.contains("--konfig") && text.contains("usage:"), "{text}");
}

#[test]
fn a_token_that_was_put_there_before_the_first_start_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let token = format!("lw_mine_{}", "5".repeat(40));
    std::fs::write(root.join("admin.token"), format!("{token}\n")).unwrap();
    let server = Server::start(dir.path());
    let address = std::fs::read_to_string(server.root.join("http.addr")).unwrap();
    let mut stream = std::net::TcpStream::connect(address.trim()).unwrap();
    let request = format!(
        "GET /api/v1/jobs/counts HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_check_and_a_rehearsal_say_how_far_they_are_to_the_program_that_asks_for_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(dir.path());
    let root = server.root.clone();
    assert!(server.terminate().success());
    let offline = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_central-server"));
        command.args(arguments).arg("--data-root").arg(&root);
        let (output, said) = run(command);
        assert!(output.status.success(), "{said}");
        said
    };
    let said = offline(&["--check-database", "--progress"]);
    assert!(said.contains("steps records against each other"), "{said}");
    assert!(!offline(&["--check-database"]).contains("progress"));
    let database = root.join("server.db").display().to_string();
    let said = offline(&["--rehearse", &database, "--unverified", "--progress"]);
    let bytes = std::fs::metadata(&database).expect("it is there").len();
    assert!(said.contains(&format!("progress {bytes} {bytes} bytes copying")), "{said}");
}
