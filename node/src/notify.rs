//! Tells the service manager how the agent is: the protocol of `sd_notify`, without its library.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// A line to the service manager. All sends are best effort: an agent works as well without a manager.
#[derive(Debug)]
pub struct Notifier {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As systemd's environment says; silent when there is none.
    pub fn from_env() -> Self {
        let variable = |name| env::var_os(name);
        let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
        let is_for_us =
            number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC")
            .filter(|usec| *usec > 0 && is_for_us)
            .map(Duration::from_micros);
        let to = variable("NOTIFY_SOCKET").and_then(|name| match open(name.as_bytes()) {
            Ok(to) => Some(to),
            Err(error) => {
                let error: &(dyn std::error::Error + 'static) = &error;
                tracing::warn!(error, "the service manager cannot be told anything");
                None
            }
        });
        Self { to, watchdog }
    }

    /// The agent serves. `status` is the line `systemctl status` shows.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// A new line for `systemctl status`.
    pub fn status(&self, status: &str) {
        self.send(&format!("STATUS={}", one_line(status)));
    }

    /// The agent finishes what it carries and ends.
    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=draining");
    }

    /// The agent is alive. To be called every [`Notifier::watchdog_every`].
    pub fn watchdog(&self) {
        self.send("WATCHDOG=1");
    }

    /// How often the manager wants to hear from us: half the time after which it would restart us.
    pub fn watchdog_every(&self) -> Option<Duration> {
        self.to.as_ref().and(self.watchdog).map(|limit| limit / 2)
    }

    fn send(&self, message: &str) {
        let Some((socket, to)) = &self.to else { return };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), to) {
            tracing::debug!(%error, "the service manager was not told");
        }
    }
}

/// A socket that never blocks, and the address of the manager: a path, or `@` and an abstract name.
fn open(name: &[u8]) -> io::Result<(UnixDatagram, SocketAddr)> {
    let to = match name {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "neither a path nor an abstract name",
            ));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, to))
}

/// A line break would begin a new assignment.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(manager: &UnixDatagram) -> String {
        let mut message = [0; 256];
        manager
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let length = manager.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    }

    fn notifier(name: &[u8]) -> Notifier {
        Notifier {
            to: Some(open(name).unwrap()),
            watchdog: Some(Duration::from_secs(10)),
        }
    }

    #[test]
    fn the_manager_hears_the_life_of_an_agent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = notifier(path.as_os_str().as_bytes());
        notifier.ready("3 members");
        assert_eq!(heard(&manager), "READY=1\nSTATUS=3 members");
        notifier.watchdog();
        assert_eq!(heard(&manager), "WATCHDOG=1");
        notifier.status("forged\nSTOPPING=1");
        assert_eq!(heard(&manager), "STATUS=forged STOPPING=1");
        notifier.stopping();
        assert_eq!(heard(&manager), "STOPPING=1\nSTATUS=draining");
        assert_eq!(notifier.watchdog_every(), Some(Duration::from_secs(5)));
    }

    #[test]
    fn the_manager_may_have_an_abstract_name() {
        let name = format!("starling-test-{}", std::process::id());
        let manager =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        notifier(format!("@{name}").as_bytes()).ready("up");
        assert_eq!(heard(&manager), "READY=1\nSTATUS=up");
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        let silent = Notifier {
            to: None,
            watchdog: Some(Duration::from_secs(10)),
        };
        silent.ready("up");
        assert_eq!(silent.watchdog_every(), None);
        assert!(open(b"relative").is_err() && open(b"").is_err());
        let dir = tempfile::tempdir().unwrap();
        notifier(dir.path().join("gone").as_os_str().as_bytes()).stopping();
    }

    #[test]
    fn a_manager_that_does_not_listen_does_not_hold_us_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let _deaf = UnixDatagram::bind(&path).unwrap();
        let notifier = notifier(path.as_os_str().as_bytes());
        for _ in 0..10_000 {
            notifier.watchdog();
        }
    }
}
