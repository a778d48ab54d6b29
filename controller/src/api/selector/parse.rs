//! The parser of selector expressions: recursive descent over a short text, with bounded depth.

use super::{Expression, Invalid};

/// The longest selector, in bytes.
const MAX_LENGTH: usize = 1024;

/// How deep parentheses and negations may nest.
const MAX_DEPTH: usize = 32;

const EXAMPLE: &str = "write an expression such as rack == \"a\" && !has(edge), or all() for every node";

/// Reads a whole selector.
pub(super) fn expression(text: &str) -> Result<Expression, Invalid> {
    if text.len() > MAX_LENGTH {
        return Err(Invalid::new(
            format!("the selector has {} bytes", text.len()),
            format!("use no more than {MAX_LENGTH}, or label the nodes by what they have in common"),
        ));
    }
    if text.trim().is_empty() {
        return Err(Invalid::new("the selector is empty", EXAMPLE));
    }
    let mut parser = Parser { text, position: 0 };
    let expression = parser.any_of(0)?;
    match parser.rest() {
        "" => Ok(expression),
        _ => Err(parser.unexpected("&&, || or the end")),
    }
}

struct Parser<'a> {
    text: &'a str,
    position: usize,
}

impl<'a> Parser<'a> {
    /// What is left, without leading space.
    fn rest(&mut self) -> &'a str {
        let rest = self.text.get(self.position..).unwrap_or_default();
        let trimmed = rest.trim_start();
        self.position += rest.len() - trimmed.len();
        trimmed
    }

    /// Takes `token` if it is next.
    fn take(&mut self, token: &str) -> bool {
        let next = self.rest().starts_with(token);
        if next {
            self.position += token.len();
        }
        next
    }

    /// Takes `word` if it is next and ends there.
    fn take_word(&mut self, word: &str) -> bool {
        let next = self.rest().strip_prefix(word).is_some_and(|tail| !tail.starts_with(is_key));
        if next {
            self.position += word.len();
        }
        next
    }

    fn expect(&mut self, token: &str) -> Result<(), Invalid> {
        if self.take(token) { Ok(()) } else { Err(self.unexpected(&format!("`{token}`"))) }
    }

    fn unexpected(&mut self, wanted: &str) -> Invalid {
        let found = match self.rest().chars().take(20).collect::<String>() {
            found if found.is_empty() => "the end".into(),
            found => format!("`{found}`"),
        };
        Invalid::new(
            format!("the selector '{}' has {found} at character {} where {wanted} is expected", self.text, {
                self.text.get(..self.position).unwrap_or_default().chars().count() + 1
            }),
            EXAMPLE,
        )
    }

    fn any_of(&mut self, depth: usize) -> Result<Expression, Invalid> {
        let first = self.all_of(depth)?;
        let mut terms = vec![first];
        while self.take("||") {
            terms.push(self.all_of(depth)?);
        }
        Ok(one_or(terms, Expression::Or))
    }

    fn all_of(&mut self, depth: usize) -> Result<Expression, Invalid> {
        let first = self.term(depth)?;
        let mut terms = vec![first];
        while self.take("&&") {
            terms.push(self.term(depth)?);
        }
        Ok(one_or(terms, Expression::And))
    }

    fn term(&mut self, depth: usize) -> Result<Expression, Invalid> {
        if depth >= MAX_DEPTH {
            return Err(Invalid::new(
                format!("the selector nests deeper than {MAX_DEPTH}"),
                "use fewer parentheses",
            ));
        }
        if self.take("!") {
            return Ok(self.term(depth + 1)?.not());
        }
        if self.take("(") {
            let inner = self.any_of(depth + 1)?;
            self.expect(")")?;
            return Ok(inner);
        }
        let key = self.key()?;
        match key {
            "all" if self.take("(") => self.expect(")").map(|()| Expression::All),
            "has" if self.take("(") => {
                let label = self.key()?.to_owned();
                self.expect(")").map(|()| Expression::Has(label))
            }
            _ => self.comparison(key.to_owned()),
        }
    }

    fn comparison(&mut self, key: String) -> Result<Expression, Invalid> {
        if self.take("==") {
            return Ok(Expression::Equals(key, self.value()?));
        }
        if self.take("!=") {
            return Ok(Expression::Equals(key, self.value()?).not());
        }
        if self.take_word("in") {
            return Ok(Expression::In(key, self.values()?));
        }
        if self.take_word("contains") {
            return Ok(Expression::Contains(key, self.value()?));
        }
        let start = self.position;
        for (verb, second, make) in [
            ("starts", "with", Expression::StartsWith as fn(String, String) -> Expression),
            ("ends", "with", Expression::EndsWith),
        ] {
            if self.take_word(verb) && self.take_word(second) {
                return Ok(make(key, self.value()?));
            }
            self.position = start;
        }
        if self.take_word("not") && self.take_word("in") {
            return Ok(Expression::In(key, self.values()?).not());
        }
        self.position = start;
        Err(self.unexpected("==, !=, in, not in, starts with, ends with or contains"))
    }

    fn key(&mut self) -> Result<&'a str, Invalid> {
        let rest = self.rest();
        let length = rest.find(|c| !is_key(c)).unwrap_or(rest.len());
        match rest.split_at(length) {
            ("", _) => Err(self.unexpected("a label, has(, all(, ! or (")),
            (key, _) => {
                self.position += length;
                Ok(key)
            }
        }
    }

    fn value(&mut self) -> Result<String, Invalid> {
        let rest = self.rest();
        for quote in ['"', '\''] {
            if let Some((value, _)) = rest.strip_prefix(quote).and_then(|tail| tail.split_once(quote)) {
                self.position += value.len() + 2;
                return Ok(value.into());
            }
        }
        Err(self.unexpected("a value in quotes"))
    }

    fn values(&mut self) -> Result<std::collections::BTreeSet<String>, Invalid> {
        self.expect("{")?;
        let mut values = std::collections::BTreeSet::from([self.value()?]);
        while self.take(",") {
            values.insert(self.value()?);
        }
        self.expect("}")?;
        Ok(values)
    }
}

fn one_or(mut terms: Vec<Expression>, join: fn(Vec<Expression>) -> Expression) -> Expression {
    match (terms.pop(), terms.is_empty()) {
        (Some(only), true) => only,
        (last, _) => {
            terms.extend(last);
            join(terms)
        }
    }
}

/// Whether a label's key may have this character.
fn is_key(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/')
}
