//! Control groups that runs left behind: where the processes that a job leaves go on (`leftovers = "ignore"`), its job-processor cannot remove the group,
//! and after a crash nobody did. They are removed when they are empty.

use job::RunId;
use spool::{DataRoot, Shelf};
use std::fs;
use std::path::Path;

/// Removes the groups below `parent` in which nothing is, of runs that are not live. How many were removed.
pub(crate) fn remove_empty(parent: &Path, root: &DataRoot) -> usize {
    let Ok(entries) = fs::read_dir(parent) else { return 0 }; // there was never one
    let group =
        |entry: fs::DirEntry| Some((entry.path(), entry.file_name().to_str()?.parse::<RunId>().ok()?));
    // A run is live on disk before its group is made. The kernel refuses to remove a group with a process in it.
    let over =
        entries.flatten().filter_map(group).filter(|(_, run)| !root.run(Shelf::Live, *run).path().exists());
    over.filter(|(path, _)| fs::remove_dir(path).is_ok()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_goes_when_it_is_empty_and_its_run_is_not_live() {
        let (parent, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = DataRoot::create(data.path(), true, false).unwrap();
        let id = |n: u8| {
            RunId::from_bytes(&[1, 0x9a, 0xa7, 0xd1, 0xe2, 0x7b, 0x70, 1, 0x82, 3, 4, 5, 6, 7, 8, n]).unwrap()
        };
        let path = |n| parent.path().join(id(n).to_string());
        for n in [1, 2, 3] {
            fs::create_dir(path(n)).unwrap();
        }
        fs::create_dir(parent.path().join("another")).unwrap();
        fs::create_dir_all(root.run(Shelf::Live, id(1)).path()).unwrap();
        fs::write(path(2).join("stands-for-a-process"), "").unwrap();
        assert_eq!(remove_empty(parent.path(), &root), 1);
        assert!(path(1).exists(), "its run is live");
        assert!(path(2).exists(), "it is not empty");
        assert!(!path(3).exists());
        assert!(parent.path().join("another").exists(), "no run's");
        assert_eq!(remove_empty(&parent.path().join("absent"), &root), 0);
    }
}
