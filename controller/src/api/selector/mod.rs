//! Which objects: by their labels.

mod parse;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Invalid;

/// Labels, as objects carry them.
pub type Labels = BTreeMap<String, String>;

/// A choice of objects by their labels, written as an expression or as a Kubernetes LabelSelector.
///
/// The expression language is Calico's: `all()`, `has(key)`, `key == "value"`, `key != "value"`, `key in {"a", "b"}`,
/// `key not in {"a"}`, `key starts with "a"`, `key ends with "a"`, `key contains "a"`, `!`, `&&`, `||` and parentheses.
/// `&&` binds closer than `||`. As in Kubernetes, `!=` and `not in` also match objects without the label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    expression: Expression,
    written: Written,
}

/// The form a selector was written in, kept so that it is shown as its author knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Written {
    Text(String),
    LabelSelector(LabelSelector),
}

/// What a selector asks.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Expression {
    All,
    Has(String),
    Equals(String, String),
    In(String, BTreeSet<String>),
    StartsWith(String, String),
    EndsWith(String, String),
    Contains(String, String),
    Not(Box<Self>),
    And(Vec<Self>),
    Or(Vec<Self>),
}

impl Expression {
    fn not(self) -> Self {
        Self::Not(Box::new(self))
    }

    fn matches(&self, labels: &Labels) -> bool {
        let has = |key: &String, test: &dyn Fn(&String) -> bool| labels.get(key).is_some_and(test);
        match self {
            Self::All => true,
            Self::Has(key) => labels.contains_key(key),
            Self::Equals(key, value) => has(key, &|v| v == value),
            Self::In(key, values) => has(key, &|v| values.contains(v)),
            Self::StartsWith(key, text) => has(key, &|v| v.starts_with(text.as_str())),
            Self::EndsWith(key, text) => has(key, &|v| v.ends_with(text.as_str())),
            Self::Contains(key, text) => has(key, &|v| v.contains(text.as_str())),
            Self::Not(inner) => !inner.matches(labels),
            Self::And(all) => all.iter().all(|e| e.matches(labels)),
            Self::Or(any) => any.iter().any(|e| e.matches(labels)),
        }
    }
}

impl Selector {
    /// Whether an object with these labels is chosen.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.expression.matches(labels)
    }
}

impl FromStr for Selector {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Ok(Self { expression: parse::expression(text)?, written: Written::Text(text.into()) })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.written {
            Written::Text(text) => f.write_str(text),
            Written::LabelSelector(selector) => selector.fmt(f),
        }
    }
}

/// A LabelSelector as Kubernetes writes it; all of its requirements must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LabelSelector {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    match_labels: Labels,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    match_expressions: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Requirement {
    key: String,
    operator: Operator,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    values: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl Requirement {
    fn expression(&self) -> Result<Expression, Invalid> {
        let (key, needs_values) = (self.key.clone(), matches!(self.operator, Operator::In | Operator::NotIn));
        if needs_values == self.values.is_empty() {
            let (message, remedy) = match needs_values {
                true => ("has no values", "list at least one value"),
                false => ("has values", "leave the values out"),
            };
            return Err(Invalid::new(
                format!("the requirement {:?} on \"{key}\" {message}", self.operator),
                remedy,
            ));
        }
        let values = self.values.clone();
        Ok(match self.operator {
            Operator::In => Expression::In(key, values),
            Operator::NotIn => Expression::In(key, values).not(),
            Operator::Exists => Expression::Has(key),
            Operator::DoesNotExist => Expression::Has(key).not(),
        })
    }
}

impl TryFrom<LabelSelector> for Selector {
    type Error = Invalid;

    fn try_from(selector: LabelSelector) -> Result<Self, Invalid> {
        let labels = selector.match_labels.iter().map(|(k, v)| Ok(Expression::Equals(k.clone(), v.clone())));
        let requirements = selector.match_expressions.iter().map(Requirement::expression);
        let expression = Expression::And(labels.chain(requirements).collect::<Result<_, _>>()?);
        Ok(Self { expression, written: Written::LabelSelector(selector) })
    }
}

impl fmt::Display for LabelSelector {
    /// As kubectl shows it: `rack=a,tier in (x,y),!edge`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels = self.match_labels.iter().map(|(k, v)| format!("{k}={v}"));
        let requirements = self.match_expressions.iter().map(|r| {
            let values = r.values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
            match r.operator {
                Operator::In => format!("{} in ({values})", r.key),
                Operator::NotIn => format!("{} notin ({values})", r.key),
                Operator::Exists => r.key.clone(),
                Operator::DoesNotExist => format!("!{}", r.key),
            }
        });
        f.write_str(&labels.chain(requirements).collect::<Vec<_>>().join(","))
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.written {
            Written::Text(text) => serializer.serialize_str(text),
            Written::LabelSelector(selector) => selector.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SelectorVisitor;

        impl<'de> Visitor<'de> for SelectorVisitor {
            type Value = Selector;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a selector: an expression such as 'rack == \"a\"', or matchLabels and matchExpressions",
                )
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Selector, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Selector, A::Error> {
                let selector = LabelSelector::deserialize(MapAccessDeserializer::new(map))?;
                selector.try_into().map_err(A::Error::custom)
            }
        }

        deserializer.deserialize_any(SelectorVisitor)
    }
}

impl JsonSchema for Selector {
    fn schema_name() -> Cow<'static, str> {
        "Selector".into()
    }

    fn inline_schema() -> bool {
        true
    }

    /// Text or object: a structural schema cannot say more of a field that may be either.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A selector expression such as 'rack == \"a\" && !has(edge)', or a LabelSelector.",
            "x-kubernetes-preserve-unknown-fields": true,
        })
    }
}

#[cfg(test)]
mod tests;
