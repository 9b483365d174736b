//! What a run used, put together from what the kernel counts where.
//!
//! | source                              | counts                                                    | there                              |
//! |-------------------------------------|-----------------------------------------------------------|------------------------------------|
//! | `rusage` of the wait                | the main process and the children that it waited for      | for whoever waited                 |
//! | `cpu.stat` of the control group     | every process that ever was in it                         | wherever a run has a v2 group      |
//! | `memory.*`, `io.stat`, `pids.peak`  | the same                                                  | where those controllers are        |
//!
//! The group's account wins over the wait's, since it misses nobody.

use job::Usage;
use os::cgroup::Cgroup;
use os::wait::Waited;

/// What is known of a run's use: `waited` by whoever waited for its main process, `group` while its control group exists.
pub fn usage(waited: Option<&Waited>, group: Option<&Cgroup>) -> Option<Usage> {
    let of_wait = waited.map_or_else(Usage::default, of_wait);
    let of_group = group.map_or_else(Usage::default, of_group);
    Some(of_wait.or_better(of_group)).filter(|usage| *usage != Usage::default())
}

fn of_wait(waited: &Waited) -> Usage {
    let rusage = waited.rusage;
    Usage {
        cpu_ms: Some(rusage.user_ms + rusage.system_ms),
        user_ms: Some(rusage.user_ms),
        system_ms: Some(rusage.system_ms),
        max_rss_kib: Some(rusage.max_rss_kib),
        read_bytes: Some(rusage.read_bytes),
        written_bytes: Some(rusage.written_bytes),
        context_switches: Some(rusage.context_switches),
        ..Usage::default()
    }
}

fn of_group(group: &Cgroup) -> Usage {
    let stat = group.stat();
    Usage {
        cpu_ms: stat.cpu_ms,
        user_ms: stat.user_ms,
        system_ms: stat.system_ms,
        memory_peak_kib: stat.memory_peak_kib,
        read_bytes: stat.read_bytes,
        written_bytes: stat.written_bytes,
        oom_kills: stat.oom_kills,
        processes_peak: stat.processes_peak,
        ..Usage::default()
    }
}
