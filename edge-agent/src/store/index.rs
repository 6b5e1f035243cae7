//! Which files there are, who reads them, and which go when there is too much. Pure.

use std::collections::BTreeMap;
use std::time::SystemTime;

/// Files by their names, in the order in which they were last used.
#[derive(Debug, Default)]
pub struct Index {
    files: BTreeMap<String, Entry>,
    /// Grows with each use.
    uses: u64,
}

#[derive(Debug)]
struct Entry {
    /// No other file has it, not one that has the name later either.
    id: Id,
    bytes: u64,
    last_use: u64,
    users: u32,
}

/// Of a file that is used: whoever began that ends it by this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id(u64);

impl Index {
    /// What lies there at the start: name, bytes, and when it was last used.
    pub fn new(mut files: Vec<(String, u64, SystemTime)>) -> Self {
        files.sort_by(|(name, _, used), (other, _, other_used)| used.cmp(other_used).then_with(|| name.cmp(other)));
        let mut index = Self::default();
        for (name, bytes, _) in files {
            index.insert(name, bytes);
        }
        index
    }

    /// Of all files, and of those that are being written what they will have.
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|entry| entry.bytes).fold(0, u64::saturating_add)
    }

    fn insert(&mut self, name: String, bytes: u64) {
        self.uses += 1;
        self.files.insert(name, Entry { id: Id(self.uses), bytes, last_use: self.uses, users: 0 });
    }

    /// Begins to use a file, if there is one.
    pub fn begin(&mut self, name: &str) -> Option<Id> {
        let entry = self.files.get_mut(name)?;
        self.uses += 1;
        entry.last_use = self.uses;
        entry.users += 1;
        Some(entry.id)
    }

    /// Ends a use; the file's name, if nobody uses it any more. It may have got another name since the use began.
    pub fn end(&mut self, id: Id) -> Option<&str> {
        let (name, entry) = self.files.iter_mut().find(|(_, entry)| entry.id == id)?;
        entry.users = entry.users.saturating_sub(1);
        (entry.users == 0).then_some(name)
    }

    /// Makes room for a file of so many bytes, which is in use from then on, within `most` for all; of a file that has begun the
    /// rest. What has to go for it: the least recently used first, and nothing that is in use. `None` if that is not enough.
    pub fn reserve(&mut self, name: &str, bytes: u64, most: u64) -> Option<(Id, Vec<String>)> {
        let others = self.bytes() - self.files.get(name).map_or(0, |entry| entry.bytes);
        let over = others.saturating_add(bytes).saturating_sub(most);
        let mut idle: Vec<_> = self.files.iter().filter(|(other, entry)| *other != name && entry.users == 0).collect();
        idle.sort_by_key(|(_, entry)| entry.last_use);
        let (mut freed, mut victims) = (0, Vec::new());
        for (victim, entry) in idle {
            if freed >= over {
                break;
            }
            freed += entry.bytes;
            victims.push(victim.clone());
        }
        if freed < over {
            return None;
        }
        victims.iter().for_each(|victim| self.forget(victim));
        match self.files.get_mut(name) {
            Some(entry) => entry.bytes = bytes,
            None => self.insert(name.to_owned(), bytes),
        }
        Some((self.begin(name)?, victims))
    }

    /// A file has another name from now on; its users have not changed.
    pub fn rename(&mut self, from: &str, to: &str) {
        if let Some(entry) = self.files.remove(from) {
            self.files.insert(to.to_owned(), entry);
        }
    }

    pub fn forget(&mut self, name: &str) {
        self.files.remove(name);
    }

    /// It is no longer than this.
    pub fn shrink(&mut self, name: &str, bytes: u64) {
        if let Some(entry) = self.files.get_mut(name) {
            entry.bytes = bytes.min(entry.bytes);
        }
    }
}

/// Bytes that all files may take: as many as are allowed, and never so many that less than a tenth of the disk is free. Below a
/// twentieth a kubelet of K3s makes room, and takes away pods for it; others begin at a tenth, or at 15 % where images are on that
/// disk, too: there it is for who allows them to leave more.
pub fn most(allowed: u64, ours: u64, free: u64, disk: u64) -> u64 {
    allowed.min(ours.saturating_add(free).saturating_sub(disk / 10))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Files of ten bytes, in the order in which they were used.
    fn index(names: &[&str]) -> Index {
        let used = |at: usize| SystemTime::UNIX_EPOCH + Duration::from_secs(at as u64);
        Index::new(names.iter().enumerate().rev().map(|(at, name)| ((*name).to_owned(), 10, used(at))).collect())
    }

    /// Reserves and goes on to use it; what had to go.
    fn reserve(index: &mut Index, name: &str, bytes: u64, most: u64) -> Result<Id, String> {
        let before: Vec<_> = index.files.keys().cloned().collect();
        let reserved = index.reserve(name, bytes, most);
        let gone: Vec<_> = before.into_iter().filter(|name| !index.files.contains_key(name)).collect();
        match reserved {
            Some((id, victims)) => {
                let mut sorted = victims;
                sorted.sort();
                assert_eq!(sorted, gone);
                if gone.is_empty() { Ok(id) } else { Err(gone.join(" ")) }
            }
            None => {
                assert!(gone.is_empty(), "who finds no room takes none away");
                Err("no room".into())
            }
        }
    }

    #[test]
    fn the_least_recently_used_goes_first_and_no_more_than_must() {
        let mut files = index(&["c", "a", "b"]);
        let id = reserve(&mut files, "d", 10, 40).unwrap();
        files.end(id);
        assert_eq!(reserve(&mut files, "e", 15, 40), Err("a c".into()));
        assert_eq!(files.bytes(), 35);
        // A use makes it the last to go.
        let mut files = index(&["c", "a", "b"]);
        let id = files.begin("c").unwrap();
        files.end(id);
        assert_eq!(reserve(&mut files, "d", 10, 30), Err("a".into()));
    }

    #[test]
    fn what_is_in_use_stays() {
        let mut files = index(&["a", "b"]);
        let [one, other] = [files.begin("a").unwrap(), files.begin("a").unwrap()];
        files.end(one);
        assert_eq!(reserve(&mut files, "c", 10, 20), Err("b".into()));
        assert_eq!(reserve(&mut files, "d", 10, 20), Err("no room".into()), "a and c are in use");
        files.end(other);
        assert_eq!(reserve(&mut files, "d", 10, 20), Err("a".into()));
        assert_eq!(files.begin("a"), None);
    }

    #[test]
    fn what_is_larger_than_all_room_takes_away_nothing() {
        let mut files = index(&["a", "b"]);
        assert_eq!(reserve(&mut files, "c", 50, 40), Err("no room".into()));
        assert_eq!(reserve(&mut files, "d", u64::MAX, 40), Err("no room".into()));
        assert_eq!(files.bytes(), 20);
    }

    #[test]
    fn what_has_begun_takes_no_room_twice_and_has_its_users_under_its_new_name() {
        let mut files = index(&["a", "b.partial"]);
        let id = reserve(&mut files, "b.partial", 20, 30).unwrap();
        let other = files.begin("b.partial").unwrap();
        files.rename("b.partial", "b");
        assert_eq!(files.end(other), None, "it is still used");
        assert_eq!((files.bytes(), reserve(&mut files, "c", 10, 30)), (30, Err("a".into())));
        assert_eq!(reserve(&mut files, "d", 10, 30), Err("no room".into()));
        assert_eq!(files.end(id), Some("b"));
        assert_eq!(reserve(&mut files, "d", 10, 30), Err("b".into()));
    }

    /// Whoever still reads a file that was removed does not end the use of the one that has its name now.
    #[test]
    fn the_name_of_what_is_gone_may_be_anothers() {
        let mut files = index(&["a"]);
        let gone = files.begin("a").unwrap();
        files.forget("a");
        reserve(&mut files, "a", 10, 10).unwrap();
        assert_eq!(files.end(gone), None);
        assert_eq!((files.bytes(), reserve(&mut files, "b", 5, 10)), (10, Err("no room".into())));
        files.shrink("a", 5);
        assert!(reserve(&mut files, "b", 5, 10).is_ok());
    }

    #[test]
    fn a_tenth_of_the_disk_stays_free() {
        assert_eq!(most(40, 10, 90, 100), 40);
        assert_eq!(most(400, 10, 90, 100), 90);
        assert_eq!(most(400, 10, 5, 100), 5, "others have filled it: ours go");
        assert_eq!(most(400, 0, 5, 100), 0);
        assert_eq!(most(400, u64::MAX, 5, 100), 400);
    }
}
