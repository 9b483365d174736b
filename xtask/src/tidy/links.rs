//! Links in Markdown: what they point to must be there.

use super::{Breach, Text};
use crate::step;
use std::path::Path;

pub(super) fn check(text: &Text) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let mut in_block = false;
    for (number, line) in (1..).zip(text.text.lines()) {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        }
        if in_block {
            continue;
        }
        let broken = targets(line).into_iter().filter_map(|target| fault(&text.path, &target));
        breaches.extend(broken.map(|fault| Breach::new(&text.path, number, fault)));
    }
    breaches
}

/// What the links of a line point to: `[text](target)`, outside of `code`.
fn targets(line: &str) -> Vec<String> {
    let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("code");
    let links = prose.match_indices("](").map(|(at, _)| &prose[at + 2..]);
    links.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.trim().to_owned()).collect()
}

/// What is wrong with a link of that file, if something is. Links to the net are not followed.
fn fault(file: &Path, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let folder = file.parent().unwrap_or(Path::new(""));
    let whole = if path.is_empty() { step::root().join(file) } else { step::root().join(folder).join(path) };
    if !whole.exists() {
        return Some(format!("the link to {target} points to nothing"));
    }
    if anchor.is_empty() || path.ends_with(".rs") {
        return None;
    }
    let text = std::fs::read_to_string(&whole).unwrap_or_default();
    let headings =
        text.lines().filter_map(|line| line.strip_prefix('#')).map(|rest| slug(rest.trim_start_matches('#')));
    (!headings.into_iter().any(|heading| heading == anchor))
        .then(|| format!("the link to {target} points to no heading of that file"))
}

/// A heading's anchor: small letters, words joined by hyphens.
fn slug(heading: &str) -> String {
    let kept = |c: char| c.is_alphanumeric() || c == '-' || c == '_' || c == ' ';
    heading
        .trim()
        .to_lowercase()
        .chars()
        .filter(|c| kept(*c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_outside_of_code_only() {
        assert_eq!(targets("see [a](b.md) and ![c](d.png), not `[e](f)`"), ["b.md", "d.png"]);
    }

    #[test]
    fn headings_become_anchors() {
        assert_eq!(slug(" Life of a run, in code"), "life-of-a-run-in-code");
        assert_eq!(slug(" `lib/os`: the rest"), "libos-the-rest");
    }

    #[test]
    fn a_link_to_nothing_is_a_fault_and_a_link_to_the_net_is_not_followed() {
        assert!(fault(Path::new("README.md"), "nowhere.md").is_some());
        assert_eq!(fault(Path::new("README.md"), "https://example.org/x"), None);
        assert_eq!(fault(Path::new("README.md"), "xtask/src/main.rs"), None);
    }
}
