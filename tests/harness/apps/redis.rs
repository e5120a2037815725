//! Redis as the app behind a tcp service.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use crate::host::Host;
use crate::process::Process;
use crate::program;
use crate::wait::wait_until;

/// An empty server that writes nothing to disk.
#[derive(Debug)]
pub struct Redis {
    address: SocketAddr,
    _process: Process,
}

impl Redis {
    /// Starts it on `host`.
    pub fn start(host: &Host, directory: &Path) -> Self {
        let address = host.free_tcp();
        let mut command = host.command(program::path("redis-server"));
        command.args([
            "--bind",
            &address.ip().to_string(),
            "--port",
            &address.port().to_string(),
        ]);
        command
            .args([
                "--save",
                "",
                "--appendonly",
                "no",
                "--protected-mode",
                "no",
                "--dir",
            ])
            .arg(directory);
        let mut process = Process::spawn("redis", command, &directory.join("redis.log"));
        wait_until(super::START, "Redis", || {
            process.check();
            host.run(|| TcpStream::connect(address).is_ok())
        });
        Self {
            address,
            _process: process,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
