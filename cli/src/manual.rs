//! What a package installs beside the program: completions for shells, manual pages. Both are made from the command line's definition.

use crate::exit::{CANNOT_CREATE, failure};
use crate::output;
use clap::{Args, Command};
use clap_complete::Shell;
use std::io;
use std::path::{Path, PathBuf};

/// Which shell.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lastword completions bash > /etc/bash_completion.d/lastword
  lastword completions zsh > \"${fpath[1]}/_lastword\"
  lastword completions fish > ~/.config/fish/completions/lastword.fish")]
pub(crate) struct Completions {
    /// The shell.
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(&self, mut command: Command) -> anyhow::Result<u8> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "lastword", &mut script);
        output::bytes(&script)?;
        Ok(0)
    }
}

/// Where to.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lastword man /usr/local/share/man/man1
  lastword man . && man ./lastword-job-submit.1")]
pub(crate) struct Man {
    /// The folder; it must exist. One page for each verb is written.
    folder: PathBuf,
}

impl Man {
    pub(crate) fn run(&self, mut command: Command) -> anyhow::Result<u8> {
        command.build();
        let written = pages(&command, "lastword", &self.folder).map_err(|(path, error)| {
            failure(CANNOT_CREATE, format!("cannot write {}: {error}", path.display()))
        })?;
        output::hint(&format!("{written} pages are in {}", self.folder.display()));
        Ok(0)
    }
}

/// Writes the page of `command` and those of its verbs; says how many.
fn pages(command: &Command, name: &str, folder: &Path) -> Result<usize, (PathBuf, io::Error)> {
    let path = folder.join(format!("{name}.1"));
    let page =
        clap_mangen::Man::new(command.clone().disable_help_subcommand(true)).title(name.to_uppercase());
    let mut text = Vec::new();
    page.render(&mut text).and_then(|()| std::fs::write(&path, text)).map_err(|error| (path, error))?;
    let verbs = command.get_subcommands().filter(|verb| verb.get_name() != "help" && !verb.is_hide_set());
    verbs
        .map(|verb| pages(verb, &format!("{name}-{}", verb.get_name()), folder))
        .sum::<Result<usize, _>>()
        .map(|n| n + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use clap::CommandFactory;

    #[test]
    fn every_verb_has_a_manual_page() {
        let folder = tempfile::tempdir().unwrap();
        Man { folder: folder.path().to_owned() }.run(Options::command()).unwrap();
        let page = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(page("lastword.1").contains("LASTWORD_TOKEN_FILE"));
        assert!(page("lastword-job-submit.1").contains("idempotency"));
        assert!(page("lastword-agent-add.1").contains("secret"));
    }

    #[test]
    fn every_shell_gets_completions_of_every_group_of_verbs() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Options::command(), "lastword", &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("idempotency-key") && script.contains("queue"), "{shell}");
        }
    }
}
