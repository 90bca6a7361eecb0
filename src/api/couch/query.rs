//! The parameters of a query string, as CouchDB writes them: many hold JSON.

use serde::de::DeserializeOwned;

use super::fault::Fault;
use super::scan;
use crate::api::body::Form;
use crate::api::error::Error;
use crate::api::route::Call;

/// Characters of a wrong parameter that are told.
const VALUE_CHARS_TOLD: usize = 100;

/// The parameters of a request.
pub(super) struct Query(Form);

impl Query {
    /// Those of a call.
    ///
    /// # Errors
    /// For a query string that is none, and for a parameter that is there twice.
    pub(super) fn of(call: &Call) -> Result<Query, Error> {
        call.query().map(Query)
    }

    /// A parameter as text.
    pub(super) fn text(&self, name: &'static str) -> Option<&str> {
        self.0.field(name)
    }

    /// `true` or `false`; absent is `false`.
    ///
    /// # Errors
    /// [`Fault::Query`].
    pub(super) fn flag(&self, name: &'static str) -> Result<bool, Error> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(self.wrong(name)),
        }
    }

    /// A whole number.
    ///
    /// # Errors
    /// [`Fault::Query`].
    pub(super) fn number(&self, name: &'static str) -> Result<Option<u64>, Error> {
        let parsed = self.text(name).map(str::parse).transpose();
        parsed.map_err(|_| self.wrong(name))
    }

    /// JSON.
    ///
    /// # Errors
    /// [`Fault::Query`].
    pub(super) fn json<T: DeserializeOwned>(&self, name: &'static str) -> Result<Option<T>, Error> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        scan::check(text.as_bytes()).map_err(|_| self.wrong(name))?;
        let parsed = serde_json::from_str(text).map_err(|_| self.wrong(name))?;
        Ok(Some(parsed))
    }

    /// A parameter that is no better than nonsense.
    pub(super) fn wrong(&self, name: &'static str) -> Error {
        let value = self.text(name).unwrap_or_default();
        let value = value.chars().take(VALUE_CHARS_TOLD).collect();
        Fault::Query { name, value }.into()
    }
}
