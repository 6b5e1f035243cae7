//! What a browser is told, and when: everything at first, then only what changed. Who reads slowly gets fewer, later steps.

use super::view::{View, view};
use crate::observe::{Key, Placement, Stores, World, observe};
use futures::{Stream, stream};
use jiff::Timestamp;
use kube_runtime::reflector::ObjectRef;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Nobody reads faster.
const PACE: Duration = Duration::from_millis(500);

/// Where the page reads what it shows.
pub trait Source: Send + Sync + 'static {
    fn world(&self) -> World;
    fn placement(&self, key: &Key) -> Option<Arc<Placement>>;
}

impl Source for Stores {
    fn world(&self) -> World {
        observe(self, Timestamp::now())
    }

    fn placement(&self, (namespace, name): &Key) -> Option<Arc<Placement>> {
        self.placements.get(&ObjectRef::new(name).within(namespace))
    }
}

/// The view that all browsers share. It is drawn while somebody looks, and not otherwise.
pub struct Board {
    source: Arc<dyn Source>,
    views: watch::Sender<Arc<View>>,
}

impl Board {
    pub fn new(source: Arc<dyn Source>) -> Self {
        Self { source, views: watch::Sender::default() }
    }

    /// Draws anew when something has changed, until nobody can tell that any more.
    pub async fn keep(&self, mut news: watch::Receiver<()>) {
        while news.changed().await.is_ok() {
            if self.views.receiver_count() > 0 {
                self.draw();
            }
            tokio::time::sleep(PACE).await;
        }
    }

    /// The view, and each one after it.
    pub fn look(&self) -> watch::Receiver<Arc<View>> {
        let nobody_looked = self.views.receiver_count() == 0;
        let mut views = self.views.subscribe();
        if nobody_looked {
            self.draw();
        }
        views.mark_changed();
        views
    }

    pub fn placement(&self, key: &Key) -> Option<Arc<Placement>> {
        self.source.placement(key)
    }

    fn draw(&self) {
        let drawn = Arc::new(view(&self.source.world()));
        self.views.send_if_modified(|shown| {
            let differs = *shown != drawn;
            *shown = drawn;
            differs
        });
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Head(Arc<str>),
    Site(Arc<str>),
    /// The name of a site that is no more.
    Gone(String),
    /// All of this step is told: whatever was not told since the beginning is no more.
    Whole,
}

/// From each view that the reader has time for, what is new in it. One step is held at a time.
pub fn tell(views: watch::Receiver<Arc<View>>) -> impl Stream<Item = Told> + Send {
    let nothing = Arc::new(View::default());
    stream::unfold((views, nothing, Vec::new().into_iter()), |(mut views, mut seen, mut rest)| async move {
        loop {
            if let Some(told) = rest.next() {
                return Some((told, (views, seen, rest)));
            }
            views.changed().await.ok()?;
            let now = Arc::clone(&views.borrow_and_update());
            rest = step(&seen, &now).into_iter();
            seen = now;
        }
    })
}

fn step(before: &View, now: &View) -> Vec<Told> {
    let head = (before.head != now.head).then(|| Told::Head(Arc::clone(&now.head)));
    let gone = before.sites.keys().filter(|name| !now.sites.contains_key(*name)).cloned().map(Told::Gone);
    let news = now.sites.iter().filter(|(name, site)| before.sites.get(*name) != Some(site));
    let sites = news.map(|(_, site)| Told::Site(Arc::clone(site)));
    head.into_iter().chain(gone).chain(sites).chain([Told::Whole]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(head: &str, sites: &[(&str, &str)]) -> View {
        let sites = sites.iter().map(|(name, text)| ((*name).to_owned(), (*text).into()));
        View { head: head.into(), sites: sites.collect() }
    }

    #[test]
    fn only_what_changed_is_told() {
        let empty = View::default();
        let first = seen("h", &[("a", "1"), ("b", "1")]);
        let head = Told::Head("h".into());
        let site = |text: &str| Told::Site(text.into());
        assert_eq!(step(&empty, &first), [head, site("1"), site("1"), Told::Whole]);
        let second = seen("h", &[("a", "2"), ("c", "1")]);
        assert_eq!(step(&first, &second), [Told::Gone("b".into()), site("2"), site("1"), Told::Whole]);
        assert_eq!(step(&second, &second), [Told::Whole]);
    }
}
