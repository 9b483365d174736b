//! The command line: what it is made of, and which room does what it asks.

use crate::client::Client;
use crate::context::Named;
use crate::output::{Colour, Format, Output};
use crate::{agent, audit, context, job, manual, queue, raw, secret, server, token, user, watch};
use clap::{Args, CommandFactory, Parser, Subcommand};
use std::path::PathBuf;

/// The heading of the options that every verb takes.
const GENERAL: &str = "General options";

const EXAMPLES: &str = "\
Examples:
  lastword job submit --wait -- /usr/bin/make -C /srv/app     run a program, exit as it does
  lastword job submit --script nightly.sh --timeout 1h        run a script, at most one hour
  lastword job list --status Running,Queued                   what is going on
  lastword job why 1042                                       why it does not run yet
  lastword job prove 1042                                     the evidence for what was said of it

Environment:
  LASTWORD_URL          the server, or several separated by commas (http://127.0.0.1:7410)
  LASTWORD_TOKEN_FILE   the file with the token, for example <data_root>/admin.token of the server
  LASTWORD_CONTEXT      both, under a name (lastword context add)

Exit codes:
  0 done; with --wait and --follow the job's (killed: 128+signal, timed out: 124, never executed:
  255, outcome unknown: 70); 1 server check found contradictions; 64 wrong usage; 65 refused;
  66 no such job, agent, queue or file; 69 no server answers; 70 internal error; 73 a file cannot
  be made; 74 reading or writing failed; 75 try again later; 76 no Lastword server answers there;
  77 the token was refused; 78 a setting cannot be used; 130 detached by Ctrl-C.";

/// Runs jobs on agents and tells how each of them ended.
#[derive(Debug, Parser)]
#[command(name = "lastword", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Options {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Args)]
struct Globals {
    /// The server; several separated by commas are tried in order. http://127.0.0.1:7410 if nothing is said.
    #[arg(long, env = "LASTWORD_URL", hide_env_values = true, global = true, value_name = "URL", help_heading = GENERAL)]
    url: Option<String>,
    /// The server and the token of this context (see `lastword context`).
    #[arg(long, env = "LASTWORD_CONTEXT", hide_env_values = true, global = true, value_name = "NAME", help_heading = GENERAL)]
    context: Option<String>,
    /// Why this is done: goes into the server's audit.
    #[arg(long = "reason", global = true, value_name = "TEXT", help_heading = GENERAL)]
    reason: Option<String>,
    /// The file with the token.
    #[arg(long, env = "LASTWORD_TOKEN_FILE", hide_env_values = true, global = true, value_name = "FILE", help_heading = GENERAL)]
    token_file: Option<PathBuf>,
    /// Certificates to trust for https (PEM); the system's if absent.
    #[arg(long, env = "LASTWORD_CA_FILE", hide_env_values = true, global = true, value_name = "FILE", help_heading = GENERAL)]
    ca_file: Option<PathBuf>,
    /// How to print: table (for people), wide, json, jsonl (one object per line), name (numbers or names only).
    #[arg(short, long, global = true, value_enum, default_value = "table", value_name = "FORMAT")]
    #[arg(help_heading = GENERAL, hide_possible_values = true)]
    output: Format,
    /// The columns of a table that lists something, by their heads, separated by commas.
    #[arg(long, global = true, value_delimiter = ',', value_name = "NAME", help_heading = GENERAL)]
    columns: Vec<String>,
    /// Colour in tables: auto (on a terminal, unless NO_COLOR is set), always, never.
    #[arg(
        long,
        visible_alias = "color",
        global = true,
        value_enum,
        default_value = "auto",
        value_name = "WHEN"
    )]
    #[arg(help_heading = GENERAL, hide_possible_values = true)]
    colour: Colour,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Submit jobs, look at them, wait for them, end them.
    #[command(subcommand)]
    Job(job::Verb),
    /// The agents on which jobs run.
    #[command(subcommand)]
    Agent(agent::Verb),
    /// The queues in which jobs wait.
    #[command(subcommand)]
    Queue(queue::Verb),
    /// Shared secrets.
    #[command(subcommand)]
    Secret(secret::Verb),
    /// The server itself.
    #[command(subcommand)]
    Server(server::Verb),
    /// Follow what happens, as it happens.
    Watch(watch::Watch),
    /// Who asked for what, when, from where, why, and what came of it.
    Audit(audit::Show),
    /// Tokens: what opens the server.
    #[command(subcommand)]
    Token(token::Verb),
    /// Users: the names that own tokens.
    #[command(subcommand)]
    User(user::Verb),
    /// Servers and tokens under names.
    #[command(subcommand)]
    Context(context::Verb),
    /// Send any request to the server's REST interface and print the answer.
    Api(raw::Api),
    /// Print the completions for a shell.
    Completions(manual::Completions),
    /// Write the manual pages.
    Man(manual::Man),
}

impl Options {
    /// Does what was asked; the exit code if nothing failed.
    pub(crate) fn run(self) -> anyhow::Result<u8> {
        let Globals { url, token_file, ca_file, context, reason, output, columns, colour } = self.globals;
        let named = Named { url, token_file, ca_file, context };
        let output = Output::new(output).with_colour(colour).with_columns(columns);
        let client = |named: Named| Client::new(&named.place()?).map(|client| client.because(reason));
        match self.verb {
            Verb::Job(verb) => verb.run(&client(named)?, &output),
            Verb::Agent(verb) => verb.run(&client(named)?, &output),
            Verb::Queue(verb) => verb.run(&client(named)?, &output),
            Verb::Server(verb) => verb.run(|| client(named), &output),
            Verb::Api(api) => api.run(&client(named)?),
            Verb::Secret(verb) => verb.run(),
            Verb::Watch(watch) => watch.run(&client(named)?, &output),
            Verb::Audit(show) => show.run(&client(named)?, &output),
            Verb::Token(verb) => verb.run(&client(named)?, &output),
            Verb::User(verb) => verb.run(&client(named)?, &output),
            Verb::Context(verb) => verb.run(named, &output),
            Verb::Completions(completions) => completions.run(Options::command()),
            Verb::Man(man) => man.run(Options::command()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn every_verb_has_an_example() {
        fn look(command: &clap::Command, name: &str, without: &mut Vec<String>) {
            let verbs: Vec<_> = command.get_subcommands().filter(|verb| verb.get_name() != "help").collect();
            let example = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            if verbs.is_empty() && !example.contains(&format!("  {name}")) {
                without.push(name.to_owned());
            }
            for verb in verbs {
                look(verb, &format!("{name} {}", verb.get_name()), without);
            }
        }
        let mut without = Vec::new();
        look(&Options::command(), "lastword", &mut without);
        assert_eq!(without, Vec::<String>::new(), "--help shows no example that names the verb");
    }

    #[test]
    fn a_reason_counts_before_the_verb_and_after_it() {
        let lines = ["job restart 7 --force", "job abandon 7", "agent drain host1", "server backup"];
        for line in lines {
            for line in [format!("--reason checked {line}"), format!("{line} --reason checked")] {
                let words = std::iter::once("lastword").chain(line.split(' '));
                let options = Options::try_parse_from(words).unwrap();
                assert_eq!(options.globals.reason.as_deref(), Some("checked"), "{line}");
            }
        }
    }

    #[test]
    fn what_needs_a_reason_is_wrong_usage_without_one() {
        for line in ["job restart 7 --force", "job abandon 7"] {
            // Nobody is there: it must not even be asked.
            let words = ["lastword", "--url", "http://127.0.0.1:1"].into_iter().chain(line.split(' '));
            let error = Options::try_parse_from(words).unwrap().run().unwrap_err();
            assert_eq!(crate::exit::report(&error), crate::exit::USAGE, "{line}: {error}");
        }
    }

    #[test]
    fn the_documented_lines_are_understood() {
        let lines = [
            "job submit -- /bin/true",
            "job submit --name n --queue q --on host1 --user u --cwd /tmp -e A=b -p x=1 --timeout 1h --grace 5s --priority 7 --wait -- sh -c 'exit 3'",
            "job submit --idempotency-key k --follow --script run.sh -- a b",
            "job submit --retry 3 --retry-backoff 10s..5m --retry-on 75,100-110,signal -- x",
            "job submit --on-unknown restart --restart-safe at_least_once --at 2026-11-23T02:00Z -- x",
            "job submit --on-unknown escalate --restart-safe ask --delay 10m -- x",
            "job list --status Running,Queued --queue q --agent a --name n --limit 5 -o jsonl",
            "job list --failed --since 24h --until 2026-11-22T02:00:00Z --name pay* --exit-code 7",
            "job show 1042 -o json",
            "job logs 1042 --stderr --follow",
            "job logs 1042.2 --tail 100",
            "job wait 1042 1043",
            "job kill 1042 --grace 0",
            "job why 1042",
            "job prove 1042",
            "job hold 1",
            "job release 1",
            "job cancel 1",
            "agent add host1 --host fqdn.example --port 7412 --secret-file f --queue default --slots 100",
            "agent add host1 --dials-in --secret-file f",
            "agent list -o name",
            "agent ping host1",
            "agent logs host1",
            "agent logs host1 --program platform-agent --tail 100 --follow",
            "server support-bundle",
            "server support-bundle --out - --events 10 --audit 0 --no-check",
            "agent drain host1 --reason maintenance --wait",
            "agent resume host1",
            "agent secret host1 --file f",
            "agent secret host1 --retire-old",
            "agent remove host1",
            "queue create q",
            "queue attach q host1",
            "queue detach q host1",
            "queue hold q",
            "queue set q --slots 3 --priority -1",
            "queue set q --no-slots",
            "job restart 7 --hold",
            "job restart 7 --force --reason checked",
            "job abandon 7 --reason scrapped",
            "secret new f",
            "server status -o json",
            "server backup",
            "server backup /backups/now.backup -o json",
            "server backup --list",
            "server check",
            "server operations -o wide",
            "server wait 12-3",
            "server restore now.backup --data-root d --epoch-min 7",
            "server restore now.backup --rehearse --config server.toml",
            "server end-recovery",
            "api GET /api/v1/jobs/counts",
            "api POST jobs -d -",
            "job list --columns job,status,exit --colour never",
            "agent list --color always",
            "completions zsh",
            "man /usr/local/share/man/man1",
            "watch",
            "watch 1042 1043 --queue q --kind job.status,agent --after 0 -o jsonl",
            "job watch 1042",
            "audit --who anna --object queue/q --since 24h --limit 0",
            "token new ci --role operator --user ci --expires 90d --out f",
            "token list --all",
            "token revoke 0a --force --reason lost",
            "--reason planned queue hold q",
            "user add anna",
            "user disable anna",
            "context add prod --url https://x --token-file f",
            "context use prod",
            "--context prod job list",
        ];
        for line in lines {
            let words = std::iter::once("lastword").chain(line.split(' '));
            assert!(Options::try_parse_from(words).is_ok(), "{line}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let lines = [
            "job submit",
            "job show x",
            "job show 0",
            "job submit -e novalue -- /bin/true",
            "job submit --timeout 90 -- /bin/true",
            "queue set q",
            "job submit --retry-on 75 -- /bin/true",
            "job submit --retry 2 --retry-on never -- /bin/true",
            "job submit --at 2026-11-23T02:00Z --delay 1s -- /bin/true",
            "job submit --at tomorrow -- /bin/true",
            "job submit --restart-safe maybe -- /bin/true",
            "job list --status Finished",
            "agent add host1 --secret-file f",
            "agent secret host1",
            "agent secret host1 --file f --retire-old",
            "agent add host1 --dials-in --host h --secret-file f",
            "job frobnicate 1",
            "token new ci",
            "token new ci --role king",
            "job watch",
        ];
        for line in lines {
            let words = std::iter::once("lastword").chain(line.split(' '));
            assert!(Options::try_parse_from(words).is_err(), "{line}");
        }
    }

    #[test]
    fn whoever_gives_no_way_to_a_new_agent_is_told_of_both() {
        let words = ["lastword", "agent", "add", "host1", "--secret-file", "f"];
        let error = Options::try_parse_from(words).expect_err("a way is missing").to_string();
        let asked = error.split("Usage").next().unwrap_or_default();
        assert!(asked.contains("--host") && asked.contains("--dials-in"), "{error}");
    }
}
