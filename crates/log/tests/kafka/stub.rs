//! A registry that answers what a test wants, and remembers what it was asked.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

pub struct Stub {
    pub address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Stub {
    /// `answer` gets the method and path, and gives status and body.
    pub async fn start(answer: impl Fn(&str) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answer, seen) = (Arc::new(answer), asked.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, seen) = (answer.clone(), seen.clone());
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    // One that went away has no more to ask.
                    let Some(question) = read(&mut stream).await else { return };
                    seen.lock().unwrap().push(question.clone());
                    let (status, body) = answer(&question);
                    let length = body.len();
                    let head = format!("HTTP/1.1 {status} -\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
                    let _ = stream.write_all((head + &body).as_bytes()).await;
                });
            }
        });
        Self { address, asked }
    }

    /// The requests that would have changed something.
    pub fn writes(&self) -> Vec<String> {
        // A lookup of a schema is a POST as well; it goes to the subject, not to its versions.
        let changes =
            |asked: &&String| asked.starts_with("PUT ") || asked.starts_with("POST ") && asked.ends_with("/versions");
        self.asked.lock().unwrap().iter().filter(changes).cloned().collect()
    }

    pub fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

/// Reads one request whole, its body too.
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
