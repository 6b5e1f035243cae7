//! An S3 server, as far as a collector needs one, and what came to it when.

use sconce_collector::sample::Id;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

#[derive(Clone, Default)]
pub struct Bucket {
    /// By path, such as `lake/digits/manifests/a.parquet`.
    objects: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    came: Arc<Mutex<Vec<(Instant, u64)>>>,
}

impl Bucket {
    pub fn at(listener: TcpListener) -> Self {
        let bucket = Self::default();
        let served = bucket.clone();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let served = served.clone();
                std::thread::spawn(move || served.serve(stream));
            }
        });
        bucket
    }

    /// When how many bytes of content came.
    pub fn came(&self) -> Vec<(Instant, u64)> {
        self.came.lock().unwrap().clone()
    }

    /// As somebody else puts it there.
    pub fn put(&self, path: &str, content: &[u8]) {
        self.objects.lock().unwrap().insert(path.to_owned(), content.to_vec());
    }

    /// Copies it into a folder.
    pub fn leave(&self, folder: &Path) {
        for (name, content) in self.objects.lock().unwrap().iter() {
            let file = folder.join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, content).unwrap();
        }
    }

    /// One request after the other, until the client goes.
    fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let head: Vec<String> =
                reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            let mut asked = head.first()?.split(' ');
            let (method, path) = (asked.next()?, asked.next()?.trim_start_matches('/'));
            let mut headers = head.iter().filter_map(|line| line.split_once(": "));
            let length = headers.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            let length = length.map_or(0, |(_, length)| length.parse().unwrap());
            let mut content = vec![0; length];
            let mut filled = 0;
            while filled < length {
                let bytes = reader.read(&mut content[filled..]).ok().filter(|bytes| *bytes > 0)?;
                self.came.lock().unwrap().push((Instant::now(), bytes as u64));
                filled += bytes;
            }
            let answer = if method == "GET" { self.told(path) } else { self.put_new(path, content) };
            reader.get_mut().write_all(&answer).ok()?;
        }
    }

    /// A name is written once.
    fn put_new(&self, path: &str, content: Vec<u8>) -> Vec<u8> {
        let mut objects = self.objects.lock().unwrap();
        let status = if objects.contains_key(path) { "412 Precondition Failed" } else { "200 OK" };
        objects.entry(path.to_owned()).or_insert(content);
        format!("HTTP/1.1 {status}\r\netag: \"1\"\r\ncontent-length: 0\r\n\r\n").into_bytes()
    }

    /// An object, or of `BUCKET?list-type=2&prefix=PREFIX` the names.
    fn told(&self, path: &str) -> Vec<u8> {
        let objects = self.objects.lock().unwrap();
        let (status, content) = match path.split_once('?') {
            Some((bucket, query)) => {
                let bucket = format!("{}/", bucket.trim_end_matches('/'));
                let prefix = query.split('&').find_map(|word| word.strip_prefix("prefix=")).unwrap_or_default();
                let prefix = prefix.replace("%2F", "/");
                let is_flat = query.split('&').any(|word| word.starts_with("delimiter="));
                let contents: String = objects
                    .iter()
                    .filter_map(|(name, content)| Some((name.strip_prefix(&bucket)?, content)))
                    .filter(|(name, _)| name.strip_prefix(&prefix).is_some_and(|file| !is_flat || !file.contains('/')))
                    .map(|(name, content)| format!("<Contents><Key>{name}</Key><LastModified>2026-11-28T12:00:00.000Z</LastModified><ETag>\"{}\"</ETag><Size>{}</Size></Contents>", Id::of(content), content.len()))
                    .collect();
                ("200 OK", format!("<ListBucketResult>{contents}</ListBucketResult>").into_bytes())
            }
            None => objects.get(path).map_or(("404 Not Found", Vec::new()), |content| ("200 OK", content.clone())),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\netag: \"1\"\r\nlast-modified: Sat, 28 Nov 2026 12:00:00 GMT\r\ncontent-length: {}\r\n\r\n",
            content.len()
        );
        [head.into_bytes(), content].concat()
    }
}
