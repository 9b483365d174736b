//! Talks to the server: one request, one answer, and patience for those who wait.
//!
//! | what happens                         | what is done                                                         |
//! |--------------------------------------|----------------------------------------------------------------------|
//! | a server does not answer             | the next one of the list is asked                                    |
//! | a connection breaks after a request  | asked once more if asking twice does no harm, else reported as such  |
//! | all are away                         | [`CallError::Away`]; with [`Client::patiently`]: again, for ever     |
//! | the server says no                   | [`CallError::Refused`] with its words                                |
//! | it, or a proxy, cannot answer now    | the same; whether it did what was asked is not known                 |

use crate::exit::{self, failure};
use anyhow::Context;
use api::Problem;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use ureq::http::request::Builder;
use ureq::http::{Method, Request, Response};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// Until a connection stands.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// For one request with its answer; longer than any long poll.
const CALL_MAX: Duration = Duration::from_secs(120);
/// For the next bytes of an answer that is read as it comes; longer than any that the server leaves without a byte on purpose.
const READ_MAX: Duration = Duration::from_secs(90);
/// For an answer.
const ANSWER_BYTES_MAX: u64 = 256 << 20;
/// For a token file.
const TOKEN_BYTES_MAX: u64 = 4096;
/// The first pause before a server that is away is asked again; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// Where Debian and its kin keep the certificates that the system trusts.
const SYSTEM_CA_FILE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Where the server is and what opens it.
#[derive(Debug)]
pub(crate) struct Place {
    /// Base addresses, separated by commas.
    pub(crate) urls: String,
    /// The file with the token.
    pub(crate) token_file: Option<PathBuf>,
    /// Certificates to trust for https.
    pub(crate) ca_file: Option<PathBuf>,
}

/// A connection to one of the servers. A copy is one too, and knows which server answers.
#[derive(Clone)]
pub(crate) struct Client {
    urls: Vec<String>,
    token: Option<String>,
    http: ureq::Agent,
    current: Arc<AtomicUsize>,
    reason: Option<String>,
}

/// Why a request brought no answer to work with.
#[derive(Debug)]
pub(crate) enum CallError {
    /// No server could be asked.
    Away {
        /// What was tried and what came of it.
        what: String,
        /// The request may have arrived all the same.
        perhaps_done: bool,
    },
    /// The server refused, in its own words.
    Refused(Problem),
    /// The answer makes no sense; is this a Lastword server?
    Garbled(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Away { what, perhaps_done: false } => {
                write!(f, "no server answers: {what}; is it running, and is --url (LASTWORD_URL) right?")
            }
            CallError::Away { what, perhaps_done: true } => {
                write!(
                    f,
                    "the server was lost after it was asked: {what}; whether it did what was asked is not known"
                )
            }
            CallError::Refused(problem) if problem.status == 401 => {
                write!(f, "{}; give a valid token with --token-file (LASTWORD_TOKEN_FILE)", problem.detail)
            }
            CallError::Refused(problem) => f.write_str(&problem.detail),
            CallError::Garbled(what) => {
                write!(f, "the answer makes no sense: {what}; is this a Lastword server?")
            }
        }
    }
}

impl std::error::Error for CallError {}

impl CallError {
    /// The exit code that fits.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            CallError::Away { .. } => exit::AWAY,
            CallError::Garbled(_) => exit::PROTOCOL,
            CallError::Refused(_) if self.kind().starts_with("no-such-") => exit::NOT_FOUND,
            CallError::Refused(problem) => match problem.status {
                401 | 403 => exit::TOKEN,
                404 | 410 => exit::NOT_FOUND,
                408 | 429 | 502..=504 => exit::LATER,
                500.. => exit::SOFTWARE,
                _ => exit::REFUSED,
            },
        }
    }

    /// The kind of the server's problem, without its prefix.
    pub(crate) fn kind(&self) -> &str {
        match self {
            CallError::Refused(problem) => problem.kind.rsplit(':').next().unwrap_or_default(),
            CallError::Away { .. } | CallError::Garbled(_) => "",
        }
    }

    /// The same request may succeed later without anybody's doing.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            CallError::Away { .. } => true,
            CallError::Refused(problem) => problem.status == 429 || no_answer_yet(problem.status),
            CallError::Garbled(_) => false,
        }
    }

    /// The server may have done what was asked, or may still do it.
    pub(crate) fn perhaps_done(&self) -> bool {
        match self {
            CallError::Away { perhaps_done, .. } => *perhaps_done,
            CallError::Refused(problem) => no_answer_yet(problem.status),
            CallError::Garbled(_) => false,
        }
    }
}

/// Statuses that say nothing of the request's fate: whoever answered only ceased to wait for it, or stops.
fn no_answer_yet(status: u16) -> bool {
    matches!(status, 408 | 502..=504)
}

/// What is asked.
#[derive(Default)]
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    pub(crate) body: Option<Vec<u8>>,
    /// Asking twice does no harm.
    pub(crate) repeatable: bool,
    /// Beside those of every request.
    pub(crate) headers: Vec<(&'static str, String)>,
}

/// What came back.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: ureq::http::HeaderMap,
    pub(crate) body: Vec<u8>,
    /// It was asked before, and that answer was lost: what was asked may have been done then.
    pub(crate) repeated: bool,
}

/// An answer whose body is read as it comes.
pub(crate) struct Download {
    pub(crate) reply: Reply,
    pub(crate) body: Box<dyn Read>,
}

impl Reply {
    /// A header that holds a number.
    pub(crate) fn number(&self, header: &str) -> Option<u64> {
        self.headers.get(header)?.to_str().ok()?.parse().ok()
    }

    /// A header that holds a range: `FROM-TO`, of which TO is not a part.
    pub(crate) fn range(&self, header: &str) -> Option<Range<u64>> {
        let (from, to) = self.headers.get(header)?.to_str().ok()?.split_once('-')?;
        Some(from.parse().ok()?..to.parse().ok()?)
    }

    /// Whether a header says `true`.
    pub(crate) fn flag(&self, header: &str) -> bool {
        self.headers.get(header).is_some_and(|value| value == "true")
    }

    /// The body as `T`.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, CallError> {
        serde_json::from_slice(&self.body).map_err(|e| CallError::Garbled(e.to_string()))
    }

    /// The server's refusal, if it is one.
    pub(crate) fn accepted(self) -> Result<Reply, CallError> {
        if (200..300).contains(&self.status) {
            return Ok(self);
        }
        match self.read::<Problem>() {
            Ok(problem) => Err(CallError::Refused(problem)),
            Err(_) if no_answer_yet(self.status) => Err(CallError::Refused(Problem {
                kind: "about:blank".to_owned(), // RFC 9457, 4.2.1: no more than the status says
                title: "No answer yet".to_owned(),
                status: self.status,
                detail: format!("the server cannot answer now (HTTP status {})", self.status),
            })),
            Err(_) => Err(CallError::Garbled(format!("HTTP status {} without an explanation", self.status))),
        }
    }
}

impl Client {
    /// Reads the token and certificates; does not connect yet.
    pub(crate) fn new(place: &Place) -> anyhow::Result<Client> {
        let urls = read_urls(&place.urls)?;
        let token = place.token_file.as_deref().map(read_token).transpose()?;
        let tls = match urls.iter().any(|url| url.starts_with("https://")) {
            true => Some(tls_config(place.ca_file.as_deref())?),
            false => None,
        };
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .timeout_connect(Some(CONNECT_MAX))
            .timeout_resolve(Some(CONNECT_MAX))
            .timeout_global(Some(CALL_MAX))
            .user_agent(concat!("lastword/", env!("CARGO_PKG_VERSION")));
        let config = match tls {
            Some(tls) => config.tls_config(tls).build(),
            None => config.build(),
        };
        Ok(Client { urls, token, http: config.new_agent(), current: Arc::default(), reason: None })
    }

    /// Says with every change why it is made.
    pub(crate) fn because(self, reason: Option<String>) -> Client {
        Client { reason, ..self }
    }

    /// Why the changes are made, if that was said.
    pub(crate) fn reason(&self) -> Option<String> {
        self.reason.clone()
    }

    /// Asks and reads the answer as `T`.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        self.reply(&Call { path, repeatable: true, ..Call::default() })?.read()
    }

    /// Sends `body` and reads the answer as `T`. `repeatable`: the same request twice has the effect of one.
    pub(crate) fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        repeatable: bool,
    ) -> Result<T, CallError> {
        let body = serde_json::to_vec(body).map_err(|e| CallError::Garbled(e.to_string()))?;
        self.reply(&Call { method: Method::POST, path, body: Some(body), repeatable, ..Call::default() })?
            .read()
    }

    /// Removes what is at `path`.
    pub(crate) fn delete(&self, path: &str) -> Result<(), CallError> {
        self.reply(&Call { method: Method::DELETE, path, ..Call::default() }).map(|_| ())
    }

    /// Asks; an answer that is a refusal is an error.
    pub(crate) fn reply(&self, call: &Call<'_>) -> Result<Reply, CallError> {
        self.send(call)?.accepted()
    }

    /// Asks; the body is not read yet. An answer that is a refusal is an error.
    pub(crate) fn download(&self, call: &Call<'_>) -> Result<Download, CallError> {
        let ((reply, body), _) = self.ask(call, |url| self.open(url, call))?;
        if (200..300).contains(&reply.status) {
            return Ok(Download { reply, body: Box::new(body.into_reader()) });
        }
        let body = body.into_with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let reply = Reply { body: body.unwrap_or_default(), ..reply }.accepted()?;
        Ok(Download { reply, body: Box::new(std::io::empty()) })
    }

    /// Asks the servers one after the other until one answers, whatever it says.
    pub(crate) fn send(&self, call: &Call<'_>) -> Result<Reply, CallError> {
        let (reply, lost) = self.ask(call, |url| self.send_to(url, call))?;
        Ok(Reply { repeated: lost, ..reply })
    }

    /// Whether a server was lost after it was asked comes with the answer.
    fn ask<T>(
        &self,
        call: &Call<'_>,
        ask: impl Fn(&str) -> Result<T, ureq::Error>,
    ) -> Result<(T, bool), CallError> {
        let mut failures = Vec::new();
        let mut lost = false;
        for turn in 0..self.urls.len() {
            let index = (self.current.load(Ordering::Relaxed) + turn) % self.urls.len();
            let url = &self.urls[index];
            let mut result = ask(url);
            if matches!(&result, Err(e) if call.repeatable && !never_sent(e)) {
                lost = true;
                result = ask(url); // an idle connection may just have been closed by the server
            }
            match result {
                Ok(answer) => {
                    self.current.store(index, Ordering::Relaxed);
                    return Ok((answer, lost));
                }
                Err(error) if call.repeatable || never_sent(&error) => {
                    failures.push(format!("{url}: {error}"))
                }
                Err(error) => {
                    return Err(CallError::Away { what: format!("{url}: {error}"), perhaps_done: true });
                }
            }
        }
        Err(CallError::Away { what: failures.join("; "), perhaps_done: false })
    }

    fn send_to(&self, url: &str, call: &Call<'_>) -> Result<Reply, ureq::Error> {
        let answer = match &call.body {
            Some(body) => {
                let request = self.request(url, call).header("content-type", "application/json");
                self.http.run(request.body(&body[..])?)?
            }
            None => self.http.run(self.request(url, call).body(())?)?,
        };
        let (reply, body) = head_of(answer);
        let body = body.into_with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
        Ok(Reply { body, ..reply })
    }

    fn open(&self, url: &str, call: &Call<'_>) -> Result<(Reply, ureq::Body), ureq::Error> {
        match &call.body {
            Some(body) => {
                let request = self.request(url, call).header("content-type", "application/json");
                self.open_with(request.body(&body[..])?)
            }
            None => self.open_with(self.request(url, call).body(())?),
        }
    }

    fn open_with(&self, request: Request<impl ureq::AsSendBody>) -> Result<(Reply, ureq::Body), ureq::Error> {
        let request = self.http.configure_request(request);
        let request = request.timeout_global(None).timeout_per_read(Some(READ_MAX)).build();
        Ok(head_of(self.http.run(request)?))
    }

    fn request(&self, url: &str, call: &Call<'_>) -> Builder {
        let request = Request::builder().method(call.method.clone()).uri(format!("{url}{}", call.path));
        let request =
            call.headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
        let request = match self.reason.as_ref().filter(|_| call.method != Method::GET) {
            Some(reason) => request.header("x-lastword-reason", reason.as_bytes()),
            None => request,
        };
        match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    /// Asks again and again while the server is away or cannot answer now; says so once.
    pub(crate) fn patiently<T>(&self, ask: impl Fn() -> Result<T, CallError>) -> Result<T, CallError> {
        let mut pause = PAUSE_MIN;
        let mut told = false;
        loop {
            match ask() {
                Err(error) if error.may_pass() => {
                    if pause > PAUSE_MIN && !told {
                        eprintln!("lastword: {error}; trying again until it answers");
                        told = true;
                    }
                    thread::sleep(pause);
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                result => {
                    if told && result.is_ok() {
                        eprintln!("lastword: the server answers again");
                    }
                    return result;
                }
            }
        }
    }
}

fn head_of(answer: Response<ureq::Body>) -> (Reply, ureq::Body) {
    let (head, body) = answer.into_parts();
    let reply =
        Reply { status: head.status.as_u16(), headers: head.headers, body: Vec::new(), repeated: false };
    (reply, body)
}

/// The failure happened before a byte of the request left.
fn never_sent(error: &ureq::Error) -> bool {
    use std::io::ErrorKind as Kind;
    if let ureq::Error::Io(io) = error {
        let kinds = [
            Kind::ConnectionRefused,
            Kind::HostUnreachable,
            Kind::NetworkUnreachable,
            Kind::AddrNotAvailable,
        ];
        return kinds.contains(&io.kind());
    }
    if let ureq::Error::Timeout(which) = error {
        return matches!(which, ureq::Timeout::Resolve | ureq::Timeout::Connect);
    }
    matches!(error, ureq::Error::HostNotFound | ureq::Error::ConnectionFailed | ureq::Error::BadUri(_))
}

fn read_urls(list: &str) -> anyhow::Result<Vec<String>> {
    let urls: Vec<String> = list
        .split(',')
        .map(|url| url.trim().trim_end_matches('/').to_owned())
        .filter(|url| !url.is_empty())
        .collect();
    let wrong = urls.iter().find(|url| {
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        rest.is_none_or(str::is_empty) || url.parse::<ureq::http::Uri>().is_err()
    });
    match wrong {
        Some(url) => Err(failure(
            exit::CONFIG,
            format!("\"{url}\" is not the address of a server; write it as http://host:7410"),
        )),
        None if urls.is_empty() => {
            Err(failure(exit::CONFIG, "no server is named; give --url or LASTWORD_URL"))
        }
        None => Ok(urls),
    }
}

fn read_token(path: &Path) -> anyhow::Result<String> {
    let meta = std::fs::metadata(path);
    if meta.as_ref().is_ok_and(|meta| meta.is_file() && meta.mode() & 0o077 != 0) {
        let shown = path.display();
        let text = format!("the token file {shown} can be accessed by others; run: chmod 600 {shown}");
        return Err(failure(exit::CONFIG, text));
    }
    let text = match meta.map(|meta| meta.len()) {
        Ok(size) if size > TOKEN_BYTES_MAX => Err(std::io::Error::other("too large for a token file")),
        Ok(_) => std::fs::read_to_string(path),
        Err(error) => Err(error),
    };
    let text = text
        .map_err(|e| failure(exit::CONFIG, format!("cannot read the token file {}: {e}", path.display())))?;
    let token = text.trim();
    if token.is_empty() || token.chars().any(|c| !c.is_ascii_graphic()) {
        return Err(failure(exit::CONFIG, format!("the file {} does not hold a token", path.display())));
    }
    Ok(token.to_owned())
}

fn tls_config(ca_file: Option<&Path>) -> anyhow::Result<TlsConfig> {
    let path = ca_file.unwrap_or(Path::new(SYSTEM_CA_FILE));
    let pem = std::fs::read(path).map_err(|e| {
        failure(
            exit::CONFIG,
            format!("cannot read the certificates in {}: {e}; see --ca-file", path.display()),
        )
    })?;
    let mut certs: Vec<Certificate<'static>> = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(cert) = item.with_context(|| format!("reading {}", path.display()))? {
            certs.push(cert);
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(TlsConfig::builder()
        .unversioned_rustls_crypto_provider(provider)
        .root_certs(RootCerts::new_with_certs(&certs))
        .build())
}

/// Writes a name so that it can stand in a path or a query (RFC 3986).
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;
    use std::net::TcpListener;

    fn client(urls: &str) -> Client {
        Client::new(&Place { urls: urls.to_owned(), token_file: None, ca_file: None }).unwrap()
    }

    /// An address at which nobody listens.
    fn nobody() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    }

    #[test]
    fn the_next_server_is_asked_when_one_is_away() {
        let (up, _) = fake::server(vec![fake::answer(200, "42")]);
        let client = client(&format!("{},{up}", nobody()));
        assert_eq!(client.get::<u32>("/x").unwrap(), 42);
    }

    #[test]
    fn nobody_there_is_exit_code_69() {
        let error = client(&nobody()).get::<u32>("/x").unwrap_err();
        assert_eq!(error.exit_code(), exit::AWAY);
        assert!(error.may_pass());
    }

    #[test]
    fn a_request_that_may_have_been_done_is_not_sent_twice() {
        let (up, _) = fake::server(vec![String::new()]);
        let error = client(&up).post::<_, u32>("/x", &1, false).unwrap_err();
        assert!(matches!(error, CallError::Away { perhaps_done: true, .. }), "{error}");
    }

    #[test]
    fn the_servers_words_and_kind_are_kept() {
        let (up, _) = fake::server(vec![fake::problem(404, "no-such-job", "no job 7")]);
        let error = client(&up).get::<u32>("/x").unwrap_err();
        assert_eq!((error.exit_code(), error.kind()), (exit::NOT_FOUND, "no-such-job"));
        assert_eq!(error.to_string(), "no job 7");
    }

    #[test]
    fn an_answer_from_something_else_is_said_to_be_so() {
        let (up, _) = fake::server(vec![fake::answer(200, "<html>")]);
        assert_eq!(client(&up).get::<u32>("/x").unwrap_err().exit_code(), exit::PROTOCOL);
    }

    #[test]
    fn who_cannot_answer_now_may_later_and_may_have_done_it() {
        for status in [408, 502, 503, 504] {
            let answers = [fake::problem(status, "too-slow", "x"), fake::answer(status, "<html>")];
            let (up, _) = fake::server(answers.into());
            let client = client(&up);
            for _ in 0..2 {
                let error = client.get::<u32>("/x").unwrap_err();
                assert!(error.may_pass() && error.perhaps_done(), "{status}: {error}");
                assert_eq!(error.exit_code(), exit::LATER);
            }
        }
    }

    #[test]
    fn an_answer_tells_whether_it_was_asked_for_twice() {
        let (up, _) = fake::server(vec![fake::answer(200, "1"), String::new(), fake::answer(200, "1")]);
        let client = client(&up);
        let call = Call { path: "/x", repeatable: true, ..Call::default() };
        assert!(!client.send(&call).unwrap().repeated);
        assert!(client.send(&call).unwrap().repeated);
    }

    #[test]
    fn addresses_are_checked_before_anything_is_sent() {
        assert_eq!(read_urls("http://a:1/, https://b").unwrap(), ["http://a:1", "https://b"]);
        for wrong in ["", "host:7410", "http://", "ftp://x", "http://a b"] {
            assert!(read_urls(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_can_stand_in_a_path() {
        assert_eq!(encode("a b/ü?"), "a%20b%2F%C3%BC%3F");
    }
}
