//! Indexes in the text of a design document: put in and taken out, with everything else left as it is written. Pure.
//!
//! The order of an index's fields is the order of an object's members, which a reader of JSON may lose: so texts are cut and joined.

use serde_json::Value;

use crate::blanket::json::{JsonError, members};

/// Why a design document takes no index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DesignError {
    /// It is of another language.
    #[error("Existing design doc has an invalid language")]
    Language,
    /// It is not what was checked when it came.
    #[error(transparent)]
    Json(#[from] JsonError),
}

/// The text of a design document with an index more; `None` where it is there already. `view` is the JSON of the index.
///
/// # Errors
/// [`DesignError`].
pub fn with_index(design: Option<&str>, name: &str, view: &str) -> Result<Option<String>, DesignError> {
    let name = Value::from(name).to_string();
    let Some(design) = design else {
        return Ok(Some(format!(
            "{{\"language\":\"query\",\"views\":{{{name}:{view}}}}}"
        )));
    };
    let whole = mango(design)?;
    let views = views(&whole)?;
    let is_it = |(known, text): &(String, &str)| *known == name && same(text, view);
    if views.iter().any(is_it) {
        return Ok(None);
    }
    let kept = views.iter().filter(|(known, _)| *known != name);
    let more = joined(
        kept.map(|(name, text)| (name.as_str(), *text))
            .chain([(name.as_str(), view)]),
    );
    Ok(Some(replaced(&whole, Some(&more))))
}

/// The text of a design document without an index; `None` where it is not there. The second is whether nothing is left of it.
///
/// # Errors
/// [`DesignError`].
pub fn without_index(design: &str, name: &str) -> Result<Option<(String, bool)>, DesignError> {
    let name = Value::from(name).to_string();
    let whole = mango(design)?;
    let views = views(&whole)?;
    let kept: Vec<(&str, &str)> = views
        .iter()
        .filter(|(known, _)| *known != name)
        .map(|(name, text)| (name.as_str(), *text))
        .collect();
    if kept.len() == views.len() {
        return Ok(None);
    }
    let views = (!kept.is_empty()).then(|| joined(kept.into_iter()));
    let is_empty = views.is_none() && whole.len() == 2;
    Ok(Some((replaced(&whole, views.as_deref()), is_empty)))
}

type Members<'a> = Vec<(String, &'a str)>;

/// The members of a design document, their names as JSON.
fn mango(design: &str) -> Result<Members<'_>, DesignError> {
    let members = named(design)?;
    let is_mango = |(name, text): &(String, &str)| name == "\"language\"" && same(text, "\"query\"");
    match members.iter().any(is_mango) {
        true => Ok(members),
        false => Err(DesignError::Language),
    }
}

fn views<'a>(design: &Members<'a>) -> Result<Members<'a>, DesignError> {
    let views = design.iter().find(|(name, _)| name == "\"views\"");
    views.map_or(Ok(Vec::new()), |(_, text)| named(text))
}

fn named(text: &str) -> Result<Members<'_>, DesignError> {
    let members = members(text)?;
    Ok(members
        .into_iter()
        .map(|(name, text)| (Value::from(name.as_ref()).to_string(), text))
        .collect())
}

fn replaced(design: &Members<'_>, views: Option<&str>) -> String {
    let kept = design.iter().filter(|(name, _)| name != "\"views\"");
    joined(
        kept.map(|(name, text)| (name.as_str(), *text))
            .chain(views.map(|views| ("\"views\"", views))),
    )
}

fn joined<'a>(members: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let members: Vec<String> = members.map(|(name, text)| format!("{name}:{text}")).collect();
    format!("{{{}}}", members.join(","))
}

/// Whether two texts are the same JSON, in the same order.
fn same(a: &str, b: &str) -> bool {
    fn compact(text: &str) -> Option<String> {
        let mut out = String::new();
        let mut reader = crate::blanket::json::Reader::new(text);
        while let Some(event) = reader.next_event().ok()? {
            out.push_str(&format!("{event:?};"));
        }
        Some(out)
    }
    a == b || compact(a).is_some_and(|a| compact(b) == Some(a))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIEW: &str = r#"{"map":{"fields":{"z":"asc","a":"asc"}}}"#;

    #[test]
    fn an_index_comes_and_goes_and_the_rest_stays_as_it_is_written() {
        let made = with_index(None, "i", VIEW).unwrap().unwrap();
        assert_eq!(made, format!(r#"{{"language":"query","views":{{"i":{VIEW}}}}}"#));
        assert_eq!(with_index(Some(&made), "i", VIEW), Ok(None));
        assert_eq!(with_index(Some(&made), "i", &VIEW.replace(':', " : ")), Ok(None));
        let turned = r#"{"map":{"fields":{"a":"asc","z":"asc"}}}"#;
        let other = with_index(Some(&made), "i", turned).unwrap().unwrap();
        assert_eq!(
            other,
            format!(r#"{{"language":"query","views":{{"i":{turned}}}}}"#)
        );
        let two = with_index(Some(&other), "j\"", VIEW).unwrap().unwrap();
        assert_eq!(
            two,
            format!(r#"{{"language":"query","views":{{"i":{turned},"j\"":{VIEW}}}}}"#)
        );
        assert_eq!(
            without_index(&two, "i"),
            Ok(Some((
                format!(r#"{{"language":"query","views":{{"j\"":{VIEW}}}}}"#),
                false
            )))
        );
        assert_eq!(
            without_index(&other, "i"),
            Ok(Some((r#"{"language":"query"}"#.to_owned(), true)))
        );
        assert_eq!(without_index(&two, "k"), Ok(None));
        let more = r#"{"language": "query", "by": [1, 2]}"#;
        let added = with_index(Some(more), "i", "{}").unwrap().unwrap();
        assert_eq!(added, r#"{"language":"query","by":[1, 2],"views":{"i":{}}}"#);
    }

    #[test]
    fn a_design_document_of_another_language_takes_none() {
        for design in [r#"{"language":"javascript","views":{}}"#, r#"{"views":{}}"#] {
            assert_eq!(with_index(Some(design), "i", VIEW), Err(DesignError::Language));
            assert_eq!(without_index(design, "i"), Err(DesignError::Language));
        }
    }
}
