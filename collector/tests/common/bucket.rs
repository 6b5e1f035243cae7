//! An S3 server, as far as a collector needs one, and what came to it when.

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

    /// Copies it into a folder.
    pub fn leave(&self, folder: &Path) {
        for (name, content) in self.objects.lock().unwrap().iter() {
            let file = folder.join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, content).unwrap();
        }
    }

    /// One request after the other, until the client goes: a name is written once, and whole.
    fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let head: Vec<String> =
                reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            let path = head.first()?.split(' ').nth(1)?.trim_start_matches('/').to_owned();
            let mut headers = head.iter().filter_map(|line| line.split_once(": "));
            let length = headers.find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?.1.parse().unwrap();
            let mut content = vec![0; length];
            let mut filled = 0;
            while filled < length {
                let bytes = reader.read(&mut content[filled..]).ok().filter(|bytes| *bytes > 0)?;
                self.came.lock().unwrap().push((Instant::now(), bytes as u64));
                filled += bytes;
            }
            let mut objects = self.objects.lock().unwrap();
            let status = if objects.contains_key(&path) { "412 Precondition Failed" } else { "200 OK" };
            objects.entry(path).or_insert(content);
            let answer = format!("HTTP/1.1 {status}\r\netag: \"1\"\r\ncontent-length: 0\r\n\r\n");
            reader.get_mut().write_all(answer.as_bytes()).ok()?;
        }
    }
}
