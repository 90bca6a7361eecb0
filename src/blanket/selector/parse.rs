//! From JSON to a normalised selector.

use regex_automata::meta;
use regex_automata::util::syntax;
use serde_json::{Map, Value};

use super::{Comparison, Condition, FieldPath, Pattern, SELECTOR_DEPTH_MAX, SelectorError, Test};

/// What a compiled `$regex` may take, in bytes: some thousand letters of pattern.
const REGEX_BYTES_MAX: usize = 256 * 1024;

/// What of a wrong argument is told.
const ARGUMENT_BYTES_TOLD: usize = 200;

/// Operators that CouchDB knows and does not do.
const NOT_SUPPORTED: [&str; 6] = [
    "$where",
    "$geoWithin",
    "$geoIntersects",
    "$near",
    "$nearSphere",
    "$text",
];

/// Whether what is read is asked for or ruled out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sense {
    Wanted,
    Negated,
}

impl Sense {
    fn flipped(self) -> Sense {
        match self {
            Sense::Wanted => Sense::Negated,
            Sense::Negated => Sense::Wanted,
        }
    }
}

/// Where the parser is.
#[derive(Clone)]
struct Place {
    path: FieldPath,
    sense: Sense,
    depth: usize,
}

/// Reads a selector from the top.
pub(super) fn selector(selector: &Value) -> Result<Condition, SelectorError> {
    let Value::Object(members) = selector else {
        return Err(SelectorError::NoObject(told(selector)));
    };
    if members.is_empty() {
        return Ok(Condition::And(Vec::new()));
    }
    let condition = at_root(selector, 0)?;
    if names_no_field(&condition) {
        return Err(SelectorError::MissingFieldName);
    }
    Ok(condition)
}

fn at_root(selector: &Value, depth: usize) -> Result<Condition, SelectorError> {
    let place = Place {
        path: FieldPath::root(),
        sense: Sense::Wanted,
        depth,
    };
    condition(selector, &place)
}

fn names_no_field(condition: &Condition) -> bool {
    match condition {
        Condition::Field(path, _) => path.is_empty(),
        Condition::And(all) | Condition::Or(all) => all.iter().any(names_no_field),
        Condition::Not(other) => names_no_field(other),
        Condition::Test(_) => false,
    }
}

fn condition(value: &Value, place: &Place) -> Result<Condition, SelectorError> {
    if place.depth > SELECTOR_DEPTH_MAX {
        return Err(SelectorError::TooDeep);
    }
    match value {
        Value::Object(members) if !members.is_empty() => object(members, place),
        value => Ok(test(Test::Compare(Comparison::Equal, value.clone()), place)),
    }
}

/// Several members are an implicit `$and`.
fn object(members: &Map<String, Value>, place: &Place) -> Result<Condition, SelectorError> {
    let mut all = members.iter().map(|(name, value)| member(name, value, place));
    if members.len() == 1
        && let Some(only) = all.next()
    {
        return only;
    }
    Ok(joined(Sense::Wanted, place, all.collect::<Result<_, _>>()?))
}

/// `$and` where `as_read` is wanted; what is negated turns it into its counterpart.
fn joined(as_read: Sense, place: &Place, conditions: Vec<Condition>) -> Condition {
    match as_read == place.sense {
        true => Condition::And(conditions),
        false => Condition::Or(conditions),
    }
}

fn member(name: &str, value: &Value, place: &Place) -> Result<Condition, SelectorError> {
    if !name.starts_with('$') {
        let below = Place {
            path: place.path.join(name),
            depth: place.depth + 1,
            ..place.clone()
        };
        return condition(value, &below);
    }
    let bad = || SelectorError::BadArgument {
        operator: name.to_owned(),
        argument: told(value),
    };
    let below = |sense| Place {
        sense,
        depth: place.depth + 1,
        ..place.clone()
    };
    let several = |sense| -> Result<Vec<Condition>, SelectorError> {
        let items = value.as_array().ok_or_else(bad)?;
        items.iter().map(|item| condition(item, &below(sense))).collect()
    };
    let items = || value.as_array().cloned().ok_or_else(bad);
    let text = || value.as_str().map(str::to_owned).ok_or_else(bad);
    let inner = || match value {
        Value::Object(_) => at_root(value, place.depth + 1).map(Box::new),
        _ => Err(bad()),
    };
    let compare = |comparison| Test::Compare(comparison, value.clone());
    let asked = match name {
        "$and" => return Ok(joined(Sense::Wanted, place, several(place.sense)?)),
        "$or" => return Ok(joined(Sense::Negated, place, several(place.sense)?)),
        "$nor" => {
            return Ok(joined(
                Sense::Wanted,
                &below(place.sense),
                several(place.sense.flipped())?,
            ));
        }
        "$not" if value.is_object() => return condition(value, &below(place.sense.flipped())),
        "$not" => return Err(bad()),
        "$lt" => compare(Comparison::Less),
        "$lte" => compare(Comparison::LessOrEqual),
        "$eq" => compare(Comparison::Equal),
        "$ne" => compare(Comparison::NotEqual),
        "$gte" => compare(Comparison::GreaterOrEqual),
        "$gt" => compare(Comparison::Greater),
        "$exists" => Test::Exists(value.as_bool().ok_or_else(bad)?),
        "$type" => Test::Type(text()?),
        "$in" => Test::In(items()?),
        "$nin" => Test::NotIn(items()?),
        "$all" => Test::All(items()?),
        "$size" => Test::Size(value.as_u64().ok_or_else(bad)?),
        "$mod" => modulo(value).ok_or_else(bad)?,
        "$regex" => Test::Regex(pattern(&text()?).ok_or_else(bad)?),
        "$beginsWith" => Test::BeginsWith(text()?),
        "$elemMatch" => Test::ElementMatch(inner()?),
        "$allMatch" => Test::AllMatch(inner()?),
        "$keyMapMatch" => Test::KeyMapMatch(inner()?),
        known if NOT_SUPPORTED.contains(&known) => return Err(SelectorError::NotSupported(name.to_owned())),
        _ => return Err(SelectorError::InvalidOperator(name.to_owned())),
    };
    Ok(test(asked, place))
}

fn test(asked: Test, place: &Place) -> Condition {
    let condition = match place.sense {
        Sense::Wanted => Condition::Test(asked),
        Sense::Negated => match asked.opposite() {
            Ok(opposite) => Condition::Test(opposite),
            Err(asked) => Condition::Not(Box::new(Condition::Test(asked))),
        },
    };
    Condition::Field(place.path.clone(), Box::new(condition))
}

fn modulo(value: &Value) -> Option<Test> {
    match value.as_array()?.as_slice() {
        [divisor, remainder] => Some(Test::Mod {
            divisor: divisor.as_i64().filter(|divisor| *divisor != 0)?,
            remainder: remainder.as_i64()?,
        }),
        _ => None,
    }
}

/// By bytes, as Erlang's `re` without its option `unicode`; `None` for what cannot be matched in bounded time and memory.
fn pattern(text: &str) -> Option<Pattern> {
    let limits = meta::Config::new()
        .nfa_size_limit(Some(REGEX_BYTES_MAX))
        .hybrid_cache_capacity(REGEX_BYTES_MAX);
    let regex = meta::Builder::new()
        .configure(limits.utf8_empty(false))
        .syntax(syntax::Config::new().unicode(false).utf8(false))
        .build(text);
    regex.ok().map(|regex| Pattern { regex })
}

fn told(value: &Value) -> String {
    let mut text = value.to_string();
    if text.len() > ARGUMENT_BYTES_TOLD {
        text.truncate(text.floor_char_boundary(ARGUMENT_BYTES_TOLD));
        text.push('…');
    }
    text
}
