//! Talking HTTP to a system, and judging what comes back.

use crate::pipeline::{Code, Fault, Stage};
use reqwest::{RequestBuilder, StatusCode, header};
use serde_json::Value;
use std::time::Duration;

/// Bytes of an answer that are read at most.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Characters of an answer that a message quotes.
const QUOTED_CHARS: usize = 300;

/// A client with bounded waits.
///
/// # Errors
/// When the TLS library cannot be set up.
pub fn client(timeout: Duration) -> Result<reqwest::Client, Fault> {
    reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(5))
        .timeout(timeout)
        .pool_idle_timeout(Duration::from_secs(30))
        .build()
        .map_err(|e| {
            Fault::halt(
                Stage::Write,
                Code::Configuration,
                "the HTTP client cannot be made",
            )
            .caused_by(e)
        })
}

/// An answer that is no error by its status.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: header::HeaderMap,
    /// Body as JSON; null when it was empty.
    pub body: Value,
}

/// Sends a request and judges the answer: a fault whose verdict says what to do, or the JSON body.
///
/// `system` names the other side in messages. Cancelling may leave the call done.
pub async fn send(system: &str, request: RequestBuilder) -> Result<Answer, Fault> {
    exchange(system, request)
        .await
        .map_err(|failed| match failed {
            Failed::Refused(fault) => fault,
            Failed::Unanswered(fault) if fault.code == Code::Unavailable => fault,
            Failed::Unanswered(fault) => Fault {
                message: format!("{}; the call may have had its effect", fault.message),
                ..fault
            },
        })
}

/// As [`send`], for a call that changes nothing: whatever kept it from an answer, it can be made
/// again.
pub async fn read(system: &str, request: RequestBuilder) -> Result<Answer, Fault> {
    exchange(system, request)
        .await
        .map_err(|failed| match failed {
            Failed::Refused(fault) => Fault {
                stage: Stage::Read,
                ..fault
            },
            Failed::Unanswered(fault) => Fault {
                stage: Stage::Read,
                code: Code::Unavailable,
                ..fault
            },
        })
}

enum Failed {
    /// The other side answered, and said no.
    Refused(Fault),
    /// There is no answer that could be understood.
    Unanswered(Fault),
}

async fn exchange(system: &str, request: RequestBuilder) -> Result<Answer, Failed> {
    let answer = request
        .send()
        .await
        .map_err(|e| transport_fault(system, e))?;
    let status = answer.status();
    let headers = answer.headers().clone();
    let bytes = read_bounded(system, answer).await?;
    if !status.is_success() {
        return Err(Failed::Refused(status_fault(
            system, status, &headers, &bytes,
        )));
    }
    let body = if bytes.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&bytes).map_err(|e| {
            let message = format!(
                "{system} answered {status} with something that is not JSON: {}",
                quote(&bytes)
            );
            Failed::Unanswered(
                Fault::retry(Stage::Write, Code::OutcomeUnknown, message).caused_by(e),
            )
        })?
    };
    Ok(Answer {
        status: status.as_u16(),
        headers,
        body,
    })
}

async fn read_bounded(system: &str, mut answer: reqwest::Response) -> Result<Vec<u8>, Failed> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer
        .chunk()
        .await
        .map_err(|e| transport_fault(system, e))?
    {
        if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
            let message = format!("{system} answered with more than {ANSWER_BYTES_MAX} bytes");
            let fault = Fault::retry(Stage::Write, Code::Unavailable, message);
            return Err(Failed::Refused(fault));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn transport_fault(system: &str, error: reqwest::Error) -> Failed {
    let (code, what) = if error.is_connect() {
        (Code::Unavailable, "cannot be reached")
    } else if error.is_timeout() {
        (Code::OutcomeUnknown, "did not answer in time")
    } else {
        (Code::OutcomeUnknown, "broke off the call")
    };
    let fault = Fault::retry(Stage::Write, code, format!("{system} {what}"));
    Failed::Unanswered(fault.caused_by(error.without_url()))
}

/// The verdict on an HTTP status that is no success (RFC 9110 §15, RFC 6585 §4).
pub fn status_fault(
    system: &str,
    status: StatusCode,
    headers: &header::HeaderMap,
    body: &[u8],
) -> Fault {
    let message = format!("{system} answered {status}: {}", quote(body));
    match status.as_u16() {
        401 | 403 => Fault::halt(
            Stage::Write,
            Code::Unauthorised,
            format!("{message}; check the credentials and rights of the connector"),
        ),
        429 => with_wait(
            Fault::retry(Stage::Write, Code::Throttled, message),
            headers,
        ),
        408 | 425 | 500..=599 => with_wait(
            Fault::retry(Stage::Write, Code::Unavailable, message),
            headers,
        ),
        _ => Fault::reject(Stage::Write, Code::Refused, message),
    }
}

fn with_wait(fault: Fault, headers: &header::HeaderMap) -> Fault {
    let text = headers
        .get(header::RETRY_AFTER)
        .and_then(|v| v.to_str().ok());
    match text.and_then(|t| t.trim().parse::<u64>().ok()) {
        Some(seconds) => fault.after(Duration::from_secs(seconds.min(3_600))),
        None => fault,
    }
}

/// The beginning of a body, on one line.
pub fn quote(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut quoted: String = text.chars().take(QUOTED_CHARS).collect();
    if quoted.len() < text.len() {
        quoted.push('…');
    }
    quoted
}
