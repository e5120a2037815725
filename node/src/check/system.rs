//! What this host gives the agent: configuration that can be read, ports, apps, room in the kernel.

use super::{Check, Finding, Severity};

/// What was seen of this host.
#[derive(Debug, Default)]
pub struct System {
    /// What is wrong with the files, each with how to put it right.
    pub config: Vec<(String, Option<String>)>,
    /// The most that a socket may buffer, as the kernel says; none where it does not say.
    pub buffers: Vec<Buffer>,
    /// Those that the agent would open, if none runs; else none.
    pub ports: Vec<Port>,
    /// Apps that do not listen: the service and where it is declared to be.
    pub silent_apps: Vec<(String, String)>,
}

/// One of the kernel's limits of a socket's buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buffer {
    /// As `sysctl` names it.
    pub name: &'static str,
    pub bytes: u64,
}

/// A port that the agent cannot open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// What it is for, and the setting that names it.
    pub what: String,
    /// `udp 0.0.0.0:7400`.
    pub address: String,
    pub problem: PortProblem,
    /// Who has it, if that could be found out.
    pub holder: Option<String>,
}

/// Why it cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortProblem {
    Taken,
    NotHere,
    NotAllowed,
    Other(String),
}

impl System {
    pub fn judge(&self) -> Vec<Finding> {
        let config = self.config().into_iter();
        let ports = self.ports.iter().map(Port::finding);
        let apps = self.silent_apps.iter().map(app);
        let rest = self.kernel().into_iter();
        config.chain(ports).chain(apps).chain(rest).collect()
    }

    fn config(&self) -> Option<Finding> {
        let fix = match self.config.as_slice() {
            [] => return None,
            [(_, Some(hint))] => hint.clone(),
            _ => "`starling validate` tells what puts each of them right".to_owned(),
        };
        let problems = self.config.iter().map(|(problem, _)| problem.clone());
        let problems = problems.take(PROBLEMS_MAX).collect();
        let what = "the configuration cannot be taken as it is";
        Some(Finding::new(
            Severity::Error,
            Check::Config,
            what,
            problems,
            fix,
        ))
    }

    fn kernel(&self) -> Option<Finding> {
        let small: Vec<_> = self
            .buffers
            .iter()
            .filter(|buffer| buffer.bytes < BUFFER_BYTES)
            .map(|buffer| {
                format!(
                    "{} is {}; {BUFFER_BYTES} is asked for",
                    buffer.name, buffer.bytes
                )
            })
            .collect();
        (!small.is_empty()).then(|| {
            Finding::new(
                Severity::Warn,
                Check::Kernel,
                "the kernel gives the mesh port less room than bursts need; packets get lost and are sent again",
                small,
                "install deploy/sysctl.d/starling.conf, run `sysctl --system`, restart the agent",
            )
        })
    }
}

fn app((service, address): &(String, String)) -> Finding {
    Finding::new(
        Severity::Warn,
        Check::App,
        format!("the app of `{service}` does not listen"),
        vec![format!("no connection to {address}")],
        "start it, or correct `address` and `port` of its [[service]]; with a health check, callers go elsewhere meanwhile",
    )
}

impl Port {
    fn finding(&self) -> Finding {
        let Self { what, address, .. } = self;
        let holder = self.holder.iter().map(|holder| format!("{holder} has it"));
        let (problem, fix) = match &self.problem {
            PortProblem::Taken => ("is taken", "end what has it, or choose another port"),
            PortProblem::NotHere => (
                "is not an address of this host",
                "correct it, or give the host that address: `ip address`",
            ),
            PortProblem::NotAllowed => (
                "may not be opened by this user",
                "ports below 1024 take CAP_NET_BIND_SERVICE, which the unit in deploy/ gives",
            ),
            PortProblem::Other(why) => (why.as_str(), "the kernel says what is wrong"),
        };
        Finding::new(
            Severity::Error,
            Check::Port,
            format!("{what}, {address}, {problem}"),
            holder.collect(),
            fix,
        )
    }
}

/// `starling validate` tells all of them.
const PROBLEMS_MAX: usize = 8;

/// What the agent asks for; see `deploy/sysctl.d`.
const BUFFER_BYTES: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(system: &System, expected: &[(Check, &str)]) {
        let found = system.judge();
        let told: Vec<_> = found
            .iter()
            .map(|finding| (finding.check, finding.what.as_str()))
            .collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn small_buffers_are_one_finding() {
        let buffer = |name, bytes| Buffer { name, bytes };
        let mut system = System {
            buffers: vec![
                buffer("net.core.rmem_max", 212_992),
                buffer("net.core.wmem_max", 4_194_304),
            ],
            ..System::default()
        };
        let found = system.judge();
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].evidence,
            ["net.core.rmem_max is 212992; 4194304 is asked for"]
        );
        system.buffers[0].bytes = 4_194_304;
        check(&system, &[]);
    }

    #[test]
    fn a_configuration_that_cannot_be_taken_is_one_finding() {
        let problem = |line, hint: Option<&str>| {
            let problem = format!("starling.toml:{line}: unknown key");
            (problem, hint.map(str::to_owned))
        };
        let mut system = System {
            config: vec![problem(3, Some("did you mean `port`?"))],
            ..System::default()
        };
        assert_eq!(system.judge()[0].fix, "did you mean `port`?");
        system.config.push(problem(4, None));
        let found = system.judge();
        assert_eq!((found.len(), found[0].evidence.len()), (1, 2));
    }

    #[test]
    fn a_port_says_what_it_is_for_and_who_has_it() {
        let system = System {
            ports: vec![Port {
                what: "the mesh port (`listen`)".into(),
                address: "udp 0.0.0.0:7400".into(),
                problem: PortProblem::Taken,
                holder: Some("process 17 (dnsmasq)".into()),
            }],
            silent_apps: vec![("orders".into(), "127.0.0.1:8080".into())],
            ..System::default()
        };
        check(
            &system,
            &[
                (
                    Check::Port,
                    "the mesh port (`listen`), udp 0.0.0.0:7400, is taken",
                ),
                (Check::App, "the app of `orders` does not listen"),
            ],
        );
        assert_eq!(system.judge()[0].evidence, ["process 17 (dnsmasq) has it"]);
    }
}
