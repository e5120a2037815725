//! The child: reads texts from standard input, reads, compiles and tries each, and says so on standard output.

use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::thread;

use rustix::process::{
    Pid, Resource, Rlimit, Signal, getppid, nice, set_parent_process_death_signal, setrlimit,
};

use super::rehearsal;
use super::wire::{Report, decode};

/// Does what the agent that is `parent` has for it, then ends.
pub fn run(parent: i32) -> ExitCode {
    if let Err(error) = restrict(parent) {
        // It ends before it begins, which the agent takes for a child that cannot be had.
        let _ = writeln!(io::stderr(), "{error}");
        return ExitCode::FAILURE;
    }
    let reading = || serve(&mut io::stdin().lock(), &mut io::stdout());
    let reader = thread::Builder::new().stack_size(STACK_BYTES);
    match reader.spawn(reading).map(thread::JoinHandle::join) {
        Ok(Ok(Ok(()))) => ExitCode::SUCCESS,
        Ok(Err(_panic)) => ExitCode::from(PANICKED),
        Ok(Ok(Err(error))) | Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

/// Gives up what it does not need, and bounds what it may use.
fn restrict(parent: i32) -> io::Result<()> {
    close_inherited();
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have ended before that.
    if getppid() != Pid::from_raw(parent) {
        return Err(io::Error::other("the agent that started this has ended"));
    }
    let limit = |resource, current, maximum| {
        let limit = Rlimit {
            current: Some(current),
            maximum: Some(maximum),
        };
        setrlimit(resource, limit)
    };
    // What a sandbox may forbid is not worth failing for, as a child without it is better than none. Without the limit on CPU time the
    // agent ends what runs for too long, which is no evidence.
    let _ = limit(Resource::Core, 0, 0);
    // At the first limit comes SIGXCPU, which is evidence; at the second SIGKILL, which would be none.
    let _ = limit(Resource::Cpu, CPU_S, CPU_S + 5);
    // Rather this process than the agent.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let _ = nice(NICE);
    Ok(())
}

/// Closes what the agent was started with and handed on without wanting to.
#[expect(unsafe_code, reason = "the standard library closes only what it owns")]
fn close_inherited() {
    // SAFETY: this process has one thread and has opened nothing yet, so that no value of Rust's owns a descriptor from 3 on.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
}

/// Works through `input`. An error is the pipe's or the agent's; problems of texts are reported.
fn serve(input: &mut impl Read, output: &mut impl Write) -> io::Result<()> {
    while let Some(text) = decode(input)? {
        Report::Begun.write(output)?;
        let mut said = Ok(());
        let problem = rehearsal::rehearse(&text, |coverage| {
            said = Report::Covers(coverage).write(output);
        });
        said?;
        if let Err(problem) = problem {
            Report::Problem(problem).write(output)?;
        }
        Report::Done.write(output)?;
    }
    Ok(())
}

/// The status of a child that panicked.
pub(super) const PANICKED: u8 = 113;

/// CPU time of one child. A text of the greatest size takes a tenth of a second.
const CPU_S: u64 = 10;

/// Half of what a thread of the agent has: what fits in here fits there, with all that it calls from.
const STACK_BYTES: usize = 1024 * 1024;

/// Below the agent and its apps, but not so far that a busy host delays a denial by a second.
const NICE: i32 = 5;

#[cfg(test)]
mod tests {
    use super::super::Text;
    use super::super::wire::{Reports, encode};
    use super::*;

    fn reports(texts: &[(&str, &str)]) -> Vec<Report> {
        let text = |(key, body): &(&str, &str)| Text {
            key: key.parse().unwrap(),
            body: (*body).into(),
        };
        let input: Vec<u8> = texts
            .iter()
            .map(text)
            .flat_map(|text| encode(&text))
            .collect();
        let mut output = Vec::new();
        serve(&mut &input[..], &mut output).unwrap();
        let mut reports = Reports::default();
        reports.push(&output);
        std::iter::from_fn(|| reports.next().unwrap()).collect()
    }

    #[test]
    fn each_text_is_reported_in_its_turn() {
        let policy = "[[deny]]\nservices = [\"orders\"]\nfrom = [\"*\"]\npaths = [\"/a/**\"]\n";
        let route = "[[rule]]\nto = { version = 'v1' }\n";
        let said = reports(&[
            ("policy/a", policy),
            ("route/cart", route),
            ("policy/b", "mode = 7"),
        ]);
        let covers = Report::Covers("=orders".parse().unwrap());
        assert_eq!(
            said[..5],
            [
                Report::Begun,
                covers,
                Report::Done,
                Report::Begun,
                Report::Done
            ]
        );
        let [Report::Begun, Report::Problem(problem), Report::Done] = &said[5..] else {
            panic!("{said:?}");
        };
        assert!(problem.contains("policy/b:1"), "{problem}");
    }

    #[test]
    fn the_deepest_text_that_toml_allows_fits_on_the_stack() {
        let deep = format!("mode = {}1{}", "[".repeat(20_000), "]".repeat(20_000));
        let read = move || reports(&[("policy/a", &deep)]).len();
        let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn(read);
        assert_eq!(thread.unwrap().join().unwrap(), 3);
    }
}
