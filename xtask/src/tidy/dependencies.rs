//! Who may depend on whom. Every arrow points one way; a new crate has no place until it has a row here.

use super::Breach;
use crate::step;
use cargo_metadata::{Metadata, Package};
use std::path::Path;

/// May depend on every crate of the workspace.
const ALL: &[&str] = &["*"];

/// Each crate and those of ours that it may depend on (also for its tests and its build).
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("job", &[]),
    ("os", &[]),
    ("trace", &["os"]),
    ("tally", &[]),
    ("xtask", &["tally"]),
    ("store", &["os"]),
    ("api", &["job"]),
    ("config", &["job"]),
    ("protocol", &["job"]),
    ("scheduler", &["job", "protocol"]),
    ("link", &["job", "os", "protocol"]),
    ("spool", &["job", "os", "protocol", "store"]),
    ("job-processor", &["job", "os", "protocol", "spool", "store"]),
    ("platform-agent", &["config", "job", "os", "protocol", "spool", "store", "trace"]),
    ("network-processor", &["config", "job", "link", "os", "protocol", "spool", "store", "trace"]),
    ("central-server", &["api", "config", "job", "link", "os", "protocol", "scheduler", "trace"]),
    ("lastword", &["api"]),
    ("sim", &["job", "os", "protocol", "scheduler", "spool", "store", "tally"]),
    ("model", &["protocol"]),
    ("fuzzing", ALL),
    ("tests", ALL),
    ("bench", ALL),
];

pub(super) fn check(metadata: &Metadata) -> Vec<Breach> {
    let ours: Vec<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    metadata.packages.iter().flat_map(|package| check_package(package, &ours)).collect()
}

fn check_package(package: &Package, ours: &[&str]) -> Vec<Breach> {
    let root = step::root();
    let manifest = package.manifest_path.as_std_path();
    let manifest = manifest.strip_prefix(&root).unwrap_or(manifest);
    let used = package.dependencies.iter().map(|dependency| dependency.name.as_str());
    breaches_of(manifest, package.name.as_str(), used.filter(|name| ours.contains(name)))
}

fn breaches_of<'a>(manifest: &Path, name: &str, used: impl Iterator<Item = &'a str>) -> Vec<Breach> {
    let Some((_, allowed)) = MAY_DEPEND_ON.iter().find(|(known, _)| *known == name) else {
        let text = format!("the crate {name} has no row in xtask/src/tidy/dependencies.rs");
        return vec![Breach::new(manifest, 1, text)];
    };
    let forbidden = used.filter(|used| *allowed != ALL && !allowed.contains(used));
    let text = |used| format!("{name} may not depend on {used}; it may on: {}", allowed.join(", "));
    forbidden.map(|used| Breach::new(manifest, 1, text(used))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrow_that_points_the_wrong_way_is_a_breach() {
        let of = |name, used: &[&'static str]| {
            breaches_of(Path::new("Cargo.toml"), name, used.iter().copied()).len()
        };
        assert_eq!(of("store", &["os"]), 0);
        assert_eq!(of("store", &["os", "job", "link"]), 2);
        assert_eq!(of("tests", &["store", "link"]), 0);
        assert_eq!(of("newcomer", &[]), 1);
    }

    #[test]
    fn the_table_has_no_circle() {
        let mut done: Vec<&str> = Vec::new();
        while done.len() < MAY_DEPEND_ON.len() {
            let ready = MAY_DEPEND_ON.iter().find(|(name, allowed)| {
                !done.contains(name) && allowed.iter().all(|below| *allowed == ALL || done.contains(below))
            });
            done.push(ready.expect("a circle").0);
        }
    }
}
