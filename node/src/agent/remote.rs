//! Opens the dashboard to those who are not on this host.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use starling_transport::tls::{TlsAcceptor, Visitors};
use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::admin::{Door, Rules};
use crate::config::{Files, Remote};
use crate::host::Host;
use crate::state::Fingerprint;

/// The door, and what keeps its certificate fresh if that comes from files.
pub(super) async fn open(
    remote: &Remote,
    host: &Arc<Host>,
) -> anyhow::Result<(Door, Option<impl Future<Output = ()> + use<>>)> {
    let visitors = match remote.allow.is_empty() {
        true => Visitors::Unknown,
        false => Visitors::MayProve,
    };
    let tls = TlsAcceptor::new(host.identities.clone(), visitors);
    let tls = tls.context("cannot set up TLS for admin.remote")?;
    let following = match &remote.certificate {
        Some(files) => {
            show(&tls, files)?;
            Some(follow(tls.clone(), files.clone()))
        }
        None => None,
    };
    let listener = TcpListener::bind(remote.listen).await;
    let listener =
        listener.with_context(|| format!("cannot listen on {} (admin.remote)", remote.listen))?;
    let own = host.identities.current().node.id().dns_name();
    let rules = Arc::new(Rules {
        tls,
        identities: host.identities.clone(),
        allow: remote
            .allow
            .iter()
            .map(|name| host.service_id(name))
            .collect(),
        names: remote.names.iter().cloned().chain([own]).collect(),
    });
    tracing::info!(listen = %remote.listen, "the dashboard is open to other hosts, with a pass or a certificate");
    Ok((Door::Remote { listener, rules }, following))
}

/// Takes up what something else renewed. A pair that does not fit, as while it is being written, changes nothing.
async fn follow(tls: TlsAcceptor, files: Files) {
    let look = || Fingerprint::of([files.chain.clone(), files.key.clone()]);
    let mut seen = look();
    loop {
        sleep(LOOK_EVERY).await;
        let now = look();
        if now == seen {
            continue;
        }
        match show(&tls, &files) {
            Ok(()) => {
                seen = now;
                tracing::info!(file = %files.chain.display(), "certificate of the dashboard taken");
            }
            Err(error) => tracing::warn!(
                error = format!("{error:#}"),
                "the dashboard keeps its old certificate"
            ),
        }
    }
}

fn show(tls: &TlsAcceptor, files: &Files) -> anyhow::Result<()> {
    let Files { chain, key } = files;
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let mode = fs::metadata(key).map(|meta| meta.mode() & 0o7777);
    let mode = mode.with_context(|| format!("cannot read {}", key.display()))?;
    anyhow::ensure!(
        mode & 0o007 == 0,
        "{} is open to all users (mode {mode:04o})\n  hint: `chmod o= {}`",
        key.display(),
        key.display()
    );
    tls.show(&read(chain)?, &read(key)?).with_context(|| {
        format!(
            "{} and {} are no certificate and its key",
            chain.display(),
            key.display()
        )
    })
}

/// Certificates are renewed days before they end.
const LOOK_EVERY: Duration = Duration::from_secs(10);
