//! The apps of the demo. They know nothing of the mesh.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use crate::cli::client;
use crate::telemetry::trace::TRACEPARENT;

/// An app that answers every HTTP request with who it is, where it runs and who called.
#[derive(Debug)]
pub(crate) struct Http {
    pub(crate) name: String,
    pub(crate) node: String,
    /// How long it thinks before it answers.
    pub(crate) delay: Duration,
    /// Another service, which it asks the same for each request.
    pub(crate) calls: Option<SocketAddr>,
}

/// Runs `app` until it is dropped.
pub(crate) async fn http(listen: SocketAddr, app: Http) -> anyhow::Result<()> {
    let app = Arc::new(app);
    serve(listen, |stream| {
        let app = app.clone();
        async move {
            let answer = service_fn(|request| {
                let app = app.clone();
                async move { Ok::<_, Infallible>(app.answer(request).await) }
            });
            // A caller that goes away is no matter of ours.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        }
    })
    .await
}

/// Sends back what it gets. Runs until it is dropped.
pub(crate) async fn echo(listen: SocketAddr) -> anyhow::Result<()> {
    serve(listen, |mut stream| async move {
        let (mut from, mut to) = stream.split();
        if tokio::io::copy(&mut from, &mut to).await.is_ok() {
            let _ = to.shutdown().await;
        }
    })
    .await
}

async fn serve<F: Future<Output = ()> + Send + 'static>(
    listen: SocketAddr,
    connection: impl Fn(TcpStream) -> F,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen}"))?;
    let connections = TaskTracker::new();
    loop {
        let (stream, _) = listener.accept().await?;
        connections.spawn(connection(stream));
    }
}

impl Http {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if path == "/healthz" {
            return text(StatusCode::OK, "fine\n".to_owned());
        }
        tokio::time::sleep(self.delay).await;
        let caller = request.headers().get("starling-caller");
        let greeting = self.greeting(caller.and_then(|caller| caller.to_str().ok()));
        let trace = request.headers().get(TRACEPARENT);
        match self
            .ask(path, trace.and_then(|trace| trace.to_str().ok()))
            .await
        {
            Ok(answered) => text(StatusCode::OK, greeting + &answered),
            Err(why) => text(StatusCode::BAD_GATEWAY, why),
        }
    }

    /// What the other service says, if there is one. The mesh cannot know for which request an app makes a call, so the
    /// app hands on the trace.
    async fn ask(&self, path: &str, trace: Option<&str>) -> Result<String, String> {
        let Some(address) = self.calls else {
            return Ok(String::new());
        };
        let fields = trace.map(|trace| ("traceparent", trace));
        match client::get_tcp_with(address, path, fields.as_slice()).await {
            Ok(answer) if answer.status == 200 => {
                Ok(String::from_utf8_lossy(&answer.body).into_owned())
            }
            Ok(answer) => Err(format!(
                "what {} asks answered {}\n",
                self.name, answer.status
            )),
            Err(error) => Err(format!(
                "what {} asks does not answer: {error}\n",
                self.name
            )),
        }
    }

    fn greeting(&self, caller: Option<&str>) -> String {
        let Self { name, node, .. } = self;
        match caller {
            Some(caller) => format!("hello from {name} on {node}, called by {caller}\n"),
            None => {
                format!("hello from {name} on {node}, called directly and not through the mesh\n")
            }
        }
    }
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}
