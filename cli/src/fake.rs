//! A server for tests: says what it was told to say, one answer per connection, and remembers what it was asked.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Its address, and what it was asked when all its answers are given. An empty answer breaks the connection.
pub(crate) fn server(answers: Vec<String>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = thread::spawn(move || {
        let answer = |answer: String| {
            let (mut socket, _) = listener.accept().unwrap();
            let request = read_request(&mut socket);
            socket.write_all(answer.as_bytes()).unwrap();
            request
        };
        answers.into_iter().map(answer).collect()
    });
    (url, asked)
}

/// A whole answer.
pub(crate) fn answer(status: u16, body: &str) -> String {
    answer_with(status, "", body)
}

/// A whole answer with headers, each ended by CR and LF.
pub(crate) fn answer_with(status: u16, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}")
}

/// A refusal.
pub(crate) fn problem(status: u16, kind: &str, detail: &str) -> String {
    let kind = format!("urn:lastword:problem:{kind}");
    answer(
        status,
        &serde_json::json!({"type": kind, "title": "t", "status": status, "detail": detail}).to_string(),
    )
}

fn read_request(socket: &mut TcpStream) -> String {
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let bytes = socket.read(&mut piece).unwrap();
        request.extend_from_slice(&piece[..bytes]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return text;
        }
    }
}
