//! PostgreSQL as the app behind a tcp service.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::host::Host;
use crate::process::{Process, Signal, run};
use crate::program;
use crate::wait::{try_poll, wait_until};

/// A fresh cluster that trusts everybody, in a directory of the test.
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    address: SocketAddr,
}

impl Postgres {
    /// Makes the cluster and starts its server on `host`.
    pub fn start(host: &Host, directory: &Path) -> Self {
        let data = directory.join("pgdata");
        std::fs::create_dir(&data).expect("a directory can be made");
        if rustix::process::geteuid().is_root() {
            let mut chown = Command::new("chown");
            chown.arg(format!("{OWNER}:")).arg(&data);
            run(chown);
        }
        let mut initdb = as_owner(Command::new("setpriv"), "initdb");
        initdb.args([
            "--auth=trust",
            "--username=postgres",
            "--no-sync",
            "--encoding=UTF8",
            "--no-locale",
            "-D",
        ]);
        initdb.arg(&data).current_dir(&data);
        run(initdb);

        let address = host.free_tcp();
        let mut server = as_owner(host.command("setpriv"), "postgres");
        server
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(&data)
            .current_dir(&data);
        server.args([
            "-h",
            &address.ip().to_string(),
            "-p",
            &address.port().to_string(),
            "-c",
            "fsync=off",
        ]);
        let mut postgres = Self {
            process: Process::spawn("postgres", server, &directory.join("postgres.log")),
            address,
        };
        wait_until(super::START, "PostgreSQL", || {
            postgres.process.check();
            let mut is_ready = host.command(program::path("pg_isready"));
            is_ready.args([
                "-h",
                &address.ip().to_string(),
                "-p",
                &address.port().to_string(),
            ]);
            is_ready
                .output()
                .is_ok_and(|output| output.status.success())
        });
        postgres
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Its fast way out takes its workers along.
        self.process.signal(Signal::INT);
        try_poll(super::START, || self.process.ended());
    }
}

/// `setpriv … program`: the server refuses to run as root.
fn as_owner(mut setpriv: Command, program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        setpriv.args(["--reuid", OWNER, "--regid", OWNER, "--clear-groups"]);
    }
    // A change of user clears what the kernel was told before.
    setpriv
        .args(["--pdeathsig", "KILL"])
        .arg(program::path(program));
    setpriv
}

const OWNER: &str = "postgres";
