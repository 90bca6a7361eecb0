//! What became of an edit, in CouchDB's words.

use super::fault::Fault;
use crate::node::Refused;

/// Why an edit was not done.
pub(super) fn fault(refused: Refused) -> Fault {
    match refused {
        Refused::Conflict => Fault::Conflict,
        Refused::MissingStub { id, name } => Fault::Stub {
            id: id.to_string(),
            name,
        },
        Refused::History { .. } | Refused::Generations { .. } | Refused::Attachments { .. } => {
            Fault::Validation(refused.to_string())
        }
    }
}
