//! A minimal web server with configurable failures.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A received request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    pub(crate) path: String,
    /// The first byte of the requested range.
    pub(crate) range: Option<usize>,
    pub(crate) if_range: Option<String>,
    pub(crate) token: Option<String>,
}

/// A response.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// The number of bytes after which the connection breaks.
    pub(crate) cut: Option<usize>,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: b"sorry".to_vec(),
            cut: None,
        }
    }

    /// Responds like a correct host: with the requested range, unless the file has changed.
    pub(crate) fn file(request: &Request, content: &[u8], tag: &str) -> Self {
        let unchanged = request.if_range.as_ref().is_none_or(|known| known == tag);
        let mut reply = match request.range.filter(|_| unchanged) {
            Some(first) if first >= content.len() => {
                let mut reply = Self::status(416);
                let size = content.len();
                reply
                    .headers
                    .push(("Content-Range", format!("bytes */{size}")));
                reply
            }
            Some(first) => {
                let mut reply = Self::status(206);
                let (last, size) = (content.len() - 1, content.len());
                reply
                    .headers
                    .push(("Content-Range", format!("bytes {first}-{last}/{size}")));
                reply.body = content[first..].to_vec();
                reply
            }
            None => Self::whole(content),
        };
        if !tag.is_empty() {
            reply.headers.push(("ETag", tag.to_owned()));
        }
        reply
    }

    /// Responds like a host that does not support ranges.
    pub(crate) fn whole(content: &[u8]) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body: content.to_vec(),
            cut: None,
        }
    }

    pub(crate) fn cut(mut self, bytes: usize) -> Self {
        self.cut = Some(bytes);
        self
    }
}

pub(crate) struct Host {
    pub(crate) address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Host {
    /// Starts a server that responds to each request with `reply`, given the request and the number
    /// of earlier requests.
    pub(crate) fn start(reply: impl Fn(&Request, usize) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        // The thread ends with the test process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let request = read(&stream);
                let before = {
                    let mut seen = seen.lock().unwrap();
                    seen.push(request.clone());
                    seen.len() - 1
                };
                write(&mut stream, &reply(&request, before));
            }
        });
        Self { address, requests }
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn read(stream: &TcpStream) -> Request {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    let mut request = Request {
        path: first.split(' ').nth(1).unwrap_or_default().to_owned(),
        ..Request::default()
    };
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap();
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                let first = value
                    .strip_prefix("bytes=")
                    .and_then(|range| range.strip_suffix('-'));
                request.range = Some(first.unwrap().parse().unwrap());
            }
            "if-range" => request.if_range = Some(value.to_owned()),
            "authorization" => request.token = Some(value.to_owned()),
            // The list of files may be compressed.
            "accept-encoding" if !request.path.starts_with("/api/") => {
                assert_eq!(value, "identity");
            }
            _ => {}
        }
    }
    request
}

/// Writes a response. Ignores failures, because the client may have disconnected.
fn write(stream: &mut TcpStream, reply: &Reply) {
    let mut head = format!("HTTP/1.1 {} x\r\nConnection: close\r\n", reply.status);
    head += &format!("Content-Length: {}\r\n", reply.body.len());
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    let sent = reply.cut.unwrap_or(reply.body.len()).min(reply.body.len());
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(&reply.body[..sent]);
    let _ = stream.flush();
}
