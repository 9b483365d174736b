//! What a restore undoes, in lines for people: by name, as long as there are few.

use crate::db::{Carried, Differences, Jobs};

/// So many names are in a line; the rest is counted.
const NAMES_MAX: usize = 20;

/// What would be otherwise, and what stays as it is although the backup says otherwise.
pub(super) fn lines(d: &Differences, carried: &Carried) -> Vec<String> {
    let mut lines = vec![
        format!("since the backup: {} commits", d.commits),
        format!(
            "come back from the agents: {} outcomes, {} jobs that were submitted since and placed",
            d.outcomes, d.jobs_told
        ),
        with_numbers(
            &format!("would be lost: {} jobs that were submitted since and never placed", d.jobs_lost.count),
            &d.jobs_lost,
        ),
    ];
    for (what, jobs) in [
        ("would wait again: {} jobs that were taken back since", &d.canceled),
        ("would not be held any more: {} jobs", &d.released),
        ("would be held again: {} jobs", &d.held),
    ] {
        if jobs.count > 0 {
            lines.push(with_numbers(&what.replace("{}", &jobs.count.to_string()), jobs));
        }
    }
    if d.jobs_returned > 0 {
        lines.push(format!("would return: {} jobs that were deleted since", d.jobs_returned));
    }
    for (what, names) in [
        ("would stay revoked: tokens", &carried.revoked),
        ("would stay disabled (if removed since, they are there and disabled): users", &carried.disabled),
        ("would keep the secrets that they have now: agents", &carried.secrets),
        ("would be lost: tokens", &d.tokens_lost),
        ("would be lost: users", &d.users_lost),
        ("would be disabled again: users", &d.users_disabled_again),
        ("would be lost: agents", &d.agents_lost),
        ("would be as in the backup: agents", &d.agents_changed),
        ("would return: agents", &d.agents_returned),
        ("would be lost: queues", &d.queues_lost),
        ("would be as in the backup: queues", &d.queues_changed),
        ("would return: queues", &d.queues_returned),
    ] {
        if !names.is_empty() {
            lines.push(format!("{what} {}", some(names, names.len() as u64)));
        }
    }
    let returned: Vec<_> = d.users_returned.iter().filter(|user| !carried.disabled.contains(user)).collect();
    if !returned.is_empty() {
        lines.push(format!("would return: users {}", some(&returned, returned.len() as u64)));
    }
    lines
}

/// What somebody has to do something about, or somebody gets in who may not, or somebody does not who may.
pub(super) fn warnings(d: &Differences) -> Vec<String> {
    let mut warnings = Vec::new();
    for (names, what, advice) in [
        (
            &d.tokens_valid_again,
            "tokens that were revoked since the backup are VALID AGAIN after it",
            "revoke them again (`lastword token revoke`) before anybody else can reach the server",
        ),
        (
            &d.users_enabled_again,
            "users that were disabled since are ENABLED AGAIN after it",
            "disable them again (`lastword user disable`)",
        ),
        (
            &d.users_returned,
            "users that are not there now EXIST AGAIN after it, with the tokens of theirs that were valid",
            "remove or disable them again",
        ),
        (
            &d.agents_secrets,
            "agents have other secrets now than in the backup: they may be unable to connect after it, and a retired secret opens again",
            "give each a new one (`lastword agent secret NAME`) and put that on its host",
        ),
    ] {
        if !names.is_empty() {
            warnings.push(format!("{what}: {}; {advice}", some(names, names.len() as u64)));
        }
    }
    warnings
}

/// Nobody knows what was done since. `open`: the tokens that open something in the backup.
pub(super) fn blind(open: &[String]) -> String {
    format!(
        "what was revoked, disabled or retired since the backup is unknown, and undone: each of these tokens opens afterwards: {}; revoke again those \
         that may not (`lastword token revoke`), look through `lastword user list`, and give agents whose secret was changed since a new one \
         (`lastword agent secret`)",
        some(open, open.len() as u64)
    )
}

fn with_numbers(text: &str, jobs: &Jobs) -> String {
    if jobs.count == 0 { text.to_owned() } else { format!("{text}: {}", some(&jobs.first, jobs.count)) }
}

/// The first of `count` names, and how many more there are.
fn some<T: ToString>(names: &[T], count: u64) -> String {
    let shown: Vec<_> = names.iter().take(NAMES_MAX).map(T::to_string).collect();
    match count.saturating_sub(shown.len() as u64) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
