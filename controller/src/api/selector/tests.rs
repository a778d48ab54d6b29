use proptest::prelude::*;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
}

fn selects(text: &str, pairs: &[(&str, &str)]) -> bool {
    text.parse::<Selector>().unwrap_or_else(|e| panic!("{text}: {e}")).matches(&labels(pairs))
}

#[test]
fn every_operator_decides_as_documented() {
    let node = [("rack", "a"), ("weft.network/mesh", "false")];
    for (text, want) in [
        ("all()", true),
        ("rack == \"a\"", true),
        ("rack=='b'", false),
        ("rack != 'a'", false),
        ("rack != 'b'", true),
        ("missing != 'b'", true),
        ("rack in {'a', \"b\"}", true),
        ("rack in {'b'}", false),
        ("rack not in {'a'}", false),
        ("missing not in {'a'}", true),
        ("has(rack)", true),
        ("!has(rack)", false),
        ("has(weft.network/mesh)", true),
        ("rack starts with 'a'", true),
        ("rack ends with 'b'", false),
        ("weft.network/mesh contains 'als'", true),
        ("missing contains ''", false),
        ("rack == 'b' && has(missing) || has(rack)", true),
        ("has(rack) || has(missing) && rack == 'b'", true),
        ("(has(rack) || has(missing)) && rack == 'b'", false),
        ("!(rack == 'a' && has(missing))", true),
        ("!!has(rack)", true),
    ] {
        assert_eq!(selects(text, &node), want, "{text}");
    }
}

#[test]
fn words_of_the_grammar_are_labels_too() {
    assert!(selects("all == 'x'", &[("all", "x")]));
    assert!(selects("in in {'x'}", &[("in", "x")]));
    assert!(selects("not == 'x'", &[("not", "x")]));
    assert!(selects("has(has)", &[("has", "")]));
}

#[test]
fn errors_say_where_and_what() {
    for (text, message) in [
        ("", "the selector is empty"),
        ("rack = 'a'", "has `= 'a'` at character 6 where ==, !=, in, not in,"),
        ("rack == a", "has `a` at character 9 where a value in quotes is expected"),
        ("rack == 'a", "where a value in quotes is expected"),
        ("rack == 'a' rack == 'b'", "at character 13 where &&, || or the end is expected"),
        ("(has(rack)", "has the end at character 11 where `)` is expected"),
        ("rack in {}", "has `}` at character 10 where a value in quotes is expected"),
        ("rack not 'a'", "has `not 'a'` at character 6"),
        ("&& has(a)", "where a label, has(, all(, ! or ( is expected"),
    ] {
        let error = text.parse::<Selector>().expect_err(text);
        assert!(error.message.contains(message), "{text}: {error}");
        assert!(!error.remedy.is_empty());
    }
    assert!("(".repeat(500).parse::<Selector>().expect_err("deep").message.contains("nests deeper than 32"));
    assert!("!".repeat(500).parse::<Selector>().is_err());
    assert!("a".repeat(2000).parse::<Selector>().expect_err("long").message.contains("2000 bytes"));
}

#[test]
fn a_label_selector_is_read_shown_and_written_back() {
    let json = serde_json::json!({
        "matchLabels": { "rack": "a" },
        "matchExpressions": [
            { "key": "tier", "operator": "In", "values": ["x", "y"] },
            { "key": "edge", "operator": "DoesNotExist" },
            { "key": "zone", "operator": "NotIn", "values": ["z"] },
            { "key": "rack", "operator": "Exists" },
        ],
    });
    let selector: Selector = serde_json::from_value(json.clone()).expect("valid");
    assert!(selector.matches(&labels(&[("rack", "a"), ("tier", "y")])));
    assert!(!selector.matches(&labels(&[("rack", "a"), ("tier", "y"), ("edge", "")])));
    assert!(!selector.matches(&labels(&[("rack", "a"), ("tier", "y"), ("zone", "z")])));
    assert!(!selector.matches(&labels(&[("tier", "y")])));
    assert_eq!(selector.to_string(), "rack=a,tier in (x,y),!edge,zone notin (z),rack");
    assert_eq!(serde_json::to_value(&selector).expect("serializes"), json);
    assert!(serde_json::from_str::<Selector>("{}").expect("empty").matches(&Labels::new()));
}

#[test]
fn a_wrong_label_selector_is_refused() {
    for (json, message) in [
        (r#"{"matchLabel": {}}"#, "unknown field `matchLabel`"),
        (r#"{"matchExpressions": [{"key": "a", "operator": "Is"}]}"#, "unknown variant `Is`"),
        (r#"{"matchExpressions": [{"key": "a", "operator": "In"}]}"#, "has no values"),
        (r#"{"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}"#, "has values"),
        ("7", "expected a selector"),
    ] {
        let error = serde_json::from_str::<Selector>(json).expect_err(json).to_string();
        assert!(error.contains(message), "{json}: {error}");
    }
}

fn expression() -> impl Strategy<Value = (String, Expression)> {
    let key = "[a-z][a-z0-9./_-]{0,6}";
    let value = "[a-zA-Z0-9 .-]{0,6}";
    let leaf = prop_oneof![
        Just(("all()".to_owned(), Expression::All)),
        key.prop_map(|k| (format!("has({k})"), Expression::Has(k))),
        (key, value).prop_map(|(k, v)| (format!("{k} == '{v}'"), Expression::Equals(k, v))),
        (key, value).prop_map(|(k, v)| (format!("{k}!=\"{v}\""), Expression::Equals(k, v).not())),
        (key, value).prop_map(|(k, v)| (format!("{k} in {{'{v}'}}"), Expression::In(k, BTreeSet::from([v])))),
    ];
    leaf.prop_recursive(4, 16, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|(t, e)| (format!("!({t})"), e.not())),
            (inner.clone(), inner.clone())
                .prop_map(|(a, b)| (format!("({}) && ({})", a.0, b.0), Expression::And(vec![a.1, b.1]))),
            (inner.clone(), inner)
                .prop_map(|(a, b)| (format!("({}) || ({})", a.0, b.0), Expression::Or(vec![a.1, b.1]))),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_what_is_meant((text, want) in expression()) {
        let selector: Selector = text.parse().expect("generated from the grammar");
        prop_assert_eq!(&selector.expression, &want);
        prop_assert_eq!(selector.to_string(), text);
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,60}") {
        let _ = text.parse::<Selector>();
    }

    #[test]
    fn no_grammar_like_text_makes_it_panic(
        tokens in proptest::collection::vec(
            prop::sample::select(vec!["a", "==", "!=", "'x'", "\"", "'", "in", "not", "{", "}", ",", "(", ")", "!", "&&", "||",
                "has", "all", "starts", "ends", "with", " ", "é"]), 0..24)
    ) {
        let _ = tokens.concat().parse::<Selector>();
        let _ = tokens.join(" ").parse::<Selector>();
    }
}
