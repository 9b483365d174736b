//! Writes that fail beside the logs: the copies of kept files, and small files that are replaced as a whole.

use crate::oracle::SEVEN;
use anyhow::{Context, Result, ensure};
use api::{FileState, Gathering, JobFiles, JobSubmit, Status};
use spool::Shelf;
use std::path::Path;
use tests::{CrashPoint, Deed, Dialling, Part, Site, Tally, on_site, wait_for, wait_until};

/// What is done to keep a file, and what is done to replace one.
const OF_A_COPY: [&str; 3] = ["keep.write", "keep.sync", "keep.rename"];
const OF_A_REPLACEMENT: [&str; 3] = ["replace.write", "replace.sync", "replace.rename"];
/// `printf` of it, and its SHA-256.
const CONTENT: &str = "worth keeping";
const SHA256: &str = "963b9ad92185fa29a6fd93fbacb56e5f040bcf3722ac44db6ae12bbe25953880";

/// A job that leaves two files to keep and exits with 7.
fn submit(site: &Site) -> Result<u64> {
    let script = format!("printf '{CONTENT}' > a; printf '{CONTENT}' > b; exit 7");
    site.client().submit(&JobSubmit {
        command: vec!["/bin/sh".into(), "-c".into(), script],
        capture: vec!["a".into(), "b".into()],
        ..JobSubmit::default()
    })
}

fn files(site: &Site, id: u64) -> Result<JobFiles> {
    site.client().call("GET", &format!("/api/v1/jobs/{id}/files"), None)?.json()
}

/// The outcome that nothing of the files may change.
fn outcome(site: &Site, id: u64) -> Result<()> {
    let job = site.client().wait(id)?;
    ensure!(SEVEN.fits(&job) && job.runs.len() == 1, "{job:#?}");
    Ok(())
}

/// Both files come, whole, and the run is settled.
fn both_kept(site: &Site, id: u64) -> Result<()> {
    let list = wait_for("both files in the store", || {
        let list = files(site, id)?;
        let stored = list.items.iter().filter(|file| file.state == FileState::Stored).count();
        Ok((list.gathering == Gathering::Complete && stored == 2).then_some(list))
    })?;
    let whole = |file: &api::JobFile| file.bytes == CONTENT.len() as u64 && file.sha256 == SHA256;
    ensure!(list.items.iter().all(whole) && list.unkept.is_empty(), "{list:#?}");
    wait_until("the run to be settled", || Ok(site.agents.iter().all(|agent| agent.count(Shelf::Live) == 0)))
}

#[test]
fn a_copy_of_a_kept_file_that_fails_is_made_again_and_the_outcome_does_not_care() {
    let mut tally = Tally::new(
        Part::CrashPoints,
        "a kept file whose copy fails is copied again, and the outcome does not wait for it",
    );
    on_site(|site| {
        for kind in OF_A_COPY {
            for (deed, nth) in [(Deed::NoSpace, 1), (Deed::DiskError, 2), (Deed::Kill, 2)] {
                let point = CrashPoint::new(kind, site.path());
                point.arm_with(deed, nth)?;
                let id = submit(site)?;
                point.wait_fired()?;
                let done = outcome(site, id).and_then(|()| both_kept(site, id));
                done.with_context(|| format!("{kind} {nth}: {deed:?}"))?;
                tally.count("writes failed", 1);
                tally.count("jobs compared", 1);
            }
        }
        Ok(())
    });
    tally.kept();
}

#[test]
fn while_no_copy_can_be_made_the_outcome_is_told_the_reason_is_said_and_nothing_half_is_kept() {
    let mut tally =
        Tally::new(Part::CrashPoints, "a disk that cannot keep files keeps no outcome back, and says why");
    on_site(|site| {
        let point = CrashPoint::new("keep.write", site.path());
        point.arm_with(Deed::DiskErrors, 0)?;
        let id = submit(site)?;
        outcome(site, id)?;
        let reason = "are not kept yet, trying again: cannot write";
        wait_until("the reason to be said", || Ok(site.agent()?.trace().contains(reason)))?;
        let list = files(site, id)?;
        ensure!((list.gathering, list.items.len()) == (Gathering::GoesOn, 0), "{list:#?}");
        let other = site.client().command(&["/bin/true"])?;
        ensure!(site.client().wait(other)?.status.0 == Status::Completed, "others do not suffer");
        ensure!(point.disarm()?, "it failed all the time");
        both_kept(site, id)?;
        tally.count("jobs compared", 2);
        Ok(())
    });
    tally.kept();
}

/// What stands there, and that nothing of an attempt does beside it when it is over.
fn whole(path: &Path) -> Result<String> {
    Ok(std::fs::read_to_string(path)?)
}

fn leftover(path: &Path) -> Result<bool> {
    let name = path.file_name().context("a name")?.to_string_lossy();
    Ok(os::disk::exists(&path.with_file_name(format!(".{name}.tmp")))?)
}

#[test]
fn a_small_file_whose_replacement_fails_stays_as_it_was_and_the_next_one_succeeds() {
    let mut tally =
        Tally::new(Part::CrashPoints, "a file whose replacement fails or is cut short stays as it was");
    on_site(|site| {
        site.add_agent("host2", Dialling::Out)?; // says where it listens
        let listens = site.agents[1].root().path().join("listen.addr");
        let serves = site.server.data_root().join("http.addr");
        let (before, served) = (whole(&listens)?, whole(&serves)?);
        for kind in OF_A_REPLACEMENT {
            for deed in [Deed::NoSpace, Deed::DiskError, Deed::Kill] {
                let point = CrashPoint::new(kind, site.path());
                let linked = site.client().agent("host2")?.since;
                point.arm_with(deed, 1)?;
                site.agents[1].kill_network_processor()?;
                point.wait_fired()?;
                ensure!(whole(&listens)? == before, "{kind}: {deed:?}");
                // The one that met an error goes on without; the one that died is started again and leaves nothing.
                wait_until("host2 to be linked anew", || {
                    let agent = site.client().agent("host2")?;
                    Ok(agent.connected && agent.since != linked)
                })?;
                ensure!(!leftover(&listens)? && whole(&listens)? == before, "{kind}: {deed:?}");
                tally.count("writes failed", 1);

                site.server.stop()?;
                point.arm_with(deed, 1)?;
                site.server.spawn(&[])?;
                point.wait_fired()?;
                wait_until("the server to give up", || Ok(site.server.ended()?.is_some()))?;
                ensure!(whole(&serves)? == served, "{kind}: {deed:?}");
                site.server.restart()?;
                ensure!(!leftover(&serves)? && whole(&serves)? == served, "{kind}: {deed:?}");
                site.wait_connected("host2")?;
                tally.count("writes failed", 1);
            }
        }
        let id = site.client().command(&["/bin/true"])?;
        ensure!(site.client().wait(id)?.status.0 == Status::Completed, "after all that");
        Ok(())
    });
    tally.kept();
}

#[test]
fn a_backup_whose_manifest_cannot_be_written_is_none_and_the_one_before_stays() {
    let mut tally =
        Tally::new(Part::CrashPoints, "a backup whose manifest cannot be written is none, and says so");
    on_site(|site| {
        let back_up = |site: &Site| Ok::<_, anyhow::Error>(site.lastword(&["server", "backup"])?.output()?);
        ensure!(back_up(site)?.status.success(), "the first one");
        let folder = site.server.data_root().join("backups");
        let manifests = || -> Result<usize> {
            let entries = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?.flatten();
            Ok(entries.filter(|entry| entry.path().extension().is_some_and(|end| end == "json")).count())
        };
        for (n, kind) in OF_A_REPLACEMENT.iter().enumerate() {
            let point = CrashPoint::new(kind, site.path());
            point.arm_with(Deed::NoSpace, 1)?;
            let failed = back_up(site)?;
            point.wait_fired()?;
            let said = String::from_utf8_lossy(&failed.stderr).into_owned();
            ensure!(
                !failed.status.success() && said.contains("manifest") && said.contains("No space"),
                "{said}"
            );
            ensure!(manifests()? == n + 1, "{kind}");
            ensure!(back_up(site)?.status.success(), "the next one");
            ensure!(manifests()? == n + 2, "{kind}");
            tally.count("writes failed", 1);
        }
        Ok(())
    });
    tally.kept();
}
