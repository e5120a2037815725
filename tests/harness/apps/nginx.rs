//! nginx as the app behind a service.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use crate::host::Host;
use crate::process::{Process, Signal};
use crate::program;
use crate::wait::{try_poll, wait_until};

/// Serves files, takes uploads with PUT (and as `/post/` with POST), says who called and how it feels.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    address: SocketAddr,
    directory: PathBuf,
}

impl Nginx {
    /// Starts it on `host` with its files in `directory`. It calls itself `name` in its answers.
    pub fn start(host: &Host, directory: &Path, name: &str) -> Self {
        let address = host.free_tcp();
        for sub in ["files", "uploads", "tmp"] {
            fs::create_dir_all(directory.join(sub)).expect("a directory can be made");
        }
        let file = directory.join("nginx.conf");
        fs::write(&file, configuration(address, directory, name)).expect("a file can be written");
        let mut nginx = Self {
            process: spawn(host, directory),
            address,
            directory: directory.to_owned(),
        };
        nginx.wait_up(host);
        nginx
    }

    /// Ends it as its package would for a new version, requests under way first, and starts it again.
    pub fn restart(&mut self, host: &Host) {
        self.process.signal(Signal::QUIT);
        self.process.wait(super::START);
        self.process = spawn(host, &self.directory);
        self.wait_up(host);
    }

    fn wait_up(&mut self, host: &Host) {
        let address = self.address;
        wait_until(super::START, "nginx", || {
            self.process.check();
            host.run(|| TcpStream::connect(address).is_ok())
        });
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What is served below `/files/`.
    pub fn files(&self) -> PathBuf {
        self.directory.join("files")
    }

    /// What was put below `/uploads/`.
    pub fn uploads(&self) -> PathBuf {
        self.directory.join("uploads")
    }

    /// Makes `/healthz` answer 503 or 200.
    pub fn set_sick(&self, sick: bool) {
        let mark = self.directory.join("sick");
        if sick {
            fs::write(mark, "").expect("a file can be written");
        } else {
            // It may not have been sick.
            let _ = fs::remove_file(mark);
        }
    }
}

impl Drop for Nginx {
    /// Asked to end, it takes its worker with it; killed, it would leave the worker behind.
    fn drop(&mut self) {
        self.process.signal(Signal::TERM);
        let _may_be_killed = try_poll(super::START, || self.process.ended());
    }
}

fn spawn(host: &Host, directory: &Path) -> Process {
    let mut command = host.command(program::path("nginx"));
    command
        .arg("-p")
        .arg(directory)
        .arg("-c")
        .arg(directory.join("nginx.conf"))
        .arg("-e")
        .arg("stderr");
    Process::spawn("nginx", command, &directory.join("nginx.log"))
}

fn configuration(address: SocketAddr, directory: &Path, name: &str) -> String {
    let directory = directory.display();
    format!(
        r#"
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
{user}
error_log stderr notice;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    default_type application/octet-stream;
    client_body_temp_path {directory}/tmp;
    proxy_temp_path {directory}/tmp;
    fastcgi_temp_path {directory}/tmp;
    uwsgi_temp_path {directory}/tmp;
    scgi_temp_path {directory}/tmp;
    keepalive_requests 1000000;
    sendfile on;
    tcp_nopush on;
    server {{
        listen {address} backlog=4096;
        client_max_body_size 0;
        location / {{ return 200 "{name}\n"; }}
        location /caller {{ return 200 "$http_starling_caller\n"; }}
        location /forwarded {{ return 200 "$http_x_forwarded_client_cert|$http_starling_trick|$http_traceparent\n"; }}
        location /connection {{ return 200 "$connection\n"; }}
        location /status/204 {{ return 204; }}
        location /status/503 {{ return 503 "busy\n"; }}
        location /moved {{ return 301 /elsewhere; }}
        location /healthz {{
            if (-f {directory}/sick) {{ return 503; }}
            return 200 "fine\n";
        }}
        location /files/ {{ root {directory}; }}
        location /slow/ {{
            alias {directory}/files/;
            limit_rate 256k;
        }}
        location /post/ {{
            proxy_pass http://{address}/uploads/;
            proxy_method PUT;
        }}
        location /uploads/ {{
            root {directory};
            dav_methods PUT DELETE;
            client_body_buffer_size 128k;
        }}
    }}
}}
"#,
        user = if rustix::process::geteuid().is_root() {
            "user root;"
        } else {
            ""
        },
    )
}
