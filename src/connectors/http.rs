//! Talking HTTP to a system, and judging what comes back.

use crate::pipeline::{Code, Fault, Stage, requests};
use reqwest::{RequestBuilder, StatusCode, header};
use serde_json::Value;
use std::time::Duration;

/// Bytes of an answer that are read at most.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Characters of an answer that a message quotes.
const QUOTED_CHARS: usize = 300;
/// What is not known of a call without an answer.
const MAYBE_DONE: &str = "; the call may have had its effect";
/// Longest wait that an answer can ask for.
const WAIT_MAX: Duration = Duration::from_secs(3_600);

/// A client with bounded waits. It follows no redirection: a write that was sent elsewhere, or turned
/// into a read, would look like one that was done.
///
/// # Errors
/// When the TLS library cannot be set up.
pub fn client(timeout: Duration) -> Result<reqwest::Client, Fault> {
    reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(5))
        .timeout(timeout)
        .pool_idle_timeout(Duration::from_secs(30))
        .redirect(reqwest::redirect::Policy::none())
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
    /// Body as JSON; null when it was empty.
    pub body: Value,
}

/// An answer that nobody has judged.
pub struct RawAnswer {
    /// HTTP status.
    pub status: StatusCode,
    /// Headers.
    pub headers: header::HeaderMap,
    /// Body.
    pub bytes: Vec<u8>,
}

/// Sends a request and judges the answer: a fault whose verdict says what to do, or the JSON body.
///
/// `system` names the other side in messages. Cancelling may leave the call done.
pub async fn send(system: &str, request: RequestBuilder) -> Result<Answer, Fault> {
    raw(system, request).await?.judge(system)
}

/// As [`send`], for a call that changes nothing: whatever kept it from an answer, it can be made
/// again.
pub async fn read(system: &str, request: RequestBuilder) -> Result<Answer, Fault> {
    let answer = match raw(system, request).await {
        Ok(answer) => answer.judge(system),
        Err(fault) => Err(fault),
    };
    answer.map_err(as_read)
}

/// A fault of a call that changes nothing, and so can be made again.
pub fn as_read(fault: Fault) -> Fault {
    Fault {
        stage: Stage::Read,
        code: match fault.code {
            Code::OutcomeUnknown => Code::Unavailable,
            code => code,
        },
        message: fault.message.replace(MAYBE_DONE, ""),
        ..fault
    }
}

/// As [`send`], for an API whose errors say more than their status does: nothing is judged.
pub async fn raw(system: &str, request: RequestBuilder) -> Result<RawAnswer, Fault> {
    requests::count();
    let answer = request
        .send()
        .await
        .map_err(|e| transport_fault(system, e))?;
    Ok(RawAnswer {
        status: answer.status(),
        headers: answer.headers().clone(),
        bytes: read_bounded(system, answer).await?,
    })
}

impl RawAnswer {
    /// A fault by the status, or the JSON body.
    pub fn judge(self, system: &str) -> Result<Answer, Fault> {
        let RawAnswer {
            status,
            headers,
            bytes,
        } = self;
        if !status.is_success() {
            return Err(status_fault(system, status, &headers, &bytes));
        }
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).map_err(|e| {
                // The call may have had its effect; what it answered says nothing about that.
                let message = format!(
                    "{system} answered {status} with something that is not JSON: {}",
                    quote(&bytes)
                );
                Fault::retry(Stage::Write, Code::OutcomeUnknown, message).caused_by(e)
            })?
        };
        Ok(Answer {
            status: status.as_u16(),
            body,
        })
    }
}

async fn read_bounded(system: &str, mut answer: reqwest::Response) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer
        .chunk()
        .await
        .map_err(|e| transport_fault(system, e))?
    {
        if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
            let message = format!("{system} answered with more than {ANSWER_BYTES_MAX} bytes");
            return Err(Fault::retry(Stage::Write, Code::Unavailable, message));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn transport_fault(system: &str, error: reqwest::Error) -> Fault {
    // Scheme, host and port only: the rest of a URL may hold a secret.
    let place = error.url().map_or_else(
        || "the configured address".to_owned(),
        |url| url.origin().ascii_serialization(),
    );
    let (code, what) = if error.is_connect() {
        (
            Code::Unavailable,
            format!("cannot be reached at {place}; start it, or mend `url`"),
        )
    } else if error.is_timeout() {
        (
            Code::OutcomeUnknown,
            format!("did not answer in time{MAYBE_DONE}"),
        )
    } else {
        (
            Code::OutcomeUnknown,
            format!("broke off the call{MAYBE_DONE}"),
        )
    };
    Fault::retry(Stage::Write, code, format!("{system} {what}")).caused_by(error.without_url())
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
        300..=399 => Fault::halt(
            Stage::Write,
            Code::Configuration,
            format!("{message}; it sends callers elsewhere, so mend `url`"),
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
    match retry_after(headers) {
        Some(wait) => fault.after(wait.min(WAIT_MAX)),
        None => fault,
    }
}

/// The wait that an answer asks for: seconds, or a time to be read against the answer's own `Date`
/// (RFC 9110 §10.2.3).
fn retry_after(headers: &header::HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let asked = text(header::RETRY_AFTER)?;
    if let Ok(seconds) = asked.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let time = |text| jiff::fmt::rfc2822::parse(text).ok().map(|t| t.timestamp());
    let wait = time(asked)?.duration_since(time(text(header::DATE)?)?);
    Some(Duration::try_from(wait).unwrap_or_default())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Verdict;

    fn verdict(status: u16, headers: &[(header::HeaderName, &str)]) -> Verdict {
        let headers = headers
            .iter()
            .map(|(n, v)| (n.clone(), v.parse().expect("a header value")))
            .collect();
        let status = StatusCode::from_u16(status).expect("a status");
        status_fault("shop", status, &headers, b"{}").verdict
    }

    fn after(seconds: u64) -> Verdict {
        Verdict::Retry {
            after: Some(Duration::from_secs(seconds)),
        }
    }

    #[test]
    fn a_wait_is_given_in_seconds_or_as_a_time() {
        let date = (header::DATE, "Thu, 26 Nov 2026 10:00:00 GMT");
        let wait = |text| (header::RETRY_AFTER, text);
        assert_eq!(verdict(429, &[wait("7")]), after(7));
        let later = wait("Thu, 26 Nov 2026 10:02:30 GMT");
        assert_eq!(verdict(503, &[date.clone(), later.clone()]), after(150));
        let past = wait("Thu, 26 Nov 2026 09:00:00 GMT");
        assert_eq!(verdict(429, &[date.clone(), past]), after(0));
        assert_eq!(verdict(429, &[wait("999999999")]), after(3_600));
        let unknown = Verdict::Retry { after: None };
        assert_eq!(verdict(429, &[later]), unknown, "without a date");
        assert_eq!(verdict(429, &[date, wait("soon")]), unknown);
    }

    #[test]
    fn a_redirection_is_a_mistake_in_the_configuration() {
        assert_eq!(verdict(301, &[]), Verdict::Halt);
        assert_eq!(verdict(308, &[]), Verdict::Halt);
    }
}
