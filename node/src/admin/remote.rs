//! The dashboard for those who are not on this host: over TLS, and only for whom a certificate of the mesh or an operator's
//! pass lets in.
//!
//! The page's own files are no secret and are there without either, so that it can ask for a pass. A browser keeps the pass
//! in a cookie that no script and no other site gets; the agent keeps nothing.

use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{COOKIE, SET_COOKIE};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use starling_transport::tls::TlsAcceptor;
use starling_transport::{Credential, Identities, SpiffeId, credential};

use super::answer::{Answer, json_with, only_reading, text};
use super::view::{Refused, Source};
use super::{origin, page, tap};

/// What is asked of all who come.
#[derive(Debug)]
pub struct Rules {
    pub tls: TlsAcceptor,
    pub identities: Arc<Identities>,
    /// Whose certificates let in.
    pub allow: Vec<SpiffeId>,
    /// Names that are this host's, in lower case.
    pub names: Vec<String>,
}

/// One who came, on one connection.
#[derive(Debug)]
pub(super) struct Guest {
    rules: Arc<Rules>,
    from: SocketAddr,
    reached: IpAddr,
    /// By what it proved an identity, if it did.
    credential: Option<Credential>,
}

impl Guest {
    pub(super) fn new(
        rules: Arc<Rules>,
        from: SocketAddr,
        reached: IpAddr,
        credential: Option<Credential>,
    ) -> Self {
        Self {
            rules,
            from,
            reached: reached.to_canonical(),
            credential,
        }
    }

    /// Resolves when the certificate that was shown on the connection is no longer good. The connection ends with it, whatever
    /// its requests brought besides.
    pub(super) async fn ended(&self) {
        let Some(credential) = &self.credential else {
            return pending().await;
        };
        let identities = &self.rules.identities;
        let refusal = identities.until_refused(|| identities.judge(credential));
        let reason = refusal.await.as_str();
        tracing::info!(peer.addr = %self.from, identity = %credential.id(), reason, "admin connection cut");
    }

    /// Resolves when the pass of a request no longer opens the dashboard; never for a client whose certificate opens it.
    pub(super) fn pass_ended(
        &self,
        headers: &HeaderMap,
        source: Arc<dyn Source>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let pass = Self::pass(headers).filter(|_pass| !self.is_allowed());
        let mut changes = self.rules.identities.changes();
        async move {
            let Some(pass) = pass else {
                return pending().await;
            };
            while source.sees(&pass).is_ok() {
                credential::wait(&mut changes, SystemTime::now() + PASS_LOOK).await;
            }
        }
    }

    /// Answers a request that is not let through.
    pub(super) fn stop<B>(&self, request: &Request<B>, source: &dyn Source) -> Option<Answer> {
        let headers = request.headers();
        let is_ours = |host: &Authority| self.is_ours(host);
        if !origin::is_for(request.uri(), headers, "https", is_ours) {
            let why = "ask by the host's address or a name in [admin] names, and not from another web page\n";
            return Some(text(StatusCode::FORBIDDEN, why));
        }
        match (request.method(), request.uri().path()) {
            (&Method::POST, LOGIN) => Some(self.login(headers, source)),
            (&Method::POST, LOGOUT) => Some(logout()),
            (&Method::GET | &Method::HEAD, path) if page::file(path).is_some() => None,
            (&Method::GET | &Method::HEAD, _) => self.stop_stranger(headers, source),
            _ => Some(only_reading()),
        }
    }

    /// The pass that a request brings, in its field or in a cookie.
    pub(super) fn pass(headers: &HeaderMap) -> Option<String> {
        tap::pass(headers).or_else(|| cookie(headers))
    }

    fn stop_stranger(&self, headers: &HeaderMap, source: &dyn Source) -> Option<Answer> {
        if self.is_allowed() {
            return None;
        }
        let Some(pass) = Self::pass(headers) else {
            return Some(refuse(&self.stranger()));
        };
        let refused = source.sees(&pass).err()?;
        // Whoever it was, the browser has to ask again.
        Some(refuse(&Refused {
            status: StatusCode::UNAUTHORIZED.as_u16(),
            ..refused
        }))
    }

    /// Judged with each request too: the connection is cut by another task, which may be a moment late.
    fn is_allowed(&self) -> bool {
        self.credential.as_ref().is_some_and(|credential| {
            self.rules.allow.contains(credential.id())
                && self.rules.identities.judge(credential).is_ok()
        })
    }

    fn stranger(&self) -> Refused {
        let error = match &self.credential {
            Some(credential) => format!(
                "the certificate of {} does not open this dashboard",
                credential.id()
            ),
            None => "this dashboard is shown to whoever has an operator's pass".to_owned(),
        };
        Refused {
            status: StatusCode::UNAUTHORIZED.as_u16(),
            error,
            hint: Some(
                "`starling login --url https://…` makes a pass; [admin] allow names services whose certificates will do"
                    .to_owned(),
            ),
        }
    }

    fn login(&self, headers: &HeaderMap, source: &dyn Source) -> Answer {
        let Some(pass) = tap::pass(headers) else {
            return refuse(&self.stranger());
        };
        if pass.len() > COOKIE_BYTES_MAX {
            return refuse(&Refused {
                status: 400,
                error: "this pass is too long for a cookie".to_owned(),
                hint: Some("make one that names fewer services and header fields".to_owned()),
            });
        }
        match source.sees(&pass) {
            Ok(seer) => {
                tracing::info!(operator = seer.operator, pass = seer.pass, peer.addr = %self.from, "dashboard opened");
                with_cookie(&pass, seer.seconds_left)
            }
            Err(refused) => {
                tracing::info!(peer.addr = %self.from, error = refused.error, "dashboard not opened");
                refuse(&refused)
            }
        }
    }

    /// By address, or by a name that is known to be this host's: any other may be a name that some page made lead here.
    fn is_ours(&self, host: &Authority) -> bool {
        let name = host.host().to_ascii_lowercase();
        self.rules.names.contains(&name) || origin::is_address(host, self.reached)
    }
}

fn refuse(refused: &Refused) -> Answer {
    let status = StatusCode::from_u16(refused.status);
    json_with(status.unwrap_or(StatusCode::FORBIDDEN), refused)
}

fn logout() -> Answer {
    with_cookie("", 0)
}

/// `__Host-` has browsers take it only over TLS, for this host alone and for all paths.
fn with_cookie(pass: &str, seconds: u64) -> Answer {
    let cookie =
        format!("{NAME}={pass}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Strict");
    let mut answer = text(StatusCode::NO_CONTENT, "");
    match HeaderValue::from_str(&cookie) {
        Ok(cookie) => drop(answer.headers_mut().insert(SET_COOKIE, cookie)),
        Err(_not_a_pass) => return text(StatusCode::BAD_REQUEST, "this is not a pass\n"),
    }
    answer
}

/// The pass that a browser kept, if there is exactly one.
fn cookie(headers: &HeaderMap) -> Option<String> {
    let fields = headers.get_all(COOKIE).iter();
    let fields = fields.filter_map(|field| field.to_str().ok());
    let pairs = fields.flat_map(|field| field.split(';'));
    let mut passes = pairs.filter_map(|pair| pair.trim().strip_prefix(NAME)?.strip_prefix('='));
    let (only, None) = (passes.next()?, passes.next()) else {
        return None;
    };
    Some(only.to_owned())
}

const LOGIN: &str = "/v1/login";
const LOGOUT: &str = "/v1/logout";

/// How often the pass of an open stream is judged besides changes of trust: its end and that of its operator's grant come by
/// the clock. Costs two checks of a signature.
const PASS_LOOK: Duration = Duration::from_secs(1);

/// The cookie.
const NAME: &str = "__Host-starling";

/// Browsers keep cookies of 4 KiB, with their names and attributes. A usual pass has some 700 bytes.
const COOKIE_BYTES_MAX: usize = 3800;

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(cookies: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            headers.append(COOKIE, HeaderValue::from_static(cookie));
        }
        headers
    }

    #[test]
    fn the_one_pass_among_cookies_is_found() {
        let found = |cookies: &[&'static str]| cookie(&headers(cookies));
        let pass = Some("a.b".to_owned());
        assert_eq!(found(&["__Host-starling=a.b"]), pass);
        assert_eq!(found(&["x=1; __Host-starling=a.b; y=2"]), pass);
        assert_eq!(found(&["x=1", "__Host-starling=a.b"]), pass);
        assert_eq!(found(&[]), None);
        assert_eq!(found(&["starling=a.b; __Host-starling2=c"]), None);
        // Somebody put another one beside it.
        assert_eq!(found(&["__Host-starling=a; __Host-starling=b"]), None);
    }

    #[test]
    fn a_cookie_is_for_this_host_alone() {
        let answer = with_cookie("starling-pass1.a.b.c", 60);
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        assert_eq!(
            answer.headers()[SET_COOKIE],
            "__Host-starling=starling-pass1.a.b.c; Path=/; Max-Age=60; Secure; HttpOnly; SameSite=Strict"
        );
    }
}
