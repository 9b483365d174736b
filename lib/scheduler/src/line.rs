//! Queued jobs in their order, beside each other by the protocol version that they need: a job that waits for a newer agent stands in nobody's way.

use crate::place::Key;
use std::collections::{BTreeMap, BTreeSet};

/// The jobs of a queue that may go to the same agents but for what these must speak.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line {
    by_needs: BTreeMap<u32, BTreeSet<Key>>,
}

impl Line {
    /// Puts a job in. Whether it is the first of those that need the same.
    pub(crate) fn insert(&mut self, needs: u32, key: Key) -> bool {
        let keys = self.by_needs.entry(needs).or_default();
        keys.insert(key);
        keys.first() == Some(&key)
    }

    /// Takes a job out.
    pub(crate) fn remove(&mut self, needs: u32, key: Key) {
        if let Some(keys) = self.by_needs.get_mut(&needs) {
            keys.remove(&key);
            if keys.is_empty() {
                self.by_needs.remove(&needs);
            }
        }
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_needs.is_empty()
    }

    /// The first of each, with what it needs.
    pub(crate) fn firsts(&self) -> impl Iterator<Item = (u32, Key)> {
        self.by_needs.iter().filter_map(|(needs, keys)| Some((*needs, *keys.first()?)))
    }

    /// The first for an agent that speaks so much.
    pub(crate) fn first_for(&self, protocol: u32) -> Option<Key> {
        self.firsts().take_while(|(needs, _)| *needs <= protocol).map(|(_, key)| key).min()
    }

    /// At most `most` jobs that go before `own`, whatever they need.
    pub(crate) fn before(&self, own: Key, most: usize) -> Vec<Key> {
        let mut keys: Vec<Key> =
            self.by_needs.values().flat_map(|keys| keys.range(..own).take(most)).copied().collect();
        keys.sort_unstable();
        keys.truncate(most);
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use job::JobId;
    use std::cmp::Reverse;

    #[test]
    fn each_agent_has_the_first_job_that_it_can_honour() {
        let key = |priority, id| (Reverse(priority), JobId(id));
        let mut line = Line::default();
        assert!(line.insert(2, key(5, 1)));
        assert!(line.insert(1, key(0, 2)));
        assert!(!line.insert(1, key(0, 3)));
        assert!(line.insert(1, key(1, 4)));
        assert_eq!((line.first_for(0), line.first_for(1)), (None, Some(key(1, 4))));
        assert_eq!(line.first_for(2), Some(key(5, 1)));
        assert_eq!(line.before(key(0, 3), 10), [key(5, 1), key(1, 4), key(0, 2)]);
        assert_eq!(line.before(key(0, 3), 1), [key(5, 1)]);
        line.remove(2, key(5, 1));
        assert_eq!(line.first_for(2), Some(key(1, 4)));
        for id in [(0, 2), (0, 3), (1, 4)] {
            line.remove(1, key(id.0, id.1));
        }
        assert!(line.is_empty());
    }
}
