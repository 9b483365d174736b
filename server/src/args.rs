//! The arguments of central-server.

use anyhow::{Context, bail};
use std::ffi::OsString;
use std::path::PathBuf;

pub(crate) const USAGE: &str =
    "usage: central-server --config FILE [--check | --check-database | --restore BACKUP | --rehearse BACKUP]

  --config FILE        the configuration, for example /etc/lastword/server.toml
  --data-root DIR      for the last three: the data root, if there is no configuration
  --check              read the configuration, say what is wrong with it, and exit
  --check-database     look for contradictions in the database, and exit; the server may run meanwhile
  --restore BACKUP     put a backup in the place of the database, and exit; the server must be stopped
  --rehearse BACKUP    say what a restore would do, and exit; nothing is changed
  --epoch-min N        for a restore: begin at this epoch at least
  --unverified         for a restore: take a backup without its manifest
  --json               for a restore or a rehearsal: print what there is to say as JSON
  --progress           for the last three: say on standard error how far it is (`progress DONE TOTAL UNIT STEP`)
  --version            say which version this is, and exit";

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Run(PathBuf),
    Check(PathBuf),
    CheckDatabase { place: Place, progress: bool },
    Restore(Restore),
    Help,
    Version,
}

/// Where the database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// As the configuration says.
    Config(PathBuf),
    /// `server.db` in this folder.
    DataRoot(PathBuf),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Restore {
    pub(crate) place: Place,
    pub(crate) backup: PathBuf,
    pub(crate) rehearse: bool,
    pub(crate) epoch_min: Option<u64>,
    pub(crate) unverified: bool,
    pub(crate) json: bool,
    pub(crate) progress: bool,
}

#[derive(Default)]
struct Given {
    config: Option<PathBuf>,
    data_root: Option<PathBuf>,
    check: bool,
    check_database: bool,
    restore: Option<PathBuf>,
    rehearse: Option<PathBuf>,
    epoch_min: Option<u64>,
    unverified: bool,
    json: bool,
    progress: bool,
}

pub(crate) fn parse(mut args: impl Iterator<Item = OsString>) -> anyhow::Result<Asked> {
    let mut given = Given::default();
    while let Some(arg) = args.next() {
        let Some(text) = arg.to_str() else { bail!("unknown argument {arg:?}") };
        let (name, inline) = match text.split_once('=') {
            Some((name, value)) => (name, Some(OsString::from(value))),
            None => (text, None),
        };
        let mut value = || {
            let value = inline.clone().or_else(|| args.next());
            value.with_context(|| format!("{name} needs a value"))
        };
        match name {
            "--config" | "-c" => given.config = Some(value()?.into()),
            "--data-root" => given.data_root = Some(value()?.into()),
            "--restore" => given.restore = Some(value()?.into()),
            "--rehearse" => given.rehearse = Some(value()?.into()),
            "--epoch-min" => {
                let text = value()?.to_string_lossy().into_owned();
                given.epoch_min =
                    Some(text.parse().with_context(|| format!("--epoch-min {text} is no number"))?);
            }
            "--check" => given.check = true,
            "--check-database" => given.check_database = true,
            "--json" => given.json = true,
            "--progress" => given.progress = true,
            "--unverified" => given.unverified = true,
            "--help" | "-h" => return Ok(Asked::Help),
            "--version" | "-V" => return Ok(Asked::Version),
            _ => bail!("unknown argument {text}"),
        }
    }
    given.into_asked()
}

impl Given {
    fn into_asked(self) -> anyhow::Result<Asked> {
        let (rehearse, backup) = match (self.restore, self.rehearse) {
            (Some(_), Some(_)) => bail!("--restore and --rehearse exclude each other"),
            (Some(backup), None) => (false, Some(backup)),
            (None, Some(backup)) => (true, Some(backup)),
            (None, None) => (false, None),
        };
        if let Some(backup) = backup {
            let place = place(self.config, self.data_root)?;
            let Given { epoch_min, unverified, json, progress, .. } = self;
            return Ok(Asked::Restore(Restore {
                place,
                backup,
                rehearse,
                epoch_min,
                unverified,
                json,
                progress,
            }));
        }
        if self.check_database {
            let place = place(self.config, self.data_root)?;
            return Ok(Asked::CheckDatabase { place, progress: self.progress });
        }
        if self.data_root.is_some() {
            bail!(
                "--data-root goes with --check-database, --restore or --rehearse; the server itself needs --config FILE"
            );
        }
        let config = self.config.context("--config FILE is missing")?;
        Ok(if self.check { Asked::Check(config) } else { Asked::Run(config) })
    }
}

fn place(config: Option<PathBuf>, data_root: Option<PathBuf>) -> anyhow::Result<Place> {
    match (config, data_root) {
        (Some(config), None) => Ok(Place::Config(config)),
        (None, Some(root)) => Ok(Place::DataRoot(root)),
        (Some(_), Some(_)) => bail!("--config and --data-root exclude each other"),
        (None, None) => bail!("--config FILE or --data-root DIR is missing"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> anyhow::Result<Asked> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn each_task_has_its_arguments() {
        assert_eq!(parsed("--config=a --check").unwrap(), Asked::Check("a".into()));
        assert_eq!(parsed("-c a").unwrap(), Asked::Run("a".into()));
        let place = Place::DataRoot("d".into());
        let check = Asked::CheckDatabase { place: place.clone(), progress: false };
        assert_eq!(parsed("--check-database --data-root d").unwrap(), check);
        let restore = Restore {
            place,
            backup: "b".into(),
            rehearse: true,
            epoch_min: Some(7),
            unverified: false,
            json: true,
            progress: true,
        };
        assert_eq!(
            parsed("--rehearse b --data-root d --epoch-min 7 --progress --json").unwrap(),
            Asked::Restore(restore)
        );
        for wrong in [
            "",
            "--data-root d",
            "--restore b",
            "--restore a --rehearse b --config c",
            "--epoch-min x",
            "--config",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
