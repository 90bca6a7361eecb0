//! Bringing a schema to the version this binary knows: numbered steps, each in one transaction.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::{Error, open};

/// The steps from an empty database to today's schema: the SQL of step `n` stands at index `n - 1`. A step
/// that has been released never changes; the module that owns the tables owns the files.
pub type Migrations = &'static [&'static str];

/// When missing steps are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rise {
    /// At once.
    Now,
    /// Not while it may still be left to the binary before, which refuses a newer schema: a database that is there stays as it is.
    /// So every release works on the schema of the one before it (reliability row R15). A new database gets all steps.
    Later,
}

/// Applies what is missing, or says that something is, where it has to wait. A crash in between leaves a whole number of steps applied.
pub(super) fn migrate(
    connection: &mut Connection,
    path: &Path,
    steps: Migrations,
    rise: Rise,
) -> Result<bool, Error> {
    let known = u32::try_from(steps.len()).expect("a schema has few steps");
    let found = open::schema_version(connection)?;
    if found > known {
        return Err(Error::Newer {
            path: path.to_owned(),
            found,
            known,
        });
    }
    if rise == Rise::Later && found > 0 && found < known {
        tracing::info!(path = %path.display(), found, known, "the schema waits until this system is good");
        return Ok(true);
    }
    for (number, sql) in (1..).zip(steps).skip(found as usize) {
        let step = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        step.execute_batch(sql)?;
        open::set_schema_version(&step, number)?;
        step.commit()?;
    }
    Ok(false)
}
