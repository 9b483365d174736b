//! A small file system of its own for a data root: it can be filled, and it can lose power.
//!
//! It is mounted in a mount namespace that only the test's thread and what that starts later are in. So nobody else holds it by a copy of the
//! mounts, and the kernel unmounts it and frees its loop device with the last process of the test, also of one that was killed.

use crate::{Process, Scratch, is_root, wait_until};
use anyhow::{Context, Result, bail};
use std::cell::Cell;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What kind of file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// In memory.
    Tmpfs,
    /// With its journal, on a loop device.
    Ext4,
    /// On a loop device.
    Xfs,
}

impl std::fmt::Display for FileSystem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            FileSystem::Tmpfs => "tmpfs",
            FileSystem::Ext4 => "ext4",
            FileSystem::Xfs => "XFS",
        })
    }
}

/// So much of a disk is filled by writing.
const WRITTEN_BYTES: u64 = 1 << 20;

thread_local! {
    /// Whether this thread is in a mount namespace of its own.
    static APART: Cell<bool> = const { Cell::new(false) };
}

/// A file system that is mounted at a directory of the test, for the thread that mounted it and what it starts later. Gone at the end, with its loop
/// device, also after a failure.
pub struct Volume {
    kind: FileSystem,
    at: PathBuf,
    image: PathBuf,
    mib: u64,
}

impl Volume {
    /// One of so many MiB, mounted at a new directory; the image of one on a loop device is a sparse file beside that. Whoever is to find it there has
    /// to be started later. The inner error says why this machine does not allow it.
    pub fn mount(kind: FileSystem, at: &Path, mib: u64) -> Result<Result<Volume, String>> {
        if !is_root() {
            return Ok(Err("only root may mount".to_owned()));
        }
        if !APART.get() {
            if let Err(e) = os::mounts::make_own() {
                return Ok(Err(format!("no mount namespace: {e}")));
            }
            APART.set(true);
            let_go_of_others();
        }
        std::fs::create_dir(at)?;
        let volume = Volume { kind, at: at.to_owned(), image: at.with_extension("image"), mib };
        if let Err(why) = volume.make().and_then(|()| volume.attach()) {
            return Ok(Err(format!("no {kind}: {why:#}")));
        }
        std::fs::set_permissions(at, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        Ok(Ok(volume))
    }

    fn make(&self) -> Result<()> {
        let (program, options): (_, &[&str]) = match self.kind {
            FileSystem::Tmpfs => return Ok(()),
            // No blocks for root alone: it would not find the disk full.
            FileSystem::Ext4 => ("mkfs.ext4", &["-q", "-F", "-m", "0"]),
            // Unsupported: smaller than 300 MiB.
            FileSystem::Xfs => ("mkfs.xfs", &["-q", "-f", "--unsupported"]),
        };
        File::create(&self.image)?.set_len(self.mib << 20)?;
        run(Command::new(program).args(options).arg(&self.image))
    }

    fn attach(&self) -> Result<()> {
        let mut mount = Command::new("mount");
        match self.kind {
            FileSystem::Tmpfs => {
                mount.args(["-t", "tmpfs", "-o", &format!("size={}m,mode=0700", self.mib), "lastword-test"])
            }
            FileSystem::Ext4 => mount.args(["-t", "ext4", "-o", "loop"]).arg(&self.image),
            FileSystem::Xfs => mount.args(["-t", "xfs", "-o", "loop"]).arg(&self.image),
        };
        run(mount.arg(&self.at))
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Takes all room that is left.
    pub fn fill(&self) -> Result<PathBuf> {
        let path = self.at.join("ballast");
        let mut file = File::options().append(true).create(true).open(&path)?;
        // Most of it at once, and on no disk: writing it would take time. Others take room meanwhile.
        let free = os::disk::file_system(&self.at)?.free_bytes;
        match os::disk::reserve(&file, file.metadata()?.len() + free.saturating_sub(WRITTEN_BYTES)) {
            Err(e) if !os::disk::is_no_room(&e) => return Err(e.into()),
            Ok(()) | Err(_) => {}
        }
        for block in [64 << 10, 4 << 10, 1] {
            while file.write_all(&vec![1u8; block]).is_ok() {}
        }
        Ok(path)
    }

    /// Takes all room but so many bytes.
    pub fn fill_but(&self, bytes: u64) -> Result<PathBuf> {
        let path = self.fill()?;
        let file = File::options().write(true).open(&path)?;
        file.set_len(file.metadata()?.len().saturating_sub(bytes))?;
        Ok(path)
    }

    /// What is not on the disks at this moment will never be; whoever lives there is killed, as if the hosts were off.
    ///
    /// The system's programs are killed a moment before: a sync that the shutdown overtakes can be reported as done though it is not (seen with ext4
    /// and XFS of Linux 6.18, once in about 15 times), and nobody may live who hears of it. What they were amid of, the kernel goes on with.
    pub fn lose_power(together: &[&Volume]) -> Result<()> {
        // Twice: who was started while the first were looked for was started by one of those.
        for _ in 0..2 {
            let programs: Vec<Process> =
                together.iter().flat_map(|volume| Process::programs_of(&volume.at)).collect();
            programs.iter().try_for_each(|process| process.kill().map(|_| ()))?;
        }
        for volume in together {
            os::power::shut_down(&volume.at).context("cannot shut the file system down")?;
        }
        for process in together.iter().flat_map(|volume| Process::using(&volume.at)) {
            process.kill()?;
        }
        Ok(())
    }

    /// Unmounts it, which ends what is left in the cache, and mounts it again: its journal is replayed.
    pub fn recover(&self) -> Result<()> {
        self.detach()?;
        self.attach()
    }

    /// Unmounts it when nobody uses it any more; the loop device goes with the mount.
    fn detach(&self) -> Result<()> {
        let mut said = String::new();
        let unmounted = wait_until("the file system to be unmounted", || {
            for process in Process::using(&self.at) {
                process.kill()?;
            }
            match run(Command::new("umount").arg(&self.at)) {
                Ok(()) => Ok(true),
                Err(e) => {
                    said = format!("{e:#}");
                    Ok(false)
                }
            }
        });
        unmounted.with_context(|| said)?;
        wait_until("its loop device to be detached", || Ok(self.loop_devices()?.is_empty()))
    }

    fn loop_devices(&self) -> Result<String> {
        if self.kind == FileSystem::Tmpfs {
            return Ok(String::new());
        }
        let said = Command::new("losetup").arg("--associated").arg(&self.image).output()?;
        Ok(String::from_utf8_lossy(&said.stdout).into_owned())
    }
}

/// Whose tests mounted where all can see it are not to be kept from unmounting by our copy.
fn let_go_of_others() {
    let mounts = std::fs::read_to_string("/proc/thread-self/mounts").unwrap_or_default();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    for at in places.filter(|at| at.contains(Scratch::MARK)) {
        let _ = run(Command::new("umount").arg(at)); // ours alone; it may be gone
    }
}

fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = command.output().with_context(|| format!("cannot run {name}"))?;
    if !done.status.success() {
        bail!("{name} failed: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}

impl Drop for Volume {
    fn drop(&mut self) {
        let is_mounted = || {
            // Of the thread: those of the process are its first thread's.
            let mounts = std::fs::read_to_string("/proc/thread-self/mounts").unwrap_or_default();
            let at = self.at.to_string_lossy();
            mounts.lines().any(|line| line.split(' ').nth(1) == Some(&*at))
        };
        if is_mounted()
            && let Err(e) = self.detach()
        {
            eprintln!("{} cannot be unmounted: {e:#}", self.at.display());
            // Lazy: the file system, and its loop device, go when the last user does.
            let _ = run(Command::new("umount").arg("--lazy").arg(&self.at));
        }
        let _ = std::fs::remove_file(&self.image); // not there if it is in memory
    }
}
