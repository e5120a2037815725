//! The apps of the demo. They know nothing of the mesh.

use std::convert::Infallible;
use std::net::SocketAddr;

use anyhow::Context;
use http::{Request, Response, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

/// Answers every HTTP request with who it is, where it runs and who called. Runs until it is dropped.
pub(crate) async fn http(listen: SocketAddr, name: &str, node: &str) -> anyhow::Result<()> {
    serve(listen, |stream| {
        let (name, node) = (name.to_owned(), node.to_owned());
        async move {
            let answer = service_fn(|request| {
                let response = answer(&request, &name, &node);
                async { Ok::<_, Infallible>(response) }
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

fn answer(request: &Request<Incoming>, name: &str, node: &str) -> Response<Full<Bytes>> {
    let text = match request.uri().path() {
        "/healthz" => "fine\n".to_owned(),
        _ => greeting(
            name,
            node,
            request
                .headers()
                .get("starling-caller")
                .and_then(|caller| caller.to_str().ok()),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain"),
    );
    response
}

fn greeting(name: &str, node: &str, caller: Option<&str>) -> String {
    match caller {
        Some(caller) => format!("hello from {name} on {node}, called by {caller}\n"),
        None => format!("hello from {name} on {node}, called directly and not through the mesh\n"),
    }
}
