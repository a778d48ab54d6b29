//! YAML as a tree that knows its lines.
//!
//! YAML 1.2, core schema, with what a configuration has no use for left out: no tags but the core's, no keys that are not
//! text, no key twice, a bounded depth, and aliases only as long as the whole stays small.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};
use serde_json::Value as Json;

use crate::api::Invalid;

/// How many values a file may hold once its aliases are written out.
const MAX_VALUES: usize = 1_000_000;

/// How many of those may come from aliases.
const MAX_ALIASED: usize = 10_000;

/// How deep lists and mappings may nest.
const MAX_DEPTH: usize = 64;

/// A value and where it begins.
#[derive(Clone, Debug)]
pub(super) struct Located {
    /// From 1.
    pub(super) line: usize,
    /// What it is.
    pub(super) value: Value,
}

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Null, a boolean, a number or a text.
    Scalar(Json),
    /// A list.
    List(Vec<Located>),
    /// A mapping, by key, each with the line of the key.
    Map(BTreeMap<String, (usize, Located)>),
}

/// What is wrong with a file as YAML. Nothing after it was read.
#[derive(Debug)]
pub(super) struct Malformed {
    /// From 1.
    pub(super) line: usize,
    /// What is wrong.
    pub(super) invalid: Invalid,
}

impl Located {
    /// The value without its lines.
    pub(super) fn to_json(&self) -> Json {
        match &self.value {
            Value::Scalar(scalar) => scalar.clone(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => entries.iter().map(|(k, (_, v))| (k.clone(), v.to_json())).collect(),
        }
    }

    /// The entry of a mapping.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries.get(key).map(|(_, value)| value),
            Value::Scalar(_) | Value::List(_) => None,
        }
    }

    /// The text, if it is one.
    pub(super) fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) => scalar.as_str(),
            Value::List(_) | Value::Map(_) => None,
        }
    }

    /// The line of the field at `path` (`spec.importV4[0].cidr`), or of the deepest part of it that exists.
    pub(super) fn line_of(&self, path: &str) -> usize {
        let (mut here, mut line) = (self, self.line);
        for step in path.split(['.', '[']) {
            let next = match &here.value {
                Value::Map(entries) => entries.get(step).map(|(line, value)| (*line, value)),
                Value::List(items) => step
                    .trim_end_matches(']')
                    .parse::<usize>()
                    .ok()
                    .and_then(|i| items.get(i))
                    .map(|item| (item.line, item)),
                Value::Scalar(_) => None,
            };
            let Some(next) = next else { break };
            (line, here) = next;
        }
        line
    }
}

/// Reads every document of a file; those that are empty are left out.
pub(super) fn documents(text: &str) -> Result<Vec<Located>, Malformed> {
    let mut reader =
        Reader { parser: Parser::new_from_str(text), text, anchors: BTreeMap::new(), values: 0, aliased: 0 };
    let mut documents = Vec::new();
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamEnd => return Ok(documents),
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {}
            content => {
                let document = reader.value(content, span, 0)?;
                if !matches!(document.value, Value::Scalar(Json::Null)) {
                    documents.push(document);
                }
            }
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    text: &'a str,
    /// The anchored values so far, each with the number of values that it holds.
    anchors: BTreeMap<usize, (usize, Located)>,
    /// The values so far, aliases written out.
    values: usize,
    /// Of those, the ones that came from aliases.
    aliased: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Malformed> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(self.explain(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    /// A tab where spaces belong is the commonest mistake and the parser's words for it are the least clear.
    fn explain(&self, error: &ScanError) -> Malformed {
        let line = error.marker().line().max(1);
        let indented_by_tab = |line: usize| {
            let text = self.text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
            text.chars().take_while(|c| c.is_whitespace()).any(|c| c == '\t')
        };
        match [line, line.saturating_sub(1), line + 1].into_iter().find(|l| *l > 0 && indented_by_tab(*l)) {
            Some(line) => malformed(
                line,
                "the line is indented with a tab",
                "indent with spaces: YAML forbids tabs there",
            ),
            None => malformed(
                line,
                format!("this is not YAML: {}, at column {}", error.info(), error.marker().col() + 1),
                "check the indentation, the colons and the quotes of this line and the one before",
            ),
        }
    }

    /// Reads the value that begins with `event`.
    fn value(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Located, Malformed> {
        let line = span.start.line();
        if depth > MAX_DEPTH {
            return Err(malformed(
                line,
                format!("values nest deeper than {MAX_DEPTH}"),
                "write less nested documents",
            ));
        }
        let before = self.values;
        self.count(1, line)?;
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                (anchor, Value::Scalar(scalar(&text, style, tag.as_deref(), line)?))
            }
            Event::SequenceStart(anchor, tag) => {
                collection_tag(tag.as_deref(), "seq", line)?;
                (anchor, Value::List(self.list(depth)?))
            }
            Event::MappingStart(anchor, tag) => {
                collection_tag(tag.as_deref(), "map", line)?;
                (anchor, Value::Map(self.map(depth)?))
            }
            Event::Alias(anchor) => return self.alias(anchor, line),
            other => {
                return Err(malformed(line, format!("{other:?} is out of place"), "write a mapping"));
            }
        };
        let located = Located { line, value };
        if anchor > 0 {
            self.anchors.insert(anchor, (self.values - before, located.clone()));
        }
        Ok(located)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Located>, Malformed> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => items.push(self.value(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<BTreeMap<String, (usize, Located)>, Malformed> {
        let mut entries = BTreeMap::new();
        loop {
            let (key, line) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(entries),
                (Event::Scalar(key, ..), span) => (key.into_owned(), span.start.line()),
                (_, span) => {
                    return Err(malformed(span.start.line(), "a key is not text", "write `name: value`"));
                }
            };
            let (event, span) = self.next()?;
            let value = self.value(event, span, depth + 1)?;
            if let Some((first, _)) = entries.get(&key) {
                let message = format!("the key \"{key}\" occurs twice, first on line {first}");
                return Err(malformed(line, message, "keep one of the two"));
            }
            entries.insert(key, (line, value));
        }
    }

    fn alias(&mut self, anchor: usize, line: usize) -> Result<Located, Malformed> {
        let Some((size, located)) = self.anchors.get(&anchor) else {
            return Err(malformed(line, "an alias stands inside its own anchor", "write the value out"));
        };
        let (size, value) = (*size, located.value.clone());
        self.aliased += size;
        if self.aliased > MAX_ALIASED {
            let message = format!("aliases stand for more than {MAX_ALIASED} values");
            return Err(malformed(line, message, "write the values out, or into several files"));
        }
        self.count(size, line)?;
        Ok(Located { line, value })
    }

    fn count(&mut self, more: usize, line: usize) -> Result<(), Malformed> {
        self.values += more;
        if self.values > MAX_VALUES {
            let message = format!("the file holds more than {MAX_VALUES} values");
            return Err(malformed(line, message, "part it into several files"));
        }
        Ok(())
    }
}

fn malformed(line: usize, message: impl Into<String>, remedy: impl Into<String>) -> Malformed {
    Malformed { line, invalid: Invalid::new(message, remedy) }
}

fn unsupported_tag(tag: &Tag, line: usize) -> Malformed {
    malformed(line, format!("the tag {tag} means nothing here"), "leave the tag out")
}

fn collection_tag(tag: Option<&Tag>, own: &str, line: usize) -> Result<(), Malformed> {
    match tag {
        Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == own) => Err(unsupported_tag(tag, line)),
        _ => Ok(()),
    }
}

/// A scalar by the core schema (YAML 1.2.2 section 10.3.2); only a plain one can be anything but text.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, line: usize) -> Result<Json, Malformed> {
    match tag {
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => return Ok(text.into()),
        Some(tag) => return Err(unsupported_tag(tag, line)),
        None if style != ScalarStyle::Plain => return Ok(text.into()),
        None => {}
    }
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Json::Null,
        "true" | "True" | "TRUE" => true.into(),
        "false" | "False" | "FALSE" => false.into(),
        _ => number(text).unwrap_or_else(|| text.into()),
    })
}

fn number(text: &str) -> Option<Json> {
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok().map(Json::from);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return u64::from_str_radix(digits, 8).ok().map(Json::from);
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let numeric = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && unsigned.contains(|c: char| c.is_ascii_digit())
        && unsigned.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'));
    if !numeric {
        return None;
    }
    let text = text.strip_prefix('+').unwrap_or(text);
    let whole = text.parse::<u64>().map(Json::from).or_else(|_| text.parse::<i64>().map(Json::from));
    whole.ok().or_else(|| text.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Json::Number))
}
