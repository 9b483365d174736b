use super::*;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Sample {
    name: String,
    #[serde(default)]
    data_root: PathBuf,
    #[serde(default)]
    connect: Vec<String>,
    #[serde(default)]
    restart_delay: Option<Duration>,
    #[serde(default)]
    http: Http,
    #[serde(default)]
    users: Option<Users>,
    #[serde(default)]
    peers: Vec<Peer>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct Http {
    listen: String,
    workers: u16,
}

impl Default for Http {
    fn default() -> Self {
        Http { listen: "127.0.0.1:7410".to_owned(), workers: 2 }
    }
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Users {
    switch: String,
    allow: Vec<String>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Peer {
    address: String,
}

fn with(text: &str, variables: &[(&str, &str)]) -> Result<Sample, String> {
    let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    parse(Path::new("a.toml"), text, "LASTWORD", variables).map_err(|e: ConfigError| e.to_string())
}

fn error_of(text: &str, variables: &[(&str, &str)]) -> String {
    with(text, variables).expect_err("accepted")
}

#[test]
fn a_file_is_read_and_what_it_leaves_out_has_its_default() {
    let sample = with("name = \"a\"\nrestart_delay = \"1h30m\"\n[http]\nworkers = 4\n", &[]).unwrap();
    assert_eq!(sample.restart_delay, Some(Duration::from_ms(5_400_000)));
    assert_eq!(sample.http, Http { workers: 4, ..Http::default() });
}

#[test]
fn a_variable_wins_over_the_file_and_needs_no_file_entry() {
    let text = "name = \"a\"\n[http]\nlisten = \"x\"";
    let variables = [
        ("LASTWORD_HTTP__LISTEN", "127.0.0.1:0"),
        ("LASTWORD_HTTP__WORKERS", "7"),
        ("LASTWORD_NAME", "123"),
        ("LASTWORD_DATA_ROOT", "/srv/x"),
        ("LASTWORD_CONNECT", "[\"a:1\", \"b:2\"]"),
        ("LASTWORD_USERS__SWITCH", "\"sudo\""),
        ("LASTWORD_USERS__ALLOW", "[]"),
        ("LASTWORD_LABELS__ROOM", "cellar"),
        ("LASTWORD_RESTART_DELAY", "2s"),
    ];
    let sample = with(text, &variables).unwrap();
    assert_eq!(sample.http, Http { listen: "127.0.0.1:0".to_owned(), workers: 7 });
    assert_eq!((sample.name.as_str(), sample.data_root.as_path()), ("123", Path::new("/srv/x")));
    assert_eq!(sample.connect, ["a:1", "b:2"]);
    assert_eq!(sample.users, Some(Users { switch: "sudo".to_owned(), allow: Vec::new() }));
    assert_eq!(sample.labels.get("room").map(String::as_str), Some("cellar"));
    assert_eq!(sample.restart_delay, Some(Duration::from_ms(2000)));
}

#[test]
fn variables_of_others_are_left_alone() {
    let variables =
        [("LASTWORD_URL", "x"), ("LASTWORD_TOKEN_FILE", "y"), ("LASTWORD_JOB_ID", "1"), ("LASTWORDS", "z")];
    assert!(with("name = \"a\"", &variables).is_ok());
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_the_nearest_known_one() {
    assert_eq!(
        error_of("name = \"a\"\nconect = []\n", &[]),
        "a.toml:2:1: unknown key \"conect\"; did you mean \"connect\"?"
    );
    assert_eq!(
        error_of("name = \"a\"\n[http]\n  lisen = \"x\"\n", &[]),
        "a.toml:3:3: unknown key \"lisen\" in [http]; did you mean \"listen\"?"
    );
    assert_eq!(
        error_of("name = \"a\"\nhttp.tls_certificate = \"x\"\n", &[]),
        "a.toml:2:6: unknown key \"tls_certificate\" in [http]; known here: listen, workers"
    );
}

#[test]
fn an_unknown_key_inside_a_list_of_tables_is_named_too() {
    let error = error_of("name = \"a\"\n[[peers]]\nadress = \"x\"\n", &[]);
    assert!(error.starts_with("a.toml:3:1: unknown"), "{error}");
    assert!(error.contains("address"), "{error}");
}

#[test]
fn a_variable_with_an_unknown_key_in_a_known_table_is_an_error() {
    assert_eq!(
        error_of("name = \"a\"", &[("LASTWORD_HTTP__LISTN", "x")]),
        "environment variable LASTWORD_HTTP__LISTN: unknown key \"listn\" in [http]; did you mean \"listen\"?"
    );
    assert_eq!(
        error_of("name = \"a\"", &[("LASTWORD_NAME__FIRST", "x")]),
        "environment variable LASTWORD_NAME__FIRST: \"name\" is a text and has no keys of its own"
    );
    assert_eq!(
        error_of("name = \"a\"", &[("LASTWORD_USERS", "{ swich = \"no\" }")]),
        "environment variable LASTWORD_USERS: unknown key \"swich\" in [users]; did you mean \"switch\"?"
    );
}

#[test]
fn a_value_of_the_wrong_kind_is_named_with_its_place() {
    assert_eq!(
        error_of("name = \"a\"\n[http]\nworkers = \"many\"\n", &[]),
        "a.toml:3:11: invalid type: string \"many\", expected u16"
    );
    assert_eq!(
        error_of("name = \"a\"", &[("LASTWORD_HTTP__WORKERS", "many")]),
        "environment variable LASTWORD_HTTP__WORKERS: invalid type: string \"many\", expected u16"
    );
    let error = error_of("name = \"a\"\nrestart_delay = 10\n", &[]);
    assert_eq!(
        error,
        "a.toml:2:17: invalid type: integer `10`, expected a duration in quotes like \"10s\", \"500ms\" or \"1h30m\""
    );
    let error = error_of("name = \"a\"", &[("LASTWORD_RESTART_DELAY", "10")]);
    assert!(
        error.starts_with("environment variable LASTWORD_RESTART_DELAY: the span of time \"10\" has"),
        "{error}"
    );
}

#[test]
fn a_missing_key_is_named_whole_with_its_variable() {
    assert_eq!(
        error_of("", &[]),
        "a.toml: the key \"name\" is missing; set it there or in the environment as LASTWORD_NAME"
    );
    assert_eq!(
        error_of("name = \"a\"\n[users]\nswitch = \"none\"\n", &[]),
        "a.toml: the key \"users.allow\" is missing; set it there or in the environment as LASTWORD_USERS__ALLOW"
    );
    let error = error_of("name = \"a\"", &[("LASTWORD_USERS__SWITCH", "none")]);
    assert!(error.contains("\"users.allow\" is missing"), "{error}");
}

#[test]
fn a_missing_table_is_named_as_one() {
    #[derive(Debug, Deserialize)]
    struct Whole {
        #[serde(rename = "users")]
        _users: Users,
    }
    let error =
        parse::<Whole>(Path::new("a.toml"), "", "LASTWORD", std::iter::empty()).expect_err("accepted");
    assert_eq!(
        error.to_string(),
        "a.toml: the table [users] is missing; set it there or in the environment as LASTWORD_USERS__SWITCH (and its other keys)"
    );
}

#[test]
fn what_is_no_toml_is_named_with_its_place() {
    let error = error_of("name = \"a\"\ndata_root = \n", &[]);
    assert!(error.starts_with("a.toml:2:1"), "{error}");
    let error = error_of("name = \"a\"\nname = \"b\"\n", &[]);
    assert!(error.starts_with("a.toml:2:1: duplicate key"), "{error}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = load::<Sample>(Path::new("/nonexistent/a.toml"), "LASTWORD").expect_err("read").to_string();
    assert!(
        error.starts_with("cannot read the configuration file /nonexistent/a.toml: No such file"),
        "{error}"
    );
    let error = load::<Sample>(Path::new("/dev/zero"), "LASTWORD").expect_err("read").to_string();
    assert!(error.starts_with("/dev/zero: longer than 1048576 bytes"), "{error}");
}

#[test]
fn relative_paths_are_relative_to_the_data_root() {
    assert_eq!(resolve(Path::new("/d"), Path::new("server.db")), Path::new("/d/server.db"));
    assert_eq!(resolve(Path::new("/d"), Path::new("/e/server.db")), Path::new("/e/server.db"));
}
