//! What changes something: bodies are read within bounds before anything is done.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::answer::{Answer, json_with, only_reading};
use super::view::{Refused, Source};

/// Does what a `POST` to `path` asks for.
pub(super) async fn post(path: &str, body: Incoming, source: &dyn Source) -> Answer {
    match path {
        "/v1/documents" => match read(body, DOCUMENT_BYTES_MAX).await {
            Ok(document) => match source.submit(document).await {
                Ok(receipt) => json_with(StatusCode::OK, &receipt),
                Err(refused) => refuse(&refused),
            },
            Err(refused) => refuse(&refused),
        },
        "/v1/invitations" => match read_json(body).await {
            Ok(name) => json_with(StatusCode::OK, &source.end_invitations(name).await),
            Err(refused) => refuse(&refused),
        },
        "/v1/lines" => match read_json(body).await {
            Ok(question) => json_with(StatusCode::OK, &source.lines(question).await),
            Err(refused) => refuse(&refused),
        },
        "/v1/good-from" => match read_json(body).await {
            Ok(invited) => json_with(StatusCode::OK, &source.good_from(&invited)),
            Err(refused) => refuse(&refused),
        },
        "/v1/readers" => match read(body, TEXTS_BYTES_MAX).await {
            Ok(texts) => match serde_json::from_slice(&texts) {
                Ok(texts) => json_with(StatusCode::OK, &source.readers(texts).await),
                Err(error) => refuse(&Refused {
                    status: StatusCode::BAD_REQUEST.as_u16(),
                    error: format!("these are no texts of documents: {error}"),
                    hint: None,
                }),
            },
            Err(refused) => refuse(&refused),
        },
        "/v1/leave" => json_with(StatusCode::OK, &source.leave()),
        _ => only_reading(),
    }
}

async fn read_json<T: DeserializeOwned>(body: Incoming) -> Result<T, Refused> {
    let body = read(body, QUESTION_BYTES_MAX).await?;
    serde_json::from_slice(&body).map_err(|error| Refused {
        status: StatusCode::BAD_REQUEST.as_u16(),
        error: error.to_string(),
        hint: Some("is this agent of another version than the command?".to_owned()),
    })
}

async fn read(body: Incoming, bytes_max: usize) -> Result<Bytes, Refused> {
    let refused = |status: StatusCode, error: String| Refused {
        status: status.as_u16(),
        error,
        hint: None,
    };
    let body = timeout(BODY_WAIT, Limited::new(body, bytes_max).collect()).await;
    match body {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(refused(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body cannot be read, or is longer than {bytes_max} bytes: {error}"),
        )),
        Err(_elapsed) => Err(refused(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not come in time".to_owned(),
        )),
    }
}

fn refuse(refused: &Refused) -> Answer {
    let status = StatusCode::from_u16(refused.status).unwrap_or(StatusCode::BAD_REQUEST);
    json_with(status, refused)
}

/// Texts of 64 KiB, the heads of 1,024 rows, a grant and signatures.
const DOCUMENT_BYTES_MAX: usize = 256 * 1024;

/// The names of a host and of 32 services.
const QUESTION_BYTES_MAX: usize = 8 * 1024;

/// Texts of 64 KiB in all; quoted as JSON a byte may take six.
const TEXTS_BYTES_MAX: usize = 512 * 1024;

/// A local client sends at once.
const BODY_WAIT: Duration = Duration::from_secs(10);
