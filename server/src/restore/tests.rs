use super::*;
use crate::backup::Backups;
use crate::db::{AuditFilter, Entry, TokenRecord, UserRecord, Walk};

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

fn token(id: &str, user: &str) -> TokenRecord {
    TokenRecord {
        id: id.to_owned(),
        name: id.to_owned(),
        user: user.to_owned(),
        role: "admin".to_owned(),
        hash: format!("hash of {id}"),
        created_at_ms: 1,
        expires_at_ms: None,
        revoked_at_ms: None,
        used_at_ms: None,
    }
}

fn user(name: &str, disabled: bool) -> Entry {
    Entry::User(UserRecord { name: name.to_owned(), disabled, created_at_ms: 1 })
}

fn open_tokens(path: &Path) -> Vec<String> {
    db::open_tokens(path).unwrap()
}

/// Users `eve`, `bert`, `carl` with a token each; a backup; then eve's token is revoked, bert disabled, carl removed.
fn shut_out_after_a_backup(path: &Path, backups: &Backups) -> PathBuf {
    let database = Sqlite::open(path).unwrap();
    let all = ["eve", "bert", "carl"];
    let mut entries: Vec<_> = all.iter().map(|name| user(name, false)).collect();
    entries.extend(all.iter().map(|name| Entry::Token(token(name, name))));
    database.commit_with(&[], &entries).unwrap();
    let made = backups.make(&database, None, 2, NOBODY).unwrap();
    let revoked = |name| Entry::Token(TokenRecord { revoked_at_ms: Some(7), ..token(name, name) });
    let since =
        [revoked("eve"), user("bert", true), Entry::UserRemoved("carl".to_owned()), user("zed", false)];
    database.commit_with(&[], &since).unwrap();
    made.path
}

#[test]
fn who_was_shut_out_since_the_backup_stays_out_after_the_restore_and_after_a_second_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server.db");
    let backup = shut_out_after_a_backup(&path, &Backups::new("a", &dir.path().join("backups")));
    for time in 1..=2 {
        let report = restore(&order(&backup, &path), time, NOBODY).unwrap();
        assert_eq!(report.carried.revoked, ["eve"]);
        assert_eq!(report.carried.disabled, ["bert", "carl"]);
        assert!(report.warnings.iter().all(|text| !text.contains("AGAIN")), "{:?}", report.warnings);
        assert!(open_tokens(&path).is_empty(), "{:?}", open_tokens(&path));
        assert_eq!(Sqlite::open(&path).unwrap().users().unwrap().len(), 3);
    }
    let database = Sqlite::open(&path).unwrap();
    let eve = database.tokens().unwrap().into_iter().find(|token| token.id == "eve").unwrap();
    assert_eq!(eve.revoked_at_ms, Some(7), "when it was");
}

#[test]
fn only_a_later_state_of_the_backup_shuts_out_users_and_of_any_other_it_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let (path, backups) = (dir.path().join("server.db"), Backups::new("a", &dir.path().join("backups")));
    let older = backups.make(&Sqlite::open(&path).unwrap(), None, 1, NOBODY).unwrap().path;
    let newer = shut_out_after_a_backup(&path, &backups);
    // The wrong backup first: its database never knew the users of the newer one.
    restore(&order(&older, &path), 1, NOBODY).unwrap();
    let report = restore(&order(&newer, &path), 2, NOBODY).unwrap();
    assert!(report.carried.disabled.is_empty(), "{:?}", report.carried);
    assert_eq!(open_tokens(&path), ["bert", "carl", "eve"]);
    let warnings = report.warnings.join("\n");
    assert!(warnings.contains("EXIST AGAIN") && warnings.contains("bert, carl, eve"), "{warnings}");
    assert!(report.lines().last().unwrap().starts_with("WARNING: "));
}

#[test]
fn a_restore_that_cannot_read_what_it_replaces_warns_of_every_token_that_opens_something() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server.db");
    let backup = shut_out_after_a_backup(&path, &Backups::new("a", &dir.path().join("backups")));
    std::fs::write(&path, "no database").unwrap();
    let rehearsed = rehearse(&order(&backup, &path), 2, NOBODY).unwrap();
    let report = restore(&order(&backup, &path), 2, NOBODY).unwrap();
    for warnings in [rehearsed.warnings, report.warnings] {
        assert!(warnings.len() == 1 && warnings[0].contains("bert, carl, eve; revoke"), "{warnings:?}");
    }
    std::fs::remove_file(&path).unwrap();
    let report = restore(&order(&backup, &path), 3, NOBODY).unwrap();
    assert!(report.differences.is_none() && report.warnings[0].contains("eve"), "{report:?}");
}

#[test]
fn a_restore_is_in_the_audit_of_the_restored_database_with_who_and_which_backup() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server.db");
    let backup = shut_out_after_a_backup(&path, &Backups::new("a", &dir.path().join("backups")));
    restore(&order(&backup, &path), 5, NOBODY).unwrap();
    let database = Sqlite::open(&path).unwrap();
    let number = database.last_audit().unwrap();
    let audit = database.audit(&AuditFilter::default(), Walk::After(0), 10).unwrap();
    let entry = audit.items.last().unwrap();
    assert_eq!((entry.number, entry.at_ms, entry.from.as_str()), (number, 5, "local"));
    assert_eq!((entry.action.as_str(), entry.object.as_str()), ("server.restore", "server"));
    assert!(!entry.user.is_empty());
    assert_eq!(entry.detail["backup"], backup.display().to_string());
    assert_eq!(entry.detail["commit"], 1);
    assert_eq!(entry.detail["stay_revoked"], serde_json::json!(["eve"]));
}

#[test]
fn a_restore_that_was_killed_before_its_last_step_still_knows_who_was_shut_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server.db");
    let backup = shut_out_after_a_backup(&path, &Backups::new("a", &dir.path().join("backups")));
    // All but the last step.
    copy_file(&backup, &db::restoring(&path), NOBODY).unwrap();
    let (_, is_whole) = look_at_replaced(&path, None, &mut Report::default());
    assert!(is_whole && set_aside(&path, 1, is_whole).unwrap().unwrap().exists());
    let report = restore(&order(&backup, &path), 2, NOBODY).unwrap();
    assert_eq!(report.carried.revoked, ["eve"]);
    assert!(open_tokens(&path).is_empty(), "{:?}", open_tokens(&path));
}

#[test]
fn a_line_names_the_first_and_counts_the_rest() {
    let tokens_lost = (1..=25).map(|n| format!("t{n}")).collect();
    let canceled = db::Jobs { count: 3000, first: (1..=1000).collect() };
    let many = Differences { tokens_lost, canceled, ..Differences::default() };
    let lines = undone::lines(&many, &Carried::default()).join("\n");
    assert!(lines.contains("tokens t1, t2,") && lines.contains("t20 and 5 more"), "{lines}");
    assert!(lines.contains("3000 jobs that were taken back since: 1, 2,"), "{lines}");
    assert!(lines.contains("20 and 2980 more"), "{lines}");
}
