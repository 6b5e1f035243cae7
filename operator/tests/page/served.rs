//! A page that is served, and whose world the test changes.

use sconce_operator::observe::{Key, Placement, World};
use sconce_operator::page::{Source, serve_page};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub struct Served {
    pub address: SocketAddr,
    world: Arc<Made>,
    news: watch::Sender<()>,
    stop: CancellationToken,
    serving: JoinHandle<std::io::Result<()>>,
}

struct Made(Mutex<World>);

impl Source for Made {
    fn world(&self) -> World {
        self.0.lock().unwrap().clone()
    }

    fn placement(&self, key: &Key) -> Option<Arc<Placement>> {
        self.0.lock().unwrap().placements.get(key).cloned()
    }
}

impl Served {
    pub async fn new(world: World) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (world, news, stop) = (Arc::new(Made(Mutex::new(world))), watch::Sender::new(()), CancellationToken::new());
        let source: Arc<dyn Source> = Arc::clone(&world) as _;
        let (news_of, stopped) = (news.subscribe(), stop.clone());
        let serving = tokio::spawn(async move {
            serve_page(listener, &["page.example.com".to_owned()], source, news_of, stopped).await
        });
        Self { address, world, news, stop, serving }
    }

    pub fn change(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.world.0.lock().unwrap());
        self.news.send_replace(());
    }

    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Returns once the server has ended: open streams and all.
    pub async fn end(self) {
        self.stop();
        self.serving.await.unwrap().unwrap();
    }
}
