//! Reading a JSON object key by key, so that every error names the key.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Code, Error};

/// One object of the network configuration.
#[derive(Debug, Clone)]
pub(super) struct Section<'a> {
    /// Path of the object, with a dot behind it; empty at the top.
    path: String,
    keys: Option<&'a Map<String, Value>>,
}

impl<'a> Section<'a> {
    /// The whole configuration.
    pub(super) fn top(keys: &'a Map<String, Value>) -> Self {
        Self { path: String::new(), keys: Some(keys) }
    }

    /// The object at `key`; one without keys where there is none.
    pub(super) fn section(&self, key: &str) -> Result<Self, Error> {
        let keys = match self.value(key) {
            None => None,
            Some(Value::Object(keys)) => Some(keys),
            Some(other) => return Err(self.invalid(key, format_args!("{other} is no object"))),
        };
        Ok(Self { path: format!("{}{key}.", self.path), keys })
    }

    /// The value at `key`; `None` where it is missing or null.
    pub(super) fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        let value = self.value(key).map(T::deserialize);
        value.transpose().map_err(|error| self.invalid(key, error))
    }

    /// The value at `key` as it is; `None` where it is missing or null.
    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        self.keys?.get(key).filter(|value| !value.is_null())
    }

    /// An error about the value at `key`.
    pub(super) fn invalid(&self, key: &str, reason: impl std::fmt::Display) -> Error {
        Error::new(Code::InvalidConfig, format!("{}{key}: {reason}", self.path))
    }

    /// The error for a value that asks for what this plugin does not do; the specification wants key and value in it.
    pub(super) fn unsupported(&self, key: &str, value: &Value, instead: &str) -> Error {
        let msg = format!("{}{key}: {value} is not supported", self.path);
        Error::new(Code::UnsupportedField, msg).details(instead)
    }
}
