//! What following a gigabyte of output costs those who wait for a status: on a quick line, and on a slow one.
//!
//! The delay of a status is the time from the end of a job by the agent's clock (here the same as ours, in milliseconds) until its committed
//! outcome has reached who waits for it.

use crate::figure::Figures;
use crate::latency::percentile;
use ::tests::{Agent, Client, Site};
use anyhow::{Context, Result, bail, ensure};
use api::{Job, Status};
use serde_json::json;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What is followed.
const OUTPUT_BYTES: u64 = 1 << 30;
/// Statuses that are measured, at least; more until everything was followed once.
const JOBS: usize = 200;
const WARM_UP_JOBS: usize = 20;
/// The slow line, and what is followed over it.
const LINE_BYTES_PER_S: u64 = 5_000_000;
const LINE_OUTPUT_BYTES: u64 = 25_000_000;
/// What the slow line carries at once.
const LINE_PIECE_BYTES: usize = 4 << 10;
/// So much of it may come at once after a pause.
const LINE_LATE_MAX: Duration = Duration::from_millis(10);

/// Whom the jobs of a measurement run on.
struct Place<'a> {
    site: &'a Site,
    agent: &'a str,
    /// What is added to the figures' names.
    suffix: &'a str,
    output_bytes: u64,
}

pub(crate) fn measure(site: &Site, figures: &mut Figures) -> Result<()> {
    let quick = Place { site, agent: "host1", suffix: "", output_bytes: OUTPUT_BYTES };
    quick.measure(figures)?;
    let line = slow_line(site.server.agents_address().parse()?)?;
    let mut agent = Agent::prepare(site.path(), "slow", Some(&line.to_string()))?;
    site.introduce(&agent)?;
    agent.start()?;
    site.wait_connected("slow")?;
    let slow = Place { site, agent: "slow", suffix: "_slow_line", output_bytes: LINE_OUTPUT_BYTES };
    slow.measure(figures)?;
    agent.stop()?;
    Ok(())
}

impl Place<'_> {
    fn measure(&self, figures: &mut Figures) -> Result<()> {
        let megabytes = self.output_bytes / 1_000_000;
        println!(
            "==> delay of statuses of agent {}, alone and while {megabytes} MB are followed",
            self.agent
        );
        let name = |figure: &str| format!("{figure}{}", self.suffix);
        (0..WARM_UP_JOBS).try_for_each(|_| self.delay_ms().map(drop))?;
        let alone = sorted(self.delays_until(|| true)?);
        let (alone_p50, alone_p99) = (percentile(&alone, 50), percentile(&alone, 99));
        figures.add(&name("status_delay_alone_ms_p50"), alone_p50, "ms", &[]);
        figures.add(&name("status_delay_alone_ms_p99"), alone_p99, "ms", &[]);
        let written = self.run(&["/usr/bin/head", "-c", &self.output_bytes.to_string(), "/dev/zero"])?;
        let (followed, over, begin) = (AtomicU64::new(0), AtomicBool::new(false), Instant::now());
        let (delays, seconds) = thread::scope(|scope| {
            let follower = scope.spawn(|| self.follow_until(written.id, &followed, &over));
            let delays = self.delays_until(|| followed.load(Ordering::Relaxed) >= self.output_bytes);
            over.store(true, Ordering::Relaxed);
            let seconds = begin.elapsed().as_secs_f64();
            follower.join().ok().context("the follower died")??;
            anyhow::Ok((delays?, seconds))
        })?;
        let delays = sorted(delays);
        let (p50, p99) = (percentile(&delays, 50), percentile(&delays, 99));
        figures.add(
            &name("status_delay_ms_p50"),
            p50,
            "ms",
            &[(&name("status_delay_alone_ms_p50"), p50 / alone_p50)],
        );
        figures.add(
            &name("status_delay_ms_p99"),
            p99,
            "ms",
            &[(&name("status_delay_alone_ms_p99"), p99 / alone_p99)],
        );
        let rate = followed.load(Ordering::Relaxed) as f64 / seconds / 1e6;
        figures.add(&name("follow_mb_per_s"), rate, "MB/s", &[]);
        Ok(())
    }

    /// Delays of one job after the other, at least so many as are wanted, and until `enough`.
    fn delays_until(&self, enough: impl Fn() -> bool) -> Result<Vec<f64>> {
        let mut delays = Vec::new();
        while delays.len() < JOBS || !enough() {
            delays.push(self.delay_ms()?);
        }
        Ok(delays)
    }

    fn delay_ms(&self) -> Result<f64> {
        let job = self.run(&["/bin/true"])?;
        let seen_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() * 1000.0;
        let ended = job.runs.last().and_then(|run| run.ended_at).context("a job without an end")?;
        Ok((seen_ms - ended.ms as f64).max(0.0))
    }

    fn run(&self, command: &[&str]) -> Result<Job> {
        let client: &Client = self.site.client();
        let submit = json!({ "command": command, "agent": self.agent });
        let mut job: Job = client.try_call("POST", "/api/v1/jobs", Some(&submit))?.json()?;
        while !job.status.0.is_final() {
            job = client.try_call("GET", &format!("/api/v1/jobs/{}?wait=20s", job.id), None)?.json()?;
        }
        if job.status.0 != Status::Completed {
            bail!("job {} ended as {} ({:?})", job.id, job.status.0, job.reason);
        }
        Ok(job)
    }

    /// Follows the output from its beginning, again and again.
    fn follow_until(&self, job: u64, followed: &AtomicU64, over: &AtomicBool) -> Result<()> {
        let token = std::fs::read_to_string(self.site.server.token_file())?;
        while !over.load(Ordering::Relaxed) {
            let mut socket = TcpStream::connect(self.site.server.http_address())?;
            let path = format!("/api/v1/jobs/{job}/output/stdout?follow=true");
            let token = token.trim();
            write!(
                socket,
                "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n"
            )?;
            let (mut piece, mut bytes) = (vec![0; 256 << 10], 0);
            while !over.load(Ordering::Relaxed) {
                let read = socket.read(&mut piece)?;
                if read == 0 {
                    ensure!(
                        bytes >= self.output_bytes,
                        "the follower's answer broke off after {bytes} bytes"
                    );
                    break;
                }
                bytes += read as u64;
                followed.fetch_add(read as u64, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// A line to that address that carries so many bytes per second in each direction, with the buffers that the kernel gives it. Its threads end with
/// its connections; the listener stays.
fn slow_line(to: SocketAddr) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen for the slow line")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = TcpStream::connect(to) else { continue };
            let (Ok(near_again), Ok(far_again)) = (near.try_clone(), far.try_clone()) else { continue };
            thread::spawn(move || carry(near, far));
            thread::spawn(move || carry(far_again, near_again));
        }
    });
    Ok(address)
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    let (mut piece, mut free_at) = ([0; LINE_PIECE_BYTES], Instant::now());
    while let Ok(read) = from.read(&mut piece) {
        // Whoever slept too long may catch up a little, so that the line has its rate on a busy machine too.
        free_at = free_at.max(Instant::now() - LINE_LATE_MAX);
        free_at += Duration::from_secs_f64(read as f64 / LINE_BYTES_PER_S as f64);
        thread::sleep(free_at.saturating_duration_since(Instant::now()));
        if read == 0 || to.write_all(&piece[..read]).is_err() {
            break;
        }
    }
    // The other end is told; that it is gone already is as good.
    let _ = to.shutdown(std::net::Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slow_line_is_slow_and_carries_everything() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let line = slow_line(listener.local_addr().unwrap()).unwrap();
        let begin = Instant::now();
        let mut near = TcpStream::connect(line).unwrap();
        let sent = thread::spawn(move || near.write_all(&vec![7; 500_000]).unwrap());
        let mut got = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut got).unwrap();
        sent.join().unwrap();
        assert_eq!(got.len(), 500_000);
        assert!(begin.elapsed() >= Duration::from_millis(70), "{:?}", begin.elapsed());
    }
}
