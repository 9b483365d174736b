//! One job at a time: from the submission until the committed outcome has reached who submitted it.

use crate::figure::Figures;
use crate::jobs::run_true;
use ::tests::Client;
use anyhow::Result;
use std::time::Instant;

/// Jobs measured; before them, some that are not.
const JOBS: usize = 300;
const WARM_UP_JOBS: usize = 20;

pub(crate) fn measure(client: &Client, figures: &mut Figures) -> Result<()> {
    println!("==> latency of {JOBS} jobs, one at a time");
    (0..WARM_UP_JOBS).try_for_each(|_| run_true(client))?;
    let mut times_ms = Vec::with_capacity(JOBS);
    for _ in 0..JOBS {
        let begin = Instant::now();
        run_true(client)?;
        times_ms.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    times_ms.sort_by(f64::total_cmp);
    figures.add("latency_ms_p50", percentile(&times_ms, 50), "ms", &[]);
    figures.add("latency_ms_p99", percentile(&times_ms, 99), "ms", &[]);
    Ok(())
}

/// The smallest value that `percent` of the sorted ones do not exceed.
pub(crate) fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(percentile(&values, 50), 100.0);
        assert_eq!(percentile(&values, 99), 198.0);
        assert_eq!(percentile(&[7.0], 99), 7.0);
    }
}
