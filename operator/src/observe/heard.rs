//! What is heard of the API server: an object, or why it cannot be read. One that cannot must not stop the others.

use kube::Resource;
use kube::core::ObjectMeta;
use serde::de::{self, DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::fmt::{self, Formatter};

/// What a store keeps of a live object.
pub trait Kept: Resource<DynamicType = ()> + DeserializeOwned {
    /// `live` comes without `managedFields`.
    ///
    /// # Errors
    /// If it is not as its kind says.
    fn read(live: Value) -> serde_json::Result<Self> {
        serde_json::from_value(live)
    }
}

/// As kube's `DeserializeGuard`, at a third of the cost: no second copy, and nothing of `managedFields`, which are often the larger
/// part of an object.
#[derive(Clone, Debug)]
pub struct Heard<K>(pub Result<K, Unreadable>);

#[derive(Clone, Debug, PartialEq)]
pub struct Unreadable {
    /// Names and version alone.
    pub metadata: ObjectMeta,
    pub error: String,
}

impl<'de, K: Kept> Deserialize<'de> for Heard<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let live = Part::Object.deserialize(deserializer)?;
        let text = |path: &str| live.pointer(path).and_then(Value::as_str).map(str::to_owned);
        let metadata = ObjectMeta {
            name: text("/metadata/name"),
            namespace: text("/metadata/namespace"),
            resource_version: text("/metadata/resourceVersion"),
            ..ObjectMeta::default()
        };
        Ok(Self(K::read(live).map_err(|error| Unreadable { metadata, error: error.to_string() })))
    }
}

impl<K: Kept> Resource for Heard<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|unreadable| &unreadable.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|unreadable| &mut unreadable.metadata, K::meta_mut)
    }
}

/// A part of an object that has parts which are not read.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Object,
    Metadata,
}

impl<'de> DeserializeSeed<'de> for Part {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Part {
    type Value = Value;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Object { "an object" } else { "the metadata of an object" })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut parts: A) -> Result<Value, A::Error> {
        let mut read = Map::new();
        while let Some(name) = parts.next_key::<String>()? {
            match (self, name.as_str()) {
                (Self::Metadata, "managedFields") => drop(parts.next_value::<IgnoredAny>()?),
                (Self::Object, "metadata") => drop(read.insert(name, parts.next_value_seed(Self::Metadata)?)),
                _ => drop(read.insert(name, parts.next_value()?)),
            }
        }
        Ok(Value::Object(read))
    }
}

/// So that what is kept can be read from text, too.
pub fn read_kept<'de, K: Kept, D: Deserializer<'de>>(deserializer: D) -> Result<K, D::Error> {
    K::read(Value::deserialize(deserializer)?).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::ResourceExt as _;
    use sconce_api::EdgeSite;
    use serde_json::json;

    fn heard(spec: &Value) -> Heard<EdgeSite> {
        let metadata = json!({"name": "a", "resourceVersion": "7", "labels": {"managedFields": "x"},
            "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {}}}]});
        let live = json!({"apiVersion": "sconce.dev/v1alpha1", "kind": "EdgeSite", "metadata": metadata, "spec": spec});
        serde_json::from_str(&live.to_string()).unwrap()
    }

    #[test]
    fn an_object_is_read_without_its_managed_fields() {
        let site = heard(&json!({"fleetRef": {"name": "shops"}})).0.unwrap();
        assert_eq!((site.spec.fleet_ref.name.as_str(), site.managed_fields().len()), ("shops", 0));
        assert_eq!(site.labels()["managedFields"], "x", "a label of that name is a label");
        assert_eq!(site.resource_version().as_deref(), Some("7"));
    }

    #[test]
    fn of_one_that_cannot_be_read_its_name_and_version_are_known() {
        let heard = heard(&json!({"fleetRef": 7}));
        assert_eq!((heard.name_any().as_str(), heard.resource_version().as_deref()), ("a", Some("7")));
        let unreadable = heard.0.unwrap_err();
        assert!(unreadable.error.contains("invalid type"), "{}", unreadable.error);
    }

    #[test]
    fn what_is_no_object_is_an_error() {
        assert!(serde_json::from_str::<Heard<EdgeSite>>("[]").is_err());
        assert!(serde_json::from_str::<Heard<EdgeSite>>(r#"{"metadata": null}"#).is_err());
    }
}
