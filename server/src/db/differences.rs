//! What the database that is to be replaced has and what is put in its place has not, and the other way round.

use super::forward::token_text;
use super::map::{self, AGENT_COLUMNS, Bad, FIRST_FINAL_CODE, QUEUE_COLUMNS, TOKEN_COLUMNS, status_code};
use super::sqlite::{one, qualified, rows};
use super::{DbError, TokenRecord, UserRecord, copy};
use job::Status;
use rusqlite::Connection;
use scheduler::{AgentRecord, QueueRecord};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// So many numbers of jobs are read; the rest is counted.
const JOBS_MAX: usize = 1000;

/// Some jobs: how many, and the numbers of the first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Jobs {
    /// All of them.
    pub count: u64,
    /// The lowest numbers.
    pub first: Vec<u64>,
}

/// What would be otherwise after the restore than it is now. Names are those that people gave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Differences {
    /// Commits.
    pub commits: u64,
    /// Jobs submitted since that an agent ran or runs: they come back.
    pub jobs_told: u64,
    /// Jobs submitted since that no agent knows: lost.
    pub jobs_lost: Jobs,
    /// Jobs that the backup has as going on, and that are over: their outcomes come back.
    pub outcomes: u64,
    /// Jobs that were waiting in the backup and were taken back since: they wait again.
    pub canceled: Jobs,
    /// Jobs that are held now, and would not be.
    pub released: Jobs,
    /// Jobs that would be held again.
    pub held: Jobs,
    /// Jobs that were deleted since, by retention: they return.
    pub jobs_returned: u64,
    /// Tokens that open nothing now, and would.
    pub tokens_valid_again: Vec<String>,
    /// Tokens that would not be known.
    pub tokens_lost: Vec<String>,
    /// Users that are disabled now, and would not be.
    pub users_enabled_again: Vec<String>,
    /// Users that are enabled now, and would not be.
    pub users_disabled_again: Vec<String>,
    /// Users that are not there now, and would be.
    pub users_returned: Vec<String>,
    /// Users that would not be known.
    pub users_lost: Vec<String>,
    /// Agents that have other secrets now: with those alone they could not connect.
    pub agents_secrets: Vec<String>,
    /// Agents whose settings would be those of the backup, and which.
    pub agents_changed: Vec<String>,
    /// Agents that are not there now, and would be.
    pub agents_returned: Vec<String>,
    /// Agents that would not be known.
    pub agents_lost: Vec<String>,
    /// Queues whose settings or agents would be those of the backup, and which.
    pub queues_changed: Vec<String>,
    /// Queues that are not there now, and would be.
    pub queues_returned: Vec<String>,
    /// Queues that would not be known.
    pub queues_lost: Vec<String>,
}

/// Compares with what a restore would put in its place (already prepared), reading only. The present database may be in use.
pub fn compare(present: &Path, restored: &Path) -> Result<Differences, DbError> {
    let compared = copy::open_to_read(present).map_err(Bad::Sql).and_then(|c| differences(&c, restored));
    compared.map_err(|bad| {
        DbError::Unusable(format!("comparing with {}: {}", present.display(), DbError::from(bad)))
    })
}

fn differences(c: &Connection, restored: &Path) -> Result<Differences, Bad> {
    c.execute("ATTACH ?1 AS backup", [restored.to_string_lossy()])?;
    let moment = c.unchecked_transaction()?;
    let (now, then) = (State::read(&moment, "main")?, State::read(&moment, "backup")?);
    let mut found = count_jobs(&moment)?;
    found.compare_access(&now, &then);
    found.compare_agents(&now, &then);
    found.compare_queues(&now, &then);
    Ok(found)
}

fn count_jobs(c: &Connection) -> Result<Differences, Bad> {
    let count = |sql: &str| -> Result<u64, Bad> {
        let count = one(c, sql, [], |row| Ok(row.get::<_, i64>(0)?))?;
        Ok(count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0))
    };
    let jobs = |which: &str| -> Result<Jobs, Bad> {
        let first = format!("SELECT now.id {which} ORDER BY now.id LIMIT {JOBS_MAX}");
        let first = rows(c, &first, [], |row| Ok(row.get::<_, i64>(0)?))?;
        let first = first.into_iter().filter_map(|id| u64::try_from(id).ok()).collect();
        Ok(Jobs { count: count(&format!("SELECT count(*) {which}"))?, first })
    };
    let (over, held) = (FIRST_FINAL_CODE, status_code(Status::Held));
    let new = "FROM main.jobs AS now WHERE id NOT IN (SELECT id FROM backup.jobs)";
    let both = "FROM main.jobs AS now JOIN backup.jobs AS old ON old.id = now.id WHERE";
    let commit = |schema: &str| format!("SELECT value FROM {schema}.meta WHERE key = 'commit'");
    Ok(Differences {
        commits: count(&commit("main"))?.saturating_sub(count(&commit("backup"))?),
        jobs_told: count(&format!("SELECT count(*) {new} AND run IS NOT NULL"))?,
        jobs_lost: jobs(&format!("{new} AND run IS NULL"))?,
        outcomes: count(&format!(
            "SELECT count(*) {both} now.status >= {over} AND now.run IS NOT NULL AND old.status < {over}"
        ))?,
        canceled: jobs(&format!("{both} now.status >= {over} AND now.run IS NULL AND old.status < {over}"))?,
        released: jobs(&format!("{both} now.status = {held} AND old.status <> {held}"))?,
        held: jobs(&format!("{both} now.status < {over} AND now.status <> {held} AND old.status = {held}"))?,
        jobs_returned: count("SELECT count(*) FROM backup.jobs WHERE id NOT IN (SELECT id FROM main.jobs)")?,
        ..Differences::default()
    })
}

/// Everything but the jobs, of one of the two.
struct State {
    tokens: BTreeMap<String, TokenRecord>,
    users: BTreeMap<String, UserRecord>,
    agents: BTreeMap<String, AgentRecord>,
    secrets: BTreeMap<String, BTreeSet<Vec<u8>>>,
    queues: BTreeMap<String, QueueRecord>,
    /// Queue and agent.
    attachments: BTreeSet<(String, String)>,
}

impl State {
    fn read(c: &Connection, schema: &str) -> Result<State, Bad> {
        let all = |table: &str, columns: &str| {
            format!("SELECT {} FROM {schema}.{table}", qualified(table, columns))
        };
        let mut secrets: BTreeMap<String, BTreeSet<Vec<u8>>> = BTreeMap::new();
        for (agent, secret) in
            rows(c, &all("secrets", "agent, secret"), [], |row| Ok((row.get(0)?, row.get(1)?)))?
        {
            secrets.entry(agent).or_default().insert(secret);
        }
        let tokens = rows(c, &all("tokens", TOKEN_COLUMNS), [], map::token)?;
        let users = rows(c, &all("users", "name, disabled, created_at"), [], map::user)?;
        let agents = rows(c, &all("agents", AGENT_COLUMNS), [], map::agent)?;
        let queues = rows(c, &all("queues", QUEUE_COLUMNS), [], map::queue)?;
        let attachments =
            rows(c, &all("attachments", "queue, agent"), [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(State {
            tokens: tokens.into_iter().map(|token| (token.id.clone(), token)).collect(),
            users: users.into_iter().map(|user| (user.name.clone(), user)).collect(),
            agents: agents.into_iter().map(|agent| (agent.name.clone(), agent)).collect(),
            secrets,
            queues: queues.into_iter().map(|queue| (queue.name.clone(), queue)).collect(),
            attachments: attachments.into_iter().collect(),
        })
    }

    /// How attachments differ, those of which `of` gives the other end's name.
    fn attached_otherwise(
        &self,
        then: &State,
        of: impl Fn(&(String, String)) -> Option<&str>,
    ) -> Vec<String> {
        let said = |word: &str, more: &State, less: &State| -> Vec<String> {
            let only = more.attachments.difference(&less.attachments);
            only.filter_map(|pair| Some(format!("{word} {}", of(pair)?))).collect()
        };
        let mut all = said("attached again:", then, self);
        all.extend(said("attached no more:", self, then));
        all
    }
}

impl Differences {
    fn compare_access(&mut self, now: &State, then: &State) {
        let text = |token: &TokenRecord| token_text(&token.name, &token.user);
        for (id, token) in &then.tokens {
            let is_revoked = |token: &TokenRecord| token.revoked_at_ms.is_some();
            if !is_revoked(token) && now.tokens.get(id).is_some_and(is_revoked) {
                self.tokens_valid_again.push(text(token));
            }
        }
        self.tokens_lost = missing(&now.tokens, &then.tokens).map(|id| text(&now.tokens[id])).collect();
        self.users_lost = missing(&now.users, &then.users).cloned().collect();
        self.users_returned =
            missing(&then.users, &now.users).filter(|name| !then.users[*name].disabled).cloned().collect();
        for (name, user, before) in common(&now.users, &then.users) {
            match (user.disabled, before.disabled) {
                (true, false) => self.users_enabled_again.push(name.clone()),
                (false, true) => self.users_disabled_again.push(name.clone()),
                (true, true) | (false, false) => {}
            }
        }
    }

    fn compare_agents(&mut self, now: &State, then: &State) {
        self.agents_lost = missing(&now.agents, &then.agents).cloned().collect();
        self.agents_returned = missing(&then.agents, &now.agents).cloned().collect();
        for (name, agent, before) in common(&now.agents, &then.agents) {
            if now.secrets.get(name) != then.secrets.get(name) {
                self.agents_secrets.push(name.clone());
            }
            let address = |agent: &AgentRecord| match &agent.dial {
                Some(dial) => format!("{}:{}", dial.host, dial.port),
                None => "it dials in".to_owned(),
            };
            let drain = |agent: &AgentRecord| if agent.drain.is_some() { "drained" } else { "not drained" };
            let mut what = Vec::new();
            push_other(&mut what, "slots ", &agent.slots, &before.slots);
            push_other(&mut what, "address ", &address(agent), &address(before));
            push_other(&mut what, "", &drain(agent), &drain(before));
            what.extend(now.attached_otherwise(then, |(queue, agent)| (agent == name).then_some(queue)));
            if !what.is_empty() {
                self.agents_changed.push(format!("{name} ({})", what.join("; ")));
            }
        }
    }

    fn compare_queues(&mut self, now: &State, then: &State) {
        self.queues_lost = missing(&now.queues, &then.queues).cloned().collect();
        self.queues_returned = missing(&then.queues, &now.queues).cloned().collect();
        for (name, queue, before) in common(&now.queues, &then.queues) {
            let hold = |queue: &QueueRecord| if queue.held { "held" } else { "not held" };
            let slots = |queue: &QueueRecord| {
                queue.slots.map_or_else(|| "without a limit".to_owned(), |slots| slots.to_string())
            };
            let mut what = Vec::new();
            push_other(&mut what, "", &hold(queue), &hold(before));
            push_other(&mut what, "slots ", &slots(queue), &slots(before));
            push_other(&mut what, "priority ", &queue.priority, &before.priority);
            what.extend(now.attached_otherwise(then, |(queue, agent)| (queue == name).then_some(agent)));
            if !what.is_empty() {
                self.queues_changed.push(format!("{name} ({})", what.join("; ")));
            }
        }
    }
}

fn push_other<T: PartialEq + std::fmt::Display>(what: &mut Vec<String>, name: &str, now: &T, then: &T) {
    if now != then {
        what.push(format!("{name}{then}, now {now}"));
    }
}

/// The keys of one that another has not.
fn missing<'a, T>(
    of: &'a BTreeMap<String, T>,
    than: &'a BTreeMap<String, T>,
) -> impl Iterator<Item = &'a String> {
    of.keys().filter(|key| !than.contains_key(*key))
}

fn common<'a, T>(
    now: &'a BTreeMap<String, T>,
    then: &'a BTreeMap<String, T>,
) -> impl Iterator<Item = (&'a String, &'a T, &'a T)> {
    now.iter().filter_map(|(key, value)| Some((key, value, then.get(key)?)))
}
