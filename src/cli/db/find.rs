//! `refuge db find`: documents that match a Mango selector, of a data folder or of a running node, one a line.

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::Session;
use super::super::exit::{Exit, Failure};
use crate::http::{Client, Error, Method, Patience, Request};
use crate::id::DbName;
use crate::node::{DOCUMENT_BYTES_MAX, Db, FieldPath, FindQuery, NoPlan, PageQuery, projected};

/// Documents that are asked for at once; fewer where they are long.
const PAGE: usize = 200;

/// Bytes of a page: what the node adds to a document, and one document.
const PAGE_BYTES_MAX: usize = DOCUMENT_BYTES_MAX + 1024 * 1024;

/// What is looked for.
#[derive(clap::Args)]
pub(super) struct Looked {
    /// A Mango selector, for example '{"year": {"$gt": 2010}}'
    #[arg(value_name = "SELECTOR", value_parser = selector)]
    selector: Value,
    /// Only these members of each document, by commas
    #[arg(long, value_name = "FIELDS", value_delimiter = ',')]
    fields: Vec<String>,
    /// In the order of these members, by commas; takes an index that begins with them
    #[arg(long, value_name = "FIELDS", value_delimiter = ',')]
    sort: Vec<String>,
    /// From the last to the first
    #[arg(long, requires = "sort")]
    descending: bool,
    /// At most so many
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,
}

fn selector(text: &str) -> Result<Value, String> {
    let selector: Value = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
    match FindQuery::of(&selector) {
        Ok(_) => Ok(selector),
        Err(error) => Err(error.to_string()),
    }
}

/// Looks through a database of a data folder.
pub(super) fn here(db: &Db, looked: &Looked, session: &mut Session) -> anyhow::Result<()> {
    let query = looked.query()?;
    let asked = query.clone();
    let plan = db.run(move |database| {
        let plan = database.find_plan(&asked)?;
        if let Ok(plan) = &plan {
            database.bring_up_to_date(plan)?;
        }
        Ok(plan)
    });
    let plan = session.runtime.block_on(plan)?.map_err(|none| match none {
        NoPlan::Unsorted => usage("no index stands in that order: define one that begins with these fields"),
        NoPlan::Unusable => usage("that index can't answer this"),
    })?;
    let (mut after, mut left) = (None, looked.limit.unwrap_or(usize::MAX));
    while left > 0 {
        let page = PageQuery {
            after: after.take(),
            limit: left.min(PAGE),
            ..PageQuery::default()
        };
        let (plan, query) = (plan.clone(), query.clone());
        let found = db.run(move |database| database.find_page(&plan, &query, &page));
        let found = session.runtime.block_on(found)?;
        left -= found.docs.len();
        for document in found.docs {
            print(&projected(document, looked.paths().as_deref()), session)?;
        }
        if found.is_end {
            return Ok(());
        }
        after = found.after;
    }
    Ok(())
}

/// What `_find` answers.
#[derive(Deserialize)]
struct Found {
    docs: Vec<Value>,
    bookmark: String,
}

/// Has a running node look through a database at `path`.
pub(super) fn over(
    client: &Client,
    (db, path): (&DbName, &str),
    looked: &Looked,
    session: &mut Session,
) -> anyhow::Result<()> {
    let (mut bookmark, mut left, mut page) = ("nil".to_owned(), looked.limit.unwrap_or(usize::MAX), PAGE);
    while left > 0 {
        let asked = left.min(page);
        let request = Request::new(Method::POST, format!("{path}/_find"))
            .patience(Patience::Long)
            .json(&looked.body(asked, &bookmark));
        let answer = client.send(request).map_err(|error| named(error, db))?;
        let found: Found = match answer.json(PAGE_BYTES_MAX) {
            // Longer than a page may be: fewer of them.
            Err(Error::Unexpected { .. }) if page > 1 => {
                page /= 2;
                continue;
            }
            found => found?,
        };
        for document in &found.docs {
            print(document, session)?;
        }
        left -= found.docs.len().min(left);
        if found.docs.len() < asked {
            return Ok(());
        }
        bookmark = found.bookmark;
    }
    Ok(())
}

impl Looked {
    fn query(&self) -> anyhow::Result<FindQuery> {
        Ok(FindQuery {
            sort: self.sort.iter().map(|field| FieldPath::parse(field)).collect(),
            descending: self.descending,
            fields: self.paths(),
            ..FindQuery::of(&self.selector)?
        })
    }

    fn paths(&self) -> Option<Vec<FieldPath>> {
        let paths = self.fields.iter().map(|field| FieldPath::parse(field));
        (!self.fields.is_empty()).then(|| paths.collect())
    }

    fn body(&self, limit: usize, bookmark: &str) -> Value {
        let direction = if self.descending { "desc" } else { "asc" };
        let sort: Vec<Value> = self
            .sort
            .iter()
            .map(|field| json!({field.as_str(): direction}))
            .collect();
        json!({
            "selector": self.selector,
            "fields": self.fields,
            "sort": sort,
            "limit": limit,
            "bookmark": bookmark,
        })
    }
}

/// Prints a document: for people, too, as JSON.
fn print(document: &Value, session: &mut Session) -> anyhow::Result<()> {
    Ok(session.output.result(document, || document.to_string())?)
}

fn named(error: Error, db: &DbName) -> anyhow::Error {
    let code = error.refusal().map(|refusal| refusal.code.clone());
    match code.as_deref() {
        Some("no_usable_index" | "bad_request") => usage(&error.to_string()).into(),
        Some("not_found") => Failure::new(Exit::Missing, format!("{db}: Database does not exist.")).into(),
        _ => error.into(),
    }
}

fn usage(why: &str) -> Failure {
    Failure::new(Exit::Usage, why.to_owned())
}
