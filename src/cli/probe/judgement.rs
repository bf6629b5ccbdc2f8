//! Who answers, and is it what Discord wants?

mod obstacle;

use http::{StatusCode, header};

use super::client::{Answer, LARGE, NoAnswer, PATIENCE};
use super::report::{Finding, plain};
use super::target::Target;
use crate::discord::signature::{BadSignature, SignatureHeadersError};
use crate::gateway::Refusal;

/// What an answer to a request that is not Discord's says about the endpoint.
#[derive(Debug)]
pub(super) enum Judgement {
    /// 401, as it is to be, and why, where it is shardless that says it.
    Refused(Option<Refusal>),
    /// It was taken for a good one.
    Took,
    /// It hardly came to shardless: the answer in words, and what to do.
    InTheWay { text: String, advice: String },
}

impl Judgement {
    pub(super) fn of(answer: &Answer, target: &Target) -> Self {
        let refusal = refusal(answer);
        let asks_for_password = answer.headers.contains_key(header::WWW_AUTHENTICATE);
        match answer.status {
            StatusCode::UNAUTHORIZED if !asks_for_password => Self::Refused(refusal),
            status if status.is_success() && !obstacle::is_page(answer) => Self::Took,
            _ => {
                let (text, advice) = obstacle::describe(answer, refusal.as_ref(), target);
                Self::InTheWay { text, advice }
            }
        }
    }

    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_))
    }

    /// Whether shardless finds the time of now too far from now.
    pub(super) fn refuses_timestamp(&self) -> bool {
        matches!(self, Self::Refused(Some(Refusal::Timestamp)))
    }

    /// For a forged PING.
    pub(super) fn forged(&self, answer: &Answer) -> Finding {
        match self {
            Self::Refused(Some(_)) => Finding::good("refused by shardless with 401, as Discord demands"),
            Self::Refused(None) => Finding::warning(
                format!("refused with 401, but not in shardless' words{}", obstacle::by(answer)),
                "Fine, if the endpoint is another program's, or if the proxy puts error pages of its own in place of \
                 those from behind it. Otherwise look at where the proxy passes this path on to.",
            ),
            Self::Took => Finding::bad(
                format!(
                    "taken, with {}: Discord refuses endpoints that take forged requests",
                    obstacle::status(answer)
                ),
                "Nothing verifies signatures here. Does the proxy pass requests on to the bot itself? Let it pass them \
                 to shardless (port 3000), whose `handler` is the bot.",
            ),
            Self::InTheWay { text, advice } => Finding::bad(text, advice),
        }
    }

    /// Whether the two signature headers came through, as far as shardless tells.
    pub(super) fn headers(&self) -> Option<Finding> {
        let Self::Refused(Some(refusal)) = self else { return None };
        let advice = "X-Signature-Ed25519 and X-Signature-Timestamp must come through as they are. Look in the site of \
                      the proxy for lines that set or remove headers (Nginx: proxy_set_header, \
                      proxy_pass_request_headers; Apache: RequestHeader), and for such rules at a CDN before it.";
        Some(match refusal {
            Refusal::Signature(_) | Refusal::Timestamp => {
                Finding::good("both signature headers come through")
            }
            Refusal::SignatureHeaders(SignatureHeadersError::Missing) => {
                Finding::bad("a signature header is lost on the way to shardless", advice)
            }
            Refusal::SignatureHeaders(SignatureHeadersError::Repeated) => {
                Finding::bad("a signature header is doubled on the way to shardless", advice)
            }
            Refusal::SignatureHeaders(_) => {
                Finding::bad("a signature header is changed on the way to shardless", advice)
            }
            _ => return None,
        })
    }

    /// For a PING without signature headers.
    pub(super) fn unsigned(&self, answer: &Answer) -> Finding {
        match self {
            Self::Refused(_) => Finding::good("refused with 401"),
            Self::Took => Finding::bad(
                format!(
                    "taken, with {}: anybody can play Discord to this endpoint",
                    obstacle::status(answer)
                ),
                "A request without signature headers must get 401, as shardless does it.",
            ),
            Self::InTheWay { text, .. } => Finding::warning(
                text,
                "Discord's requests have the headers, so that this alone stops nothing; but 401 is due here as well.",
            ),
        }
    }

    /// For a large body.
    pub(super) fn large(&self, answer: &Answer) -> Finding {
        let size = LARGE / 1000;
        match self {
            Self::Refused(_) => Finding::good(format!("{size} kB come through")),
            Self::Took => Finding::bad(
                format!("taken, with {}", obstacle::status(answer)),
                "What is too large to be verified must be refused.",
            ),
            Self::InTheWay { .. } if answer.status == StatusCode::PAYLOAD_TOO_LARGE => {
                let limit = match refusal(answer) {
                    Some(_) => "`body` under [limits] in shardless' config",
                    None => {
                        "the proxy's limit (Nginx: client_max_body_size 1m; Apache: LimitRequestBody 1048576), or that \
                         of a firewall in it (ModSecurity: SecRequestBodyLimit)"
                    }
                };
                Finding::warning(
                    format!("{size} kB are too large{}", obstacle::by(answer)),
                    format!(
                        "Validation is small and passes, but large commands and modals would be lost: raise {limit}."
                    ),
                )
            }
            Self::InTheWay { text, .. } => Finding::warning(
                format!("{size} kB get another answer: {text}"),
                "Validation is small and passes, but large commands and modals would be lost.",
            ),
        }
    }
}

/// For a request that got no answer.
pub(super) fn unanswered(error: &NoAnswer) -> Finding {
    match error {
        NoAnswer::TooSlow => Finding::bad(
            format!("no answer within {} s; Discord gives up after 3 s", PATIENCE.as_secs()),
            "shardless itself refuses a forgery at once. Does the proxy wait for something that does not answer? Its \
             error log tells.",
        ),
        NoAnswer::Broken(reason) => Finding::bad(
            format!("no answer: {}", plain(reason, 200)),
            "Something before shardless hangs up, or speaks no HTTP: a firewall, or another program on that port. See \
             the proxy's error log.",
        ),
    }
}

/// The same for a large body.
pub(super) fn large_unanswered(error: &NoAnswer) -> Finding {
    let reason = match error {
        NoAnswer::TooSlow => format!("within {} s", PATIENCE.as_secs()),
        NoAnswer::Broken(reason) => format!("({})", plain(reason, 200)),
    };
    Finding::warning(
        format!("{} kB get no answer {reason}", LARGE / 1000),
        "Validation is small and passes, but large commands and modals would be lost: is there a limit before shardless?",
    )
}

/// What shardless says in that answer, if it is shardless.
fn refusal(answer: &Answer) -> Option<Refusal> {
    let all = [
        Refusal::UnknownPath,
        Refusal::Method,
        Refusal::MediaType,
        Refusal::SignatureHeaders(SignatureHeadersError::Missing),
        Refusal::SignatureHeaders(SignatureHeadersError::Repeated),
        Refusal::SignatureHeaders(SignatureHeadersError::Signature),
        Refusal::SignatureHeaders(SignatureHeadersError::Timestamp),
        Refusal::Timestamp,
        Refusal::Signature(BadSignature),
        Refusal::BodyTooLarge,
        Refusal::BodyTimeout,
        Refusal::BodyBroken,
        Refusal::NoMemory,
        Refusal::Panicked,
    ];
    all.into_iter()
        .find(|refusal| refusal.status() == answer.status && refusal.to_string() == answer.body.trim_end())
}

#[cfg(test)]
mod tests;
