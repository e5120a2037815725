//! What the process itself uses, read from `/proc/self` when someone looks.
//!
//! The names are those that Prometheus' own client libraries use, so that existing dashboards work.

use std::fs;

use metrics::{Unit, describe_counter, describe_gauge, gauge};

const RESIDENT: &str = "process_resident_memory_bytes";
const CPU: &str = "process_cpu_seconds_total";
const CPU_HELP: &str = "Processor time the agent used, user and system";
const OPEN_FDS: &str = "process_open_fds";
const MAX_FDS: &str = "process_max_fds";
const THREADS: &str = "process_threads";

/// Ticks a second in `/proc/self/stat`: `USER_HZ`, part of Linux' ABI on every architecture we build for.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) fn describe() {
    describe_gauge!(RESIDENT, Unit::Bytes, "Resident memory of the agent");
    describe_counter!(CPU, Unit::Seconds, CPU_HELP);
    describe_gauge!(OPEN_FDS, "File descriptors the agent holds open");
    describe_gauge!(MAX_FDS, "File descriptors the agent may hold open");
    describe_gauge!(THREADS, "Threads of the agent");
}

/// File descriptors of this process: those open, and those that may be.
pub(crate) fn files() -> Option<(u64, u64)> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    // `unlimited` is not a number, and never too few.
    let most = field(&limits, "Max open files")? as u64;
    Some((open as u64, most))
}

/// Takes stock; a figure that cannot be read keeps its last value.
pub(super) fn record() {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let status = read("/proc/self/status");
    let figures = [
        (RESIDENT, field(&status, "VmRSS:").map(|kib| kib * 1024.0)),
        (THREADS, field(&status, "Threads:")),
        (MAX_FDS, field(&read("/proc/self/limits"), "Max open files")),
        (
            OPEN_FDS,
            fs::read_dir("/proc/self/fd")
                .ok()
                .map(|fds| fds.count() as f64),
        ),
    ];
    for (name, figure) in figures {
        if let Some(figure) = figure {
            gauge!(name).set(figure);
        }
    }
}

/// Processor time as its part of the page: a counter that is a fraction, where the recorder's hold whole numbers.
pub(super) fn cpu() -> String {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let seconds = cpu_seconds(&stat);
    seconds.map_or_else(String::new, |seconds| {
        format!("# HELP {CPU} {CPU_HELP}\n# TYPE {CPU} counter\n{CPU} {seconds}\n")
    })
}

/// The first number after `name` on its line.
fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Fields 14 and 15, counted after the program's name, which may hold spaces and parentheses.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = fields.split_whitespace().skip(11).map(str::parse::<f64>);
    let (user, system) = (ticks.next()?.ok()?, ticks.next()?.ok()?);
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_words() {
        let status = "Name:\tstarling\nVmRSS:\t   12345 kB\nThreads:\t3\n";
        assert_eq!(field(status, "VmRSS:"), Some(12345.0));
        assert_eq!(field(status, "Absent:"), None);
        let limits =
            "Limit  Soft Limit  Hard Limit\nMax open files            1024     524288     files\n";
        assert_eq!(field(limits, "Max open files"), Some(1024.0));
        let stat = "7 (a) b) R 1 1 1 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 100";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds(""), None);
    }

    #[test]
    fn every_figure_is_there_for_this_process() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, record);
        let page = recorder.handle().render() + &cpu();
        for name in [RESIDENT, CPU, OPEN_FDS, MAX_FDS, THREADS] {
            let line = page.lines().find(|line| line.starts_with(name));
            let value: f64 = line
                .unwrap_or_else(|| panic!("no {name} in {page}"))
                .rsplit(' ')
                .next()
                .unwrap()
                .parse()
                .unwrap();
            assert!(
                value >= 0.0 && (name == CPU || value > 0.0),
                "{name} {value}"
            );
        }
    }
}
