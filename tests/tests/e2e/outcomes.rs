//! What is said of a job is what it did.

use api::{JobSubmit, Span, Status};
use tests::{End, Random, Way, helper, ledger_job, on_site};

#[test]
fn every_exit_code_arrives_as_it_is() {
    on_site(|site| {
        let codes = [0u8, 1, 2, 7, 63, 64, 75, 100, 124, 126, 127, 128, 129, 137, 143, 200, 254, 255];
        let jobs: Vec<_> = codes.iter().map(|code| shell(&format!("exit {code}"))).collect();
        for (id, code) in site.client().submit_batch(&jobs)?.into_iter().zip(codes) {
            let job = site.client().wait(id)?;
            assert!(End::Code(code).fits(&job), "exit {code}: {job:#?}");
            assert_eq!(job.runs.len(), 1);
            assert_eq!(job.runs[0].witness.as_deref(), Some("job-processor"));
            assert!(job.started_at.is_some() && job.ended_at.is_some());
        }
        Ok(())
    });
}

#[test]
fn a_signal_that_nobody_asked_for_is_an_error_with_that_signal() {
    on_site(|site| {
        let signals = [1u8, 2, 3, 6, 9, 10, 11, 14, 15];
        let ledger = site.ledger();
        let ways = signals.map(|signal| Way { sleep_ms: 0, end: End::Signal(signal) });
        let jobs = ways.iter().map(|way| ledger_job(ledger.path(), *way)).collect::<Result<Vec<_>, _>>()?;
        for (id, signal) in site.client().submit_batch(&jobs)?.into_iter().zip(signals) {
            let job = site.client().wait(id)?;
            assert!(End::Signal(signal).fits(&job), "signal {signal}: {job:#?}");
        }
        Ok(())
    });
}

#[test]
fn three_hundred_jobs_of_one_batch_all_end_as_they_did() {
    on_site(|site| {
        let mut random = Random::from_seed();
        let ledger = site.ledger();
        let ways: Vec<Way> = (0..300)
            .map(|_| Way { sleep_ms: random.below(30), end: End::Code(random.below(256) as u8) })
            .collect();
        let jobs = ways.iter().map(|way| ledger_job(ledger.path(), *way)).collect::<Result<Vec<_>, _>>()?;
        let ids = site.client().submit_batch(&jobs)?;
        site.client().wait_all()?;
        for (id, way) in ids.iter().zip(&ways) {
            let job = site.client().job(*id)?;
            assert!(way.end.fits(&job), "{way:?}: {job:#?}");
            assert_eq!(ledger.of(*id)?.len(), 1, "executed once");
        }
        assert_eq!(site.client().list()?.len(), ids.len());
        Ok(())
    });
}

#[test]
fn a_killed_job_may_clean_up_within_its_grace() {
    on_site(|site| {
        let id =
            site.client().script("trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.02; done")?;
        wait_for_line(site, id, "ready")?;
        site.client().kill(id, Some(60_000))?;
        let job = site.client().wait(id)?;
        assert_eq!((job.status.0, job.exit_code, job.signal), (Status::Killed, Some(3), None), "{job:#?}");
        assert!(site.client().stdout(id)?.ends_with("bye\n"));
        Ok(())
    });
}

#[test]
fn a_job_that_ignores_the_soft_signal_is_killed_with_all_its_descendants() {
    on_site(|site| {
        let id = site.client().script(
            "trap '' TERM\n\
             setsid sh -c 'trap \"\" TERM; echo grandchild $$; while :; do sleep 0.02; done' &\n\
             echo child $!; echo self $$\n\
             while :; do sleep 0.02; done",
        )?;
        wait_for_line(site, id, "grandchild")?;
        wait_for_line(site, id, "self")?;
        let family = processes_named_in(&site.client().output(id, "stdout", 0)?.bytes);
        assert!(family.len() >= 2 && family.iter().all(tests::Process::lives), "{family:?}");
        site.client().kill(id, Some(50))?;
        let job = site.client().wait(id)?;
        assert_eq!((job.status.0, job.signal), (Status::Killed, Some(9)), "{job:#?}");
        tests::wait_until("all of the job's processes to be gone", || {
            Ok(!family.iter().any(tests::Process::lives))
        })
    });
}

#[test]
fn a_job_whose_time_is_over_is_killed_and_says_so() {
    on_site(|site| {
        let timeout = Some(Span { ms: 200 });
        let id = site.client().submit(&JobSubmit { timeout, ..command(&["/bin/sleep", "1000"]) })?;
        let job = site.client().wait(id)?;
        assert_eq!((job.status.0, job.timed_out, job.signal), (Status::Killed, true, Some(15)), "{job:#?}");
        assert!(job.reason.unwrap_or_default().contains("200ms"));
        Ok(())
    });
}

#[test]
fn a_command_that_cannot_be_executed_is_an_error_without_an_exit_code() {
    on_site(|site| {
        let plain = site.path().join("plain");
        std::fs::write(&plain, "not a program")?;
        for words in [vec!["/no/such/program"], vec!["no-such-program"], vec![plain.to_str().unwrap()]] {
            let job = site.client().wait(site.client().command(&words)?)?;
            assert_eq!((job.status.0, job.exit_code, job.signal), (Status::Error, None, None), "{job:#?}");
            assert!(job.reason.as_ref().is_some_and(|reason| reason.contains(words[0])), "{job:#?}");
        }
        let nowhere = JobSubmit { cwd: Some("/no/such/directory".into()), ..command(&["/bin/true"]) };
        let job = site.client().wait(site.client().submit(&nowhere)?)?;
        assert_eq!((job.status.0, job.exit_code), (Status::Error, None), "{job:#?}");
        assert!(job.reason.as_ref().is_some_and(|reason| reason.contains("working directory")), "{job:#?}");
        Ok(())
    });
}

#[test]
fn a_job_finds_its_environment_parameters_and_directory() {
    on_site(|site| {
        let script = "#!/bin/sh\n\
            echo \"$LASTWORD_JOB_ID $LASTWORD_ATTEMPT $LASTWORD_JOB_NAME $LASTWORD_QUEUE $LASTWORD_AGENT\"\n\
            echo \"$COLOUR|$LASTWORD_PARAM_REGION|$1|$2\"\npwd\nread line || echo no input\n";
        let job = JobSubmit {
            script: Some(script.into()),
            command: vec!["first".into(), "second one".into()],
            name: Some("nightly".into()),
            cwd: Some(site.path().to_string_lossy().into_owned()),
            env: [("COLOUR".to_owned(), "dark blue".to_owned())].into(),
            params: [("region".to_owned(), "eu".to_owned())].into(),
            ..JobSubmit::default()
        };
        let id = site.client().submit(&job)?;
        assert_eq!(site.client().wait(id)?.status.0, Status::Completed);
        let expected = format!(
            "{id} 1 nightly default host1\ndark blue|eu|first|second one\n{}\nno input\n",
            site.path().display()
        );
        assert_eq!(site.client().stdout(id)?, expected);
        let private = site.client().script("pwd; touch mine")?;
        site.client().wait(private)?;
        let run_id = site.client().job(private)?.runs[0].run_id.clone();
        assert!(site.client().stdout(private)?.trim_end().ends_with(&format!("{run_id}/work")));
        Ok(())
    });
}

#[test]
fn a_job_has_the_mask_niceness_and_limits_that_were_asked_for() {
    on_site(|site| {
        let job = JobSubmit {
            umask: Some("027".into()),
            nice: Some(7),
            limits: [("nofile".to_owned(), "64:128".to_owned()), ("core".to_owned(), "0".to_owned())].into(),
            ..shell("umask; nice; ulimit -Sn; ulimit -Hn; ulimit -c; touch mine; stat -c %a mine")
        };
        let id = site.client().submit(&job)?;
        assert_eq!(site.client().wait(id)?.status.0, Status::Completed);
        assert_eq!(site.client().stdout(id)?, "0027\n7\n64\n128\n0\n640\n");
        // No host has so many: nothing is executed, and the limit is named.
        let beyond =
            JobSubmit { limits: [("nofile".to_owned(), "unlimited".to_owned())].into(), ..shell("true") };
        let ended = site.client().wait(site.client().submit(&beyond)?)?;
        assert_eq!((ended.status.0, ended.exit_code), (Status::Error, None), "{ended:#?}");
        assert!(
            ended.reason.as_ref().is_some_and(|reason| reason.contains("limit \"nofile\"")),
            "{ended:#?}"
        );
        Ok(())
    });
}

#[test]
fn what_a_job_leaves_behind_is_ended() {
    on_site(|site| {
        let id =
            site.client().script("setsid sleep 1000 & echo left $!; sleep 1000 & echo left $!; exit 5")?;
        let job = site.client().wait(id)?;
        assert!(End::Code(5).fits(&job), "{job:#?}");
        let left = site.client().stdout(id)?;
        assert_eq!(left.lines().count(), 2);
        tests::wait_until("the leftovers to be gone", || {
            Ok(!processes_named_in(left.as_bytes()).iter().any(|p| p.lives() && p.program == "sleep"))
        })
    });
}

#[test]
fn a_job_is_given_clean_signals_and_no_strange_descriptors() {
    on_site(|site| {
        let id = site.client().script("grep -E '^Sig(Blk|Ign)' /proc/self/status; ls -l /proc/self/fd")?;
        site.client().wait(id)?;
        let text = site.client().stdout(id)?;
        let masks = text.lines().filter_map(|line| line.strip_prefix("Sig")?.split('\t').nth(1));
        let masks: Vec<u64> = masks.map(|mask| u64::from_str_radix(mask, 16)).collect::<Result<_, _>>()?;
        // 32 and 33 are the C library's own: its posix_spawn ignores them, and nobody can send them by mistake.
        let own = 1 << 31 | 1 << 32;
        assert!(masks.len() == 2 && masks.iter().all(|mask| mask & !own == 0), "{text}");
        // 0, 1, 2, and the one with which `ls` reads the directory.
        assert_eq!(text.lines().filter(|line| line.contains(" -> ")).count(), 4, "{text}");
        Ok(())
    });
}

#[test]
fn the_same_idempotency_key_is_the_same_job() {
    on_site(|site| {
        let ledger = site.ledger();
        let way = Way { sleep_ms: 0, end: End::Code(9) };
        let job = JobSubmit { idempotency_key: Some("once".into()), ..ledger_job(ledger.path(), way)? };
        let first = site.client().submit(&job)?;
        assert_eq!(site.client().submit(&job)?, first);
        site.client().wait(first)?;
        assert_eq!(site.client().submit(&job)?, first);
        site.server.kill()?;
        site.server.restart()?;
        assert_eq!(site.client().submit(&job)?, first);
        let other = JobSubmit { idempotency_key: Some("once".into()), ..command(&["/bin/false"]) };
        assert!(site.client().submit(&other).is_err(), "the key belongs to another request");
        assert_eq!(ledger.of(first)?.len(), 1);
        assert_eq!(site.client().list()?.len(), 1);
        Ok(())
    });
}

#[test]
fn the_proof_of_a_job_shows_the_same_on_both_sides() {
    on_site(|site| {
        let id = site.client().command(&[helper("ledger-job")?.to_str().unwrap()])?;
        let job = site.client().wait(id)?;
        assert!(End::Code(1).fits(&job), "{job:#?}");
        let proof = site.client().proof(id)?;
        assert_eq!(proof.runs.len(), 1);
        assert_eq!(proof.runs[0].agrees, Some(true), "{proof:#?}");
        Ok(())
    });
}

pub(crate) fn command(words: &[&str]) -> JobSubmit {
    JobSubmit { command: words.iter().map(|word| (*word).to_owned()).collect(), ..JobSubmit::default() }
}

pub(crate) fn shell(text: &str) -> JobSubmit {
    command(&["/bin/sh", "-c", text])
}

/// Waits until a line of the job's output begins so.
pub(crate) fn wait_for_line(site: &tests::Site, id: u64, begin: &str) -> anyhow::Result<()> {
    site.client().wait_running(id)?;
    tests::wait_until(&format!("\"{begin}\" of job {id}"), || {
        let bytes = site.client().output(id, "stdout", 0)?.bytes;
        Ok(String::from_utf8_lossy(&bytes).lines().any(|line| line.starts_with(begin)))
    })
}

/// The processes whose ids end the lines of a job's output.
fn processes_named_in(output: &[u8]) -> Vec<tests::Process> {
    let text = String::from_utf8_lossy(output);
    let pids = text.lines().filter_map(|line| line.split(' ').next_back()?.parse().ok());
    pids.filter_map(tests::Process::find).collect()
}
