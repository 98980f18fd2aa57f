//! A stub of the schema registry: answers with a test's responses, and records the requests.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// An HTTP server in place of the schema registry.
pub struct RegistryStub {
    pub address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl RegistryStub {
    /// Starts the stub. `answer` maps method and path (`GET /path`) to status and body.
    pub async fn start(answer: impl Fn(&str) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (answer, recorded) = (Arc::new(answer), requests.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, recorded) = (answer.clone(), recorded.clone());
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    // The client may have closed the connection.
                    let Some(request) = read(&mut stream).await else { return };
                    recorded.lock().unwrap().push(request.clone());
                    let (status, body) = answer(&request);
                    let length = body.len();
                    let head = format!("HTTP/1.1 {status} -\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
                    let _ = stream.write_all((head + &body).as_bytes()).await;
                });
            }
        });
        Self { address, requests }
    }

    /// The requests that change the registry.
    pub fn writes(&self) -> Vec<String> {
        // A POST to a subject looks up a schema; a POST to its versions registers one.
        let changes = |request: &&String| {
            request.starts_with("PUT ") || request.starts_with("POST ") && request.ends_with("/versions")
        };
        self.requests.lock().unwrap().iter().filter(changes).cloned().collect()
    }

    /// The number of requests so far.
    pub fn request_count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

/// Reads one request with its body, and returns method and path.
async fn read(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let (mut first, mut length) = (String::new(), 0);
    stream.read_line(&mut first).await.ok()?;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? <= 2 {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?;
        }
    }
    stream.read_exact(&mut vec![0; length]).await.ok()?;
    Some(first.rsplit_once(' ')?.0.to_owned())
}
