use super::*;
use crate::backup::Backups;

/// Nobody wants to know how far it is.
const NOBODY: Tell<'_> = &|_| {};

fn order(backup: &Path, database: &Path) -> Order {
    Order { backup: backup.to_owned(), database: database.to_owned(), epoch_min: None, unverified: false }
}

#[test]
fn a_restored_database_is_the_backup_in_a_far_later_epoch_and_the_replaced_one_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server.db");
    let backups = Backups::new("a", &dir.path().join("backups"));
    let made = {
        let database = Sqlite::open(&path).unwrap();
        database.commit(&[]).unwrap();
        let made = backups.make(&database, None, 1, NOBODY).unwrap();
        database.commit(&[]).unwrap();
        assert!(
            restore(&order(&made.path, &path), 2, NOBODY)
                .unwrap_err()
                .to_string()
                .contains("another central-server")
        );
        made
    };
    let rehearsed = rehearse(&order(&made.path, &path), 2, NOBODY).unwrap().lines().join("\n");
    assert!(
        rehearsed.contains("since the backup: 1 commits") && rehearsed.contains("nothing was changed"),
        "{rehearsed}"
    );
    let lines = restore(&order(&made.path, &path), 2, NOBODY).unwrap().lines().join("\n");
    assert!(lines.contains("was in epoch 1, at commit 2"), "{lines}");
    let database = Sqlite::open(&path).unwrap();
    assert_eq!((database.identity().epoch, database.commit_number()), (1 + db::EPOCH_LEAP + 1, 1));
    let aside: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.path()).filter(|p| p.to_string_lossy().contains("replaced")))
        .collect();
    assert_eq!(aside.len(), 1);
    assert_eq!(db::contents(&aside[0]).unwrap().commit, 2);
}

#[test]
fn a_damaged_backup_is_refused_and_so_is_a_start_after_half_a_restore() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server.db");
    let backups = Backups::new("a", &dir.path().join("backups"));
    let made = backups.make(&Sqlite::open(&path).unwrap(), None, 1, NOBODY).unwrap();
    let whole = std::fs::read(&made.path).unwrap();
    std::fs::write(&made.path, &whole[..whole.len() / 2]).unwrap();
    assert!(restore(&order(&made.path, &path), 2, NOBODY).unwrap_err().to_string().contains("damaged"));
    let unverified = Order { unverified: true, ..order(&made.path, &path) };
    std::fs::remove_file(made.path.with_extension("backup.json")).unwrap();
    assert!(restore(&order(&made.path, &path), 2, NOBODY).is_err(), "no manifest");
    assert!(restore(&unverified, 2, NOBODY).is_err(), "half a file");
    drop(db::contents(&path).unwrap());
    assert!(db::restoring(&path).exists());
    let refused = Sqlite::open(&path).err().unwrap().to_string();
    assert!(refused.contains("restore"), "{refused}");
    std::fs::write(&made.path, &whole).unwrap();
    restore(&unverified, 3, NOBODY).unwrap();
    Sqlite::open(&path).unwrap();
}
