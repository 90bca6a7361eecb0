//! Selectors against documents: what CouchDB's documentation and its own tests say of each operator.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn matches(selector: &Value, document: &Value) -> bool {
    let selector = Selector::parse(selector).unwrap_or_else(|error| panic!("{selector}: {error}"));
    selector.matches(document)
}

fn code(selector: &Value) -> &'static str {
    Selector::parse(selector).map_or_else(|error| error.code(), |_| panic!("{selector} is none"))
}

fn document() -> Value {
    json!({
        "_id": "B", "_rev": "1-a", "name": {"first": "Ada", "last": "Lovelace"}, "age": 36, "height": 1.65,
        "langs": ["en", "fr", "it"], "scores": [82, 85, 88], "rooms": [{"beds": 2}, {"beds": 3}], "dot.ted": 1,
        "nothing": null, "yes": true, "object": {"x": 1, "y": {"z": [10, 20]}},
    })
}

#[test]
fn what_matches() {
    for selector in [
        json!({}),
        json!({"age": 36}),
        json!({"age": {"$eq": 36.0}}),
        json!({"age": {"$gt": 35, "$lt": 37}}),
        json!({"age": {"$gte": 36}, "height": {"$lte": 1.65}}),
        json!({"age": {"$ne": 1}}),
        json!({"name.first": "Ada"}),
        json!({"name": {"first": "Ada"}}),
        json!({"name": {"last": {"$gt": "LOVE"}}}),
        json!({"dot\\.ted": 1}),
        json!({"object.y.z.1": 20}),
        json!({"nothing": null}),
        json!({"nothing": {"$exists": true}}),
        json!({"gone": {"$exists": false}}),
        json!({"$not": {"gone": {"$exists": true}}}),
        json!({"name": {"$type": "object"}, "langs": {"$type": "array"}, "yes": {"$type": "boolean"}}),
        json!({"age": {"$in": [1, 36]}}),
        json!({"langs": {"$in": ["de", "fr"]}}),
        json!({"langs": {"$nin": ["de", "es"]}}),
        json!({"langs": {"$size": 3}}),
        json!({"age": {"$mod": [7, 1]}}),
        json!({"name.first": {"$regex": "^[A-D]d"}}),
        json!({"name.first": {"$regex": "(?i)ADA"}}),
        json!({"name.first": {"$beginsWith": "Ad"}}),
        json!({"langs": {"$all": ["it", "en"]}}),
        json!({"langs": {"$all": [["en", "fr", "it"]]}}),
        json!({"scores": {"$elemMatch": {"$gte": 80, "$lt": 85}}}),
        json!({"scores": {"$allMatch": {"$gt": 80}}}),
        json!({"rooms": {"$elemMatch": {"beds": {"$gt": 2}}}}),
        json!({"name": {"$keyMapMatch": {"$eq": "last"}}}),
        json!({"$and": [{"age": 36}, {"yes": true}]}),
        json!({"$or": [{"age": 1}, {"yes": true}]}),
        json!({"$nor": [{"age": 1}, {"yes": false}]}),
        json!({"$not": {"age": 1}}),
        json!({"$not": {"$and": [{"age": 36}, {"yes": false}]}}),
        json!({"$not": {"name.first": {"$regex": "^B"}}}),
        json!({"age": {"$not": {"$gt": 36}}}),
        json!({"age": {"$or": [{"$lt": 1}, {"$gt": 30}]}}),
        json!({"_id": {"$lt": "a"}}),
        json!({"$and": []}),
    ] {
        assert!(matches(&selector, &document()), "{selector}");
    }
}

#[test]
fn what_does_not_match() {
    for selector in [
        json!({"age": "36"}),
        json!({"age": {"$lt": 36}}),
        json!({"gone": {"$ne": 1}}),
        json!({"gone": null}),
        json!({"$not": {"gone": 1}}),
        json!({"$nor": [{"gone": 1}]}),
        json!({"gone": {"$not": {"$regex": "a"}}}),
        json!({"age.deep": {"$exists": false}}),
        json!({"name": {"$exists": false}}),
        json!({"name": {"$type": "array"}}),
        json!({"langs": {"$nin": ["en"]}}),
        json!({"langs": "en"}),
        json!({"langs": {"$size": 2}}),
        json!({"age": {"$mod": [7, 2]}}),
        json!({"height": {"$mod": [1, 0]}}),
        json!({"age": {"$regex": "36"}}),
        json!({"langs": {"$all": ["en", "de"]}}),
        json!({"age": {"$all": [36]}}),
        json!({"langs": {"$elemMatch": {"$eq": "de"}}}),
        json!({"scores": {"$allMatch": {"$gt": 82}}}),
        json!({"name": {"$keyMapMatch": {"$eq": "middle"}}}),
        json!({"$or": []}),
        json!({"$nor": [{"age": 36}]}),
        json!({"$not": {"$or": [{"age": 1}, {"yes": true}]}}),
        json!({"dot.ted": 1}),
        // In view order "B" is after "a"; ids go by their bytes.
        json!({"_id": {"$gt": "a"}}),
    ] {
        assert!(!matches(&selector, &document()), "{selector}");
    }
    assert!(!matches(
        &json!({"x": {"$allMatch": {"$gt": 1}}}),
        &json!({"x": []})
    ));
}

#[test]
fn what_is_no_selector_is_told_in_the_words_of_couchdb() {
    for (selector, wanted) in [
        (json!([]), "invalid_selector_json"),
        (json!("a"), "invalid_selector_json"),
        (json!({"$eq": 1}), "invalid_selector"),
        (json!({"a": {"$foo": 1}}), "invalid_operator"),
        (json!({"$where": "1"}), "not_supported"),
        (json!({"a": {"$near": 1}}), "not_supported"),
        (json!({"a": {"$in": 1}}), "bad_arg"),
        (json!({"a": {"$nin": {}}}), "bad_arg"),
        (json!({"a": {"$exists": 1}}), "bad_arg"),
        (json!({"a": {"$type": 1}}), "bad_arg"),
        (json!({"a": {"$size": -1}}), "bad_arg"),
        (json!({"a": {"$mod": [0, 1]}}), "bad_arg"),
        (json!({"a": {"$mod": [1]}}), "bad_arg"),
        (json!({"a": {"$mod": [1.5, 1]}}), "bad_arg"),
        (json!({"a": {"$regex": "("}}), "bad_arg"),
        (json!({"a": {"$regex": "(?=a)"}}), "bad_arg"),
        (json!({"a": {"$regex": "(a{1000}){1000}"}}), "bad_arg"),
        (json!({"a": {"$beginsWith": 1}}), "bad_arg"),
        (json!({"a": {"$all": 1}}), "bad_arg"),
        (json!({"a": {"$elemMatch": 1}}), "bad_arg"),
        (json!({"$and": {}}), "bad_arg"),
        (json!({"$or": 1}), "bad_arg"),
        (json!({"$nor": "a"}), "bad_arg"),
        (json!({"$not": 1}), "bad_arg"),
    ] {
        assert_eq!(code(&selector), wanted, "{selector}");
    }
}

#[test]
fn depth_is_bounded() {
    let nested = |levels: usize| (0..levels).fold(json!({"a": 1}), |inner, _| json!({"$not": inner}));
    assert!(Selector::parse(&nested(SELECTOR_DEPTH_MAX - 1)).is_ok());
    assert_eq!(code(&nested(SELECTOR_DEPTH_MAX + 1)), "bad_field");
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-c.\\\\$(]{0,4}".prop_map(Value::from),
    ];
    let name = prop_oneof![
        "[ab.\\\\]{0,3}",
        proptest::sample::select(vec![
            "$and",
            "$or",
            "$nor",
            "$not",
            "$eq",
            "$lt",
            "$gte",
            "$in",
            "$nin",
            "$all",
            "$size",
            "$mod",
            "$regex",
            "$exists",
            "$type",
            "$elemMatch",
            "$allMatch",
            "$keyMapMatch",
            "$beginsWith",
            "$where",
            "$none",
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_selector_panics(selector in json_value(), document in json_value()) {
        if let Ok(selector) = Selector::parse(&selector) {
            selector.matches(&document);
        }
    }

    #[test]
    fn a_negation_never_matches_with_what_it_negates(selector in json_value(), document in json_value()) {
        let negated = json!({"$not": selector.clone()});
        if let (Ok(plain), Ok(negated)) = (Selector::parse(&selector), Selector::parse(&negated)) {
            prop_assert!(
                !(plain.matches(&document) && negated.matches(&document)),
            );
        }
    }
}
