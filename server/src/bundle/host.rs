//! What the host and the process have and may have.

use os::disk::FileSystem;
use serde_json::{Map, Value, json};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Files of the kernel that are told as they are, with what they tell.
const KERNEL_FILES: [(&str, &str); 6] = [
    ("kernel", "/proc/version"),
    ("os", "/etc/os-release"),
    ("load", "/proc/loadavg"),
    ("uptime_s", "/proc/uptime"),
    ("memory", "/proc/meminfo"),
    ("limits", "/proc/self/limits"),
];
/// No such file is longer.
const KERNEL_FILE_BYTES_MAX: usize = 64 << 10;
/// Lines of `/proc/self/status` that say something about a server.
const PROCESS_LINES: [&str; 7] =
    ["VmPeak", "VmRSS", "VmSwap", "Threads", "FDSize", "Uid", "Cpus_allowed_list"];
/// So many files of a folder are listed.
const FILES_MAX: usize = 1_000;

/// The host, the process and these folders. What cannot be read is told to be so.
pub(crate) fn facts(folders: &[&Path]) -> Value {
    let mut facts = Map::new();
    for (name, path) in KERNEL_FILES {
        facts.insert(name.to_owned(), lines(path));
    }
    facts.insert("cpus".to_owned(), std::thread::available_parallelism().map(usize::from).ok().into());
    facts.insert("process".to_owned(), process());
    facts.insert("environment".to_owned(), environment());
    facts.insert("folders".to_owned(), folders.iter().map(|folder| of_folder(folder)).collect());
    facts.into()
}

fn read(path: &str) -> Result<String, std::io::Error> {
    let mut bytes = std::fs::read(path)?;
    bytes.truncate(KERNEL_FILE_BYTES_MAX);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn lines(path: &str) -> Value {
    match read(path) {
        Ok(text) => text.lines().map(str::trim_end).collect(),
        Err(e) => format!("{path} cannot be read: {e}").into(),
    }
}

fn process() -> Value {
    let status = read("/proc/self/status").unwrap_or_default();
    let wanted = |line: &&str| PROCESS_LINES.iter().any(|name| line.starts_with(&format!("{name}:")));
    let open_files = std::fs::read_dir("/proc/self/fd").map(Iterator::count).ok();
    json!({"pid": std::process::id(), "status": status.lines().filter(wanted).collect::<Vec<_>>(), "open_files": open_files})
}

/// The names of our variables that are set; their values are nobody's business.
fn environment() -> Value {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("LASTWORD_") || name == "TZ").collect();
    names.sort();
    names.into()
}

/// Its file system, and what lies in it: names and sizes.
fn of_folder(folder: &Path) -> Value {
    let file_system = os::disk::file_system(folder).map(|found| {
        let FileSystem { total_bytes, free_bytes, free_inodes, network } = found;
        json!({"total_bytes": total_bytes, "free_bytes": free_bytes, "free_inodes": free_inodes, "network": network})
    });
    json!({
        "folder": folder.display().to_string(),
        "file_system": file_system.unwrap_or_else(|e| format!("cannot be asked: {e}").into()),
        "files": files(folder),
    })
}

fn files(folder: &Path) -> Value {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) => return format!("cannot be read: {e}").into(),
    };
    let mut files: Vec<(String, Value)> = entries
        .flatten()
        .take(FILES_MAX)
        .filter_map(|entry| {
            let (name, meta) = (entry.file_name().to_string_lossy().into_owned(), entry.metadata().ok()?);
            let mode = format!("{:o}", meta.mode() & 0o7777);
            Some((
                name.clone(),
                json!({"name": name, "bytes": meta.len(), "mode": mode, "folder": meta.is_dir()}),
            ))
        })
        .collect();
    files.sort_by(|(one, _), (other, _)| one.cmp(other));
    files.into_iter().map(|(_, file)| file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_tells_its_kernel_its_memory_its_limits_and_the_room_on_its_disk() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("server.db"), [0; 7]).unwrap();
        let facts = facts(&[dir.path(), Path::new("/nowhere/at/all")]);
        let text = facts.to_string();
        for part in ["Linux version", "MemAvailable", "Max open files", "VmRSS", "free_bytes"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        let files = &facts["folders"][0]["files"][0];
        assert_eq!((&files["name"], &files["bytes"]), (&json!("server.db"), &json!(7)));
        assert!(facts["folders"][1]["files"].as_str().unwrap().starts_with("cannot be read"));
    }
}
