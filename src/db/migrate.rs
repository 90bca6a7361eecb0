//! Bringing a schema to the version this binary knows: numbered steps, each in one transaction.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::{Error, open};

/// The steps from an empty database to today's schema: the SQL of step `n` stands at index `n - 1`. A step
/// that has been released never changes; the module that owns the tables owns the files.
pub type Migrations = &'static [&'static str];

/// Applies what is missing. A crash in between leaves a whole number of steps applied.
pub(super) fn migrate(connection: &mut Connection, path: &Path, steps: Migrations) -> Result<(), Error> {
    let known = u32::try_from(steps.len()).expect("a schema has few steps");
    let found = open::schema_version(connection)?;
    if found > known {
        return Err(Error::Newer {
            path: path.to_owned(),
            found,
            known,
        });
    }
    for (number, sql) in (1..).zip(steps).skip(found as usize) {
        let step = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        step.execute_batch(sql)?;
        open::set_schema_version(&step, number)?;
        step.commit()?;
    }
    Ok(())
}
