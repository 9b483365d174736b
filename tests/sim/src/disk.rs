//! A host's disk: the shelves of a data root with one log per run directory, and the identity file.
//!
//! | the caller                 | what holds after a power cut                                                             |
//! |----------------------------|------------------------------------------------------------------------------------------|
//! | wrote                      | nothing of it, all of it, or any part of it                                               |
//! | wrote, and the sync is over | all of it                                                                                 |
//! | wrote, and the sync failed  | nothing new: the pages count as clean, and may show the write or not until then          |
//! | made or renamed a name     | the name or not; of one directory a later change never without the earlier ones            |
//! | synced `runs/`             | every change of its names until then                                                      |
//!
//! A sync takes time. What it is called for is durable when that time is over, which is when the caller goes on ([`Disk::done_at_ms`]);
//! others read what was written at once, as from a page cache. A process that dies takes nothing of that with it.

use crate::queue::Ms;
use crate::rng::Rng;
use job::RunId;
use spool::Shelf;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;
use store::Medium;

const ENOSPC: i32 = 28;
const EIO: i32 = 5;
const BLOCK_BYTES: usize = 4096;
/// What a torn write is torn into, bytes.
const PIECE_BYTES: usize = 64;

/// A name in the data root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Name {
    /// `runs/.new-<id>`.
    New(RunId),
    /// `runs/<id>`.
    Live(RunId),
    /// `settled/<id>`.
    Settled(RunId),
    /// `quarantine/<id>`.
    Quarantined(RunId),
}

impl Name {
    pub(crate) fn on(shelf: Shelf, run: RunId) -> Name {
        match shelf {
            Shelf::Live => Name::Live(run),
            Shelf::Settled => Name::Settled(run),
            Shelf::Quarantined => Name::Quarantined(run),
        }
    }

    fn is_in_runs(self) -> bool {
        matches!(self, Name::New(_) | Name::Live(_))
    }
}

/// A directory or a file; never used again for another.
type Node = usize;

/// A change of names.
#[derive(Clone, Copy, Debug)]
struct Rename {
    node: Node,
    from: Option<Name>,
    to: Option<Name>,
    durable_at_ms: Option<Ms>,
}

/// A change of a file's content.
#[derive(Clone, Debug)]
struct Write {
    at: usize,
    /// `None`: the file is cut off there.
    bytes: Option<Vec<u8>>,
    /// When its writer came to it, behind the syncs of the same errand.
    issued_at_ms: Ms,
    durable_at_ms: Option<Ms>,
}

#[derive(Clone, Debug, Default)]
struct Content {
    cached: Vec<u8>,
    durable: Vec<u8>,
    writes: Vec<Write>,
    /// Of a log: when its name in its directory is durable.
    named_at_ms: Option<Ms>,
    is_lost: bool,
}

/// What goes wrong, until it is taken back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// No block is free.
    pub(crate) full: bool,
    /// So many of the next writes fail.
    pub(crate) failing_writes: u32,
    /// So many of the next syncs fail.
    pub(crate) failing_syncs: u32,
    /// So many of the next reads fail.
    pub(crate) failing_reads: u32,
    /// How long a sync takes.
    pub(crate) sync_ms: Ms,
}

/// The disk. Several processes share it.
#[derive(Debug)]
pub(crate) struct Disk {
    now_ms: Ms,
    done_at_ms: Ms,
    contents: Vec<Content>,
    names: BTreeMap<Name, Node>,
    durable_names: BTreeMap<Name, Node>,
    renames: Vec<Rename>,
    pub(crate) faults: Faults,
    rng: Rng,
}

/// What processes hold of it.
pub(crate) type Shared = Rc<RefCell<Disk>>;

/// The node of the identity file.
const IDENTITY: Node = 0;

impl Disk {
    pub(crate) fn new(rng: Rng) -> Shared {
        Rc::new(RefCell::new(Disk {
            now_ms: 0,
            done_at_ms: 0,
            contents: vec![Content { named_at_ms: Some(0), ..Content::default() }],
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            renames: Vec::new(),
            faults: Faults { sync_ms: 1, ..Faults::default() },
            rng,
        }))
    }

    /// The caller's clock.
    pub(crate) fn set_now_ms(&mut self, now_ms: Ms) {
        (self.now_ms, self.done_at_ms) = (now_ms, now_ms);
    }

    /// When what was asked for since [`Disk::set_now_ms`] is over.
    pub(crate) fn done_at_ms(&self) -> Ms {
        self.done_at_ms
    }

    pub(crate) fn node(&self, name: Name) -> Option<Node> {
        self.names.get(&name).copied()
    }

    pub(crate) fn exists(&self, name: Name) -> bool {
        self.names.contains_key(&name)
    }

    /// The runs on a shelf, oldest first.
    pub(crate) fn list(&self, shelf: Shelf) -> Vec<RunId> {
        let run = |name: &Name| match (*name, shelf) {
            (Name::Live(run), Shelf::Live)
            | (Name::Settled(run), Shelf::Settled)
            | (Name::Quarantined(run), Shelf::Quarantined) => Some(run),
            (Name::New(_) | Name::Live(_) | Name::Settled(_) | Name::Quarantined(_), _) => None,
        };
        self.names.keys().filter_map(run).collect()
    }

    /// Makes `runs/.new-<id>`.
    pub(crate) fn make(&mut self, run: RunId) -> io::Result<()> {
        self.check_write(true)?;
        if self.exists(Name::New(run)) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let node = self.contents.len();
        self.contents.push(Content::default());
        self.change(node, None, Some(Name::New(run)));
        Ok(())
    }

    /// `rename(2)`. `replace`: what no system does, a directory over one that is not empty.
    pub(crate) fn rename(&mut self, from: Name, to: Name, replace: bool) -> io::Result<()> {
        let Some(node) = self.node(from) else { return Err(io::ErrorKind::NotFound.into()) };
        self.check_write(false)?;
        if let Some(over) = self.node(to) {
            if !replace {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            self.change(over, Some(to), None);
        }
        self.change(node, Some(from), Some(to));
        Ok(())
    }

    pub(crate) fn remove(&mut self, name: Name) {
        if let Some(node) = self.node(name) {
            self.change(node, Some(name), None);
        }
    }

    /// Removes what was being prepared.
    pub(crate) fn sweep(&mut self) {
        let new: Vec<Name> = self.names.keys().copied().filter(|name| matches!(name, Name::New(_))).collect();
        new.into_iter().for_each(|name| self.remove(name));
    }

    fn change(&mut self, node: Node, from: Option<Name>, to: Option<Name>) {
        if let Some(from) = from {
            self.names.remove(&from);
        }
        if let Some(to) = to {
            self.names.insert(to, node);
        }
        self.renames.push(Rename { node, from, to, durable_at_ms: None });
    }

    /// Syncs a run's directory: the name of its log.
    pub(crate) fn sync_directory(&mut self, name: Name) -> io::Result<()> {
        let done = self.begin_sync()?;
        if let Some(node) = self.node(name) {
            self.contents[node].named_at_ms.get_or_insert(done);
        }
        Ok(())
    }

    /// Syncs `runs/`.
    pub(crate) fn sync_runs(&mut self) -> io::Result<()> {
        let done = self.begin_sync()?;
        let in_runs = |name: Option<Name>| name.is_some_and(Name::is_in_runs);
        let touched: BTreeSet<Node> =
            self.renames.iter().filter(|r| in_runs(r.from) || in_runs(r.to)).map(|r| r.node).collect();
        let mut all_at_ms = done;
        for rename in self.renames.iter_mut().filter(|rename| touched.contains(&rename.node)) {
            all_at_ms = all_at_ms.max(*rename.durable_at_ms.get_or_insert(done));
        }
        self.done_at_ms = all_at_ms; // it waits for what others began to sync
        Ok(())
    }

    fn begin_sync(&mut self) -> io::Result<Ms> {
        self.done_at_ms += self.faults.sync_ms;
        if self.faults.failing_syncs > 0 {
            self.faults.failing_syncs -= 1;
            return Err(io::Error::from_raw_os_error(EIO));
        }
        Ok(self.done_at_ms)
    }

    fn check_write(&mut self, needs_block: bool) -> io::Result<()> {
        if self.faults.failing_writes > 0 {
            self.faults.failing_writes -= 1;
            return Err(io::Error::from_raw_os_error(EIO));
        }
        if self.faults.full && needs_block {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        Ok(())
    }

    /// The power goes now.
    pub(crate) fn power_cut(&mut self, now_ms: Ms) {
        self.cut_names(now_ms);
        for content in &mut self.contents {
            content.power_cut(now_ms, &mut self.rng);
        }
    }

    fn cut_names(&mut self, now_ms: Ms) {
        let mut keep: BTreeMap<Node, usize> = BTreeMap::new();
        for (ix, rename) in self.renames.iter().enumerate() {
            if rename.durable_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
                keep.insert(rename.node, ix);
            }
        }
        let mut stopped: BTreeSet<Node> = BTreeSet::new();
        for (ix, rename) in std::mem::take(&mut self.renames).into_iter().enumerate() {
            let promised = keep.get(&rename.node).is_some_and(|last| ix <= *last);
            if stopped.contains(&rename.node) || (!promised && self.rng.percent(50)) {
                stopped.insert(rename.node);
                continue;
            }
            if let Some(from) = rename.from {
                self.durable_names.remove(&from);
            }
            if let Some(to) = rename.to {
                self.durable_names.insert(to, rename.node);
            }
        }
        self.names.clone_from(&self.durable_names);
    }

    fn open(disk: &Shared, node: Node) -> File {
        File { disk: Rc::clone(disk), node }
    }

    /// Makes the log in a directory that is being prepared.
    pub(crate) fn create_log(disk: &Shared, run: RunId) -> io::Result<File> {
        disk.borrow_mut().check_write(true)?;
        let node = disk.borrow().node(Name::New(run)).ok_or(io::ErrorKind::NotFound)?;
        Ok(Disk::open(disk, node))
    }

    pub(crate) fn open_log(disk: &Shared, name: Name) -> io::Result<File> {
        let node = disk.borrow().node(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Disk::open(disk, node))
    }

    pub(crate) fn open_identity(disk: &Shared) -> File {
        Disk::open(disk, IDENTITY)
    }
}

impl Content {
    fn apply(&mut self, write: &Write) {
        apply(&mut self.durable, write.at, write.bytes.as_deref());
    }

    /// What is durable by now need not be remembered as a write.
    fn settle(&mut self, now_ms: Ms) {
        let over = |write: &Write| write.durable_at_ms.is_some_and(|at_ms| at_ms <= now_ms);
        let count = self.writes.iter().take_while(|write| over(write)).count();
        for write in self.writes.drain(..count).collect::<Vec<_>>() {
            self.apply(&write);
        }
    }

    fn power_cut(&mut self, now_ms: Ms, rng: &mut Rng) {
        for write in std::mem::take(&mut self.writes) {
            if write.durable_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
                self.apply(&write);
                continue;
            }
            if write.issued_at_ms > now_ms {
                continue; // its writer still waited for the sync before it
            }
            match (rng.below(3), &write.bytes) {
                (0, _) | (1, None) => {}
                (1, Some(bytes)) => {
                    for (ix, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
                        if rng.percent(50) {
                            apply(&mut self.durable, write.at + ix * PIECE_BYTES, Some(piece));
                        }
                    }
                }
                (_, _) => self.apply(&write),
            }
        }
        let named = self.named_at_ms.is_some_and(|at_ms| at_ms <= now_ms);
        if !named && rng.percent(50) {
            self.is_lost = true;
        }
        self.cached.clone_from(&self.durable);
    }
}

fn apply(file: &mut Vec<u8>, at: usize, bytes: Option<&[u8]>) {
    match bytes {
        None => file.truncate(at),
        Some(bytes) => {
            if file.len() < at + bytes.len() {
                file.resize(at + bytes.len(), 0);
            }
            file[at..at + bytes.len()].copy_from_slice(bytes);
        }
    }
}

/// An open file.
#[derive(Clone, Debug)]
pub(crate) struct File {
    disk: Shared,
    node: Node,
}

impl File {
    fn write(&mut self, at: usize, bytes: Option<&[u8]>) -> io::Result<()> {
        let mut disk = self.disk.borrow_mut();
        let disk = &mut *disk;
        let content = &mut disk.contents[self.node];
        let end = at + bytes.map_or(0, <[u8]>::len);
        let needs_block = end > content.cached.len().next_multiple_of(BLOCK_BYTES);
        disk.check_write(needs_block)?;
        let content = &mut disk.contents[self.node];
        content.settle(disk.now_ms);
        apply(&mut content.cached, at, bytes);
        let issued_at_ms = disk.done_at_ms;
        content.writes.push(Write {
            at,
            bytes: bytes.map(<[u8]>::to_vec),
            issued_at_ms,
            durable_at_ms: None,
        });
        Ok(())
    }

    /// As [`Medium::read_all`], for whoever does not write.
    pub(crate) fn read(&self) -> io::Result<Vec<u8>> {
        let mut disk = self.disk.borrow_mut();
        if disk.faults.failing_reads > 0 {
            disk.faults.failing_reads -= 1;
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let content = &disk.contents[self.node];
        if content.is_lost { Err(io::ErrorKind::NotFound.into()) } else { Ok(content.cached.clone()) }
    }
}

impl Medium for File {
    fn read_all(&mut self) -> io::Result<Vec<u8>> {
        self.read()
    }

    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write(usize::try_from(at).unwrap_or(usize::MAX), Some(bytes))
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.write(usize::try_from(length).unwrap_or(usize::MAX), None)
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut disk = self.disk.borrow_mut();
        let disk = &mut *disk;
        let done = disk.begin_sync();
        let content = &mut disk.contents[self.node];
        match done {
            Ok(done_at_ms) => {
                let mut all_at_ms = done_at_ms;
                for write in &mut content.writes {
                    all_at_ms = all_at_ms.max(*write.durable_at_ms.get_or_insert(done_at_ms));
                }
                disk.done_at_ms = all_at_ms; // it waits for what others began to sync
                Ok(())
            }
            Err(e) => {
                // The kernel gives the pages up: what they show until they are dropped depends on the file system.
                content.writes.retain(|write| write.durable_at_ms.is_some());
                if disk.rng.percent(50) {
                    content.cached.clone_from(&content.durable);
                    for write in &content.writes {
                        apply(&mut content.cached, write.at, write.bytes.as_deref());
                    }
                }
                Err(e)
            }
        }
    }
}
