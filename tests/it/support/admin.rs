//! Asking the admin listener.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// A config's table for an admin listener of its own.
pub(crate) const ADMIN: &str = "[admin]\nport = 0";

/// What it answers.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut values = lines.filter(|(one, _)| one.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        let value = values.next();
        assert!(values.next().is_none(), "{name} twice: {}", self.head);
        value
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Of `/readyz`: how a check went.
    pub(crate) fn check(&self, name: &str) -> (String, String) {
        let json = self.json();
        let check = json["checks"].as_array().unwrap().iter().find(|check| check["name"] == name);
        let word = |key: &str| check.unwrap_or_else(|| panic!("no {name}"))[key].as_str().unwrap().to_owned();
        (word("status"), word("text"))
    }
}

pub(crate) fn send(address: SocketAddr, request: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

pub(crate) fn ask(address: SocketAddr, method: &str, path: &str, headers: &str) -> Answer {
    send(address, &format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n{headers}\r\n"))
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, "GET", path, "host: localhost:3001\r\n")
}

/// Somebody who reads events.
pub(crate) struct Reader(pub(crate) BufReader<TcpStream>);

impl Reader {
    pub(crate) fn open(admin: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(admin).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        Self(BufReader::new(stream))
    }

    /// Of the answer; before all events.
    pub(crate) fn status(&mut self) -> u16 {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// The next event: its name and its data.
    pub(crate) fn next(&mut self) -> (String, Value) {
        let mut name = String::new();
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream has ended");
            if let Some(event) = line.strip_prefix("event: ") {
                name = event.trim().to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                return (name, serde_json::from_str(data).unwrap());
            }
        }
    }
}
