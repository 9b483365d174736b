//! Moments that stand on the wall clock, which can be set: the end of a token, and what is shown of jobs while local time skips or repeats an hour.

use crate::clock::{Clock, YEAR};
use anyhow::{Result, ensure};
use api::{EventList, JobSubmit, Time, Token, TokenMade};
use tests::{Client, Dialling, End, Part, Site, Tally, on_empty_site, wait_until};

const HOUR_MS: u64 = 3_600_000;
/// So long before the change of the local time the clocks stand at first, seconds; what is done then takes less than an hour by far.
const BEFORE: i64 = 3;
const CASE_MS_MAX: i64 = 600_000;

fn make_token(site: &Site, name: &str) -> Result<TokenMade> {
    let new = serde_json::json!({"name": name, "role": "operator", "expires": HOUR_MS});
    site.client().call("POST", "/api/v1/tokens", Some(&new))?.json()
}

/// What the server answers to whoever comes with that token.
fn answer(site: &Site, token: &TokenMade) -> Result<(u16, String)> {
    let client = Client::new(site.server.http_address(), &token.secret);
    let answer = client.try_call("GET", "/api/v1/jobs", None)?;
    Ok((answer.status, String::from_utf8_lossy(&answer.body).into_owned()))
}

/// What is on record of it.
fn recorded(site: &Site, token: &TokenMade) -> Result<Vec<String>> {
    let all: serde_json::Value = site.client().call("GET", "/api/v1/tokens?all=true", None)?.json()?;
    let all: Vec<Token> = serde_json::from_value(all["items"].clone())?;
    Ok(all.into_iter().filter(|known| known.id == token.token.id).map(|known| known.state).collect())
}

#[test]
fn a_token_opens_until_its_end_by_the_servers_clock_and_one_that_a_wrong_clock_ended_opens_again() {
    on_empty_site(|site| {
        let promise = "tokens end when they should, and none is lost to a clock that was wrong";
        let mut tally = Tally::new(Part::TimeAndIdentity, promise);
        let clock = Clock::new(site, "server")?;
        site.server.stop()?;
        site.server.restart_with(&[clock.environment()])?;
        let token = make_token(site, "hourly")?;
        let opens = |site: &Site| -> Result<()> {
            let (status, text) = answer(site, &token)?;
            ensure!(status == 200, "{status} {text}");
            ensure!(recorded(site, &token)? == ["valid"], "{:?}", recorded(site, &token)?);
            Ok(())
        };
        let refuses = |site: &Site| -> Result<()> {
            let (status, text) = answer(site, &token)?;
            ensure!(status == 401 && text.contains("expired"), "{status} {text}");
            ensure!(recorded(site, &token)? == ["expired"], "{:?}", recorded(site, &token)?);
            Ok(())
        };
        opens(site)?;
        for seconds in [YEAR, -YEAR, 3_500, 3_700, 10 * YEAR, 0] {
            clock.set(seconds)?;
            match seconds > 3_600 {
                true => refuses(site)?,
                false => opens(site)?,
            }
            tally.count("clock jumps", 1);
        }
        // Nor does a server that is started with a wrong clock forget it.
        clock.set(YEAR)?;
        site.server.stop()?;
        site.server.restart_with(&[clock.environment()])?;
        refuses(site)?;
        clock.set(0)?;
        opens(site)?;
        tally.count("clock jumps", 2);
        tally.kept();
        Ok(())
    });
}

/// 2027-03-28 01:00 UTC: in Berlin 2:00 is 3:00. 2027-10-31 01:00 UTC: there 3:00 is 2:00.
const CHANGES: [i64; 2] = [1_806_195_600, 1_824_944_400];
const ZONES: [&str; 2] = ["Europe/Berlin", "CET-1CEST,M3.5.0,M10.5.0/3"];

#[test]
fn no_moment_is_wrong_by_an_hour_in_the_nights_in_which_local_time_changes() {
    on_empty_site(|site| {
        let mut tally = Tally::new(
            Part::TimeAndIdentity,
            "a job amid the change of summer time has no moment that is wrong",
        );
        let clock = Clock::new(site, "all")?;
        let cases = ZONES.iter().flat_map(|zone| CHANGES.map(|change| (*zone, change)));
        for (index, (zone, change)) in cases.enumerate() {
            let environment = [clock.environment(), ("TZ".to_owned(), zone.to_owned())];
            let begin = change - BEFORE;
            clock.set(begin - os::clock::wall_ms() / 1_000)?;
            site.server.stop()?;
            site.server.restart_with(&environment)?;
            let name = format!("host{index}");
            site.add_agent_with(&name, Dialling::In, &environment)?;
            amid(site, &clock, &name, zone, change).map_err(|e| e.context(format!("{zone}, {change}")))?;
            site.agents[0].stop()?;
            site.agents.clear();
            tally.count("changes of local time", 1);
        }
        tally.kept();
        Ok(())
    });
}

/// A job that is submitted before the change and ends after it.
fn amid(site: &Site, clock: &Clock, host: &str, zone: &str, change: i64) -> Result<()> {
    let begin = change - BEFORE;
    clock.set(begin - os::clock::wall_ms() / 1_000)?;
    let offset = begin - os::clock::wall_ms() / 1_000;
    let gate = site.path().join(format!("go-{host}-{change}"));
    let job = tests::gated_job(site.ledger().path(), &gate, End::Code(7))?;
    let id = site.client().submit(&JobSubmit { agent: Some(host.to_owned()), ..job })?;
    site.client().wait_running(id)?;
    wait_until("the change to be over", || Ok(os::clock::wall_ms() / 1_000 + offset > change))?;
    std::fs::write(gate, "")?;
    let job = site.client().wait(id)?;
    ensure!(End::Code(7).fits(&job), "{job:#?}");

    let run = &job.runs[0];
    let moments = [Some(job.submitted_at), run.placed_at, run.started_at, run.ended_at];
    let moments: Vec<i64> = moments.iter().flatten().map(|moment| moment.ms).collect();
    ensure!(moments.len() == 4 && moments.is_sorted(), "{moments:?}");
    let (change_ms, last) = (change * 1_000, moments[3]);
    ensure!(moments[0] >= change_ms - CASE_MS_MAX && last >= change_ms, "{moments:?}");
    ensure!(last - moments[0] < CASE_MS_MAX, "an hour came between: {moments:?}");

    let events: EventList =
        site.client().call("GET", &format!("/api/v1/events/list?job={id}"), None)?.json()?;
    ensure!(!events.items.is_empty(), "no events of {id}");
    for event in &events.items {
        ensure!((moments[0] - CASE_MS_MAX..last + CASE_MS_MAX).contains(&event.at.ms), "{event:?}");
    }
    let shown = site.lastword(&["job", "show", &id.to_string()])?.env("TZ", zone).output()?;
    let shown = String::from_utf8(shown.stdout)?;
    for moment in [moments[0], last] {
        let text = Time { ms: moment }.to_seconds();
        ensure!(shown.contains(&text), "{text} is not in {shown}");
    }
    Ok(())
}
