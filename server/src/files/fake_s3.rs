//! A bucket on loopback that looks closely: who signs, whether the body is what was signed, which requests come. Its objects are in memory.

use super::key::hex;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{AUTHORIZATION, CONTENT_RANGE, ETAG, LAST_MODIFIED, RANGE};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

pub(crate) const KEY: &str = "AKIALOOPBACK";
const REGION: &str = "us-east-1";
const WRITTEN: &str = "Sun, 22 Nov 2026 03:17:43 GMT";

/// The one bucket there is: `files`.
#[derive(Clone, Default)]
pub(crate) struct Bucket(Arc<Mutex<Contents>>);

#[derive(Default)]
struct Contents {
    objects: BTreeMap<String, Vec<u8>>,
    uploads: HashMap<String, BTreeMap<u32, Vec<u8>>>,
    requests: Vec<String>,
    failing: Option<StatusCode>,
}

impl Bucket {
    /// Serves on the present runtime; gives the endpoint.
    pub(crate) async fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router =
            Router::new().fallback(handle).layer(DefaultBodyLimit::disable()).with_state(self.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = hyper_util::service::TowerToHyperService::new(router.clone());
                let io = hyper_util::rt::TokioIo::new(stream);
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
            }
        });
        format!("http://{address}")
    }

    /// Everything fails with this from now on.
    pub(crate) fn fail(&self, with: Option<StatusCode>) {
        self.0.lock().unwrap().failing = with;
    }

    /// What is there.
    pub(crate) fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        self.0.lock().unwrap().objects.clone()
    }

    pub(crate) fn remove(&self, key: &str) {
        self.0.lock().unwrap().objects.remove(key).unwrap();
    }

    /// Methods and addresses, since the last time.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().requests)
    }

    pub(crate) fn uploads(&self) -> usize {
        self.0.lock().unwrap().uploads.len()
    }
}

async fn handle(
    State(bucket): State<Bucket>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut contents = bucket.0.lock().unwrap();
    contents.requests.push(format!("{method} {uri}"));
    if let Some(status) = contents.failing {
        return (status, "<Error><Code>SlowDown</Code></Error>").into_response();
    }
    if let Err(what) = signed(&headers, &body) {
        return (
            StatusCode::FORBIDDEN,
            format!("<Error><Code>AccessDenied</Code><Message>{what}</Message></Error>"),
        )
            .into_response();
    }
    let path = uri.path().trim_start_matches('/');
    let Some(key) = path.strip_prefix("files").map(|rest| rest.trim_start_matches('/').to_owned()) else {
        return no_such("NoSuchBucket");
    };
    let query: HashMap<String, String> = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .map(|(name, value)| (name.to_owned(), value.replace("%2F", "/")))
        .collect();
    contents.answer(&method, &key, &query, &headers, &body)
}

impl Contents {
    fn answer(
        &mut self,
        method: &Method,
        key: &str,
        query: &HashMap<String, String>,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Response {
        let upload = query.get("uploadId");
        match (method.as_str(), upload) {
            ("GET", None) if key.is_empty() => self.list(query.get("prefix").map_or("", String::as_str)),
            ("GET" | "HEAD", None) => self.read(key, headers),
            ("PUT", None) => {
                self.objects.insert(key.to_owned(), body.to_vec());
                [(ETAG, etag(body))].into_response()
            }
            ("DELETE", None) => {
                self.objects.remove(key);
                StatusCode::NO_CONTENT.into_response()
            }
            ("POST", None) if query.contains_key("uploads") => {
                let id = format!("upload{}", self.requests.len());
                self.uploads.insert(id.clone(), BTreeMap::new());
                xml(format!(
                    "<InitiateMultipartUploadResult><Bucket>files</Bucket><Key>{key}</Key><UploadId>{id}</UploadId>\
                     </InitiateMultipartUploadResult>"
                ))
            }
            ("PUT", Some(id)) => {
                let number = query["partNumber"].parse().unwrap();
                let Some(parts) = self.uploads.get_mut(id) else { return no_such("NoSuchUpload") };
                parts.insert(number, body.to_vec());
                [(ETAG, etag(body))].into_response()
            }
            ("POST", Some(id)) => {
                let Some(parts) = self.uploads.remove(id) else { return no_such("NoSuchUpload") };
                let last = parts.len();
                let small = parts.values().take(last - 1).any(|part| part.len() < 5 << 20);
                if small {
                    return (StatusCode::BAD_REQUEST, "<Error><Code>EntityTooSmall</Code></Error>")
                        .into_response();
                }
                self.objects.insert(key.to_owned(), parts.into_values().flatten().collect());
                xml(format!(
                    "<CompleteMultipartUploadResult><Bucket>files</Bucket><Key>{key}</Key><ETag>\"x\"</ETag>\
                     </CompleteMultipartUploadResult>"
                ))
            }
            ("DELETE", Some(id)) => {
                self.uploads.remove(id);
                StatusCode::NO_CONTENT.into_response()
            }
            (_, _) => StatusCode::METHOD_NOT_ALLOWED.into_response(),
        }
    }

    fn read(&self, key: &str, headers: &HeaderMap) -> Response {
        let Some(object) = self.objects.get(key) else { return no_such("NoSuchKey") };
        let common = [(ETAG, etag(object)), (LAST_MODIFIED, WRITTEN.to_owned())];
        let range =
            headers.get(RANGE).and_then(|range| range.to_str().ok()?.strip_prefix("bytes=")?.split_once('-'));
        let Some((from, to)) = range else { return (common, object.clone()).into_response() };
        let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
        let to = to.min(object.len() - 1);
        let told = [(CONTENT_RANGE, format!("bytes {from}-{to}/{}", object.len()))];
        (StatusCode::PARTIAL_CONTENT, common, told, object[from..=to].to_vec()).into_response()
    }

    fn list(&self, prefix: &str) -> Response {
        let entry = |(key, object): (&String, &Vec<u8>)| {
            format!(
                "<Contents><Key>{key}</Key><LastModified>2026-11-22T03:17:43.000Z</LastModified><ETag>\"x\"</ETag><Size>{}</Size></Contents>",
                object.len()
            )
        };
        let entries: String =
            self.objects.iter().filter(|(key, _)| key.starts_with(prefix)).map(entry).collect();
        xml(format!(
            "<ListBucketResult><Name>files</Name><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
        ))
    }
}

/// Signed by our key, for this region and service, and the body is the one that was signed.
fn signed(headers: &HeaderMap, body: &Bytes) -> Result<(), String> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let authorization = header(AUTHORIZATION.as_str());
    let date = header("x-amz-date").get(..8).unwrap_or_default();
    let expected = format!("AWS4-HMAC-SHA256 Credential={KEY}/{date}/{REGION}/s3/aws4_request, ");
    if date.is_empty() || !authorization.starts_with(&expected) || !authorization.contains("Signature=") {
        return Err(format!("signed as {authorization}"));
    }
    let hash = hex(&Sha256::digest(body));
    match header("x-amz-content-sha256") {
        told if told == hash => Ok(()),
        told => Err(format!("the body is {hash} and was signed as {told}")),
    }
}

fn etag(body: &[u8]) -> String {
    format!("\"{}\"", &hex(&Sha256::digest(body))[..32])
}

fn xml(text: String) -> Response {
    ([(axum::http::header::CONTENT_TYPE, "application/xml")], text).into_response()
}

fn no_such(code: &str) -> Response {
    (StatusCode::NOT_FOUND, format!("<Error><Code>{code}</Code></Error>")).into_response()
}
