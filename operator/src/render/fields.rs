//! Whether a live object has what we ask for. Of ten thousand live objects this is held, and not the objects.

use serde_json::Value;
use std::hash::{BuildHasher as _, DefaultHasher, Hash, Hasher as _, RandomState};
use std::sync::LazyLock;

/// The fields of an object that are not empty, in order: each as 32 bits that stand for its path, and 32 for its value. Of four
/// thousand million changes to a field one is taken for none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Box<[u64]>);

/// Of this process alone: nobody can look for a value that passes for ours.
static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

const OF_VALUE: u64 = 0xffff_ffff;

/// What stands at a path.
#[derive(Hash)]
enum Found<'a> {
    Object,
    /// Of so many.
    List(usize),
    Text(&'a str),
    /// A number, or whether something is so, as it is written.
    Written(String),
}

impl Fields {
    pub fn of(object: &Value) -> Self {
        let mut hashes = Vec::new();
        collect(object, &KEYS.build_hasher(), &mut hashes);
        hashes.sort_unstable();
        Self(hashes.into())
    }

    /// Of a live object, but for what changes with every write, or is never ours.
    pub fn of_live(mut object: Value) -> Self {
        for (part, names) in [("", &["status"][..]), ("/metadata", &["managedFields", "resourceVersion", "generation"])]
        {
            for name in names {
                object.pointer_mut(part).and_then(Value::as_object_mut).and_then(|fields| fields.remove(*name));
            }
        }
        Self::of(&object)
    }

    /// Whether every field of `ours` is here at `path`, with our value: of lists every element counts, in order; of objects only the
    /// fields that are asked for. What is asked for empty is to be empty or absent: the API drops what is empty.
    pub fn have(&self, path: &[&str], ours: &Value) -> bool {
        self.has(&path.iter().fold(KEYS.build_hasher(), |path, name| step(&path, name)), ours)
    }

    fn has(&self, path: &DefaultHasher, ours: &Value) -> bool {
        let is_here = |found: Found<'_>| self.0.binary_search(&hash(path, &found)).is_ok();
        match ours {
            Value::Object(fields) => fields.iter().all(|(name, value)| self.has(&step(path, name), value)),
            Value::Array(items) if !items.is_empty() => {
                is_here(Found::List(items.len()))
                    && items.iter().enumerate().all(|(index, item)| self.has(&step(path, &index), item))
            }
            value => scalar(value).map_or_else(|| !self.any_at(path), is_here),
        }
    }

    fn any_at(&self, path: &DefaultHasher) -> bool {
        let first = path.finish() & !OF_VALUE;
        let here = self.0.partition_point(|hash| *hash < first);
        self.0.get(here).is_some_and(|hash| hash & !OF_VALUE == first)
    }
}

fn collect(live: &Value, path: &DefaultHasher, hashes: &mut Vec<u64>) {
    let found = match live {
        Value::Object(fields) => {
            for (name, value) in fields {
                collect(value, &step(path, name), hashes);
            }
            (!fields.is_empty()).then_some(Found::Object)
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                collect(item, &step(path, &index), hashes);
            }
            (!items.is_empty()).then_some(Found::List(items.len()))
        }
        value => scalar(value),
    };
    hashes.extend(found.map(|found| hash(path, &found)));
}

/// `None` = empty.
fn scalar(value: &Value) -> Option<Found<'_>> {
    match value {
        Value::String(text) if !text.is_empty() => Some(Found::Text(text)),
        Value::Bool(_) | Value::Number(_) => Some(Found::Written(value.to_string())),
        Value::Null | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn step(path: &DefaultHasher, part: &impl Hash) -> DefaultHasher {
    let mut path = path.clone();
    part.hash(&mut path);
    path
}

fn hash(path: &DefaultHasher, found: &Found<'_>) -> u64 {
    (path.finish() & !OF_VALUE) | (step(path, found).finish() & OF_VALUE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn check(live: Value, ours: Value, expected: bool) {
        assert_eq!(Fields::of(&live).have(&[], &ours), expected, "{ours} in {live}");
    }

    #[test]
    fn what_the_api_adds_is_no_difference_and_what_it_lacks_is() {
        let live = || json!({"spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 1, "nodePort": 7}]}});
        check(live(), json!({"spec": {"ports": [{"port": 1}]}}), true);
        check(live(), json!({"spec": {"ports": [{"port": 2}]}}), false);
        check(live(), json!({"spec": {"ports": [{"port": "1"}]}}), false);
        check(live(), json!({"spec": {"ports": [{"port": 1}, {"port": 2}]}}), false);
        check(live(), json!({"spec": {"name": "x"}}), false);
        check(live(), json!({"clusterIP": "10.0.0.1"}), false);
    }

    #[test]
    fn what_is_asked_for_empty_is_to_be_empty_or_absent() {
        for empty in [json!(null), json!(""), json!([])] {
            check(json!({}), json!({"env": empty}), true);
            check(json!({"env": []}), json!({"env": empty}), true);
            check(json!({"env": [{"name": "a"}]}), json!({"env": empty}), false);
            check(json!({"env": "a"}), json!({"env": empty}), false);
        }
        check(json!({"labels": {"theirs": "x"}}), json!({"labels": {}}), true);
    }

    #[test]
    fn a_part_of_an_object_is_asked_for_at_its_path() {
        let fields = Fields::of(&json!({"spec": {"replicas": 1}}));
        assert!(fields.have(&["spec"], &json!({"replicas": 1})) && fields.have(&["spec", "replicas"], &json!(1)));
        assert!(!fields.have(&[], &json!({"replicas": 1})) && !fields.have(&["spec", "replicas"], &json!(2)));
    }

    fn objects() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (0..3).prop_map(Value::from),
            "[ab]{0,2}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 40, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-c]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn is_empty(value: &Value) -> bool {
        matches!(value, Value::Null) || *value == json!("") || *value == json!([]) || *value == json!({})
    }

    /// By looking at the object itself.
    fn contains(live: &Value, ours: &Value) -> bool {
        match (live, ours) {
            (live, Value::Object(ours)) => {
                ours.iter().all(|(name, ours)| contains(live.get(name).unwrap_or(&Value::Null), ours))
            }
            (Value::Array(live), Value::Array(ours)) => {
                live.len() == ours.len() && live.iter().zip(ours).all(|(live, ours)| contains(live, ours))
            }
            (live, ours) => live == ours || is_empty(live) && is_empty(ours),
        }
    }

    proptest! {
        #[test]
        fn hashes_say_what_the_object_says(live in objects(), ours in objects()) {
            let fields = Fields::of(&live);
            prop_assert!(fields.have(&[], &live));
            prop_assert_eq!(fields.have(&[], &ours), contains(&live, &ours), "{} in {}", ours, live);
        }
    }
}
